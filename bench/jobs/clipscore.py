"""CLIP scores of a set of images: one cosine an image, stated as a named view, with all that defines it.

Cosines are kept in cosines.jsonl beside the images, under the hash of the image, the text and the network: a
killed run goes on where it stopped, and another view of the same texts costs nothing. What a reader gets is
<view>.jsonl, a row an image, and <view>.json, the figure with its definition. No torch until a network loads.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bench.prompts import Prompt
from bench.results.aggregate import MetricValue, clustered_mean, interval
from bench.scorers import ScorerRecord
from bench.scorers.score import Missing, missing_of
from bench.sharding import Shard
from bench.systems.images import BadImage, write_atomic
from bench.systems.rows import append_row, merge_rows, read_all_rows
from bench.systems.samples import Frame, SampleRecord, are_blank, read_frames
from gentron.config import from_dict
from gentron.errors import UserError
from gentron.hashing import sha256

if TYPE_CHECKING:
    import numpy as np

COSINES = "cosines.jsonl"
CLIP, SHAPES = "clip", "shapes-attributes"
EXTRACTORS = (CLIP, SHAPES)
SHAPES_VIEW = f"cosine_{SHAPES}"  # never called a CLIP score


# ---- what gives a cosine ---------------------------------------------------------------------------------


class Cosines(Protocol):
    """Cosines of one image at a time with texts.

    record: all that shapes a cosine.   max_tokens: of a text, what is beyond is not seen; None: all is.
    """

    record: ScorerRecord
    max_tokens: int | None

    def count_tokens(self, text: str) -> int: ...

    def cosine(self, image: np.ndarray, prompt: Prompt, text: str) -> float:
        """image: (H, W, 3) uint8.   text: the prompt's with the view's prefix."""
        ...


class ClipCosines:
    """OpenAI CLIP ViT-B/32 in float32."""

    def __init__(self, *, models: Path | None, device: str) -> None:
        from bench.scorers import Context
        from bench.scorers.clip import CONTEXT_LENGTH, build

        scorer = build({"complex": False, "precision": "fp32"}, Context(device=device, models=models))
        self._model, self.record = scorer.model, scorer.record
        self.max_tokens: int | None = CONTEXT_LENGTH

    def count_tokens(self, text: str) -> int:
        from bench.scorers.clip import tokenize

        return tokenize(text).count

    def cosine(self, image: np.ndarray, prompt: Prompt, text: str) -> float:
        return self._model.cosine(image, text)


class ShapesCosines:
    """The stand-in over the shapes world; see bench.scorers.shapes_attributes."""

    max_tokens: int | None = None

    def __init__(self) -> None:
        from bench.scorers.shapes import JUDGE_VERSION
        from bench.scorers.shapes_attributes import VERSION
        from gentron.shapes.scene import WORLD_VERSION

        settings = {"judge": JUDGE_VERSION, "world": WORLD_VERSION, "resize": "mean over areas to 64 x 64"}
        self.record = ScorerRecord(name=SHAPES_VIEW, version=VERSION, settings=settings)

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def cosine(self, image: np.ndarray, prompt: Prompt, text: str) -> float:
        from bench.scorers.shapes_attributes import caption_counts, cosine, look, parse_caption

        return cosine(look(image), caption_counts(prompt.description or parse_caption(text)))


# ---- what is stated of it --------------------------------------------------------------------------------


class Stated(NamedTuple):
    """name: of the view.   prefix: put before every text.   of_image: cosine -> an image's value.   clamped:
    the figure is 0 where the mean is less."""

    name: str
    prefix: str
    of_image: Callable[[float], float]
    clamped: bool


def stated(view: str, extractor: str) -> Stated:
    """The view of this name; ValueError if it is unknown or not one of this extractor."""
    from bench.scorers.clip import VIEWS

    if extractor not in EXTRACTORS:
        raise ValueError(f"unknown extractor '{extractor}'; known: {', '.join(EXTRACTORS)}")
    known = [SHAPES_VIEW] if extractor == SHAPES else list(VIEWS)
    if view not in known:
        raise ValueError(f"unknown view '{view}' of the extractor {extractor}; known: {', '.join(known)}")
    if extractor == SHAPES:
        return Stated(SHAPES_VIEW, "", lambda cos: cos, False)
    found = VIEWS[view]
    return Stated(found.name, found.prefix, found.of_image, found.of_set([-1.0]) == 0)


def build_cosines(extractor: str, *, models: Path | None, device: str) -> Cosines:
    """MissingWeights with both ways on if CLIP's file is not there."""
    if extractor == SHAPES:
        return ShapesCosines()
    from bench.weights import MissingWeights

    try:
        return ClipCosines(models=models, device=device)
    except MissingWeights as missing:
        raise MissingWeights(
            f"{missing}; without them --extractor {SHAPES} scores pictures of the shapes world, under the"
            f" name {SHAPES_VIEW}"
        ) from missing


# ---- prompts ---------------------------------------------------------------------------------------------


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts of a file: one a line, or of a .jsonl with `text` and, if given, `id`.

    A line without an id is named by the file and its place. UserError for an empty line, a doubled id or an
    empty file.
    """
    from bench.prompts.sets import prompt_id, split_lines
    from bench.systems import safe_name

    try:
        lines = split_lines(path.read_bytes())
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason}") from error
    category = safe_name(path.stem)
    prompts = []
    for place, line in enumerate(lines):
        where = f"{path}, line {place + 1}"
        id, text = prompt_id(category, place), line
        if path.suffix == ".jsonl":
            row = _json_row(line, where)
            id, text = row.get("id", id), row["text"]
        if not text.strip():
            raise UserError(f"{where} is empty: expected a prompt")
        prompts.append(Prompt(id=id, category=category, text=text))
    if not prompts:
        raise UserError(f"{path} holds no prompts")
    counts = Counter(prompt.id for prompt in prompts)
    if doubled := next((id for id, count in counts.items() if count > 1), None):
        raise UserError(f"{path}: the id '{doubled}' stands for two prompts")
    return prompts


def _json_row(line: str, where: str) -> dict[str, str]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise UserError(f'{where} must be an object with a "text"')
    id = row.get("id")
    # names of image files come from it
    if id is not None and not (
        isinstance(id, str) and id and id.replace("-", "a").replace("_", "a").isalnum()
    ):
        raise UserError(f"{where}: id must be letters, digits, - and _, got {id!r}")
    return {key: value for key, value in row.items() if key in ("id", "text") and value is not None}


def prompts_digest(prompts: Iterable[Prompt]) -> str:
    """Short hash of ids and texts: part of the name of the folder of their images."""
    key = json.dumps([[prompt.id, prompt.text] for prompt in prompts])
    return sha256(key)[:8]


# ---- cosines ---------------------------------------------------------------------------------------------


Key = tuple[str, str, str]  # sha256 of the image, digest of the extractor's record, text


@dataclass(frozen=True, kw_only=True, slots=True)
class Cosine:
    """A line of cosines.jsonl.   sha256: of the image's file.   network: digest of the extractor's record."""

    sha256: str
    network: str
    text: str
    cosine: float
    blank: bool = False
    """The image is of one colour; lines from before they were scored are of none."""

    @property
    def key(self) -> Key:
        return self.sha256, self.network, self.text


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A line of <view>.jsonl.   text: what the image was compared with.   value: the cosine in this view."""

    prompt_id: str
    sample: int
    file: str
    sha256: str
    text: str
    num_tokens: int
    cosine: float
    value: float
    blank: bool


def read_cosines(folder: Path) -> dict[Key, Cosine]:
    """All that are known in a folder, also of processes that were killed."""
    known = {}
    for data in read_all_rows(folder, COSINES):
        try:
            row = from_dict(Cosine, data)
        except ValueError:
            continue
        known[row.key] = row
    return known


def compute(
    cosines: Cosines,
    view: Stated,
    prompts: Sequence[Prompt],
    records: Sequence[SampleRecord],
    folder: Path,
    *,
    advance: Callable[[int], None],
    shard: Shard | None = None,
) -> None:
    """Add the cosines that the folder does not know yet, each as soon as it is there.

    records: of images whose files are relative to the folder, or absolute; bad ones are passed over, `gather`
    lists them. Under torchrun each process computes its share; the file is the same for any number of them.
    """
    shard = shard or Shard()
    by_id = {prompt.id: prompt for prompt in prompts}
    known = read_cosines(folder)
    for record in shard.mine(records):
        prompt = by_id[record.prompt_id]
        text = view.prefix + prompt.text
        key = (record.sha256 or "", cosines.record.digest, text)
        frames = None if key in known else _frames(folder, record)
        if frames is not None:
            mean = math.fsum(cosines.cosine(f.pixels, prompt, text) for f in frames) / len(frames)
            known[key] = Cosine(
                sha256=key[0], network=key[1], text=key[2], cosine=mean, blank=are_blank(frames)
            )
            append_row(folder / shard.file_name(COSINES), asdict(known[key]))
        advance(1)
    shard.barrier()
    if shard.is_first:
        known = read_cosines(folder)
        merge_rows(folder, COSINES, (asdict(known[key]) for key in sorted(known)))


def _frames(folder: Path, record: SampleRecord) -> list[Frame] | None:
    """One of a picture; the cosine of a clip is their mean. None where `gather` will say why not."""
    try:
        return read_frames(folder, record)
    except BadImage:
        return None


def gather(
    cosines: Cosines, view: Stated, prompts: Sequence[Prompt], records: Iterable[SampleRecord], folder: Path
) -> tuple[list[Row], list[Missing]]:
    """The rows of all records, in their order, and the images without one, each with its reason."""
    by_id = {prompt.id: prompt for prompt in prompts}
    known = read_cosines(folder)
    rows, missing = [], []
    for record in records:
        text = view.prefix + by_id[record.prompt_id].text
        cos = known.get((record.sha256 or "", cosines.record.digest, text))
        if cos is None:
            missing.append(missing_of(folder, record))
        else:
            row = Row(
                prompt_id=record.prompt_id,
                sample=record.sample,
                file=record.file,
                sha256=record.sha256 or "",
                text=text,
                num_tokens=cosines.count_tokens(text),
                cosine=cos.cosine,
                value=view.of_image(cos.cosine),
                blank=cos.blank,
            )
            rows.append(row)
    return rows, missing


# ---- the figure ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """A figure and what it is: two compare only where view, prefix, extractor, prompts and counts agree.

    truncated: share of prompts with more than max_tokens.   prompts: short hash of ids and texts.
    """

    view: str
    prefix: str
    value: MetricValue
    truncated: float
    max_tokens: int | None
    extractor: ScorerRecord
    prompts: str
    images_per_prompt: int
    missing: int
    num_blank: int
    """Images of one colour; they are scored."""
    system: str
    untrained: bool


def figure(rows: Sequence[Row], view: Stated) -> MetricValue:
    """Mean of prompt means with its standard error over prompts; a clamped view's figure is at least 0."""
    found = clustered_mean((row.prompt_id, row.value) for row in rows)
    if not view.clamped or found.mean is None or found.mean >= 0:
        return found
    reach = None if found.stderr is None else interval(0.0, found.stderr, found.num_prompts)
    return MetricValue(
        mean=0.0,
        stderr=found.stderr,
        interval=reach,
        num_images=found.num_images,
        num_prompts=found.num_prompts,
    )


def truncated_share(rows: Sequence[Row], max_tokens: int | None) -> float:
    """Share of prompts, not of images."""
    longest = {row.prompt_id: row.num_tokens for row in rows}
    cut = sum(max_tokens is not None and count > max_tokens for count in longest.values())
    return cut / len(longest) if longest else 0.0


def write(folder: Path, rows: Sequence[Row], summary: Summary) -> Path:
    """Write <view>.jsonl, then <view>.json, each whole or not at all; returns the latter."""
    lines = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
    write_atomic(folder / f"{summary.view}.jsonl", lines.encode())
    path = folder / f"{summary.view}.json"
    write_atomic(path, (json.dumps(asdict(summary), indent=2) + "\n").encode())
    return path
