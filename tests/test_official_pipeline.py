"""The official T2I-CompBench pipeline from end to end, on the official prompt lists.

The scorers' networks are small and random, in the official files' formats, and the pictures an untrained
model's: the numbers mean nothing and say so; what is proven is everything around them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.report.summary import find_results
from bench.results.record import Result, phrase_sources, read_scores
from bench.systems.rows import read_rows
from tests.bench.test_sharding import without_run

REPOSITORY = Path(__file__).resolve().parents[1]
LISTS = REPOSITORY.parent / "shared" / "data" / "t2i-compbench"
PROTOCOL = "t2i-compbench-plus_2025-01"
# one category of each kind of scorer
KINDS = {
    "color": "blip_vqa",
    "spatial": "unidet_2d",
    "3d_spatial": "unidet_3d",
    "numeracy": "unidet_numeracy",
    "non_spatial": "clip_cosine",
    "complex": "three_in_one",
}
LIMIT, SAMPLES = 2, 2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not LISTS.is_dir(), reason="the official prompt lists are not beside the repository"),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Prompt lists and random networks, made with the program's own commands."""
    folder = tmp_path_factory.mktemp("home")
    variables = {
        "GENTRON_PROMPTS": str(folder / "prompts"),
        "GENTRON_MODELS": str(folder / "models"),
        "OMP_NUM_THREADS": "1",
        "RANK": "0",
        "WORLD_SIZE": "1",
    }
    runner = CliRunner(env=variables)
    for command in (["prompts", "fetch", "t2i-compbench", "--from", str(LISTS)], ["weights", "random"]):
        done = runner.invoke(app, command)
        assert done.exit_code == 0, done.output
    return variables


def command(folder: Path, *arguments: str) -> list[str]:
    where = ["--out", str(folder / "results"), "--work", str(folder / "work"), "--device", "cpu"]
    model = ["--model", "mini", "--random-weights", "--num-inference-steps", "1"]
    size = ["--limit", str(LIMIT), "--images-per-prompt", str(SAMPLES)]
    return ["compbench", "--protocol", PROTOCOL, *model, *size, *where, *arguments]


def start(environment: dict[str, str], arguments: list[str], *, processes: int = 1) -> subprocess.Popen[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    own = {key: value for key, value in environment.items() if key not in ("RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        [sys.executable, *(torchrun if processes > 1 else []), "-m", "bench", *arguments],
        cwd=REPOSITORY,
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    stdout, stderr = process.communicate(timeout=900)
    assert process.returncode == 0, stderr
    return stdout


def the_result(folder: Path) -> Result:
    ((_, result),) = find_results(folder / "results")
    return result


def contents(folder: Path) -> dict[str, bytes]:
    """Everything written, without the times and commands of result.json and without the detections' cache."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "cache" not in path.parts:
            found[without_run(path.relative_to(folder))] = path.read_bytes()
    for name in [name for name in found if name.endswith("result.json")]:
        data: dict[str, Any] = json.loads(found[name])
        del data["provenance"]
        found[name] = json.dumps(data).encode()
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    stdout = finish(start(environment, command(folder)))
    assert "a rehearsal, not a result" in stdout and "untrained" in stdout
    assert "noun phrases: table spacy-3.6: spaCy 3.6.1" in " ".join(stdout.split())
    return folder


def test_every_kind_of_scorer_measures_its_category(whole: Path) -> None:
    result = the_result(whole)
    named = {metrics.category: metrics for metrics in result.metrics}
    for category, scorer in KINDS.items():
        assert named[category].scorer == scorer
        assert named[category].score.num_images == LIMIT * SAMPLES
        assert named[category].score.num_prompts == LIMIT
    assert len(named) == 8 and not result.skipped and not result.missing
    assert result.is_rehearsal and result.system.untrained and result.seed == 42
    (source,) = phrase_sources(result.scorers.values()).values()
    assert source["source"] == "spacy-3.6" and not source["pinned"]


def test_files_are_named_by_id_and_seeded_as_the_protocol_says(whole: Path) -> None:
    (manifest,) = (whole / "work").rglob("manifest.jsonl")
    rows = read_rows(manifest)
    assert len(rows) == 8 * LIMIT * SAMPLES
    for row in rows:
        (only,) = row["files"]
        assert only["file"] == f"images/{row['prompt_id']}_{row['sample']:02d}.png"
        assert row["seed"] == 42 + row["sample"]
        assert (manifest.parent / only["file"]).is_file()
    assert len({row["prompt_id"] for row in rows}) == 8 * LIMIT


def test_a_reader_sees_why(whole: Path) -> None:
    (scores,) = (whole / "work").rglob("scores.jsonl")
    rows = {(row["prompt_id"], row["sample"]): row for row in read_rows(scores)}
    assert all(row["reason"] and row["evidence"] for row in rows.values())
    for category, word in (("color-", "probability"), ("spatial-", "detections")):
        (first, *_) = (row for key, row in rows.items() if key[0].startswith(category))
        assert word in json.dumps(first["evidence"])
    (folder,) = (whole / "results").glob("*/*/*")
    lines = read_scores(folder)
    for line in lines:
        assert line.score == rows[line.prompt_id, line.sample]["score"]
    assert len(lines) == len(rows)


def test_two_processes_give_the_same_bytes(whole: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    finish(start(environment, command(tmp_path), processes=2))
    assert contents(tmp_path) == contents(whole)


def test_a_killed_run_ends_like_an_uninterrupted_one(
    whole: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    process = start(environment, command(tmp_path))
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        scores = next((tmp_path / "work").rglob("scores.jsonl"), None)
        if scores is not None and scores.read_bytes().count(b"\n") >= 7:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(tmp_path.rglob("result.json")), "the run was over before it was killed"
    finish(start(environment, command(tmp_path)))
    assert contents(tmp_path) == contents(whole)


def test_missing_networks_skip_their_categories(tmp_path: Path, environment: dict[str, str]) -> None:
    models = tmp_path / "models"
    some = {**environment, "GENTRON_MODELS": str(models)}
    runner = CliRunner(env=some)
    nothing = runner.invoke(app, command(tmp_path, "--suite", "non_spatial"))
    assert nothing.exit_code == 2 and nothing.stderr.count("\n") == 1
    assert "nothing can be scored" in nothing.stderr and "gentron-bench weights" in nothing.stderr
    assert not (tmp_path / "work").exists()

    assert runner.invoke(app, ["weights", "random", "clip-vit-b-32"]).exit_code == 0
    done = runner.invoke(app, command(tmp_path, "--suite", "relations"))
    assert done.exit_code == 0, done.output
    result = the_result(tmp_path)
    assert [metrics.category for metrics in result.metrics] == ["non_spatial"]
    assert {skipped.metric for skipped in result.skipped} == {"spatial", "3d_spatial"}
