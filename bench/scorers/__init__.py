"""Per-image scorers, one a file."""

from bench.scorers.shapes import ShapesScorer

SCORERS = {"shapes": ShapesScorer}
