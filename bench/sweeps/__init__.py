"""One setting varied, all else kept: on top of the jobs, compare and the report."""
