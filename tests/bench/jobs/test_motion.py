"""The job of `gentron-bench motion`: from clips to a result, and what compare and gate make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from bench.cli import app
from bench.jobs.compbench import RunSettings
from bench.jobs.motion import run
from bench.prompts import Prompt
from bench.prompts.protocol import load_protocol
from bench.results.evidence import load
from bench.results.record import Result
from bench.sharding import Shard
from bench.systems import Media, Request, SystemInfo
from bench.systems.generate import work_folder
from gentron.errors import UserError
from gentron.media import Sample
from gentron.shapes.motion_captions import opposite
from tests.bench.worlds import perfect_clip, write_clip_folder

PROTOCOL = load_protocol("motion-shapes_v1")
BY_ID = {p.id: p for prompts in PROTOCOL.prompts.values() for p in prompts}
Draw = Callable[[Prompt], np.ndarray]


class RenderedSystem:
    """Draws clips by rendering prompts; counts what it drew."""

    def __init__(self, draw: Draw, name: str = "rendered") -> None:
        self.info = SystemInfo(
            kind="test",
            name=name,
            weights_sha256=None,
            untrained=False,
            settings={},
            device="cpu",
            media=Media("video", 8, 4.0),
        )
        self.draw, self.drawn = draw, 0

    def samples(self, requests: Sequence[Request]) -> Iterator[Sample]:
        for request in requests:
            self.drawn += 1
            frames = self.draw(BY_ID[request.prompt_id])
            yield Sample(tuple(map(Image.fromarray, frames)), 4.0)


def quiet(title: str, total: int):
    from contextlib import nullcontext

    return nullcontext(lambda advance: None)


def settings(**changes) -> RunSettings:
    whole = RunSettings(suite="all", seed=0, images_per_prompt=1, limit=3, allow_missing=False)
    return replace(whole, **changes)


def measured(place: Path, draw: Draw, name: str, **changes) -> tuple[Result, Path]:
    done = run(
        PROTOCOL,
        RenderedSystem(draw, name),
        settings(**changes),
        work=place / "work",
        out=place / "out",
        stage=quiet,
    )
    assert done is not None
    return done


@pytest.fixture(scope="module")
def perfect(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result, Path]:
    place = tmp_path_factory.mktemp("perfect")
    return place, *measured(place, perfect_clip, "rendered", suite="direction", limit=12)


# ---- results ---------------------------------------------------------------------------------------------


def test_perfect_clips_are_right_in_every_category(tmp_path: Path) -> None:
    result, folder = measured(tmp_path, perfect_clip, "rendered")
    names = [metrics.category for metrics in result.metrics]
    assert names == [*PROTOCOL.config.categories, "appearance", "persistence"]
    assert [metrics.score.mean for metrics in result.metrics] == [1.0] * 8
    assert [metrics.score.num_images for metrics in result.metrics] == [3] * 6 + [18] * 2
    assert result.counts.scored == 18 and set(result.scorers) == set(names)
    views = result.metrics[1].views
    assert views["held-out"].num_images == 1 and views["binding"].mean == 1 and views["step px"].mean == 4
    evidence = load(folder)  # rows and means agree
    assert {name: len(lines) for name, lines in evidence.lines.items()} == {
        name: 18 if name in ("appearance", "persistence") else 3 for name in names
    }
    assert evidence.lines["appearance"][0].reason == "every frame ok"


def test_a_run_goes_on_where_it_stopped_and_processes_share_it(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def dying(prompt: Prompt) -> np.ndarray:
        if prompt.id == "still-0001":
            raise Killed
        return perfect_clip(prompt)

    with pytest.raises(Killed):
        measured(tmp_path, dying, "rendered", limit=2)
    again = RenderedSystem(perfect_clip)
    done = run(PROTOCOL, again, settings(limit=2), work=tmp_path / "work", out=tmp_path / "out", stage=quiet)
    assert done is not None and again.drawn == 12 - 5
    folder = work_folder(tmp_path / "work", PROTOCOL, again.info, seed=0)
    frames = sorted((folder / "clips" / "still-0001_00").iterdir())
    assert [f.name for f in frames] == [f"{k:04d}.png" for k in range(8)]
    frames[3].write_bytes(frames[4].read_bytes() + b"x")  # damaged: drawn again
    done = run(PROTOCOL, again, settings(limit=2), work=tmp_path / "work", out=tmp_path / "out", stage=quiet)
    assert again.drawn == 12 - 5 + 1


def test_two_processes_write_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, folder = measured(tmp_path / "one", perfect_clip, "rendered", limit=2)
    together = Barrier(2)
    monkeypatch.setattr(Shard, "barrier", lambda shard: together.wait(timeout=60))

    def process(rank: int) -> tuple[Result, Path] | None:
        places: dict[str, Any] = {"work": tmp_path / "two" / "work", "out": tmp_path / "two" / "out"}
        system, shard = RenderedSystem(perfect_clip), Shard(rank, 2)
        return run(PROTOCOL, system, settings(limit=2), **places, stage=quiet, shard=shard)

    with ThreadPoolExecutor(2) as pool:
        done, nothing = pool.map(process, (0, 1))
    assert done is not None and nothing is None
    assert done[0].metrics == alone.metrics
    assert (done[1] / "scores.csv").read_bytes() == (folder / "scores.csv").read_bytes()


def test_missing_and_short_clips_are_listed(tmp_path: Path) -> None:
    from bench.systems import ClipShape, SystemOptions, parse_system
    from gentron.data.clip_writer import write_clip

    prompts = PROTOCOL.select("still", limit=3)
    folder = write_clip_folder(tmp_path / "clips", prompts[:2])
    write_clip(folder / f"{prompts[0].id}_00", perfect_clip(prompts[0])[:5], fps=4)
    system = parse_system(f"folder:{folder}", SystemOptions(clip=ClipShape(num_frames=8, fps=4)))
    places = {"work": tmp_path / "work", "out": tmp_path / "out", "stage": quiet}
    with pytest.raises(UserError, match=r"still-0000_00 \(missing\), still-0002_00 \(missing\)"):
        run(PROTOCOL, system, settings(suite="still"), **places)
    done = run(PROTOCOL, system, settings(suite="still", allow_missing=True), **places)
    assert done is not None and done[0].counts.missing == 2 and done[0].metrics[0].score.mean == 1


# ---- compare and gate ------------------------------------------------------------------------------------


def gate(baseline: Path, candidate: Path, *arguments: str):
    return CliRunner().invoke(
        app, ["gate", "--baseline", str(baseline), "--candidate", str(candidate), *arguments]
    )


def test_unchanged_clips_are_green(perfect: tuple[Path, Result, Path], tmp_path: Path) -> None:
    _, folder = measured(tmp_path, perfect_clip, "again", suite="direction", limit=12)
    done = gate(perfect[2], folder)
    assert done.exit_code == 0 and "3 of 3 metrics within tolerance" in done.stdout, done.output


def test_a_gate_goes_red_when_motion_breaks_and_names_it(
    perfect: tuple[Path, Result, Path], tmp_path: Path
) -> None:
    def backwards(prompt: Prompt) -> np.ndarray:
        return perfect_clip(prompt, opposite(prompt.clip_claim))

    _, folder = measured(tmp_path, backwards, "backwards", suite="direction", limit=12)
    done = gate(perfect[2], folder)
    assert done.exit_code == 1, done.output
    assert "direction" in done.stdout and "regression" in done.stdout
    compared = CliRunner().invoke(app, ["compare", str(perfect[2]), str(folder)])
    assert compared.exit_code == 0 and "worse" in compared.stdout
    rows = {line.split()[1]: line for line in compared.stdout.splitlines() if line.startswith("│")}
    assert "worse" in rows["direction"] and "worse" not in rows["appearance"] + rows["persistence"]
    assert "asked left" in compared.stdout  # a reason of a clip that moved most


def test_a_gate_goes_red_when_frames_break_and_motion_does_not(
    perfect: tuple[Path, Result, Path], tmp_path: Path
) -> None:
    def blinking(prompt: Prompt) -> np.ndarray:
        frames = perfect_clip(prompt).copy()
        frames[3:5] = 235
        return frames

    _, folder = measured(tmp_path, blinking, "blinking", suite="direction", limit=12)
    values = {m.category: m.score.mean for m in load(folder).result.metrics}
    assert values == {"direction": 1, "appearance": 0.75, "persistence": 0.75}
    done = gate(perfect[2], folder)
    assert done.exit_code == 1, done.output
    rows = [line for line in done.stdout.splitlines() if "regression" in line]
    assert any("appearance" in row for row in rows) and any("persistence" in row for row in rows)


def test_the_report_shows_the_frames_side_by_side(perfect: tuple[Path, Result, Path], tmp_path: Path) -> None:
    from bench.report.entries import Found
    from bench.report.html.pictures import album

    evidence = load(perfect[2])
    line = evidence.lines["direction"][0]
    found = Found(path=evidence.path, result=evidence.result, scores=evidence.lines["direction"])
    shown = album(found).picture(line)
    assert shown is not None and (shown.width, shown.height) == (256, 128)


# ---- the command -----------------------------------------------------------------------------------------


def motion(*arguments: object):
    return CliRunner().invoke(app, ["motion", *map(str, arguments)])


def test_the_command_scores_a_folder_of_clips(tmp_path: Path) -> None:
    folder = write_clip_folder(tmp_path / "clips", PROTOCOL.select("bounce", limit=2))
    places = ("--work", tmp_path / "work", "--out", tmp_path / "out")
    done = motion("--model", f"folder:{folder}", "--suite", "bounce", "--limit", 2, *places)
    assert done.exit_code == 0, done.output
    assert "bounce" in done.stdout and "1.000 ± 0.000" in done.stdout and "2 of 2 clips scored" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "folder:nowhere"), "no folder 'nowhere'"),
        (("--model", "nowhere"), "unknown model 'nowhere'"),
        (("--protocol", "compbench-shapes_v1"), "is about pictures: use gentron-bench compbench"),
        (("--suite", "colour"), "unknown suite 'colour'"),
        (("--clips-per-prompt", 0), "clips_per_prompt must be >= 1, got 0"),
        (("--seed", -1), "seed must be >= 0, got -1"),
        (("--limit", 0), "limit must be >= 1, got 0"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[object, ...], message: str) -> None:
    done = motion("--model", "mini-t2v", *arguments) if "--model" not in arguments else motion(*arguments)
    assert done.exit_code == 2 and message in done.stderr, done.output
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
