"""The table of a lambda_M sweep: what is stored of it, as JSON and CSV, and how its numbers come about."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bench.compare.paired import paired_effect
from bench.results.aggregate import MetricValue, clustered_mean
from bench.results.record import Provenance, SetMetric, Skipped, SystemRecord
from bench.scorers import ScorerRecord
from bench.scorers.score import Missing, ScoreRow
from bench.sweeps.grid import BASE, Cell
from bench.systems.images import write_atomic
from gentron.versioned import StoredFormat

COVERAGE = 0.95
SWEEP_FILE, CSV_FILE = "sweep.json", "sweep.csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """What is told of every value of the grid.

    measure: the scorer it is taken from.   part: of what that scorer says beside its score, if not the score.
    higher_is_better: None where neither is.
    """

    name: str
    measure: str
    part: str | None = None
    words: str
    unit: str
    higher_is_better: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Mean over prompts of the differences from the base's clips of the same seeds; p of no difference."""

    mean: float
    interval: tuple[float, float] | None
    p: float | None
    num_prompts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CellValue:
    """A column of a cell.   difference: from lambda_M = 1 at the same lambda_T; None for that one itself."""

    value: MetricValue
    difference: Difference | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CellRecord:
    """branches: evaluations of the model in a denoising step.   clips: where they lie on that machine."""

    guidance_scale: float
    motion_guidance_scale: float
    branches: int
    values: dict[str, CellValue]
    set_metrics: list[SetMetric] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    clips: str | None = None

    @property
    def cell(self) -> Cell:
        return Cell(self.guidance_scale, self.motion_guidance_scale)


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepRecord:
    """sweep.json, complete."""

    schema_version: int = 1
    kind: str = "mfg-sweep"
    protocol: str
    protocol_sha256: str
    suite: str
    seed: int
    clips_per_prompt: int
    limit: int | None
    num_prompts: int
    system: SystemRecord
    base: float = BASE
    columns: list[Column]
    scorers: dict[str, ScorerRecord]
    cells: list[CellRecord]
    skipped: list[Skipped]
    provenance: Provenance

    @property
    def is_rehearsal(self) -> bool:
        """Made with random weights in some scorer."""
        return any(scorer.random_weights for scorer in self.scorers.values())

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)


SWEEP = StoredFormat(record=SweepRecord, what="lambda_M sweep", version=1, kind="mfg-sweep")


# ---- numbers ---------------------------------------------------------------------------------------------

Key = tuple[str, int]  # prompt id and sample


def column_values(column: Column, rows: Mapping[str, Sequence[ScoreRow]]) -> dict[Key, float]:
    """A number a clip, of those clips that have it."""
    found = {}
    for row in rows.get(column.measure, ()):
        value = row.score if column.part is None else row.parts.get(column.part)
        if value is not None:
            found[row.prompt_id, row.sample] = value
    return found


def cell_values(
    columns: Sequence[Column],
    rows: Mapping[str, Sequence[ScoreRow]],
    base: Mapping[str, Sequence[ScoreRow]] | None,
) -> dict[str, CellValue]:
    """Every column that any clip of the cell has.   base: rows of lambda_M = 1; None for that cell itself."""
    found = {}
    for column in columns:
        values = column_values(column, rows)
        if not values:
            continue
        mean = clustered_mean((prompt, value) for (prompt, _), value in values.items())
        apart = None if base is None else difference(values, column_values(column, base), column.name)
        found[column.name] = CellValue(value=mean, difference=apart)
    return found


def difference(values: Mapping[Key, float], base: Mapping[Key, float], name: str) -> Difference | None:
    """Paired clip by clip; prompts are the clusters. None where no clip has both."""
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for key, value in sorted(values.items()):
        if key in base:
            pairs[key[0]].append((base[key], value))
    if not pairs:
        return None
    before, after, apart = (
        np.array([math.fsum(of(pair) for pair in group) / len(group) for group in pairs.values()])
        for of in (lambda p: p[0], lambda p: p[1], lambda p: p[1] - p[0])
    )
    effect = paired_effect(name, before, after, apart, num_images=sum(map(len, pairs.values())))
    between = effect.intervals([COVERAGE])
    return Difference(
        mean=effect.difference,
        interval=between[0] if between else None,
        p=effect.p,
        num_prompts=effect.num_prompts,
    )


# ---- files -----------------------------------------------------------------------------------------------

CSV_HEAD = (
    *("lambda_t", "lambda_m", "branches", "column", "mean", "stderr", "low", "high", "num_clips"),
    *("num_prompts", "difference", "difference_low", "difference_high", "p"),
)


def table_csv(record: SweepRecord) -> bytes:
    """A line a cell and column; the numbers of sets have no interval by prompts."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for cell in record.cells:
        head = [cell.guidance_scale, cell.motion_guidance_scale, cell.branches]
        for name, found in cell.values.items():
            value, apart = found.value, found.difference
            low, high = value.interval or ("", "")
            changes = ["", "", "", ""]
            if apart is not None:
                changes = [apart.mean, *(apart.interval or ("", "")), _or_empty(apart.p)]
            counts = [value.num_images, value.num_prompts]
            writer.writerow([*head, name, value.mean, _or_empty(value.stderr), low, high, *counts, *changes])
        for metric in cell.set_metrics:
            low, high = metric.interval or ("", "")
            writer.writerow(
                [*head, metric.name, metric.value, "", low, high, metric.num_images, "", "", "", "", ""]
            )
    return text.getvalue().encode()


def _or_empty(value: float | None) -> float | str:
    return "" if value is None else value


def sweep_folder(out: Path, record: SweepRecord) -> Path:
    """<out>/<protocol>/<system>/<date>-<commit8>-mfg, with -2, -3, ... where another sweep stands."""
    where = record.provenance
    stem = f"{where.date[:10]}-{(where.commit or 'release')[:8]}-mfg"
    parent = out / record.protocol / record.system.name
    number = 1
    while True:
        folder = parent / (stem if number == 1 else f"{stem}-{number}")
        path = folder / SWEEP_FILE
        if not path.exists() or _same(SWEEP.read(path), record):
            return folder
        number += 1


def _same(a: SweepRecord, b: SweepRecord) -> bool:
    return replace(a, provenance=b.provenance) == b and a.provenance.commit == b.provenance.commit


def write_table(folder: Path, record: SweepRecord) -> None:
    """sweep.csv, then sweep.json, each whole or not at all; a table that stands is left as it is."""
    if not (folder / SWEEP_FILE).exists():
        write_atomic(folder / CSV_FILE, table_csv(record))
        write_atomic(folder / SWEEP_FILE, SWEEP.dump(record))
