"""The commands of gentron-bench, one a file. Heavy libraries are imported once a command runs."""
