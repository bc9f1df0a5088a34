"""gentron-bench: what a person can do wrong is one line and exit code 2; a killed run is resumed exactly."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from bench.cli import app
from bench.prompts.protocol import load_protocol
from tests.bad_input import disk_of, refused

PROMPTS = load_protocol("compbench-shapes_v1").select("complex", limit=2)


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def compbench(tmp_path: Path, *arguments: object) -> Result:
    where = ("--out", tmp_path / "results", "--work", tmp_path / "work")
    protocol = ("--protocol", "compbench-shapes_v1")
    return bench("compbench", *protocol, "--suite", "complex", "--limit", 2, *where, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compbenc"], "no such command 'compbenc'"),
        (["compbench", "--sute", "all"], "no such option: --sute"),
        (["compbench", "--limit", "x"], "'--limit'"),
        (["compbench", "--images-per-prompt", str(10**12)], "'--images-per-prompt'"),
        (["compbench", "--model", "folder:"], "unknown model 'folder:'"),
        (["judge", "--seed", str(2**70)], "'--seed'"),
        (["judge", "--count", "1"], "count must be >= 2, got 1"),
        (["list", "x"], "unexpected extra argument"),
    ],
)
def test_a_typing_error_is_one_line(arguments: list[str], message: str) -> None:
    refused(bench(*arguments), message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image-size", 0], "height must be a positive multiple of 8 up to 4096, got 0"),
        (["--sampler", ""], "unknown sampler ''"),
        (["--guidance-scale", "nan"], "guidance_scale must be a finite number >= 1, got nan"),
        (["--num-inference-steps", 10**6], "must be in 1..1000"),
        (["--checkpoint", "x"], "--checkpoint 'x' has no effect"),
    ],
)
def test_bad_settings_are_one_line(
    tiny_checkpoint: Path, tmp_path: Path, arguments: list[Any], message: str
) -> None:
    refused(compbench(tmp_path, "--model", tiny_checkpoint, *arguments), message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--out", "--work"])
def test_places_are_checked_before_the_work(tiny_checkpoint: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("kept")
    refused(compbench(tmp_path, "--model", tiny_checkpoint, option, tmp_path / "file"), "Not a directory")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "row",
    [
        {"file": "a\0b.png", "prompt_id": PROMPTS[0].id},
        {"file": "x.png", "prompt_id": ["a"], "prompt": 3},
        {"file": "x.png", "prompt_id": 3},
        3,
    ],
)
def test_bad_manifests_are_one_line(tmp_path: Path, row: object) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    refused(compbench(tmp_path, "--model", f"folder:{folder}"), "manifest.jsonl:1")


def test_pictures_of_every_kind_are_scored_or_named(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (37, 500, 4), dtype=np.uint8)
    first, second = (folder / f"{prompt.id}_00" for prompt in PROMPTS)
    Image.fromarray(pixels, "CMYK").save(first.with_suffix(".jpg"))
    Image.fromarray(pixels[:1, :1, :3]).save(second.with_suffix(".png"))
    model = ("--model", f"folder:{folder}")
    done = compbench(tmp_path, *model)  # a model that draws nothing must not score better for it
    assert done.exit_code == 0 and "1 of 2 images are blank, of one colour" in done.stdout, done.output
    Image.fromarray(pixels).save(second.with_suffix(".png"))  # RGBA, not square
    done = compbench(tmp_path, *model)
    assert done.exit_code == 0 and "2 of 2 images scored" in done.stdout, done.output


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = ("--model", tiny_checkpoint)
    with disk_of(2000):  # less than a picture
        done = compbench(tmp_path, *model)
    assert done.exit_code == 2 and "error: File too large" in done.stderr.splitlines()[-1]
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not left
    assert compbench(tmp_path, *model).exit_code == 0


def without_times(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("result.json")
    result = json.loads(path.read_text())
    for field in ("date", "command", "images"):
        del result["provenance"][field]
    return result


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_is_resumed_with_the_same_result(
    tiny_checkpoint: Path, tmp_path: Path, kind: signal.Signals
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = ["--model", str(tiny_checkpoint), "--limit", "12", "--num-inference-steps", "20"]
    assert compbench(whole, *arguments).exit_code == 0
    where = ["--out", str(killed / "results"), "--work", str(killed / "work"), "--suite", "complex"]
    command = [sys.executable, "-c", "from bench.cli import main; main()", "compbench", *arguments, *where]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=Path(__file__).parents[3],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(list(killed.rglob("*.png"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(kind)
    _, stderr = process.communicate(timeout=120)
    if kind is signal.SIGINT:
        assert process.returncode == 130 and stderr.splitlines()[-1] == "interrupted", stderr
        assert "Traceback" not in stderr
    assert 3 <= len([p for p in killed.rglob("*.png") if not p.name.startswith(".")]) < 12
    assert not list(killed.rglob("result.json"))
    done = compbench(killed, *arguments)
    assert done.exit_code == 0, done.output
    assert without_times(killed / "results") == without_times(whole / "results")
    scores = [next(folder.rglob("scores.csv")).read_bytes() for folder in (whole, killed)]
    assert scores[0] == scores[1]
    shutil.rmtree(tmp_path)
