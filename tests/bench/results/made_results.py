"""Results on disk without a model: rows and pictures are made up, the writers are the real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.prompts import Prompt
from bench.results.aggregate import aggregate
from bench.results.record import (
    Counts,
    Provenance,
    ReferenceRecord,
    Result,
    SetMetric,
    Skipped,
    SystemRecord,
    dump_result,
    scores_csv,
)
from bench.scorers import ScorerRecord
from bench.scorers.score import Missing, ScoreRow
from bench.systems.images import encode_png, write_atomic
from bench.systems.rows import append_row
from bench.systems.samples import MANIFEST, MediaFile, SampleRecord, manifest_row
from gentron.hashing import sha256

CATEGORIES = ("color", "spatial", "complex")


def made_prompts(count: int, texts: Mapping[str, str] | None = None) -> list[Prompt]:
    """`count` prompts a category. texts: other wordings, by id."""
    ids = [(f"{category}-{k:04d}", category) for category in CATEGORIES for k in range(count)]
    return [Prompt(i, c, (texts or {}).get(i, f"a {c} prompt, number {i[-4:]}")) for i, c in ids]


def made_picture(prompt: Prompt, hue: int, size: int = 16) -> bytes:
    """A PNG that differs from prompt to prompt."""
    image = np.zeros((size, size, 3), np.uint8)
    image[:, :, 0] = np.arange(size)[None] * 255 // size
    image[:, :, 1] = int.from_bytes(sha256(prompt.id.encode())[:4].encode()) % 256
    image[:, :, 2] = hue
    return encode_png(image)


def made_rows(prompts: Sequence[Prompt], level: float, hue: int, reason: str) -> list[ScoreRow]:
    """Scores around `level`, in quarters, the same for the same prompt at the same level."""
    rows = []
    for prompt in prompts:
        draw = np.random.default_rng([*prompt.id.encode()]).random()
        score = round(4 * min(1, max(0, level + 0.5 * (draw - 0.5)))) / 4
        rows.append(
            ScoreRow(
                prompt_id=prompt.id,
                sample=0,
                seed=7,
                sha256=sha256(made_picture(prompt, hue)),
                scorer="made",
                score=score,
                reason=reason,
                parts={},
                evidence={},
                chance=0.125,
                shuffled=0.0625,
            )
        )
    return rows


def make_result(
    *,
    system: str = "alpha",
    level: float = 0.5,
    count: int = 6,
    protocol: str = "made_v1",
    protocol_sha256: str = "ab" * 32,
    settings: Mapping[str, Any] | None = None,
    weights: str | None = "cd" * 32,
    untrained: bool = False,
    random_weights: bool = False,
    scorer_settings: Mapping[str, Any] | None = None,
    limit: int | None = None,
    date: str = "2026-01-02T03:04:05+00:00",
    commit: str | None = "0123456789abcdef",
    skip: Sequence[str] = (),
    missing: Sequence[Missing] = (),
    set_metrics: Sequence[SetMetric] = (),
    images: Path | None = None,
    rows: Sequence[ScoreRow] | None = None,
    prompts: Sequence[Prompt] | None = None,
    command: str = "gentron-bench compbench",
) -> Result:
    """A result over made-up rows; skip: categories that were not measured."""
    prompts = [p for p in prompts or made_prompts(count) if p.category not in skip]
    rows = made_rows(prompts, level, 0, "made up") if rows is None else rows
    record = ScorerRecord(
        name="made", version=1, random_weights=random_weights, settings=dict(scorer_settings or {})
    )
    present = list(dict.fromkeys(p.category for p in prompts))
    return Result(
        protocol=protocol,
        protocol_sha256=protocol_sha256,
        suite="all",
        seed=0,
        images_per_prompt=1,
        limit=limit,
        system=SystemRecord(
            kind="made",
            name=system,
            weights_sha256=weights,
            untrained=untrained,
            settings=dict(settings or {}),
        ),
        scorers=dict.fromkeys(present, record),
        counts=Counts(expected=len(rows) + len(missing), scored=len(rows), missing=len(missing)),
        missing=list(missing),
        skipped=[Skipped(metric=name, reason="no weights of its scorer here") for name in skip],
        metrics=aggregate(prompts, rows, dict.fromkeys(present, "made")),
        set_metrics=list(set_metrics),
        provenance=Provenance(
            date=date,
            commit=commit,
            dirty=False if commit else None,
            command=command,
            device="cpu",
            machine="x86_64 Linux",
            packages={"python": "3.11.7"},
            images=None if images is None else str(images),
        ),
    )


def made_set_metric(value: float, num_images: int = 18) -> SetMetric:
    return SetMetric(
        name="fd_made",
        value=value,
        interval=(value - 1, value + 1),
        num_images=num_images,
        reference=ReferenceRecord(id="made", sha256="ef" * 32, num_images=100),
        settings={"resize": "clean", "weights_sha256": "12" * 32},
    )


def write_made(
    folder: Path,
    *,
    pictures: Path | None = None,
    texts: Mapping[str, str] | None = None,
    reason: str = "made up",
    hue: int = 0,
    count: int = 6,
    level: float = 0.5,
    skip: Sequence[str] = (),
    **fields: Any,
) -> Path:
    """result.json (returned) and scores.csv in `folder`; pictures and their manifest in `pictures`."""
    prompts = [p for p in made_prompts(count, texts) if p.category not in skip]
    rows = made_rows(prompts, level, hue, reason)
    result = make_result(rows=rows, prompts=prompts, images=pictures, skip=skip, **fields)
    write_atomic(folder / "scores.csv", scores_csv(prompts, rows))
    write_atomic(folder / "result.json", dump_result(result))
    for prompt in prompts if pictures else ():
        assert pictures is not None
        data, file = made_picture(prompt, hue), f"images/{prompt.id}_00.png"
        (pictures / "images").mkdir(parents=True, exist_ok=True)
        (pictures / file).write_bytes(data)
        files = (MediaFile(file, sha256(data)),)
        record = SampleRecord(prompt_id=prompt.id, sample=0, seed=7, files=files)
        append_row(pictures / MANIFEST, manifest_row(record))
    return folder / "result.json"
