"""How long work tells of its progress; the commands show it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

# a stage's name and length -> a context that gives the function to call with each advance
Stage = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
