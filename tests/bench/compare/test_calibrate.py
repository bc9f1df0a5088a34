from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from bench.cli import app
from bench.compare.band import MetricBand, read_band
from bench.compare.calibrate import calibrate, metric_band
from bench.compare.comparable import NotComparable
from bench.compare.gate import GateConfig, Inputs, gate
from bench.results.evidence import load
from benchmarks.simulate_gate import World, band_left
from gentron.errors import UserError
from tests.bench.compare.measured import noisy, write_scores

SIZES = {"color": 50, "shape": 50}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


def refused(done: Result, message: str) -> None:
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr


def runs(tmp_path: Path, count: int = 3, **changes) -> list[Path]:
    return [
        write_scores(tmp_path / f"run{k}", noisy(k, SIZES), seed=k, digest=str(k), **changes)
        for k in range(1, count + 1)
    ]


def test_band_in_closed_form() -> None:
    """Two runs, two prompts: differences 0.5 and -0.5 a prompt, variance within a prompt 0.125."""
    band = metric_band(np.array([[0.5, 1.0], [1.0, 0.5]]), alpha=0.05, num_metrics=1)
    assert band.sd_difference == pytest.approx(0.5)
    t_of_2_degrees = 4.302653
    assert band.band == pytest.approx(t_of_2_degrees * 0.5 / math.sqrt(2), rel=1e-6)
    assert (band.mean, band.largest, band.num_prompts) == (0.75, 0.0, 2)


def test_a_system_without_noise_has_no_band() -> None:
    same = np.array([[0.5, 1.0, 0.0]] * 3)
    assert metric_band(same, alpha=0.05, num_metrics=6) == MetricBand(
        band=0.0, largest=0.0, sd_difference=0.0, mean=0.5, num_prompts=3
    )


def test_fresh_pairs_stay_within_the_band() -> None:
    """All six metrics at once in 95 % of pairs, less three standard errors of 200. Full size: the docs."""
    left = band_left(World(prompts=40), runs=3, repeats=200)
    assert left <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_more_metrics_make_a_wider_band() -> None:
    means = np.random.default_rng(0).random((3, 30))
    one, six = (metric_band(means, alpha=0.05, num_metrics=m).band for m in (1, 6))
    assert 1.2 * one < six < 1.6 * one


def test_runs_become_a_band_with_its_provenance(tmp_path: Path) -> None:
    folders = runs(tmp_path)
    done = invoke(*folders, "--out", tmp_path / "band.json")
    assert done.exit_code == 0, done.output
    band = read_band(tmp_path / "band.json")
    assert list(band.metrics) == ["color", "shape"] and band.a_a.pairs == 3
    assert [run.seed for run in band.runs] == [1, 2, 3]
    assert band.runs[0].result_sha256 == load(folders[0]).sha256
    assert band.provenance.date and band.system.name == "made" and not band.rehearsal
    assert "of 3 pairs through the gate" in done.stdout


def test_the_gate_takes_the_band_as_tolerances(tmp_path: Path) -> None:
    first, second, third = runs(tmp_path)
    invoke(first, second, third, "--out", tmp_path / "band.json")
    band = read_band(tmp_path / "band.json")
    inputs = Inputs(
        candidate=first, baseline=first, baselines=tmp_path / "none.yaml", band=tmp_path / "band.json"
    )
    report = gate(inputs, GateConfig(tolerances={"color": 0.5}))
    color, shape = report.metrics
    assert (color.tolerance, color.tolerance_from) == (0.5, "given")
    assert (shape.tolerance, shape.tolerance_from) == (band.metrics["shape"].band, "band")


def test_a_gate_file_names_a_band_beside_it(tmp_path: Path) -> None:
    folders = runs(tmp_path)
    (tmp_path / "ci").mkdir()
    invoke(*folders, "--out", tmp_path / "ci" / "band.json")
    (tmp_path / "ci" / "gate.yaml").write_text("band: band.json\n")
    where = ["--baseline", folders[0], "--candidate", folders[0], "--config", tmp_path / "ci" / "gate.yaml"]
    done = CliRunner().invoke(app, ["gate", *map(str, where)])
    assert done.exit_code == 0, done.output
    assert "tolerance from the calibration: color, shape" in done.stdout


def test_a_band_of_another_protocol_is_not_comparable(tmp_path: Path) -> None:
    invoke(*runs(tmp_path, protocol="made_v2"), "--out", tmp_path / "band.json")
    other = write_scores(tmp_path / "x", noisy(1, SIZES))
    inputs = Inputs(
        candidate=other, baseline=other, baselines=tmp_path / "none.yaml", band=tmp_path / "band.json"
    )
    report = gate(inputs, GateConfig())
    assert report.exit_code == 4 and "the band's protocol (made_v2 / made_v1)" in report.message


def test_a_band_of_fewer_prompts_is_not_comparable(tmp_path: Path) -> None:
    invoke(*runs(tmp_path), "--out", tmp_path / "band.json")
    other = write_scores(tmp_path / "x", noisy(1, {"color": 20, "shape": 50}))
    inputs = Inputs(
        candidate=other, baseline=other, baselines=tmp_path / "none.yaml", band=tmp_path / "band.json"
    )
    assert "the band's prompts of color (50 / 20)" in gate(inputs, GateConfig()).message


def test_untrained_bands_say_so(tmp_path: Path) -> None:
    done = invoke(*runs(tmp_path, untrained=True), "--out", tmp_path / "band.json")
    assert "a rehearsal, not a result" in done.stdout
    assert read_band(tmp_path / "band.json").rehearsal


def test_runs_that_are_no_noise_are_refused(tmp_path: Path) -> None:
    first, second, _ = (load(folder) for folder in runs(tmp_path))
    with pytest.raises(UserError, match="at least 2 runs of one system with different seeds, got 1"):
        calibrate([first])
    with pytest.raises(UserError, match="must have different seeds, got 1, 1"):
        calibrate([first, first])
    other = write_scores(tmp_path / "x", noisy(9, SIZES), seed=9, name="another")
    with pytest.raises(UserError, match=r"different systems \(made / another\)"):
        calibrate([first, load(other)])
    fewer = write_scores(tmp_path / "y", {"color": noisy(8, SIZES)["color"]}, seed=8)
    with pytest.raises(UserError, match="has other categories"):
        calibrate([first, load(fewer)])
    limited = write_scores(tmp_path / "z", noisy(7, {"color": 9, "shape": 9}), seed=7, limit=9)
    with pytest.raises(NotComparable, match=r"limit \(none / 9\)"):
        calibrate([second, load(limited)])


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    refused(invoke(), "give either results of one system with different seeds, or --model")
    folders = runs(tmp_path, 2)
    refused(invoke(*folders, "--model", "mini"), "give either")
    refused(invoke(folders[0]), "at least 2 runs")
    refused(invoke(*folders, "--alpha", 3), "alpha must be above 0")
    refused(invoke("--model", "mini", "--runs", 1), "'--runs'")
    refused(invoke("--model", "nope", "--protocol", "compbench-shapes_v1"), "unknown model 'nope'")
    refused(invoke(*folders, "--out", "/proc/band.json"), "/proc")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema_version": 2}', "schema_version 2 is newer than this release"),
        ("{", "band.json"),
        ("[]", "schema_version must be 1, got None"),
        ('{"schema_version": 1}', "missing field"),
    ],
)
def test_a_damaged_band_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "band.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_band(tmp_path / "band.json")


def test_a_model_is_run_with_new_seeds(tmp_path: Path, tiny_checkpoint: Path) -> None:
    arguments = [
        *("--model", tiny_checkpoint, "--protocol", "compbench-shapes_v1", "--suite", "complex"),
        *("--limit", 2, "--runs", 2, "--num-inference-steps", 1, "--device", "cpu"),
        *(
            "--results-out",
            tmp_path / "results",
            "--work",
            tmp_path / "work",
            "--out",
            tmp_path / "band.json",
        ),
    ]
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output
    band = read_band(tmp_path / "band.json")
    assert [run.seed for run in band.runs] == [1, 2] and band.limit == 2
    images = {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("*.png")}
    assert len(images) == 4
    # once more: the same runs are found, nothing is drawn anew
    assert invoke(*arguments).exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("*.png")} == images
    again = json.loads((tmp_path / "band.json").read_text())
    assert [run["path"] for run in again["runs"]] == [run.path for run in band.runs]
