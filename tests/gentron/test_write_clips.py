"""`gentron data shapes-video`: clips of the moving world on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gentron.cli import app
from gentron.data.samples import Media, list_samples
from gentron.data.video import read_facts, read_frames
from gentron.shapes import write_clips as writing
from gentron.shapes.motion import MovingScene, render_clip
from gentron.shapes.write_clips import draw_clip, write_clips


def run(*arguments: object):
    return CliRunner().invoke(app, ["data", "shapes-video", *map(str, arguments)])


def test_frames_are_those_of_the_world_and_captions_name_them(tmp_path: Path) -> None:
    done = run("--count", 3, "--out", tmp_path / "set", "--format", "frames", "--seed", 5)
    assert done.exit_code == 0 and "3 clips" in done.stdout, done.output
    rows = [json.loads(line) for line in (tmp_path / "set" / "captions.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == [f"clips/000/00000{k}" for k in range(3)]
    for index, row in enumerate(rows):
        clip, text = draw_clip(5, index)
        assert row["caption"] == text and row["clip"]["moves"][0]["motion"] == clip.moves[0].motion
        path = tmp_path / "set" / row["file"]
        assert np.array_equal(read_frames(path, num_frames=8, fps=4), render_clip(clip))
        assert read_facts(path).fps == 4


def test_mp4_files_are_read_as_a_set_of_captioned_clips(tmp_path: Path) -> None:
    write_clips(tmp_path / "set", count=2, seed=0)
    listing = list_samples(str(tmp_path / "set"), media=Media.CLIPS)
    assert len(listing.items) == 2 and not listing.dropped
    path = tmp_path / "set" / "clips" / "000" / "000001.mp4"
    frames = read_frames(path, num_frames=8, fps=4).astype(int)
    # 4:2:0 halves the resolution of colour: near, not equal
    assert abs(frames - render_clip(draw_clip(0, 1)[0])).mean() < 4


def test_a_killed_call_goes_on_and_whole_clips_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(Exception):
        pass

    def dying(done: int) -> None:
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        write_clips(tmp_path / "set", count=3, seed=0, clip_format="frames", callback=dying)
    drawn: list[MovingScene] = []
    monkeypatch.setattr(writing, "render_clip", lambda clip: drawn.append(clip) or render_clip(clip))
    write_clips(tmp_path / "set", count=3, seed=0, clip_format="frames")
    assert drawn == [draw_clip(0, 2)[0]]
    assert len(list((tmp_path / "set" / "clips" / "000").iterdir())) == 3


def test_other_data_and_bad_counts_are_refused(tmp_path: Path) -> None:
    write_clips(tmp_path / "set", count=1, seed=0, clip_format="frames")
    for arguments in (("--seed", 1, "--format", "frames"), ("--format", "mp4")):
        done = run("--count", 1, "--out", tmp_path / "set", *arguments)
        assert done.exit_code == 2 and "holds other data" in done.stderr and done.stderr.count("\n") == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    done = run("--count", 1, "--out", tmp_path / "mine")
    assert done.exit_code == 2 and "holds files of another kind" in done.stderr
    assert run("--count", 0, "--out", tmp_path / "none").exit_code == 2
