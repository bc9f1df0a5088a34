"""A real `kill -9` in the middle of a run, and the same command again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.report.summary import find_results


def command(checkpoint: Path, folder: Path) -> list[str]:
    code = "from bench.cli import main; main()"
    options = {"--model": checkpoint, "--out": folder / "results", "--work": folder / "work", "--limit": 12}
    flat = [str(word) for pair in options.items() for word in pair]
    return [sys.executable, "-c", code, "compbench", *flat, "--device", "cpu", "--num-inference-steps", "6"]


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "work").rglob("*.png") if path.name[0] != "."}


@pytest.mark.slow
def test_killed_run_ends_like_an_uninterrupted_one(tmp_path: Path, tiny_checkpoint: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(command(tiny_checkpoint, killed), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(pictures(killed)) < 5 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 5 <= len(pictures(killed)) < 72, "the run was not killed in the middle"

    for folder in (killed, whole):
        subprocess.run(command(tiny_checkpoint, folder), check=True, capture_output=True)
    assert pictures(killed) == pictures(whole)
    (_, a), (_, b) = (find_results(folder / "results")[0] for folder in (killed, whole))
    assert a.metrics == b.metrics
    csvs = [next((folder / "results").rglob("scores.csv")).read_bytes() for folder in (killed, whole)]
    assert csvs[0] == csvs[1]
