"""The self-contained HTML report: one file that opens from disk, without a network."""
