"""`gentron-bench judge`: how often the shapes judge is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gentron.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from bench.scorers.judge_accuracy import Accuracy, Change
    from bench.scorers.motion_accuracy import ClipAccuracy


def judge(
    autoencoder: Annotated[
        Path | None, typer.Option(help="Also after encoding and decoding with this one.", show_default=False)
    ] = None,
    count: Annotated[int, typer.Option(max=10**7, help="Scenes.")] = 1000,
    seed: Annotated[int, typer.Option(max=2**64 - 1, help="Of the scenes.")] = 1,
    clips: Annotated[
        bool, typer.Option("--clips", help="Judge the motion of clips instead of pictures.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where the autoencoder runs.")] = "auto",
) -> None:
    """Measure the judge itself: how often it is right on scenes that are known."""
    if count < 2:
        raise ValueError(f"count must be >= 2, got {count}")
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}")
    if autoencoder is not None and not autoencoder.is_dir():
        raise UserError(f"no autoencoder folder '{autoencoder}'")
    from bench.commands.progress import wide_console
    from bench.scorers.judge_accuracy import CHANGES, measure

    changes: dict[str, Change] = dict(CHANGES)
    if autoencoder is not None:
        changes["autoencoded"] = _autoencoded(autoencoder, device)
    if clips:
        from bench.scorers.motion_accuracy import measure_clips

        of_clips = {name: measure_clips(change, count=count, seed=seed) for name, change in changes.items()}
        wide_console().print(_clip_table(of_clips, count))
        return
    found = {name: measure(change, count=count, seed=seed) for name, change in changes.items()}
    wide_console().print(_accuracy_table(found, count))


def _autoencoded(folder: Path, device: str) -> Change:
    import numpy as np
    import torch

    from gentron.autoencoder import Autoencoder
    from gentron.device import usable_device
    from gentron.pixels import to_uint8, to_unit_range

    place = usable_device(device)
    model = Autoencoder.from_pretrained(folder, device=place)

    @torch.no_grad()
    def change(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return to_uint8(model.decode(model.encode(to_unit_range(image)[None].to(place)))[0])

    return change


def _clip_table(found: dict[str, ClipAccuracy], count: int) -> Table:
    from bench.scorers.motion_accuracy import FALSE, QUESTIONS

    first = next(iter(found.values()))
    table = _shares(found, QUESTIONS, title=f"The judge on {count} clips", of="clips with")
    for what in FALSE:
        if what in first.false_captions:
            rates = [f"{accuracy.false_captions[what][0]:.4f}" for accuracy in found.values()]
            table.add_row(f"believes: {what}", str(first.false_captions[what][1]), *rates)
    return table


def _accuracy_table(found: dict[str, Accuracy], count: int) -> Table:
    from bench.scorers.judge_accuracy import FALSE, QUESTIONS

    table = _shares(found, QUESTIONS, title=f"The judge on {count} scenes", of="question")
    table.add_row("score of the true caption", "", *(f"{a.true_caption:.4f}" for a in found.values()))
    for what in FALSE:
        scores = [f"{a.false_captions.get(what, float('nan')):.4f}" for a in found.values()]
        table.add_row(f"score, false {what}" if what != "other scene" else "score, other scene", "", *scores)
    return table


def _shares(
    found: Mapping[str, Accuracy | ClipAccuracy], questions: Sequence[str], *, title: str, of: str
) -> Table:
    """A row a question that was asked, a column a kind of pictures or clips; then a line."""
    from rich.table import Table

    first = next(iter(found.values()))
    table = Table(title=f"{title}: share of right answers", title_justify="left")
    table.add_column(of)
    table.add_column("n", justify="right")
    for name in found:
        table.add_column(name, justify="right")
    for question in questions:
        if first.asked[question]:
            shares = [f"{accuracy.share(question):.4f}" for accuracy in found.values()]
            table.add_row(question, str(first.asked[question]), *shares)
    table.add_section()
    return table
