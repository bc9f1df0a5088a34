"""The noise band of a system: how far its metrics move when only the seeds change. Made by calibrate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.compare.comparable import NotComparable
from bench.results.record import Provenance, Result, SystemRecord
from gentron.errors import UserError
from gentron.versioned import StoredFormat

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricBand:
    """band: differences of two runs with other seeds stay within it, all metrics at once, at 1 - alpha.

    sd_difference: of a prompt's mean between two runs; largest: of the differences that were seen.
    """

    band: float
    largest: float
    sd_difference: float
    mean: float
    num_prompts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AARuns:
    """Every pair of the runs through the gate: a candidate that is the baseline."""

    pairs: int
    regressions: int
    inconclusive: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A run that the band was made of."""

    path: str
    result_sha256: str
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    schema_version: int = SCHEMA_VERSION
    protocol: str
    protocol_sha256: str
    editions: dict[str, str]
    images_per_prompt: int
    limit: int | None
    system: SystemRecord
    rehearsal: bool
    alpha: float
    metrics: dict[str, MetricBand]
    a_a: AARuns
    runs: list[Source]
    provenance: Provenance


BAND = StoredFormat(record=Band, what="calibration band", version=SCHEMA_VERSION)


def dump_band(band: Band) -> bytes:
    return BAND.dump(band)


def read_band(path: Path) -> Band:
    """UserError for a file that is not there, damaged, newer, or no band."""
    if not path.is_file():
        raise UserError(f"no calibration band '{path}': make one with gentron-bench calibrate")
    return BAND.read(path)


def check_band(band: Band, result: Result, num_prompts: dict[str, int]) -> None:
    """NotComparable if the noise was not measured as the result was. num_prompts: of the result's metrics."""
    way_on = "calibrate with this protocol, limit and number of images"
    for field in ("protocol", "protocol_sha256", "editions", "images_per_prompt"):
        ours, theirs = getattr(band, field), getattr(result, field)
        if ours != theirs:
            raise NotComparable(f"the band's {field}", ours, theirs, way_on=way_on)
    for metric, count in num_prompts.items():
        if metric in band.metrics and band.metrics[metric].num_prompts != count:
            found = band.metrics[metric].num_prompts
            raise NotComparable(f"the band's prompts of {metric}", found, count, way_on=way_on)
