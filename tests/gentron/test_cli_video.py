"""gentron sample of a video model: clips by the name of the output, first frames, wrong input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from gentron.cli import app
from gentron.data.video import read_facts, read_frames
from gentron.pipeline import GenTronPipeline
from tests.bad_input import refused

PROMPT = "a red circle"
STEPS = ("--num-inference-steps", 2)


def gentron(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def sample(tiny_video_checkpoint: Path) -> Callable[..., Result]:
    return lambda *arguments: gentron("sample", "--model", tiny_video_checkpoint, *STEPS, *arguments)


@pytest.fixture(scope="module")
def frames(tiny_video_checkpoint: Path) -> np.ndarray:
    """The clip of PROMPT and seed 3, (F, H, W, 3)."""
    pipeline = GenTronPipeline.from_pretrained(tiny_video_checkpoint)
    return pipeline([PROMPT], seeds=[3], num_inference_steps=2)[0].numpy()


@pytest.mark.parametrize("name", ["clip.webp", "frames"])
def test_a_clip_is_written_without_loss(
    sample: Callable[..., Result], frames: np.ndarray, tmp_path: Path, name: str
) -> None:
    out = tmp_path / name
    result = sample(PROMPT, "--seed", 3, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}: 1 clip\n"
    assert np.array_equal(read_frames(out, num_frames=4, fps=4.0), frames)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif"])
def test_a_clip_for_people_has_all_frames_at_its_rate(
    sample: Callable[..., Result], frames: np.ndarray, tmp_path: Path, name: str
) -> None:
    result = sample(PROMPT, "--seed", 3, "--fps", 5, "--out", tmp_path / name)
    assert result.exit_code == 0, result.output
    facts = read_facts(tmp_path / name)
    assert (facts.num_frames, facts.fps) == (4, pytest.approx(5.0))
    shown = read_frames(tmp_path / name, num_frames=4, fps=5.0).astype(int)
    assert np.abs(shown - frames).mean() < 16  # of noise: chroma at half the size, or 256 colours


def test_a_png_is_a_sheet_of_the_frames(
    sample: Callable[..., Result], frames: np.ndarray, tmp_path: Path
) -> None:
    assert sample(PROMPT, "--seed", 3, "--out", tmp_path / "sheet.png").exit_code == 0
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image)
    assert sheet.shape == (32, 4 * 32 + 3 * 2, 3)
    assert all(np.array_equal(sheet[:, 34 * k : 34 * k + 32], frames[k]) for k in range(4))


def test_several_clips_make_a_folder_and_a_grid_has_a_row_a_clip(
    sample: Callable[..., Result], frames: np.ndarray, tmp_path: Path
) -> None:
    result = sample(PROMPT, "a green star", "--seed", 3, "--num-images", 2, "--out", tmp_path / "set")
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "set").iterdir())
    assert names == [*(f"{k:06d}.mp4" for k in range(4)), "manifest.json"]
    rows = json.loads((tmp_path / "set" / "manifest.json").read_text())["clips"]
    assert rows[3] == {"file": "000003.mp4", "prompt": "a green star", "seed": 4}
    assert sample(PROMPT, "a green star", "--seed", 3, "--grid", "--out", tmp_path / "a.png").exit_code == 0
    with Image.open(tmp_path / "a.png") as image:
        grid = np.asarray(image)
    assert grid.shape == (2 * 32 + 2, 4 * 32 + 3 * 2, 3) and np.array_equal(grid[:32, :32], frames[0])


def test_one_frame_is_a_picture(sample: Callable[..., Result], tmp_path: Path) -> None:
    result = sample(PROMPT, "--num-frames", 1, "--metadata", "--out", tmp_path / "a.png")
    assert result.exit_code == 0 and "1 picture" in result.stdout, result.output
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (32, 32) and image.info["prompt"] == PROMPT


def test_a_clip_begins_with_the_first_frame(sample: Callable[..., Result], tmp_path: Path) -> None:
    drawn = []
    for colour in ("white", "black"):
        Image.new("RGB", (50, 40), colour).save(tmp_path / "first.png")
        options = ("--first-frame", tmp_path / "first.png", "--motion-guidance-scale", 1.3)
        result = sample(PROMPT, *options, "--out", tmp_path / colour)
        assert result.exit_code == 0, result.output
        drawn.append(read_frames(tmp_path / colour, num_frames=4, fps=4.0))
    assert all(not np.array_equal(drawn[0][k], drawn[1][k]) for k in range(4))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--motion-guidance-scale", "nan"], "motion_guidance_scale must be a finite number >= 0"),
        (["--motion-guidance-scale", "-1"], "got -1.0"),
        (["--guidance-scale", "inf"], "guidance_scale must be a finite number >= 0 for a clip, got inf"),
        (["--num-frames", "1000"], "num_frames must be in [1, 16] (4 times the 4 of the training), got 1000"),
        (["--num-frames", "0"], "num_frames must be in [1, 16]"),
        (["--num-frames", "x"], "'--num-frames'"),
        (["--fps", "nan"], "fps must be positive, got nan"),
        (["--num-frames", "1", "--motion-guidance-scale", "1.2"], "is for clips, but num_frames is 1"),
        (["--first-frame", "nowhere.png"], "cannot read picture nowhere.png: No such file"),
        (["--first-frame", "."], "cannot read picture .: Is a directory"),
        (["--out", "clip.avi"], "--out must be a .mp4, .webm, .gif, .webp or .png file or a folder"),
        (["--out", "clip.mp4", "--num-images", "2"], "is one file for 2 clips: give a folder, or --grid"),
        (["--out", "clip.mp4", "--grid"], "--out must be a .png file or a folder"),
        (["--metadata"], "--metadata is of PNG pictures: these are clips"),
    ],
)
def test_wrong_settings_are_one_line_and_leave_nothing(
    sample: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gentron.pipeline.open_pipeline", None)  # all is said before a model is loaded
    refused(sample(PROMPT, *arguments), expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--num-frames", "8"], "num_frames must be 1: this is an image model, got 8"),
        (
            ["--motion-guidance-scale", "1.1"],
            "motion_guidance_scale is for clips, but this is an image model",
        ),
        (["--first-frame", "first.png"], "first_frames is for clips, but this is an image model"),
        (["--fps", "4"], "fps is for clips, but this is an image model"),
        (["--out", "clip.mp4"], "--out must be a .png file or a folder, got 'clip.mp4'"),
    ],
)
def test_an_image_model_refuses_what_is_of_clips(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("first.png")
    refused(gentron("sample", PROMPT, "--model", tiny_checkpoint, *arguments), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["first.png"]


def test_a_frame_folder_never_replaces_other_files(
    sample: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gentron.pipeline.open_pipeline", None)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("kept")
    refused(sample(PROMPT, "--out", tmp_path / "set"), "holds other files")
    (tmp_path / "file").write_text("kept")
    refused(sample(PROMPT, "--out", tmp_path / "file"), "is a file already")
    assert (tmp_path / "set" / "mine.txt").read_text() == "kept"
