from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from bench.cli import app
from bench.prompts.protocol import load_protocol
from bench.report.summary import find_results
from bench.results.aggregate import CategoryMetrics
from bench.systems.images import encode_png
from bench.systems.rows import read_rows
from tests.bad_input import refused
from tests.bench.worlds import write_perfect_folder

PROTOCOL = load_protocol("compbench-shapes_v1")


def run(tmp_path: Path, *args: str) -> Result:
    where = ["--out", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    return CliRunner().invoke(app, ["compbench", "--protocol", PROTOCOL.name, *args, *where])


def the_result(tmp_path: Path):
    ((_, result),) = find_results(tmp_path / "results")
    return result


def level(metrics: CategoryMetrics, view: str) -> float:
    mean = metrics.views[view].mean
    assert mean is not None
    return mean


@pytest.fixture
def perfect(tmp_path: Path) -> Path:
    return write_perfect_folder(tmp_path / "images", PROTOCOL.select("all", limit=3))


def test_perfect_pictures_score_one_in_every_category(tmp_path: Path, perfect: Path) -> None:
    done = run(tmp_path, "--model", f"folder:{perfect}", "--limit", "3")
    assert done.exit_code == 0, done.output
    result = the_result(tmp_path)
    assert [m.category for m in result.metrics] == list(PROTOCOL.config.categories)
    assert all(m.score.mean == 1 for m in result.metrics)
    assert all(level(m, "chance") < 0.6 and level(m, "shuffled") < 0.3 for m in result.metrics)
    assert "18 of 18 images scored" in done.stdout
    assert "not the full protocol" in done.stdout


def test_suite_chooses_categories(tmp_path: Path, perfect: Path) -> None:
    assert (
        run(tmp_path, "--model", f"folder:{perfect}", "--limit", "2", "--suite", "relations").exit_code == 0
    )
    assert [m.category for m in the_result(tmp_path).metrics] == ["spatial", "non-spatial"]


def test_a_black_picture_lowers_the_mean(tmp_path: Path) -> None:
    """Left out of it, a model that draws nothing would score better: 1.0 over 5 instead of .833 over 6."""
    case = Path(__file__).parents[2] / "data" / "cases" / "compbench_black_picture"
    done = run(tmp_path, "--model", f"folder:{case}", "--suite", "color", "--allow-missing")
    assert done.exit_code == 0, done.output
    result = the_result(tmp_path)
    assert (result.counts.scored, result.counts.num_blank) == (6, 1)
    assert result.metrics[0].score.mean == pytest.approx(5 / 6)


def test_bad_images_are_listed_and_fail_the_run(tmp_path: Path, perfect: Path) -> None:
    colors = [prompt.id for prompt in PROTOCOL.select("color", limit=3)]
    blank = PROTOCOL.select("shape", limit=3)[0].id
    (perfect / f"{colors[0]}_00.png").unlink()
    (perfect / f"{colors[1]}_00.png").write_bytes(b"\x89PNG half")
    (perfect / f"{blank}_00.png").write_bytes(encode_png(np.full((64, 64, 3), 7, np.uint8)))
    arguments = ["--model", f"folder:{perfect}", "--limit", "3"]
    done = run(tmp_path, *arguments)
    refused(done, "2 of 18 images cannot be scored")
    for words in (f"{colors[0]}_00 (missing)", f"{colors[1]}_00 (corrupt)"):
        assert words in done.stderr
    assert blank not in done.stderr
    assert not (tmp_path / "results").exists()

    allowed = run(tmp_path, *arguments, "--allow-missing")
    assert allowed.exit_code == 0, allowed.output
    assert "over survivors only" in allowed.stdout
    result = the_result(tmp_path)
    assert (result.counts.expected, result.counts.scored, result.counts.missing) == (18, 16, 2)
    assert result.metrics[0].score.num_images == 1


def test_second_run_scores_nothing_twice(tmp_path: Path, perfect: Path) -> None:
    for _ in range(2):
        assert run(tmp_path, "--model", f"folder:{perfect}", "--limit", "2").exit_code == 0
    (scores,) = (tmp_path / "work").glob("*/*/scores.jsonl")
    assert len(read_rows(scores)) == 12
    assert len(find_results(tmp_path / "results")) == 1


def test_checkpoint_is_measured_from_prompt_to_table(tmp_path: Path, tiny_checkpoint: Path) -> None:
    arguments = ["--model", str(tiny_checkpoint), "--limit", "1", "--device", "cpu"]
    done = run(tmp_path, *arguments, "--num-inference-steps", "2")
    assert done.exit_code == 0, done.output
    result = the_result(tmp_path)
    assert result.counts.scored == 6
    assert len(result.system.weights_sha256 or "") == 64 and not result.system.untrained
    assert result.system.settings["num_inference_steps"] == 2
    images = {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("*.png")}
    assert len(images) == 6

    # the same images again, and a longer run that keeps them
    longer = run(tmp_path, *arguments, "--num-inference-steps", "2", "--images-per-prompt", "2")
    assert longer.exit_code == 0, longer.output
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("*.png")}
    assert len(after) == 12 and images.items() <= after.items()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nope"], "unknown model 'nope'"),
        (["--suite", "nope"], "unknown suite 'nope'; known: all, attribute-binding"),
        (["--limit", "-1"], "limit must be >= 1, got -1"),
        (["--limit", "0"], "limit must be >= 1, got 0"),
        (["--images-per-prompt", "0"], "images_per_prompt must be >= 1, got 0"),
        (["--seed", "-1"], "seed must be >= 0, got -1"),
        (["--num-inference-steps", "-5"], "num_inference_steps must be >= 1, got -5"),
        (["--batch-size", "0"], "batch_size must be >= 1, got 0"),
        (["--model", "xl2"], "no weights for 'xl2'"),
        (["--model", "nope", "--random-weights"], "unknown model 'nope'"),
        (["--model", "folder:/nonexistent/images"], "no folder '/nonexistent/images'"),
        (["--model", "diffusers:nobody/nothing"], "no weights of 'nobody/nothing' here"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("GENTRON_MODELS", str(tmp_path / "none"))
    refused(run(tmp_path, *arguments), message)
    assert not (tmp_path / "results").exists() and not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--guidance-scale", "nan"], "guidance_scale must be"),
        (["--sampler", "nope"], "unknown sampler 'nope'"),
        (["--image-size", "33"], "must be a positive multiple of"),
    ],
)
def test_bad_setting_is_one_line(
    tmp_path: Path, tiny_checkpoint: Path, arguments: list[str], message: str
) -> None:
    refused(run(tmp_path, "--model", str(tiny_checkpoint), "--device", "cpu", *arguments), message)
    assert not (tmp_path / "work").exists()


def test_empty_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    refused(run(tmp_path, "--model", f"folder:{tmp_path / 'images'}"), "no images in")


def test_untrained_model_says_so_everywhere(tmp_path: Path) -> None:
    done = run(
        tmp_path, "--random-weights", "--limit", "1", "--suite", "complex", "--num-inference-steps", "2",
        "--device", "cpu",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "untrained" in done.stdout
    result = the_result(tmp_path)
    assert result.system.untrained and result.system.name == "mini-untrained"


def test_list_names_protocol_and_systems() -> None:
    done = CliRunner().invoke(app, ["list"])
    assert done.exit_code == 0
    assert "compbench-shapes_v1" in done.stdout and "color: 300 prompts, scored by shapes" in done.stdout
    assert "folder:DIR" in done.stdout


def test_judge_measures_itself() -> None:
    done = CliRunner().invoke(app, ["judge", "--count", "20"])
    assert done.exit_code == 0, done.output
    assert "rendered" in done.stdout and "overlapping" in done.stdout


def test_judge_runs_through_an_autoencoder(tiny_checkpoint: Path) -> None:
    autoencoder = str(tiny_checkpoint / "autoencoder")
    done = CliRunner().invoke(app, ["judge", "--count", "4", "--autoencoder", autoencoder, "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "autoencoded" in done.stdout


@pytest.mark.parametrize("arguments", [["--count", "0"], ["--autoencoder", "/nonexistent"], ["--seed", "-1"]])
def test_judge_refuses_bad_input(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, ["judge", *arguments])
    assert done.exit_code == 2 and done.stderr.count("\n") == 1


def test_report_writes_a_readme(tmp_path: Path, perfect: Path) -> None:
    run(tmp_path, "--model", f"folder:{perfect}", "--limit", "1")
    done = CliRunner().invoke(app, ["report", "--results", str(tmp_path / "results")])
    assert done.exit_code == 0, done.output
    assert "compbench-shapes_v1" in (tmp_path / "results" / "README.md").read_text()
    empty = CliRunner().invoke(app, ["report", "--results", str(tmp_path / "images")])
    assert empty.exit_code == 2 and "no results in" in empty.stderr


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys, bench.cli\n"
        "heavy = {'torch', 'numpy', 'scipy', 'transformers', 'diffusers', 'PIL', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
