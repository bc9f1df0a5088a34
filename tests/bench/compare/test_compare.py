from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from bench.commands.compare import compare as compare_command
from bench.compare.comparable import NotComparable, require_comparable
from bench.compare.comparison import Comparison, compare
from bench.compare.paired import pair
from bench.results.evidence import load
from bench.results.record import ReferenceRecord, SetMetric, Skipped
from bench.scorers import ScorerRecord
from bench.scorers.score import Missing
from bench.systems.rows import append_row
from bench.systems.samples import MediaFile, SampleRecord, manifest_row
from gentron.config import from_dict, to_dict
from gentron.console import make_app
from tests.bench.compare.measured import noisy, write_scores

SIZES = {"color": 60, "shape": 40}
RUN = make_app("compare alone")
RUN.command()(compare_command)
RUN.callback()(lambda: None)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(RUN, ["compare", *map(str, arguments)])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_scores(tmp_path / "base", noisy(1, SIZES, samples=2))


def candidate(tmp_path: Path, **changes) -> Path:
    scores = changes.pop("scores", None)
    seed = changes.pop("draw", 2)
    found = noisy(seed, SIZES, samples=2) if scores is None else scores
    return write_scores(tmp_path / "candidate", found, digest="other", **changes)


def both(base: Path, other: Path, **options) -> Comparison:
    return compare(load(base), load(other), resamples=500, **options)


# ---- what is computed ------------------------------------------------------------------------------------


def test_prompts_are_paired_and_are_the_clusters(tmp_path: Path) -> None:
    before = {"color": np.array([[0.0, 0.5], [1.0, 1.0], [0.5, 0.5]])}
    after = {"color": np.array([[0.5, 0.5], [0.0, 1.0], [0.5, 0.5]])}
    found = both(write_scores(tmp_path / "a", before), write_scores(tmp_path / "b", after, digest="b"))
    (delta,) = found.deltas
    assert delta.difference == pytest.approx((0.25 - 0.5 + 0) / 3)
    assert (delta.num_prompts, delta.num_images, delta.num_differ) == (3, 6, 2)
    assert delta.baseline == pytest.approx((0.25 + 1 + 0.5) / 3)
    assert delta.p == 1.0  # two prompts can be swapped in four ways; none is rarer than what was seen


def test_more_images_of_a_prompt_are_no_more_prompts(tmp_path: Path) -> None:
    once, again = noisy(1, {"color": 30}), noisy(2, {"color": 30})
    few = both(write_scores(tmp_path / "a", once), write_scores(tmp_path / "b", again, digest="b"))
    once, again = ({"color": np.repeat(s["color"], 8, axis=1)} for s in (once, again))
    many = both(write_scores(tmp_path / "c", once), write_scores(tmp_path / "d", again, digest="b"))
    assert many.deltas[0].interval == pytest.approx(few.deltas[0].interval)
    assert many.deltas[0].p == few.deltas[0].p
    assert many.deltas[0].num_images == 8 * few.deltas[0].num_images


def test_swapping_the_sides_turns_the_sign(base: Path, tmp_path: Path) -> None:
    other = candidate(tmp_path)
    there, back = both(base, other), both(other, base)
    for one, two in zip(there.deltas, back.deltas, strict=True):
        assert one.difference == pytest.approx(-two.difference, abs=1e-15) and one.p == two.p
        assert one.interval and two.interval
        assert one.interval[0] == pytest.approx(-two.interval[1], abs=0.01)


def test_a_clear_loss_is_worse_and_the_rest_is_not(base: Path, tmp_path: Path) -> None:
    scores = noisy(1, SIZES, samples=2)
    scores["color"] = scores["color"] * 0.5
    found = both(base, candidate(tmp_path, scores=scores))
    color, shape = found.deltas
    assert color.verdict == "worse" and shape.verdict == "no difference shown"
    assert color.p_holm is not None and color.p is not None
    assert color.p_holm == pytest.approx(2 * color.p)
    assert both(candidate(tmp_path, scores=scores), base).deltas[0].verdict == "better"


def test_only_the_family_is_tested(base: Path, tmp_path: Path) -> None:
    found = both(base, candidate(tmp_path), family=["shape"])
    color, shape = found.deltas
    assert color.verdict == "informational" and color.p_holm is None and not color.in_family
    assert shape.p_holm == shape.p and shape.in_family


def test_the_same_pictures_are_said_to_be_the_same(base: Path) -> None:
    found = both(base, base)
    assert {d.verdict for d in found.deltas} == {"identical pictures"}
    assert {d.interval for d in found.deltas} == {(0.0, 0.0)} and not found.moves


def test_equal_scores_of_other_pictures_are_not_certain(base: Path, tmp_path: Path) -> None:
    found = both(base, candidate(tmp_path, draw=1))
    for delta in found.deltas:
        assert delta.difference == 0 and delta.verdict == "no difference shown"
        assert delta.interval and delta.interval[0] < 0 < delta.interval[1]


def test_prompts_that_moved_most_come_first_with_their_pictures(tmp_path: Path) -> None:
    before = {"color": np.array([[0.5, 0.5], [1.0, 1.0], [0.0, 0.0], [1.0, 0.5]])}
    after = {"color": np.array([[0.5, 0.5], [1.0, 0.0], [1.0, 1.0], [0.5, 0.5]])}
    work = tmp_path / "work"
    (work / "images").mkdir(parents=True)
    (work / "images" / "color-0002_00.png").write_bytes(b"png")
    elsewhere = tmp_path / "made elsewhere.png"
    elsewhere.write_bytes(b"png")
    files = (MediaFile(str(elsewhere), None),)
    record = SampleRecord(prompt_id="color-0001", sample=1, seed=-1, files=files)
    append_row(work / "manifest.jsonl", manifest_row(record))
    found = both(
        write_scores(tmp_path / "a", before, images=str(work)),
        write_scores(tmp_path / "b", after, digest="b", images=str(work)),
        top=2,
    )
    first, second = found.moves
    assert (first.prompt_id, first.difference, first.sample) == ("color-0002", 1.0, 0)
    assert first.candidate_picture == f"{work.as_posix()}/images/color-0002_00.png"
    assert (second.prompt_id, second.difference, second.sample) == ("color-0001", -0.5, 1)
    assert second.baseline_picture == elsewhere.as_posix()
    assert second.baseline_reason == "scored 1.00" and second.candidate_reason == "scored 0.00"


def test_a_comparison_survives_the_disk(base: Path, tmp_path: Path) -> None:
    found = both(base, candidate(tmp_path))
    assert from_dict(Comparison, json.loads(json.dumps(to_dict(found)))) == found


def test_one_prompt_is_not_judged(tmp_path: Path) -> None:
    a = write_scores(tmp_path / "a", {"color": np.array([[1.0]])})
    b = write_scores(tmp_path / "b", {"color": np.array([[0.0]])}, digest="b")
    (delta,) = both(a, b).deltas
    assert (delta.verdict, delta.interval, delta.p) == ("not judged", None, None)
    assert "one prompt" in delta.note


# ---- what is refused -------------------------------------------------------------------------------------

OTHER_WEIGHTS = ScorerRecord(name="made", version=1, weights={"net": "f" * 64})


@pytest.mark.parametrize(
    ("changes", "field", "values"),
    [
        ({"protocol": "made_v2"}, "protocol", "(made_v1 / made_v2)"),
        ({"protocol_sha256": "b" * 64}, "protocol_sha256", "(aaaaaaaaaaaa / bbbbbbbbbbbb)"),
        ({"seed": 5}, "seed", "(0 / 5)"),
        ({"scorer": ScorerRecord(name="made", version=2)}, "scorers.color.version", "(1 / 2)"),
        ({"scorer": OTHER_WEIGHTS}, "scorers.color.weights.net", "(none / ffffffffffff)"),
        (
            {"scorer": ScorerRecord(name="made", version=1, settings={"precision": "bf16"})},
            "scorers.color.settings.precision",
            "(none / bf16)",
        ),
        ({"scores": noisy(2, SIZES, samples=3)}, "images_per_prompt", "(2 / 3)"),
        ({"scores": noisy(2, {"color": 50, "shape": 40}, samples=2)}, "prompts of color", "(60 / 50)"),
        (
            {"scores": noisy(2, {"color": 20, "shape": 20}, samples=2), "limit": 20},
            "limit",
            "(none / 20)",
        ),
        (
            {"missing": [Missing(prompt_id="color-0000", sample=0, file="x.png", reason="blank")]},
            "counts.missing",
            "(0 / 1)",
        ),
    ],
)
def test_what_was_not_measured_alike_is_refused(
    base: Path, tmp_path: Path, changes: dict, field: str, values: str
) -> None:
    other = candidate(tmp_path, **changes)
    with pytest.raises(NotComparable) as caught:
        both(base, other)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"results differ in {field} {values}: not comparable; ")
    done = run(base, other)
    assert done.exit_code == 4 and done.stderr.startswith("not comparable: results differ in")
    assert done.stderr.count("\n") == 1 and not done.stdout


def test_images_of_other_seeds_are_refused(base: Path) -> None:
    a = load(base)
    lines = a.path.parent / "scores.csv"
    text = lines.read_text().splitlines()
    cells = text[1].split(",")
    seed = cells[4]
    text[1] = text[1].replace(seed, "12345")
    lines.write_text("\n".join(text) + "\n")
    with pytest.raises(NotComparable, match=rf"seed of color-0000_00 \({seed} / 12345\)"):
        require_comparable(a, load(base), ["color"])


def test_images_made_elsewhere_pair_by_number_and_say_so(base: Path, tmp_path: Path) -> None:
    other = candidate(tmp_path)
    path = other / "scores.csv"
    lines = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text(
        "\n".join(",".join([*c[:4], "-1", *c[5:]]) for c in lines[1:]).join([",".join(lines[0]) + "\n", "\n"])
    )
    assert any("seeds of some pictures are not known" in note for note in both(base, other).notes)


def test_a_difference_outside_the_family_is_only_noted(base: Path, tmp_path: Path) -> None:
    scores = {
        "color": noisy(2, SIZES, samples=2)["color"],
        "shape": noisy(2, {"shape": 9}, samples=2)["shape"],
    }
    found = both(base, candidate(tmp_path, scores=scores), family=["color"])
    assert [d.metric for d in found.deltas] == ["color"]
    assert any("prompts of shape" in line for line in found.not_measured)


def test_what_one_side_lacks_is_named(base: Path, tmp_path: Path) -> None:
    scores = {"color": noisy(2, SIZES, samples=2)["color"]}
    skipped = [Skipped(metric="shape", reason="missing weights: gentron-bench weights fetch X")]
    found = both(base, candidate(tmp_path, scores=scores, skipped=skipped))
    assert found.not_measured == ["shape: candidate has none: missing weights: gentron-bench weights fetch X"]


def test_settings_of_the_system_may_differ_and_are_noted(base: Path, tmp_path: Path) -> None:
    found = both(base, candidate(tmp_path, settings={"num_inference_steps": 10}))
    assert "system settings.num_inference_steps differs: none / 10" in found.notes


def test_untrained_and_rehearsed_results_are_flagged_in_every_output(tmp_path: Path) -> None:
    random = ScorerRecord(name="made", version=1, random_weights=True)
    a = write_scores(tmp_path / "a", noisy(1, SIZES), scorer=random)
    b = write_scores(tmp_path / "b", noisy(2, SIZES), scorer=random, digest="b", untrained=True)
    found = both(a, b)
    assert found.notes[:3] == [
        "baseline: random scorer weights: a rehearsal, not a result",
        "candidate: untrained: random weights, a smoke test and not a result",
        "candidate: random scorer weights: a rehearsal, not a result",
    ]
    done = run(a, b, "--json", tmp_path / "c.json")
    assert "made (untrained, rehearsal)" in done.stdout and "a rehearsal, not a result" in done.stdout
    assert json.loads((tmp_path / "c.json").read_text())["candidate"]["untrained"] is True


# ---- set metrics -----------------------------------------------------------------------------------------


def a_set_metric(value: float, *, reference: str = "coco", count: int = 100, **settings: object) -> SetMetric:
    record = ReferenceRecord(id=reference, sha256="d" * 64, num_images=1000)
    return SetMetric(
        name="fid_clean",
        value=value,
        num_images=count,
        reference=record,
        settings={"dtype": "float32", **settings},
    )


def with_set(out: Path, metric: SetMetric) -> Path:
    return write_scores(out, noisy(1, SIZES), set_metrics=[metric])


def test_a_set_metric_without_features_is_a_difference_and_no_verdict(tmp_path: Path) -> None:
    a, b = with_set(tmp_path / "a", a_set_metric(20.0)), with_set(tmp_path / "b", a_set_metric(22.0))
    delta = both(a, b).deltas[-1]
    assert (delta.metric, delta.difference, delta.verdict) == ("fid_clean", 2.0, "not judged")
    assert "features were not kept" in delta.note and delta.interval is None


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (a_set_metric(20.0, reference="flickr"), "fid_clean.reference.id"),
        (a_set_metric(20.0, count=99), "fid_clean.num_images"),
        (a_set_metric(20.0, dtype="float16"), "fid_clean.settings.dtype"),
        (a_set_metric(20.0, resize="pil"), "fid_clean.settings.resize"),
    ],
)
def test_set_metrics_measured_otherwise_are_refused(tmp_path: Path, other: SetMetric, field: str) -> None:
    a, b = with_set(tmp_path / "a", a_set_metric(20.0)), with_set(tmp_path / "b", other)
    with pytest.raises(NotComparable, match=field):
        both(a, b)


# ---- bad input -------------------------------------------------------------------------------------------


def refused(done: Result, message: str) -> None:
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr


def edit(path: Path, change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_hand_edited_mean_is_refused(base: Path, tmp_path: Path) -> None:
    other = candidate(tmp_path)
    edit(other / "result.json", lambda data: data["metrics"][0]["score"].update(mean=0.99))
    refused(run(base, other), "disagree in mean of color (0.99 / ")
    edit(base / "result.json", lambda data: data["counts"].update(scored=3))
    refused(run(base, other), "disagree in counts.scored (3 / 200)")


def test_a_hand_edited_row_is_refused(base: Path) -> None:
    path = base / "scores.csv"
    lines = path.read_text().splitlines()
    cells = lines[5].split(",")
    cells[5] = str(1 - float(cells[5]) / 2)
    path.write_text("\n".join([*lines[:5], ",".join(cells), *lines[6:]]) + "\n")
    refused(run(base, base), "scores.csv disagree in")


def test_rows_given_twice_are_refused(base: Path) -> None:
    path = base / "scores.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1], lines[3]]) + "\n")
    refused(run(base, base), "holds color-0000, sample 0, more than once and 1 more")


def test_a_score_that_is_no_number_is_refused(base: Path) -> None:
    path = base / "scores.csv"
    lines = path.read_text().splitlines()
    cells = lines[4].split(",")
    for word in ("nan", "inf", "", "good"):
        cells[5] = word
        path.write_text("\n".join([*lines[:4], ",".join(cells), *lines[5:]]) + "\n")
        refused(run(base, base), "scores.csv, line 5")


def test_other_bad_input_is_one_line(base: Path, tmp_path: Path) -> None:
    refused(run(base, tmp_path / "nowhere"), "no result at")
    (tmp_path / "empty").mkdir()
    refused(run(base, tmp_path / "empty"), "no result.json in")
    refused(run(base, base, "--family", "colour"), "unknown metric 'colour'; known: color, shape")
    refused(run(base, base, "--family", "color,color"), "names a metric twice")
    refused(run(base, base, "--family", "color,,shape"), "names separated by commas")
    refused(run(base, base, "--alpha", 2), "alpha must be above 0")
    refused(run(base, base, "--top", -1), "--top")


def test_a_newer_schema_and_lost_rows_are_refused(base: Path, tmp_path: Path) -> None:
    other = candidate(tmp_path)
    edit(other / "result.json", lambda data: data.update(schema_version=99))
    refused(run(base, other), "schema_version 99 is newer")
    lost = tmp_path / "lost"
    shutil.copytree(base, lost)
    (lost / "scores.csv").unlink()
    refused(run(base, lost), "scores.csv is missing")


def test_several_results_below_a_folder_must_be_told_apart(base: Path, tmp_path: Path) -> None:
    candidate(tmp_path)
    refused(run(base, tmp_path), "holds 2 results: name one of base/made_v1/made/")
    assert run(tmp_path / "base", tmp_path / "candidate").exit_code == 0


def test_results_of_schema_version_1_are_read() -> None:
    """The committed run has neither seeds nor hashes of its pictures, and six digits of each score."""
    folder = Path(__file__).resolve().parents[3] / "results" / "compbench-shapes_v1" / "mini"
    old = load(next(iter(sorted(folder.glob("2026-11-22-7b6dad1e")))))
    assert len(old.lines) == 6 and old.lines["color"][0].seed is None
    found = compare(old, old, resamples=200)
    assert all(d.difference == 0 and d.verdict == "no difference shown" for d in found.deltas)


def test_rounding_of_version_1_is_no_difference(tmp_path: Path) -> None:
    """Six digits against all of them: thirds would differ by 3e-7 in one direction, and so significantly."""
    base = write_scores(tmp_path / "a", {"color": np.full((40, 1), 1 / 3)})
    other = write_scores(tmp_path / "b", {"color": np.full((40, 1), 1 / 3)}, digest="b")
    rows = [line.split(",") for line in (base / "scores.csv").read_text().splitlines()]
    for cells in rows[1:]:
        cells[4], cells[5], cells[8] = "", "0.333333", ""
    (base / "scores.csv").write_text("".join(",".join(cells) + "\n" for cells in rows))
    (delta,) = both(base, other).deltas
    assert (delta.difference, delta.num_differ, delta.verdict) == (0.0, 0, "no difference shown")


# ---- what is shown ---------------------------------------------------------------------------------------


def test_the_command_shows_table_and_moves(base: Path, tmp_path: Path) -> None:
    done = run(base, candidate(tmp_path), "--top", 2)
    assert done.exit_code == 0, done.output
    for words in ("made_v1: candidate - baseline", "Holm p", "MDE", "color-", "picture not on this machine"):
        assert words in done.stdout
    assert done.stdout.count("baseline : scored") == 2


def test_a_prompt_cannot_speak_to_the_ci(tmp_path: Path) -> None:
    evil = "::error::owned\x1b[31m ##[add-mask]x [bold]y"
    scores = [noisy(seed, {"color": 5}) for seed in (1, 2)]
    a = write_scores(tmp_path / "a", scores[0], text=lambda p: evil)
    b = write_scores(tmp_path / "b", scores[1], digest="b", text=lambda p: evil)
    done = run(a, b)
    assert done.exit_code == 0, done.output
    assert "::" not in done.stdout and "##[" not in done.stdout and "\x1b" not in done.stdout
    assert "[bold]y" in done.stdout


def test_pairs_are_sorted_whatever_the_order_of_rows(base: Path) -> None:
    lines = load(base).lines["color"]
    assert pair(lines, lines) == pair(lines[::-1], lines)
    assert list(pair(lines[::-1], lines)) == sorted({line.prompt_id for line in lines})
