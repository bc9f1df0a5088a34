"""Per-image scorers, one a file."""
