"""Folders of clips: what is found in them, under which prompts, and how their frames are read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.systems.clips import Reading, count_frames, find_clips, pixels_digest, read_clip
from gentron.data.clip_writer import write_clip
from gentron.errors import MediaError, UserError


def frames(num_frames: int = 4, seed: int = 0) -> np.ndarray:
    """(F, 24, 32, 3) uint8."""
    return np.random.RandomState(seed).randint(0, 256, (num_frames, 24, 32, 3)).astype(np.uint8)


def test_files_folders_and_texts_by_name(tmp_path: Path) -> None:
    write_clip(tmp_path / "b.mp4", frames(), 8)
    write_clip(tmp_path / "a", frames(seed=1), 8)
    write_clip(tmp_path / "c.webp", frames(seed=2), 8)
    Image.fromarray(frames()[0]).save(tmp_path / "still.webp")
    (tmp_path / "b.txt").write_text("\ufeffa cat\nmore of it\n", encoding="utf-8")
    (tmp_path / ".hidden.mp4").write_bytes(b"")
    clips = find_clips(tmp_path)
    assert [clip.name for clip in clips] == ["a", "b.mp4", "c.webp"]
    assert [clip.text for clip in clips] == [None, "a cat", None]
    assert clips[0].prompt_id == "a" and clips[1].prompt_id.startswith("a-cat-")
    assert all(clip.seed == -1 and clip.sample == 0 for clip in clips)


def test_clips_of_one_text_are_samples_of_a_prompt(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_clip(tmp_path / name, frames(), 8)
        (tmp_path / f"{name}.txt").write_text("a cat")
    one, other = find_clips(tmp_path)
    assert one.prompt_id == other.prompt_id and (one.sample, other.sample) == (0, 1)


def test_a_folder_of_pictures_is_one_clip(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip", frames(), 8)
    (clip,) = find_clips(tmp_path / "clip")
    np.testing.assert_array_equal(read_clip(clip.path, Reading()).pixels, frames())


def test_a_manifest_says_which_and_in_which_order(tmp_path: Path) -> None:
    write_clip(tmp_path / "x", frames(), 8)
    write_clip(tmp_path / "y.webp", frames(seed=1), 8)
    rows = [
        {"file": "y.webp", "prompt": "a dog", "prompt_id": "dog-1", "sample": 3, "seed": 7},
        {"file": "x", "prompt": "a cat"},
    ]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dog, cat = find_clips(tmp_path)
    assert (dog.prompt_id, dog.sample, dog.seed, dog.text) == ("dog-1", 3, 7, "a dog")
    assert cat.name == "x" and cat.seed == -1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "line 1 is not JSON"),
        ('{"prompt": "a"}', 'must be an object with "file"'),
        ('{"file": "x", "sample": "1"}', "sample must be int, got '1'"),
        ('{"file": "x", "prompt_id": "../x"}', "prompt_id must be letters, digits"),
        ("", "names no clips"),
    ],
)
def test_a_wrong_manifest_names_the_line(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "manifest.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=said):
        find_clips(tmp_path)


def test_two_clips_cannot_be_the_same_sample(tmp_path: Path) -> None:
    row = json.dumps({"file": "x", "prompt_id": "p", "sample": 0})
    (tmp_path / "manifest.jsonl").write_text(f"{row}\n{row}\n")
    with pytest.raises(UserError, match="two clips are sample 0 of 'p'"):
        find_clips(tmp_path)


def test_folders_without_clips_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no clips in"):
        find_clips(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        find_clips(tmp_path / "none")


def test_all_frames_are_read_at_any_rate(tmp_path: Path) -> None:
    for fps in (4, 23.976, 30):
        path = tmp_path / ("a.webp" if fps == 4 else f"at-{int(fps)}")
        write_clip(path, frames(7), fps)
        np.testing.assert_array_equal(read_clip(path, Reading()).pixels, frames(7))


@pytest.mark.parametrize("fps", [4, 8, 23.976, 24, 25, 30, 50])
def test_all_frames_of_a_film_are_read(tmp_path: Path, fps: float) -> None:
    """None twice, none left out: brightness counts them."""
    steps = np.arange(12, dtype=np.uint8) * 20
    write_clip(tmp_path / "a.mp4", np.broadcast_to(steps[:, None, None, None], (12, 32, 32, 3)), fps)
    found = read_clip(tmp_path / "a.mp4", Reading()).pixels.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(found, steps, atol=4)


def test_a_rate_and_a_number_choose_frames(tmp_path: Path) -> None:
    write_clip(tmp_path / "a", frames(8), 8)
    (clip,) = find_clips(tmp_path)
    np.testing.assert_array_equal(read_clip(clip.path, Reading(fps=4)).pixels, frames(8)[::2])
    np.testing.assert_array_equal(read_clip(clip.path, Reading(num_frames=3)).pixels, frames(8)[:3])
    assert count_frames(clip, Reading(fps=4, num_frames=3)) == 3


def test_the_digest_is_of_what_is_seen(tmp_path: Path) -> None:
    write_clip(tmp_path / "a", frames(), 8)
    write_clip(tmp_path / "b.webp", frames(), 4)
    digests = {read_clip(clip.path, Reading()).digest for clip in find_clips(tmp_path)}
    assert digests == {pixels_digest(frames())}
    assert pixels_digest(frames()) != pixels_digest(frames().reshape(4, 32, 24, 3))


def test_a_damaged_or_missing_clip_is_a_media_error(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    for name in ("a.mp4", "b.mp4"):
        with pytest.raises(MediaError, match=name):
            read_clip(tmp_path / name, Reading())


@pytest.mark.parametrize("given", [{"fps": 0.0}, {"fps": float("nan")}, {"num_frames": 1}])
def test_a_reading_that_cannot_be_is_refused(given: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        Reading(**given)
