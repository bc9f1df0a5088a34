"""`gentron data check`: read a data set as training would; say what is in it and what is wrong with it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from gentron.data.clip_writer import contact_sheet
from gentron.data.folder import content_of
from gentron.data.listing import Item, Listing, Media
from gentron.data.near import CaptionIndex, NearCaption, difference_hash, near_hashes
from gentron.data.video import open_clip, read_frames
from gentron.errors import MediaError
from gentron.pictures import read_picture

ASPECTS = {"under 2:3": 2 / 3, "2:3 to 3:4": 3 / 4, "3:4 to 1:1": 1, "1:1": 1, "1:1 to 4:3": 4 / 3,
           "4:3 to 3:2": 3 / 2, "3:2 to 16:9": 16 / 9, "over 16:9": float("inf")}  # fmt: skip
"""Width to height, up to each bound and including it; square is a class of its own."""
ASPECT_TOLERANCE = 1e-2  # 1366 x 768 is called 16:9
SHEET_CELLS = 64
CELL_SIDE = 96
SHEET_FRAMES = 4
"""Of a clip in a contact sheet, side by side."""
CHUNK = 256
"""Items in work at a time: what is decoded ahead is bounded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipDemand:
    """What training would ask of each clip."""

    num_frames: int = 8
    fps: float = 4.0


class Seen(NamedTuple):
    """One item that could be read."""

    width: int
    height: int
    seconds: float | None
    difference_hash: int


class Spread(NamedTuple):
    """Least, median and most."""

    least: float
    median: float
    most: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What a data set holds."""

    num_items: int
    num_captions: int
    dropped: dict[str, list[str]]
    num_unusable: int
    broken: list[str]
    """One line each: name and reason."""
    short_sides: Spread | None
    aspects: dict[str, int]
    seconds: Spread | None
    caption_words: Spread | None
    num_repeated_captions: int
    """Captions that stand there more than once, each counted as often as it repeats."""
    num_repeated_pictures: int
    """Items whose difference hash another item before them has."""
    near_captions: list[NearCaption]
    near_pictures: list[tuple[str, str, int]]
    """Name, name of the benchmark's picture, bits that differ."""


def _spread(values: Sequence[float]) -> Spread | None:
    return Spread(min(values), float(np.median(values)), max(values)) if values else None


def aspect_name(width: int, height: int) -> str:
    ratio = width / height
    if ratio == 1:
        return "1:1"
    near = ratio < 1 or ratio > 4 / 3  # a side that is one pixel longer is no square
    bound = ratio - ASPECT_TOLERANCE * near
    return next(name for name, top in ASPECTS.items() if bound <= top and (name != "1:1"))


def look(item: Item, media: Media, demand: ClipDemand) -> tuple[Seen, Image.Image]:
    """Decode an item as training would; with a small picture for the sheet. MediaError: it cannot be read."""
    content = content_of(item)
    if media is Media.PICTURES:
        picture = read_picture(content, name=item.name)
        width, height = picture.size
        return Seen(width, height, None, difference_hash(picture)), _cell(picture)
    reader = open_clip(content, fps=demand.fps, name=item.name)
    frames = read_frames(content, num_frames=demand.num_frames, fps=demand.fps, name=item.name)
    pictures = [Image.fromarray(frame) for frame in frames]
    step = max(1, len(pictures) // SHEET_FRAMES)
    strip = contact_sheet([_cell(picture) for picture in pictures[::step][:SHEET_FRAMES]])
    width, height = pictures[0].size
    return Seen(width, height, reader.timeline.end, difference_hash(pictures[0])), strip


def _cell(picture: Image.Image) -> Image.Image:
    small = picture.copy()
    small.thumbnail((CELL_SIDE, CELL_SIDE))
    return small


def check(
    listing: Listing,
    *,
    demand: ClipDemand = ClipDemand(),  # noqa: B008  # frozen
    prompts: Sequence[str] = (),
    reference_pictures: Sequence[Item] = (),
    num_threads: int = 1,
    seed: int = 0,
    callback: Callable[[int], None] = lambda done: None,
) -> tuple[Findings, Image.Image | None]:
    """Decode everything; the findings, and a contact sheet of up to SHEET_CELLS items drawn by seed."""
    items = sorted(listing.items, key=lambda item: item.name)
    shown = set(np.random.default_rng(seed).permutation(len(items))[:SHEET_CELLS].tolist())
    seen: dict[str, Seen] = {}
    broken: list[str] = []
    cells: list[Image.Image] = []
    for number, result in enumerate(_looked(items, listing.media, demand, num_threads)):
        if isinstance(result, MediaError):
            broken.append(" ".join(str(result).split()))
        else:
            seen[items[number].name] = result[0]
            if number in shown:
                cells.append(result[1])
        callback(number + 1)
    findings = _findings(listing, items, seen, broken, prompts, _hashes(reference_pictures))
    columns = round(len(cells) ** 0.5 + 0.49)
    return findings, contact_sheet(cells, columns=columns) if cells else None


def _looked(
    items: Sequence[Item], media: Media, demand: ClipDemand, num_threads: int
) -> Iterator[tuple[Seen, Image.Image] | MediaError]:
    def one(item: Item) -> tuple[Seen, Image.Image] | MediaError:
        try:
            return look(item, media, demand)
        except MediaError as error:
            return error

    with ThreadPoolExecutor(num_threads, thread_name_prefix="check") as pool:
        for start in range(0, len(items), CHUNK):
            yield from pool.map(one, items[start : start + CHUNK])


def _hashes(references: Sequence[Item]) -> dict[str, int]:
    return {item.name: difference_hash(read_picture(content_of(item), name=item.name)) for item in references}


def _findings(
    listing: Listing,
    items: Sequence[Item],
    seen: dict[str, Seen],
    broken: list[str],
    prompts: Sequence[str],
    references: dict[str, int],
) -> Findings:
    captions = [(item.name, caption) for item in items for caption in item.captions]
    texts = Counter(caption for _, caption in captions)
    hashes = [found.difference_hash for found in seen.values()]
    names, reference_names = list(seen), list(references)
    return Findings(
        num_items=len(items),
        num_captions=len(captions),
        dropped=listing.dropped,
        num_unusable=listing.num_unusable,
        broken=broken,
        short_sides=_spread([min(found.width, found.height) for found in seen.values()]),
        aspects=_in_order(Counter(aspect_name(found.width, found.height) for found in seen.values())),
        seconds=_spread([found.seconds for found in seen.values() if found.seconds is not None]),
        caption_words=_spread([len(caption.split()) for _, caption in captions]),
        num_repeated_captions=sum(count - 1 for count in texts.values()),
        num_repeated_pictures=len(hashes) - len(set(hashes)),
        near_captions=list(near_captions(captions, prompts)),
        near_pictures=[
            (names[number], reference_names[nearest], distance)
            for number, nearest, distance in near_hashes(hashes, list(references.values()))
        ],
    )


def _in_order(aspects: Counter[str]) -> dict[str, int]:
    return {name: aspects[name] for name in ASPECTS if aspects[name]}


def near_captions(captions: Sequence[tuple[str, str]], prompts: Sequence[str]) -> Iterator[NearCaption]:
    """Of (name, caption) those near a prompt; a text is looked up once, however often it repeats."""
    if not prompts:
        return
    index = CaptionIndex(prompts)
    by_text = sorted(captions, key=lambda pair: pair[1])
    for text, group in itertools.groupby(by_text, key=lambda pair: pair[1]):
        nearest = index.nearest(text)
        if nearest is not None:
            yield from (NearCaption(name, text, *nearest) for name, _ in group)
