"""The job of `gentron-bench motion`: draw or find clips, judge them frame by frame, write the result.

A category of prompts reports motion; appearance and persistence are reported over all clips as metrics of
their own, so that compare and gate judge each of them and say which one fell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.jobs.compbench import Measured, RunSettings, Scorers, make_result, measure
from bench.prompts.protocol import Protocol
from bench.results.aggregate import CategoryMetrics, clustered_mean
from bench.results.record import Result, measures_csv, write_with_scores
from bench.scorers import ScorerRecord
from bench.scorers.motion import MEASURES
from bench.scorers.score import ScoreRow
from bench.sharding import Shard
from bench.stages import Stage
from bench.systems import Collection, System


def run(
    protocol: Protocol,
    system: System | Collection,
    settings: RunSettings,
    *,
    work: Path,
    out: Path,
    stage: Stage,
    scorers: Scorers | None = None,
    shard: Shard | None = None,
) -> tuple[Result, Path] | None:
    """Make or find all clips, score them and write the result; returns it and its folder.

    None in all processes but the first. Raises UserError that lists the clips that are missing, corrupt,
    blank or too short, unless settings.allow_missing.
    """
    measured = measure(
        protocol, system, settings, work=work, out=out, stage=stage, scorers=scorers, shard=shard
    )
    if measured is None:
        return None
    measures = {name: [_row_of(row, name) for row in measured.rows] for name in MEASURES}
    result = make_result(protocol, system.info, settings, measured)
    result = replace(
        result,
        metrics=[*result.metrics, *(_metrics(measured, name, rows) for name, rows in measures.items())],
        scorers={**result.scorers, **_records(measured)},
    )
    scores = measures_csv(measured.prompts, _by_category(measured) | measures)
    return result, write_with_scores(out, result, scores)


def _row_of(row: ScoreRow, measure: str) -> ScoreRow:
    """The row of a clip with another of its scores."""
    said = row.evidence["measures"][measure]
    return replace(row, score=said["value"], reason=said["reason"], parts={}, chance=None, shuffled=None)


def _by_category(measured: Measured) -> dict[str, list[ScoreRow]]:
    rows: dict[str, list[ScoreRow]] = {category: [] for category in measured.scorers.by_category}
    categories = {prompt.id: prompt.category for prompt in measured.prompts}
    for row in measured.rows:
        rows[categories[row.prompt_id]].append(row)
    return {category: found for category, found in rows.items() if found}


def _records(measured: Measured) -> Mapping[str, ScorerRecord]:
    """The measures are said by the judge of motion, under names of their own."""
    judge = next(iter(measured.scorers.by_category.values())).record
    return {name: replace(judge, name=name) for name in MEASURES}


def _metrics(measured: Measured, name: str, rows: Sequence[ScoreRow]) -> CategoryMetrics:
    """A measure over all clips, and over those of each split."""
    splits = {prompt.id: prompt.split for prompt in measured.prompts}
    known = dict.fromkeys(split for split in splits.values() if split)
    return CategoryMetrics(
        category=name,
        scorer=name,
        score=clustered_mean((row.prompt_id, row.score) for row in rows),
        views={
            split: clustered_mean((r.prompt_id, r.score) for r in rows if splits[r.prompt_id] == split)
            for split in known
        },
    )
