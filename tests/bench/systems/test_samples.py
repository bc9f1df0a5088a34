"""Pictures and clips on the disk: what is written, found again, and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.systems import Media, Request
from bench.systems.images import BadImage, encode_png
from bench.systems.rows import append_row
from bench.systems.samples import (
    MANIFEST,
    MediaFile,
    SampleRecord,
    are_blank,
    is_made,
    manifest_row,
    media_of,
    read_frames,
    read_manifest,
    taken,
    write_sample,
)
from gentron.hashing import sha256
from gentron.media import Sample

REQUEST = Request(id="p_00", prompt_id="p", sample=0, text="a", seed=7)


def frame(seed: int, *, blank: bool = False) -> Image.Image:
    high = 1 if blank else 256
    return Image.fromarray(np.random.default_rng(seed).integers(0, high, (6, 8, 3)).astype(np.uint8))


def clip(count: int = 3) -> Sample:
    return Sample(tuple(frame(k) for k in range(count)), fps=4.0)


def test_a_clip_comes_back_frame_by_frame_without_loss(tmp_path: Path) -> None:
    sample = clip()
    record = write_sample(sample, tmp_path, REQUEST)
    assert (record.kind, record.fps, record.num_frames) == ("video", 4.0, 3)
    assert [each.file for each in record.files] == [f"clips/p_00/{k:04d}.png" for k in range(3)]
    found = read_frames(tmp_path, record)
    assert all((f.pixels == np.asarray(i)).all() for f, i in zip(found, sample.frames, strict=True))
    assert [f.sha256 for f in found] == [each.sha256 for each in record.files]
    assert media_of(sample) == Media("video", 3, 4.0)


def test_a_picture_is_written_as_it_always_was(tmp_path: Path) -> None:
    record = write_sample(Sample((frame(1),)), tmp_path, REQUEST)
    data = encode_png(np.asarray(frame(1)))
    assert record == SampleRecord(
        prompt_id="p", sample=0, seed=7, files=(MediaFile("images/p_00.png", sha256(data)),)
    )
    assert (tmp_path / record.file).read_bytes() == data and record.sha256 == sha256(data)
    assert media_of(Sample((frame(1),))) == Media()


def test_the_hash_of_a_clip_is_of_its_frames_their_order_and_its_rate(tmp_path: Path) -> None:
    first = write_sample(clip(2), tmp_path, REQUEST)
    others = [
        Sample(clip(2).frames[::-1], fps=4.0),
        Sample(clip(2).frames, fps=8.0),
        Sample(clip(3).frames, fps=4.0),
        Sample((clip(1).frames[0],), fps=4.0),
    ]
    digests = {write_sample(each, tmp_path / "o", REQUEST).sha256 for each in others} | {first.sha256}
    assert len(digests) == 5 and write_sample(clip(2), tmp_path, REQUEST) == first
    unknown = (*first.files[:1], MediaFile("gone.png", None))
    record = SampleRecord(prompt_id="p", sample=0, seed=1, kind="video", fps=4.0, files=unknown)
    assert record.sha256 is None


def test_rows_of_before_are_read(tmp_path: Path) -> None:
    """Work folders of before 2026-12 name one file and its hash."""
    row = {"prompt_id": "p", "sample": 0, "seed": 7, "file": "images/p_00.png", "sha256": "ab"}
    append_row(tmp_path / MANIFEST, row)
    record = read_manifest(tmp_path)["p", 0]
    assert (record.kind, record.file, record.sha256, record.seed) == ("image", "images/p_00.png", "ab", 7)
    append_row(tmp_path / MANIFEST, manifest_row(record))
    assert read_manifest(tmp_path) == {("p", 0): record}
    assert json.loads((tmp_path / MANIFEST).read_text().splitlines()[1])["files"] == [
        {"file": "images/p_00.png", "sha256": "ab"}
    ]


def test_a_clip_that_lost_a_frame_is_made_again(tmp_path: Path) -> None:
    record = write_sample(clip(), tmp_path, REQUEST)
    assert is_made(tmp_path, record, REQUEST)
    (tmp_path / record.files[1].file).write_bytes(encode_png(np.asarray(frame(9))))
    assert not is_made(tmp_path, record, REQUEST)
    with pytest.raises(BadImage, match="changed since it was made"):
        read_frames(tmp_path, record)
    (tmp_path / record.files[1].file).unlink()
    assert not is_made(tmp_path, record, REQUEST)
    with pytest.raises(BadImage, match="missing"):
        read_frames(tmp_path, record)


def test_a_clip_is_blank_where_every_frame_is(tmp_path: Path) -> None:
    fade = Sample((frame(1, blank=True), frame(2)), fps=4.0)
    assert not are_blank(read_frames(tmp_path, write_sample(fade, tmp_path, REQUEST)))
    black = Sample((frame(1, blank=True), frame(2, blank=True)), fps=4.0)
    assert are_blank(read_frames(tmp_path, write_sample(black, tmp_path, REQUEST)))


def test_what_no_sample_can_be_is_refused() -> None:
    files = (MediaFile("a.png", "1"), MediaFile("b.png", "2"))
    with pytest.raises(ValueError, match="an image is one file"):
        SampleRecord(prompt_id="p", sample=0, seed=1, files=files)
    with pytest.raises(ValueError, match="every video has one"):
        SampleRecord(prompt_id="p", sample=0, seed=1, kind="video", files=files)
    with pytest.raises(ValueError, match="a clip must have its fps"):
        Sample((frame(1), frame(2)))
    with pytest.raises(ValueError, match="of one size"):
        Sample((frame(1), frame(2).resize((2, 2))), fps=4.0)
    with pytest.raises(ValueError, match="is no picture"):
        _ = clip().image
    assert Sample((frame(1),)).image.size == (8, 6)


def test_one_frame_can_be_taken() -> None:
    assert taken("abc", None) == ["a", "b", "c"] and taken("abc", 1) == ["b"]
    with pytest.raises(ValueError, match="frame must be from 0 to 2, got 3"):
        taken("abc", 3)
