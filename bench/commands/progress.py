"""Progress of long work: a bar with the time left, on stderr; silent where stderr is not a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def stage(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives the function to call with each advance."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield lambda count: progress.advance(task, count)


def wide_console() -> Console:
    """stdout, 120 columns wide where it is not a terminal, so that tables are whole in a log."""
    from rich.console import Console

    return Console(width=None if Console().is_terminal else 120)
