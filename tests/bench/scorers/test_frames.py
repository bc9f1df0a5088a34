"""Clips through picture scorers: a two-frame sample is scored, kept and reported like a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.jobs.clipscore import SHAPES, SHAPES_VIEW, ShapesCosines, compute, stated
from bench.jobs.clipscore import gather as gather_cosines
from bench.jobs.compbench import RunSettings, build_scorers, run
from bench.jobs.fid_sources import measured_system
from bench.prompts import Prompt
from bench.prompts.protocol import load_protocol
from bench.results.record import read_result, read_scores
from bench.scorers import Context, Scored, ScorerRecord, build_scorer
from bench.scorers.frames import OverFrames, mean_over_frames, score_frames
from bench.sharding import Shard
from bench.systems import Media, Request, SystemInfo
from bench.systems.generate import make_images, work_folder
from bench.systems.requests import requests
from bench.systems.samples import Frame
from gentron.media import Sample
from tests.bench.worlds import perfect_image

PROTOCOL = load_protocol("compbench-shapes_v1")
PROMPTS = {prompt.id: prompt for prompt in PROTOCOL.prompts["color"]}
NOTHING = np.full((64, 64, 3), 235, np.uint8)
NOTHING[0, 0] = 0


class TwoFrames:
    """A clip of each prompt: first what it asks for, then an empty scene."""

    info = SystemInfo(
        kind="test",
        name="two-frames",
        weights_sha256=None,
        untrained=False,
        settings={},
        device="cpu",
        media=Media("video", 2, 4.0),
    )

    def samples(self, requests: Sequence[Request]) -> Iterator[Sample]:
        for request in requests:
            right = Image.fromarray(perfect_image(PROMPTS[request.prompt_id]))
            yield Sample((right, Image.fromarray(NOTHING)), fps=4.0)


@contextmanager
def stage(name: str, total: int):
    yield lambda count: None


def settings(frame: int | None = None) -> RunSettings:
    return RunSettings(suite="color", seed=0, images_per_prompt=1, limit=2, allow_missing=False, frame=frame)


def shapes_scorer(prompt: Prompt):
    context = Context(prompts=tuple(PROTOCOL.prompts[prompt.category]))
    return build_scorer(*PROTOCOL.config.scorer_of(prompt.category), context)


def test_a_two_frame_sample_goes_through_a_picture_scorer(tmp_path: Path) -> None:
    done = run(PROTOCOL, TwoFrames(), settings(), work=tmp_path / "w", out=tmp_path / "r", stage=stage)
    assert done is not None
    result, folder = done
    assert (result.media, result.counts.scored) == (Media("video", 2, 4.0), 2)
    assert result.scorers["color"].settings["frames"] == "mean"
    assert result.metrics[0].score.mean == pytest.approx(0.5)  # 1 for the first frame, 0 for the second
    assert read_result(folder / "result.json") == result
    line = read_scores(folder)[0]
    assert line.score == pytest.approx(0.5) and line.reason.startswith("mean of 2 frames; lowest, frame 1")
    # found again, not made again: nothing is drawn where everything is there
    again = run(PROTOCOL, TwoFrames(), settings(), work=tmp_path / "w", out=tmp_path / "r2", stage=stage)
    assert again is not None and again[0].metrics == result.metrics


@pytest.mark.parametrize(("frame", "mean"), [(0, 1.0), (1, 0.0)])
def test_one_frame_can_be_asked_for(tmp_path: Path, frame: int, mean: float) -> None:
    done = run(PROTOCOL, TwoFrames(), settings(frame), work=tmp_path, out=tmp_path / "r", stage=stage)
    assert done is not None
    assert done[0].metrics[0].score.mean == mean
    assert done[0].scorers["color"].settings["frames"] == frame


def test_a_frame_that_is_not_there_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frame must be from 0 to 1, got 2"):
        run(PROTOCOL, TwoFrames(), settings(2), work=tmp_path, out=tmp_path / "r", stage=stage)
    assert not list(tmp_path.rglob("*.png"))


def test_clips_and_pictures_do_not_compare() -> None:
    scorer = shapes_scorer(PROTOCOL.prompts["color"][0])
    records = [scorer.record, OverFrames(scorer).record, OverFrames(scorer, 0).record]
    assert len({record.digest for record in records}) == 3
    built = build_scorers(PROTOCOL, "color", Context())
    assert built.reading(Media(), None) is built
    assert isinstance(built.reading(Media("video", 2, 4.0), None).by_category["color"], OverFrames)


def test_means_are_over_the_frames_that_have_a_number() -> None:
    each = [
        Scored(score=1.0, reason="good", parts={"a": 1.0, "b": 4.0}, evidence={"x": 1}, chance=0.2),
        Scored(score=0.0, reason="bad", parts={"a": 0.0}, evidence={"x": 2}, chance=0.4, shuffled=0.1),
    ]
    mean = mean_over_frames(each)
    assert (mean.score, mean.parts, mean.shuffled) == (0.5, {"a": 0.5, "b": 4.0}, None)
    assert mean.chance == pytest.approx(0.3)
    assert mean.reason == "mean of 2 frames; lowest, frame 1: bad"
    assert mean.evidence == {"frames": [{"x": 1}, {"x": 2}]}


def test_a_scorer_of_pictures_refuses_a_clip() -> None:
    prompt = PROTOCOL.prompts["color"][0]
    frames = [Frame(perfect_image(prompt), "0" * 64)] * 2
    with pytest.raises(ValueError, match="'shapes' scores pictures, got 2 frames"):
        score_frames(shapes_scorer(prompt), frames, prompt, 0)


def test_one_frame_of_a_still_clip_scores_as_the_picture() -> None:
    prompt = PROTOCOL.prompts["color"][0]
    scorer, frame = shapes_scorer(prompt), Frame(perfect_image(prompt), "0" * 64)
    picture = score_frames(scorer, [frame], prompt, 0)
    assert score_frames(OverFrames(scorer, 1), [frame, frame], prompt, 0) == picture
    assert score_frames(OverFrames(scorer), [frame, frame], prompt, 0).score == picture.score


def test_the_record_names_the_scorer() -> None:
    record = OverFrames(shapes_scorer(PROTOCOL.prompts["color"][0])).record
    assert isinstance(record, ScorerRecord) and record.name == "shapes"


def test_a_clip_has_the_mean_cosine_of_its_frames(tmp_path: Path) -> None:
    cosines, view = ShapesCosines(), stated(SHAPES_VIEW, SHAPES)
    prompts = PROTOCOL.prompts["color"][:1]
    wanted = requests(prompts, images_per_prompt=1, seed=0)
    records = make_images(TwoFrames(), wanted, tmp_path, Shard(), stage, prompts=prompts)
    compute(cosines, view, prompts, records, tmp_path, advance=lambda count: None)
    rows, missing = gather_cosines(cosines, view, prompts, records, tmp_path)
    each = [cosines.cosine(x, prompts[0], prompts[0].text) for x in (perfect_image(prompts[0]), NOTHING)]
    assert not missing and rows[0].cosine == pytest.approx(sum(each) / 2)


def test_every_frame_of_a_clip_is_a_picture_of_the_set(tmp_path: Path) -> None:
    class Short(TwoFrames):
        def samples(self, requests: Sequence[Request]) -> Iterator[Sample]:
            for _ in requests:
                yield Sample((Image.fromarray(NOTHING), Image.fromarray(NOTHING + 1)), fps=4.0)

    measured = measured_system(Short(), PROTOCOL, 3, work=tmp_path, stage=stage, shard=Shard())
    pictures = measured.side.pictures()
    assert measured.side.num_images == len(pictures) == 6 and not measured.shapes
    assert pictures[1].name.endswith("_frame1") and pictures[1].read()[5, 5, 0] == 236
    assert work_folder(tmp_path, PROTOCOL, Short.info, seed=PROTOCOL.config.seed) == measured.folder
