from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from bench.prompts.protocol import load_protocol
from bench.report.summary import find_results, markdown, result_table
from bench.results.aggregate import aggregate, clustered_mean
from bench.results.record import (
    COLUMNS,
    CostRecord,
    Counts,
    LimitChoice,
    Provenance,
    Result,
    SystemRecord,
    dump_result,
    git_state,
    provenance,
    read_result,
    read_scores,
    result_folder,
    scores_csv,
    write_result,
)
from bench.scorers import ScorerRecord
from bench.scorers.score import Missing, ScoreRow
from bench.systems import Media
from gentron.errors import UserError

PROTOCOL = load_protocol("compbench-shapes_v1")
PROMPTS = PROTOCOL.select("relations", limit=3)
SCORER = ScorerRecord(name="shapes", version=1)
REPOSITORY = Path(__file__).resolve().parents[3]
EXTRAS = ("extra objects", "missing objects")
NAMES = {"spatial": "shapes", "non-spatial": "shapes"}


def row(prompt_id: str, score: float, *, sample: int = 0, **parts: float) -> ScoreRow:
    return ScoreRow(
        prompt_id=prompt_id,
        sample=sample,
        seed=7,
        sha256="0",
        scorer=SCORER.digest,
        score=score,
        reason='left of: "holds", or not',
        parts=parts,
        evidence={"found": ["red circle"]},
        chance=0.25,
        shuffled=0.0,
    )


def make_result() -> Result:
    rows = [row(prompt.id, k / 6) for k, prompt in enumerate(PROMPTS)]
    return Result(
        protocol=PROTOCOL.name,
        protocol_sha256=PROTOCOL.sha256,
        suite="relations",
        seed=0,
        images_per_prompt=1,
        limit=3,
        system=SystemRecord(
            kind="gentron", name="tiny", weights_sha256="ab", untrained=True, settings={"guidance_scale": 3.0}
        ),
        scorers={"spatial": SCORER, "non-spatial": SCORER},
        counts=Counts(expected=7, scored=6, missing=1),
        missing=[Missing(prompt_id="spatial-0000", sample=1, file="a.png", reason="blank")],
        metrics=aggregate(PROMPTS, rows, NAMES),
        provenance=Provenance(
            date="2025-03-04T05:06:07+00:00",
            commit="0123456789abcdef",
            dirty=False,
            command="gentron-bench compbench",
            device="cpu",
            machine="x86_64 Linux",
            packages={"python": "3.11"},
        ),
    )


# ---- aggregate -------------------------------------------------------------------------------------------


def test_mean_and_standard_error_in_closed_form() -> None:
    value = clustered_mean([("a", 0.0), ("b", 1.0), ("c", 1.0), ("d", 0.0)])
    assert value.mean == 0.5
    assert value.stderr == pytest.approx(math.sqrt((4 * 0.25 / 3) / 4))
    assert (value.num_images, value.num_prompts) == (4, 4)


def test_images_of_one_prompt_are_one_cluster() -> None:
    once = clustered_mean([("a", 0.0), ("b", 1.0)])
    often = clustered_mean([("a", 0.0), ("b", 1.0)] * 10)
    assert (often.mean, often.stderr) == (once.mean, once.stderr)
    assert often.num_images == 20


def test_prompts_weigh_the_same_whatever_their_images() -> None:
    assert clustered_mean([("a", 1.0), ("a", 1.0), ("a", 1.0), ("b", 0.0)]).mean == 0.5


def test_order_does_not_matter() -> None:
    values = [(f"p{k % 7}", math.sin(k)) for k in range(50)]
    a, b = clustered_mean(sorted(values)), clustered_mean(sorted(values, reverse=True))
    assert a.mean == pytest.approx(b.mean, abs=1e-15)


def test_nothing_measured_is_not_zero() -> None:
    value = clustered_mean([])
    assert value.mean is None and value.stderr is None and value.num_images == 0
    assert clustered_mean([("a", 0.3)]).stderr is None


def test_categories_are_split_into_seen_and_held_out() -> None:
    rows = [row(p.id, float(bool(p.heldout))) for p in PROMPTS]
    spatial, other = aggregate(PROMPTS, rows, NAMES)
    assert (spatial.category, other.category) == ("spatial", "non-spatial")
    assert (spatial.views["seen"].mean, spatial.views["held-out"].mean) == (0.0, 1.0)
    assert spatial.score.mean == pytest.approx(1 / 3)
    assert spatial.views["chance"].mean == 0.25


def test_a_part_is_averaged_over_the_images_that_have_it() -> None:
    first, second, third = (p.id for p in PROMPTS[:3])
    rows = [row(first, 1.0, relation=1.0), row(second, 0.5, relation=0.5), row(third, 0.0)]
    (spatial,) = aggregate(PROMPTS[:3], rows, {"spatial": "shapes"})
    assert (spatial.views["relation"].mean, spatial.views["relation"].num_images) == (0.75, 2)


def test_interval_is_students_over_prompts() -> None:
    value = clustered_mean([(str(k), float(k % 2)) for k in range(10)])
    stderr = math.sqrt(10 * 0.25 / 9 / 10)
    assert value.stderr == pytest.approx(stderr)
    assert value.interval == pytest.approx((0.5 - 2.262157 * stderr, 0.5 + 2.262157 * stderr))


# ---- results ---------------------------------------------------------------------------------------------


def test_result_survives_the_disk(tmp_path: Path) -> None:
    result = make_result()
    folder = write_result(tmp_path, result, PROMPTS, [row(p.id, 1.0) for p in PROMPTS])
    assert folder == tmp_path / "compbench-shapes_v1" / "tiny" / "2025-03-04-01234567"
    assert read_result(folder / "result.json") == result
    assert sorted(p.name for p in folder.iterdir()) == ["result.json", "scores.csv"]


def test_result_of_another_schema_is_refused(tmp_path: Path) -> None:
    data = json.loads(dump_result(make_result()))
    for changed, message in (
        (data | {"schema_version": 99}, "schema_version 99 is newer"),
        (data | {"extra": 1}, "unknown field extra"),
        ({k: v for k, v in data.items() if k != "seed"}, "missing field seed"),
    ):
        (tmp_path / "r.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=message):
            read_result(tmp_path / "r.json")
    (tmp_path / "r.json").write_text('{"schema_')
    with pytest.raises(UserError, match="damaged"):
        read_result(tmp_path / "r.json")


def test_a_result_is_written_once_and_another_stands_beside(tmp_path: Path) -> None:
    result = make_result()
    first = write_result(tmp_path, result, PROMPTS, [])
    later = replace(result, provenance=replace(result.provenance, date="2025-03-04T09:00:00+00:00"))
    assert write_result(tmp_path, later, PROMPTS, []) == first
    assert read_result(first / "result.json") == result  # not the later one
    assert result_folder(tmp_path, replace(result, seed=1)).name == "2025-03-04-01234567-2"


def test_scores_survive_the_disk(tmp_path: Path) -> None:
    rows = [
        row(PROMPTS[0].id, 1 / 3),
        replace(row(PROMPTS[1].id, 0.0), chance=None, reason='=HYPERLINK("x")'),
    ]
    data = scores_csv(PROMPTS, rows)
    assert data.decode().splitlines()[0] == ",".join(COLUMNS)
    assert "'=HYPERLINK" in data.decode()  # a spreadsheet shows it as text
    (tmp_path / "scores.csv").write_bytes(data)
    first, second = read_scores(tmp_path)
    assert (first.score, first.seed, first.reason) == (1 / 3, 7, 'left of: "holds", or not')
    assert (second.chance, second.shuffled, second.reason) == (None, 0.0, '=HYPERLINK("x")')
    assert (first.prompt_id, first.category, first.split) == (PROMPTS[0].id, "spatial", PROMPTS[0].split)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "is missing"),
        (b"prompt_id,category\na,b\n", "line 2 is not a line of scores"),
        (b"\xff\xfe", "is damaged"),
    ],
)
def test_damaged_scores_are_refused(tmp_path: Path, data: bytes | None, message: str) -> None:
    if data is not None:
        (tmp_path / "scores.csv").write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_scores(tmp_path)


def test_a_score_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    lines = scores_csv(PROMPTS, [row(PROMPTS[0].id, 0.5)]).decode().replace(",0.5,", ",nan,")
    (tmp_path / "scores.csv").write_text(lines)
    with pytest.raises(UserError, match="line 2 .*score must be finite"):
        read_scores(tmp_path)


def test_a_result_of_the_first_schema_is_read() -> None:
    (path,) = REPOSITORY.glob("results/compbench-shapes_v1/mini/*-7b6dad1e/result.json")
    assert json.loads(path.read_text())["schema_version"] == 1
    result = read_result(path)
    color = result.metrics[0]
    assert (result.schema_version, color.category, color.scorer) == (3, "color", "shapes")
    assert color.score.mean == pytest.approx(0.8839, abs=1e-4)
    low, high = color.score.interval or (1, 0)
    assert low < 0.8839 < high
    assert list(color.views) == ["seen", "held-out", "chance", "shuffled", "objects", *EXTRAS]
    assert result.scorers["color"] == SCORER
    lines = read_scores(path.parent)
    assert len(lines) == 1800 and lines[0].seed is None
    mean = math.fsum(line.score for line in lines if line.category == "color") / 300
    assert mean == pytest.approx(color.score.mean, abs=1e-6)


@pytest.mark.parametrize(("limit", "choice"), [(None, None), (3, LimitChoice(rule="first"))])
def test_a_result_of_the_second_schema_is_read(
    tmp_path: Path, limit: int | None, choice: LimitChoice | None
) -> None:
    """It knew pictures alone, refused blank ones, and its limit took the first prompts."""
    expected = replace(make_result(), limit=limit, limit_choice=choice)
    data = json.loads(dump_result(expected))
    for name in ("limit_choice", "media", "phrase_table", "cost"):
        del data[name]
    for name in ("num_blank", "num_refused"):
        del data["counts"][name]
    (tmp_path / "result.json").write_text(json.dumps({**data, "schema_version": 2}))
    result = read_result(tmp_path / "result.json")
    assert result == expected
    assert (result.media, result.counts.num_blank, result.phrase_table) == (Media(), None, None)


def test_cost_is_of_the_run_and_not_of_what_was_measured(tmp_path: Path) -> None:
    """Measured twice, dearer the second time: the same result, which stands already."""
    cheap = replace(make_result(), cost=CostRecord(usd=0.1, latency_s={"mean": 1.5}))
    first = write_result(tmp_path, cheap, PROMPTS, [])
    dear = replace(cheap, cost=CostRecord(usd=0.2))
    assert write_result(tmp_path, dear, PROMPTS, []) == first
    assert read_result(first / "result.json") == cheap
    other = replace(dear, media=Media("video", 8, 4.0))
    assert write_result(tmp_path, other, PROMPTS, []) != first


def test_provenance_names_commit_and_packages() -> None:
    here = provenance(device="cpu")
    assert {"python", "numpy", "torch"} <= set(here.packages)
    assert here.date.endswith("+00:00")


def test_installed_package_has_no_commit(tmp_path: Path) -> None:
    assert git_state(tmp_path) == (None, None)


# ---- report ----------------------------------------------------------------------------------------------


def render_table(result: Result, beside: Result | None) -> str:
    from rich.console import Console

    text = io.StringIO()
    Console(width=160, file=text).print(result_table(result, beside))
    return text.getvalue()


def test_table_shows_the_reference_beside() -> None:
    result = make_result()
    assert "reference" not in render_table(result, None)
    text = render_table(result, result)
    assert "reference (tiny)" in text and "(untrained)" in text and "0.167" in text


def test_readme_lists_every_run(tmp_path: Path) -> None:
    folder = write_result(tmp_path, make_result(), PROMPTS, [])
    text = markdown(find_results(tmp_path), tmp_path)
    assert "## compbench-shapes_v1" in text and "tiny (untrained)" in text
    assert f"({folder.relative_to(tmp_path)}/result.json)" in text
