from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner, Result

from bench.cli import app
from bench.compare.effects import Effect
from bench.compare.gate import (
    DEFAULT_TOLERANCE,
    GateConfig,
    Inputs,
    Tolerance,
    judge,
    overall,
    parse_tolerances,
    read_gate_file,
)
from bench.compare.gate import gate as judge_results
from bench.compare.gate_outputs import github_lines, junit, markdown
from bench.compare.paired import paired_effect
from bench.results.baselines import Force, accept, find_baseline, read_baselines
from bench.results.evidence import load
from bench.results.record import ReferenceRecord, SetMetric, Skipped
from bench.scorers import ScorerRecord
from bench.scorers.score import Missing
from benchmarks.simulate_gate import FAMILY, World, a_a, injected
from gentron.errors import UserError
from tests.bench.compare.measured import noisy, write_scores

SIZES = {"color": 60, "shape": 60}


def gate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["gate", *map(str, arguments)])


def refused(done: Result, message: str) -> None:
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr


@pytest.fixture(autouse=True)
def no_github(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_scores(tmp_path / "base", noisy(1, SIZES))


def changed(tmp_path: Path, **shift: float) -> Path:
    """The baseline's scores with other pictures, and some of its right ones of a category turned wrong."""
    scores = noisy(1, SIZES)
    for name, share in shift.items():
        scores[name][: round(share * len(scores[name]))] = 0
    return write_scores(tmp_path / "candidate", scores, digest="other")


# ---- the rule --------------------------------------------------------------------------------------------


def an_effect(name: str, differences: np.ndarray) -> Effect:
    count = len(differences)
    return paired_effect(
        name, np.full(count, 0.5), 0.5 + differences, differences, num_images=count, resamples=1000
    )


def verdict_of(differences: np.ndarray, tolerance: float) -> str:
    effects = {"m": an_effect("m", differences)}
    (row,) = judge(effects, ["m"], {"m": Tolerance(tolerance, "given")})
    return row.verdict


def around(mean: float, half: float, count: int = 400) -> np.ndarray:
    """Differences whose 95 % interval is about mean -+ half."""
    values = np.random.default_rng(0).normal(size=count)
    values = (values - values.mean()) / values.std(ddof=1)
    return mean + values * half * np.sqrt(count) / 1.98


@pytest.mark.parametrize(
    ("mean", "half", "tolerance", "expected"),
    [
        (0.00, 0.01, 0.02, "pass"),
        (-0.015, 0.003, 0.02, "pass"),  # a true drop, but one that nobody minds
        (0.10, 0.05, 0.02, "pass"),
        (0.00, 0.03, 0.02, "inconclusive"),  # a drop beyond the tolerance cannot be excluded
        (-0.05, 0.10, 0.02, "inconclusive"),  # may be chance
        (-0.015, 0.01, 0.02, "inconclusive"),  # a true drop, perhaps beyond it
        (-0.05, 0.02, 0.02, "regression"),
        (-0.021, 0.005, 0.02, "regression"),
        (-0.019, 0.005, 0.02, "inconclusive"),
        (-0.05, 0.02, 0.06, "inconclusive"),
        (-0.05, 0.02, 0.00, "regression"),
    ],
)
def test_a_verdict_is_statistical_and_practical(
    mean: float, half: float, tolerance: float, expected: str
) -> None:
    assert verdict_of(around(mean, half), tolerance) == expected


def test_an_open_question_says_how_many_prompts_would_settle_it() -> None:
    effects = {"m": an_effect("m", around(0.0, 0.03))}
    (row,) = judge(effects, ["m"], {"m": Tolerance(0.02, "given")})
    needed = round(400 * (0.03 / 0.02) ** 2 * ((1.96 + 0.8416) / 1.98) ** 2)
    assert f"{needed} prompts would pass in 80 % of runs, here are 400" in row.reason


def test_holm_widens_what_a_family_calls_a_regression() -> None:
    """A drop that one metric alone would show is not enough as one of six."""
    slight = around(-0.05, 0.045)
    quiet = {name: an_effect(name, around(0.0, 0.045)) for name in FAMILY[1:]}
    allowed: dict[str, Tolerance] = {name: Tolerance(0.01, "given") for name in FAMILY}
    effects = {FAMILY[0]: an_effect(FAMILY[0], slight), **quiet}
    alone = judge(effects, FAMILY[:1], allowed)[0]
    one_of_six = judge(effects, FAMILY, allowed)[0]
    assert (alone.verdict, one_of_six.verdict) == ("regression", "inconclusive")
    assert one_of_six.interval == alone.interval == alone.decision_interval
    assert one_of_six.decision_interval and alone.interval
    assert one_of_six.decision_interval[0] < alone.interval[0]
    assert one_of_six.decision_level == pytest.approx(1 - 0.05 / 6)
    assert (one_of_six.detectable_drop or 0) > (alone.detectable_drop or 1)


def test_a_member_that_was_lost_keeps_its_place() -> None:
    effects = {"a": an_effect("a", around(-0.05, 0.045))}
    allowed = {name: Tolerance(0.01, "given") for name in "abc"}
    (row,) = judge(effects, list("abc"), allowed)
    assert row.p is not None and row.p_holm == pytest.approx(3 * row.p)


def test_metrics_beside_the_family_decide_nothing() -> None:
    effects = {"a": an_effect("a", around(0, 0.01)), "b": an_effect("b", around(-0.5, 0.01))}
    rows = judge(effects, ["a"], {"a": Tolerance(0.02, "given")})
    assert [row.verdict for row in rows] == ["pass", "informational"]
    assert overall(rows) == "pass"


def test_a_distance_regresses_when_it_grows() -> None:
    """Set metrics are better small: the same numbers, read the other way."""
    both = [an_effect(name, around(0.5, 0.1)) for name in ("fid_clean", "clip_score")]
    tolerance = {e.metric: Tolerance(0.1, "given") for e in both}
    distance = replace(both[0], higher_is_better=False)
    rows = judge({"fid_clean": distance, "clip_score": both[1]}, ["fid_clean", "clip_score"], tolerance)
    assert [row.verdict for row in rows] == ["regression", "pass"]


# ---- proofs, at small size; full size: docs/simulations.md -----------------------------------------------


def test_an_unchanged_system_is_rarely_red() -> None:
    """A/A, six correlated metrics, four images a prompt: at most 5 % red, none excused by a tolerance."""
    reds = a_a(World(prompts=40, samples=4), tolerance=0.0, repeats=120, resamples=600)
    assert reds.gate <= 120 * 0.05 + 2 * (120 * 0.05 * 0.95) ** 0.5
    assert reds.without_holm > reds.gate


def test_the_stated_drop_is_caught_and_named() -> None:
    """80 % or more, less two standard errors of 100 runs."""
    found = injected(World(prompts=100), tolerance=0.02, repeats=100, resamples=600, pilots=8)
    assert found.named >= 80 - 2 * (100 * 0.8 * 0.2) ** 0.5
    assert found.others <= 5


def test_half_the_stated_drop_is_not_claimed_to_be_found() -> None:
    found = injected(World(prompts=100), tolerance=0.02, repeats=60, resamples=400, factor=0.5, pilots=8)
    assert found.named < 40


# ---- the five exit codes ---------------------------------------------------------------------------------


def test_pass(base: Path) -> None:
    done = gate("--baseline", base, "--candidate", base)
    assert done.exit_code == 0, done.output
    assert "pass: 2 of 2 metrics within tolerance" in done.stdout
    assert "baseline and candidate are the same result" in done.stdout


def test_identical_pictures_pass_at_any_tolerance(base: Path) -> None:
    assert gate("--baseline", base, "--candidate", base, "--tolerance", 0).exit_code == 0


def test_regression_names_the_metric(base: Path, tmp_path: Path) -> None:
    done = gate("--baseline", base, "--candidate", changed(tmp_path, color=0.5))
    assert done.exit_code == 1, done.output
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("regression: color -0.") and "shape" not in last


def test_inconclusive(base: Path, tmp_path: Path) -> None:
    other = write_scores(tmp_path / "b", noisy(2, SIZES), digest="b")
    done = gate("--baseline", base, "--candidate", other)
    assert done.exit_code == 3, done.output
    assert "inconclusive: color, shape" in done.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "made_v2"}, "results differ in protocol (made_v1 / made_v2)"),
        ({"seed": 3}, "results differ in seed (0 / 3)"),
        ({"scorer": ScorerRecord(name="made", version=9)}, "scorers.color.version (1 / 9)"),
        ({"suite": "colors"}, "results differ in suite (all / colors)"),
        (
            {"missing": [Missing(prompt_id="color-0000", sample=0, file="x.png", reason="blank")]},
            "counts.missing (0 / 1)",
        ),
    ],
)
def test_not_comparable(base: Path, tmp_path: Path, changes: dict, message: str) -> None:
    other = write_scores(tmp_path / "other", noisy(2, SIZES), digest="b", **changes)
    done = gate("--baseline", base, "--candidate", other)
    assert done.exit_code == 4, done.output
    assert f"not comparable: {message}" in done.stdout or message in done.stdout


def test_no_baseline(base: Path, tmp_path: Path) -> None:
    for arguments in (["--baseline", tmp_path / "nowhere"], []):
        done = gate(*arguments, "--candidate", base)
        assert done.exit_code == 4, done.output
        assert "not comparable: no baseline: " in done.stdout
    empty = write_scores(tmp_path / "empty", {})
    done = gate("--baseline", empty, "--candidate", base)
    assert done.exit_code == 4 and "no measured metric" in done.stdout


def test_nothing_measured(base: Path, tmp_path: Path) -> None:
    skipped = [Skipped(metric="color", reason="missing weights: gentron-bench weights fetch X")]
    nothing = write_scores(tmp_path / "empty", {})
    all_skipped = write_scores(tmp_path / "skipped", {}, skipped=skipped)
    no_images = write_scores(tmp_path / "images", {"color": np.zeros((0, 1))})
    (tmp_path / "folder").mkdir()
    for path in (nothing, all_skipped, no_images, tmp_path / "folder", tmp_path / "nowhere"):
        done = gate("--baseline", base, "--candidate", path)
        assert done.exit_code == 5, done.output
        assert "nothing measured: " in done.stdout
    assert "weights fetch X" in gate("--baseline", base, "--candidate", all_skipped).stdout


def test_losing_a_metric_is_never_green(base: Path, tmp_path: Path) -> None:
    skipped = [Skipped(metric="shape", reason="missing weights")]
    other = write_scores(tmp_path / "b", {"color": noisy(1, SIZES)["color"]}, skipped=skipped)
    done = gate("--baseline", base, "--candidate", other)
    assert done.exit_code == 3 and "inconclusive: shape (not measured)" in done.stdout
    assert gate("--baseline", base, "--candidate", other, "--family", "color").exit_code == 0
    lost = gate("--baseline", base, "--candidate", other, "--family", "shape")
    assert lost.exit_code == 5 and "nothing measured: shape" in lost.stdout


def test_blank_pictures_of_a_broken_model_are_not_green(base: Path, tmp_path: Path) -> None:
    """A model that draws nothing leaves no result, or with --allow-missing one that cannot be compared."""
    lost = [Missing(prompt_id=f"color-{k:04d}", sample=0, file="x", reason="blank") for k in range(60)]
    other = write_scores(tmp_path / "b", {"shape": noisy(1, SIZES)["shape"]}, missing=lost)
    assert gate("--baseline", base, "--candidate", other).exit_code == 4


# ---- tolerances, the gate file, the band -----------------------------------------------------------------


def test_tolerances_decide(base: Path, tmp_path: Path) -> None:
    other = changed(tmp_path, color=0.3)
    for arguments, code in (
        (["--tolerance", "color=0.9"], 3),  # shape: other pictures, equal scores, tolerance 0.02
        (["--tolerance", "0.9"], 0),
        (["--tolerance", "0.9", "--tolerance", "color=0.05"], 1),
    ):
        done = gate("--baseline", base, "--candidate", other, *arguments)
        assert done.exit_code == code, (arguments, done.output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tolerance", "colour=0.1"], "tolerance for 'colour', which is not in the family: color, shape"),
        (["--tolerance", "color=-0.1"], "tolerance of color must be a finite number >= 0, got -0.1"),
        (["--tolerance", "color=nan"], "tolerance of color must be a finite number >= 0"),
        (["--tolerance", "color=x"], "tolerance must be METRIC=NUMBER or NUMBER, got 'color=x'"),
        (["--tolerance", "color=1", "--tolerance", "color=2"], "tolerance of color is given twice"),
        (["--family", "colour"], "unknown metric 'colour'; known: color, shape"),
        (["--family", "color,color"], "family names a metric twice"),
        (["--alpha", "0"], "alpha must be above 0"),
        (["--config", "nowhere.yaml"], "no gate file 'nowhere.yaml'"),
        (["--band", "nowhere.json"], "no calibration band 'nowhere.json'"),
        (["--jnit", "x"], "no such option: --jnit"),
    ],
)
def test_usage_errors(base: Path, arguments: list[str], message: str) -> None:
    refused(gate("--baseline", base, "--candidate", base, *arguments), message)


def test_gate_file_is_read_and_overruled(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text("family: [color]\ntolerances: {color: 0.9}\n")
    other = changed(tmp_path, color=0.5, shape=0.5)
    assert gate("--baseline", base, "--candidate", other, "--config", file).exit_code == 0
    overruled = gate("--baseline", base, "--candidate", other, "--config", file, "--tolerance", "color=0.1")
    assert overruled.exit_code == 1
    assert read_gate_file(file) == GateConfig(family=["color"], tolerances={"color": 0.9})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("familly: [color]", "unknown field familly"),
        ("tolerances: {color: -1}", "tolerance of color must be a finite number >= 0, got -1.0"),
        ("tolerances: {color: .nan}", "must be a finite number"),
        ("family: color", "family must be a list"),
        ("family: [color, color]", "names a metric twice"),
        ("alpha: 7", "alpha must be above 0"),
        ("[1, 2]", "must be a mapping"),
        ("{", "gate.yaml"),
        ("tolerances: {color: 0.1}\ntolerances: {color: 0.2}", "twice"),
    ],
)
def test_a_wrong_gate_file_is_one_line(base: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "gate.yaml").write_text(text)
    refused(gate("--baseline", base, "--candidate", base, "--config", tmp_path / "gate.yaml"), message)


def test_bare_numbers_and_names() -> None:
    assert parse_tolerances(["0.1", "color=0.02"]) == {"": 0.1, "color": 0.02}
    assert DEFAULT_TOLERANCE == 0.02


def a_distance(value: float) -> SetMetric:
    reference = ReferenceRecord(id="r", sha256="d" * 64, num_images=10)
    return SetMetric(name="fid_clean", value=value, num_images=10, reference=reference, settings={})


def test_a_set_metric_needs_a_tolerance_and_features(tmp_path: Path) -> None:
    a, b = (
        write_scores(tmp_path / name, noisy(1, SIZES), set_metrics=[a_distance(value)])
        for name, value in (("a", 20.0), ("b", 30.0))
    )
    assert gate("--baseline", a, "--candidate", b).exit_code == 0  # informational beside the categories
    refused(gate("--baseline", a, "--candidate", b, "--family", "fid_clean"), "has a unit of its own")
    done = gate("--baseline", a, "--candidate", b, "--family", "fid_clean", "--tolerance", "fid_clean=1")
    assert done.exit_code == 3 and "features were not kept" in done.stdout


# ---- bad input -------------------------------------------------------------------------------------------


def test_damaged_results_are_one_line(base: Path, tmp_path: Path) -> None:
    other = changed(tmp_path)
    path = other / "result.json"
    whole = path.read_text()
    for text, message in (
        (whole.replace('"schema_version": 3', '"schema_version": 4'), "schema_version 4 is newer"),
        (whole[: len(whole) // 2], "is damaged"),
        (
            whole.replace('"num_images": 60', '"num_images": 61', 1),
            "disagree in num_images of color (61 / 60)",
        ),
    ):
        path.write_text(text)
        refused(gate("--baseline", base, "--candidate", other), message)
    path.write_text(whole)
    (other / "scores.csv").unlink()
    refused(gate("--baseline", base, "--candidate", other), "scores.csv is missing")


# ---- baselines -------------------------------------------------------------------------------------------


def accepted(base: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["accept", str(base), *map(str, arguments)])


def test_accept_lists_a_baseline_that_the_gate_finds(base: Path, tmp_path: Path) -> None:
    done = accepted(base, "--reason", "first run")
    assert done.exit_code == 0, done.output
    entry = read_baselines(Path("results/baselines.yaml"))["made_v1"]["made"]
    assert entry.path == "made_v1/made/2026-01-02-01234567"
    assert (entry.reason, entry.previous, entry.forced) == ("first run", None, [])
    assert sorted(p.name for p in (Path("results") / entry.path).iterdir()) == ["result.json", "scores.csv"]
    assert gate("--candidate", base).exit_code == 0
    assert gate("--candidate", changed(tmp_path, color=0.6)).exit_code == 1
    # under a name of its own, for a candidate whose folder has another name each time
    assert accepted(base, "--reason", "nightly", "--system", "nightly").exit_code == 0
    assert gate("--candidate", base, "--system", "nightly").exit_code == 0
    missing = gate("--candidate", base, "--system", "weekly")
    assert missing.exit_code == 4 and "known: made, nightly" in missing.stdout


def test_accept_remembers_what_was_before(base: Path, tmp_path: Path) -> None:
    accepted(base, "--reason", "first")
    other = write_scores(tmp_path / "new", noisy(5, SIZES), digest="new")
    assert accepted(other, "--reason", "  better\n data ").exit_code == 0
    entry = read_baselines(Path("results/baselines.yaml"))["made_v1"]["made"]
    assert entry.reason == "better data"
    assert entry.previous and entry.previous.path == "made_v1/made/2026-01-02-01234567"
    assert entry.previous.commit == "0123456789abcdef"
    assert entry.path == "made_v1/made/2026-01-02-01234567-2"  # of the same day: stands beside
    assert (Path("results") / entry.previous.path / "result.json").is_file()
    assert accepted(other, "--reason", "again").exit_code == 0
    again = read_baselines(Path("results/baselines.yaml"))["made_v1"]["made"]
    assert again.path == entry.path


def test_a_result_among_the_results_is_not_copied(tmp_path: Path) -> None:
    folder = write_scores(Path("results"), noisy(1, SIZES))
    assert accepted(folder, "--reason", "committed run").exit_code == 0
    entry = read_baselines(Path("results/baselines.yaml"))["made_v1"]["made"]
    assert (Path("results") / entry.path).resolve() == folder.resolve()
    assert len(list(Path("results").rglob("result.json"))) == 1


@pytest.mark.parametrize(
    ("changes", "flag", "message"),
    [
        ({"untrained": True}, "--force-untrained", "untrained: random weights"),
        (
            {"scorer": ScorerRecord(name="made", version=1, random_weights=True)},
            "--force-untrained",
            "a rehearsal, not a result",
        ),
        ({"dirty": True}, "--force-dirty", "measured with uncommitted changes"),
        (
            {"missing": [Missing(prompt_id="color-0000", sample=0, file="x", reason="blank")]},
            "--force-partial",
            "1 of 121 images are missing",
        ),
        ({"skipped": [Skipped(metric="texture", reason="no weights")]}, "--force-partial", "texture skipped"),
    ],
)
def test_accept_refuses_what_is_no_result(tmp_path: Path, changes: dict, flag: str, message: str) -> None:
    folder = write_scores(tmp_path / "x", noisy(1, SIZES), **changes)
    done = accepted(folder, "--reason", "because")
    refused(done, message)
    assert flag in done.stderr and not Path("results").exists()
    forced = accepted(folder, "--reason", "because", flag)
    assert forced.exit_code == 0, forced.output
    assert read_baselines(Path("results/baselines.yaml"))["made_v1"]["made"].forced == [flag[8:]]


def test_accept_needs_a_reason_and_a_measurement(base: Path, tmp_path: Path) -> None:
    refused(accepted(base, "--reason", "  \n"), "a reason is needed")
    refused(accepted(base), "'--reason'")
    refused(accepted(write_scores(tmp_path / "empty", {}), "--reason", "x"), "measured nothing")
    refused(accepted(tmp_path / "nowhere", "--reason", "x"), "no result at")
    assert not Path("results").exists()


def test_a_kill_in_accept_leaves_the_old_baseline(base: Path, tmp_path: Path, monkeypatch) -> None:
    listed = Path("results/baselines.yaml")
    accept(load(base), listed, reason="first")
    before = listed.read_bytes()
    other = write_scores(tmp_path / "new", noisy(5, SIZES), digest="new")

    def killed(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("bench.results.baselines.write_atomic", killed)
    with pytest.raises(OSError, match="disk full"):
        accept(load(other), listed, reason="second")
    assert listed.read_bytes() == before
    assert find_baseline(listed, "made_v1", "made") == Path("results/made_v1/made/2026-01-02-01234567")


def test_an_edited_baseline_is_no_baseline(base: Path) -> None:
    accepted(base, "--reason", "first")
    folder = next(Path("results").rglob("result.json")).parent
    for name in ("scores.csv", "result.json"):
        path = folder / name
        whole = path.read_bytes()
        path.write_bytes(
            whole.replace(b"0123456789abcdef", b"f123456789abcdef").replace(b"a color", b"a colour")
        )
        for arguments in ([], ["--baseline", folder]):  # found in the list, and named
            done = gate("--candidate", base, *arguments)
            assert done.exit_code == 4, done.output
            assert f"{name} is not the file that was accepted" in done.stdout
        path.write_bytes(whole)
    assert gate("--candidate", base).exit_code == 0
    shutil.rmtree(folder)
    gone = gate("--candidate", base)
    assert gone.exit_code == 4 and "is missing: restore it" in gone.stdout


@pytest.mark.parametrize("text", ["[1]", "made_v1: 3", "made_v1: {made: {path: x}}", "{", "a: {b: {c: d}}"])
def test_a_wrong_list_of_baselines_is_one_line(base: Path, text: str) -> None:
    Path("list.yaml").write_text(text)
    refused(gate("--candidate", base, "--baselines", "list.yaml"), "list.yaml")


def test_the_list_is_plain_yaml(base: Path) -> None:
    accept(
        load(base), Path("results/baselines.yaml"), reason="because: 'x' \u2713 # no comment", force=Force()
    )
    data = yaml.safe_load(Path("results/baselines.yaml").read_text("utf-8"))
    assert data["made_v1"]["made"]["reason"] == "because: 'x' \u2713 # no comment"
    with pytest.raises(UserError, match="no baseline of 'other'"):
        find_baseline(Path("results/baselines.yaml"), "made_v1", "other")


# ---- outputs ---------------------------------------------------------------------------------------------


def test_every_output_says_the_same(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    other = changed(tmp_path, color=0.5)
    done = gate("--baseline", base, "--candidate", other, "--junit", "out/j.xml", "--json", "out/v.json")
    assert done.exit_code == 1, done.output

    verdict = json.loads(Path("out/v.json").read_text())
    assert (verdict["verdict"], verdict["exit_code"]) == ("regression", 1)
    assert {m["metric"]: m["verdict"] for m in verdict["metrics"]}["color"] == "regression"
    assert verdict["baseline"]["result_sha256"] != verdict["candidate"]["result_sha256"]

    suite = ElementTree.parse("out/j.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "2", "0")
    color = next(case for case in suite.iter("testcase") if case.get("name") == "color")
    failure = color.find("failure")
    assert failure is not None and failure.get("type") == "regression"

    text = summary.read_text()
    assert text.startswith("before\n## ") and "gate: regression" in text and "| color | regression |" in text
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("::error")]
    assert line.startswith("::error title=color%3A regression::a drop of 0.")


def test_nothing_is_annotated_away_from_github(base: Path, tmp_path: Path) -> None:
    other = changed(tmp_path, color=0.5)
    assert "::error" not in gate("--baseline", base, "--candidate", other).stdout
    assert "::error" in gate("--baseline", base, "--candidate", other, "--annotations").stdout


def test_a_gate_that_could_not_judge_is_an_error_in_junit(base: Path, tmp_path: Path) -> None:
    gate("--baseline", base, "--candidate", tmp_path / "none", "--junit", "j.xml", "--summary", "s.md")
    suite = ElementTree.parse("j.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("errors")) == ("1", "1")
    error = suite.find("testcase/error")
    assert error is not None and error.get("type") == "nothing measured"
    assert "nothing measured" in Path("s.md").read_text()


def test_outputs_escape_what_they_are_given(tmp_path: Path) -> None:
    nasty = "<b>&\"'|`x`\x00\x1b[31m]]>\r\n::error::100%"
    weights = [Skipped(metric="color", reason=nasty)]
    result = write_scores(tmp_path / "a", {}, skipped=weights)
    inputs = Inputs(candidate=result, baseline=None, baselines=tmp_path / "none.yaml")
    report = judge_results(inputs, GateConfig())
    error = ElementTree.fromstring(junit(report)).find("testsuite/testcase/error")
    assert error is not None and "<b>&\"'|`x`" in (error.get("message") or "") and error.get("type")
    text = markdown(report)
    assert "<b>" not in text and "&lt;b&gt;&amp;" in text and "\\`x\\`" in text
    (line,) = github_lines(report)
    assert "\n" not in line and "\r" not in line and "100%25" in line and "%0D%0A" in line


def test_flags_are_in_every_output(tmp_path: Path) -> None:
    random = ScorerRecord(name="made", version=1, random_weights=True)
    a = write_scores(tmp_path / "a", noisy(1, SIZES), scorer=random)
    done = gate(
        "--baseline",
        a,
        "--candidate",
        a,
        "--junit",
        "j.xml",
        "--json",
        "v.json",
        "--summary",
        "s.md",
        "--annotations",
    )
    said = "random scorer weights: a rehearsal, not a result"
    for text in (done.stdout, *(Path(name).read_text() for name in ("j.xml", "v.json", "s.md"))):
        assert said in text
    assert f"::warning title=gentron-bench gate::candidate: {said}" in done.stdout


def test_the_same_question_has_the_same_answer(base: Path, tmp_path: Path) -> None:
    other = changed(tmp_path, color=0.3)
    for name in ("1.json", "2.json"):
        gate("--baseline", base, "--candidate", other, "--json", name)
    assert Path("1.json").read_bytes() == Path("2.json").read_bytes()


def test_the_committed_baselines_are_what_was_accepted() -> None:
    listed = Path(__file__).resolve().parents[3] / "results" / "baselines.yaml"
    found = [(p, name) for p, systems in read_baselines(listed).items() for name in systems]
    assert ("compbench-shapes_v1", "mini") in found
    for protocol, name in found:
        assert load(find_baseline(listed, protocol, name)).result.protocol == protocol
