"""torchrun's processes share a run: the same bytes as one process, whatever was left by a kill."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.sharding import Shard
from bench.systems.rows import append_row, merge_rows, read_all_rows
from gentron.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


def test_shares_are_disjoint_and_complete() -> None:
    items = list(range(11))
    for world_size in (1, 2, 3, 16):
        shares = [Shard(rank, world_size).mine(items) for rank in range(world_size)]
        assert sorted(sum(shares, [])) == items


def test_processes_never_share_a_file() -> None:
    names = {Shard(rank, 3).file_name("scores.jsonl") for rank in range(3)}
    assert len(names) == 3 and Shard().file_name("scores.jsonl") == "scores.jsonl"


@pytest.mark.parametrize(
    ("rank", "size", "message"), [("2", "2", "from 0 to"), ("x", "2", "must be integers")]
)
def test_a_broken_environment_is_said(
    monkeypatch: pytest.MonkeyPatch, rank: str, size: str, message: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(UserError, match=message):
        Shard.from_environment()


def test_parts_are_read_and_merged(tmp_path: Path) -> None:
    for rank in (1, 0):
        append_row(tmp_path / Shard(rank, 2).file_name("rows.jsonl"), {"rank": rank})
    append_row(tmp_path / "rows.jsonl", {"rank": -1})
    rows = read_all_rows(tmp_path, "rows.jsonl")
    assert [row["rank"] for row in rows] == [-1, 0, 1]
    merge_rows(tmp_path, "rows.jsonl", rows)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    assert read_all_rows(tmp_path, "rows.jsonl") == rows


def start(folder: Path, checkpoint: Path, processes: int) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    arguments = ["--model", str(checkpoint), "--suite", "relations", "--limit", "3", "--device", "cpu"]
    where = ["--out", str(folder / "results"), "--work", str(folder / "work")]
    done = subprocess.run(
        [
            sys.executable,
            *torchrun,
            "-m",
            "bench",
            "compbench",
            *arguments,
            "--images-per-prompt",
            "2",
            *where,
        ],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("result: ") == 1


def without_run(path: Path) -> str:
    """A run's folder is named by its day and commit, which may change between two runs of a test."""
    return re.sub(r"/\d{4}-\d\d-\d\d-[0-9a-z]+/", "/run/", path.as_posix())


def contents(folder: Path) -> dict[str, bytes]:
    """All that was written, by name, without the times of result.json."""
    files = {without_run(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    found = {name: path.read_bytes() for name, path in files.items() if path.name != "result.json"}
    (result,) = (path for path in files.values() if path.name == "result.json")
    data = json.loads(result.read_text())
    del data["provenance"]
    return found | {"result.json": json.dumps(data).encode()}


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(tmp_path: Path, tiny_checkpoint: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    start(one, tiny_checkpoint, 1)
    start(two, tiny_checkpoint, 2)
    assert contents(one) == contents(two)
    assert not list(tmp_path.rglob("*rank*"))

    # what a killed process of another number of them leaves behind is used, not repeated
    (scores,) = two.rglob("scores.jsonl")
    before = contents(two)
    lines = scores.read_bytes().splitlines(keepends=True)
    scores.with_name("scores-rank2.jsonl").write_bytes(b"".join(lines[5:]) + lines[0][:40])
    scores.write_bytes(b"".join(lines[:3]))
    start(two, tiny_checkpoint, 2)
    assert contents(two) == before
