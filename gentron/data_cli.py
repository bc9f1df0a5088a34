"""`gentron data clips | check`; what reads and decodes is imported once a command runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gentron.atomic import atomic_file
from gentron.errors import UserError

if TYPE_CHECKING:
    from gentron.data.check import Findings, Spread
    from gentron.data.listing import Item

app = typer.Typer(no_args_is_help=True, help="Write, prepare and check data sets.")

NUM_SHOWN = 10
"""Broken files and near-duplicates printed; all of them go into --report."""


class MediaKind(StrEnum):
    PICTURES = "pictures"
    CLIPS = "clips"


MediaColumn = Annotated[str | None, typer.Option(help="Column or key of the file; else the usual names.")]
CaptionColumn = Annotated[str | None, typer.Option(help="Column or key of the caption.")]
Threads = Annotated[int, typer.Option(min=1, max=256, help="Files read side by side.")]
DEFAULT_THREADS = min(4, os.cpu_count() or 1)


def _share(help: str) -> Any:
    return typer.Option(min=0, max=1, help=help, show_default=False)


@contextmanager
def _bar(title: str, total: int) -> Iterator[Any]:
    from gentron.cli import progress  # which imports this module

    with progress(title, total) as update:
        yield update


@app.command()
def clips(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="Films with captions: folder, shards, Parquet.")
    ],
    out: Annotated[Path, typer.Option(help="Folder, new or of an earlier call, which is continued.")],
    short_side: Annotated[int, typer.Option(help="Pixels, even.")] = 512,
    fps: Annotated[float, typer.Option(help="Frames a second.")] = 24.0,
    cut: Annotated[bool, typer.Option("--cut/--no-cut", help="Cut at scene changes (PySceneDetect).")] = True,
    scene_threshold: Annotated[float, typer.Option(help="Of PySceneDetect's ContentDetector.")] = 27.0,
    min_seconds: Annotated[float, typer.Option(help="Shorter pieces are left out.")] = 2.0,
    max_seconds: Annotated[float, typer.Option(help="Longer scenes are cut into equal parts.")] = 60.0,
    min_sharpness: Annotated[
        float | None, typer.Option(min=0, help="Drop clips blurrier than this.", show_default=False)
    ] = None,
    max_still: Annotated[float | None, _share("Drop clips with more still frames than this share.")] = None,
    max_frozen: Annotated[float | None, _share("The same for frozen frames.")] = None,
    max_black: Annotated[float | None, _share("The same for black frames.")] = None,
    max_border: Annotated[float | None, _share("Drop clips with more of their area in bars.")] = None,
    max_overlay: Annotated[float | None, _share("Drop clips with more of their blocks under text.")] = None,
    media_column: MediaColumn = None,
    caption_column: CaptionColumn = None,
    threads: Threads = DEFAULT_THREADS,
) -> None:
    """Prepare training clips as the paper did: short side 512, 24 fps, cut at scene changes, measured.

    OUT/captions.jsonl lists the clips that stay, OUT/quality.jsonl all of them with their measures.
    """
    from gentron.data.listing import Columns, Media
    from gentron.data.prepare import ClipSettings, prepare
    from gentron.data.quality import Thresholds
    from gentron.data.samples import list_samples

    settings = ClipSettings(
        short_side=short_side,
        fps=fps,
        cut=cut,
        scene_threshold=scene_threshold,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
    )
    thresholds = Thresholds(
        min_sharpness=min_sharpness,
        max_still=max_still,
        max_frozen=max_frozen,
        max_black=max_black,
        max_border=max_border,
        max_overlay=max_overlay,
    )
    columns = Columns(media=media_column, caption=caption_column)
    listing = list_samples(source, media=Media.CLIPS, columns=columns)
    typer.echo(listing.summary, err=True)
    items = listing.checked(max_dropped=1.0).items
    with _bar("preparing", len(items)) as update:
        outcome = prepare(
            items, out, settings=settings, thresholds=thresholds, num_threads=threads, callback=update
        )
    for line in outcome.unreadable[:NUM_SHOWN]:
        typer.echo(f"note: {line}", err=True)
    lost = ", ".join(f"{count} {reason}" for reason, count in sorted(outcome.reasons.items()))
    dropped = f", {outcome.num_dropped} dropped" if outcome.num_dropped else ""
    typer.echo(f"{out}: {outcome.num_kept} clips{dropped}{f' ({lost})' if lost else ''}")
    if not outcome.num_kept:
        raise UserError(f"no clip is left of {source}; {out}/quality.jsonl says why")


@app.command()
def check(
    data: Annotated[str, typer.Argument(help="Folder, shards, Parquet, a listing, or hf:NAME.")],
    media: Annotated[MediaKind, typer.Option(help="What the set is read for.")] = MediaKind.PICTURES,
    sheet: Annotated[Path, typer.Option(help="Where the contact sheet goes (.png).")] = Path(
        "data-check.png"
    ),
    report: Annotated[
        Path | None, typer.Option(help="All findings as JSON, with every name.", show_default=False)
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Protocol or prompt list: name captions near its prompts.", show_default=False),
    ] = None,
    against_pictures: Annotated[
        Path | None, typer.Option(help="Folder: name pictures near these.", show_default=False)
    ] = None,
    num_frames: Annotated[int, typer.Option(min=1, help="Frames that training asks of a clip.")] = 8,
    fps: Annotated[float, typer.Option(min=0.001, help="And their rate.")] = 4.0,
    media_column: MediaColumn = None,
    caption_column: CaptionColumn = None,
    threads: Threads = DEFAULT_THREADS,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if anything is broken or near.")
    ] = False,
) -> None:
    """Read a data set as training would: counts, sizes, captions, broken files, a contact sheet."""
    from gentron.data.check import ClipDemand
    from gentron.data.check import check as look_through
    from gentron.data.listing import Columns, Media
    from gentron.data.near import read_prompts
    from gentron.data.samples import list_samples

    if sheet.suffix.lower() != ".png":
        raise UserError(f"--sheet must be a .png file, got '{sheet}'")
    prompts = [prompt for path in against or [] for prompt in read_prompts(path)]
    references = _pictures_of(against_pictures) if against_pictures is not None else []
    columns = Columns(media=media_column, caption=caption_column)
    listing = list_samples(data, media=Media(media.value), columns=columns)
    if not listing.items:
        listing.checked()
    with _bar("reading", len(listing.items)) as update:
        findings, picture = look_through(
            listing,
            demand=ClipDemand(num_frames=num_frames, fps=fps),
            prompts=prompts,
            reference_pictures=references,
            num_threads=threads,
            callback=update,
        )
    typer.echo(listing.summary)
    for line in _lines(findings, media, num_prompts=len(prompts)):
        typer.echo(line)
    if picture is not None:
        with atomic_file(sheet) as temporary:
            picture.save(temporary, format="PNG")
        typer.echo(f"contact sheet: {sheet}")
    if report is not None:
        with atomic_file(report) as temporary:
            temporary.write_text(json.dumps(asdict(findings), indent=2, ensure_ascii=False) + "\n", "utf-8")
    faults = (findings.broken, findings.dropped, findings.near_captions, findings.near_pictures)
    if strict and any(faults):
        raise typer.Exit(1)


def _pictures_of(folder: Path) -> list[Item]:
    from gentron.data.listing import InFile, Item
    from gentron.data.walk import walk_files
    from gentron.pictures import PICTURE_SUFFIXES

    if not folder.is_dir():
        raise UserError(f"no such folder of pictures: {folder}")
    paths = [path for path in walk_files(folder) if path.suffix.lower() in PICTURE_SUFFIXES]
    return [Item(str(path.relative_to(folder)), (), InFile(path)) for path in paths]


def _lines(findings: Findings, media: MediaKind, *, num_prompts: int) -> Iterator[str]:
    """The findings for a person, a line a fact."""
    readable = findings.num_items - len(findings.broken)
    yield f"readable: {readable} of {findings.num_items} {media}"
    yield from _some("broken", findings.broken)
    if findings.short_sides is not None:
        yield f"short side, pixels: {_of(findings.short_sides)}"
        yield "aspect ratio: " + ", ".join(f"{name} {count}" for name, count in findings.aspects.items())
    if findings.seconds is not None:
        yield f"seconds: {_of(findings.seconds)}"
    if findings.caption_words is not None:
        yield f"words a caption: {_of(findings.caption_words)}"
    if findings.num_repeated_captions:
        yield f"repeated captions: {findings.num_repeated_captions} of {findings.num_captions}"
    if findings.num_repeated_pictures:
        yield f"{media} that look like another: {findings.num_repeated_pictures} of {readable}"
    if num_prompts:
        near = findings.near_captions
        yield f"captions near one of {num_prompts} benchmark prompts: {len(near)} of {findings.num_captions}"
        yield from _some(
            "near", [f"{n.name}: {n.caption!r} ~ {n.prompt!r} ({n.similarity:.2f})" for n in near]
        )
    if findings.near_pictures:
        yield f"pictures near one of the benchmark's: {len(findings.near_pictures)}"
        found = [f"{name} ~ {other} ({bits} bits)" for name, other, bits in findings.near_pictures]
        yield from _some("near", found)


def _of(spread: Spread) -> str:
    return f"{spread.least:g} to {spread.most:g}, median {spread.median:g}"


def _some(word: str, lines: list[str]) -> Iterator[str]:
    yield from (f"  {word}: {line}" for line in lines[:NUM_SHOWN])
    if len(lines) > NUM_SHOWN:
        yield f"  and {len(lines) - NUM_SHOWN} more; --report FILE lists them all"
