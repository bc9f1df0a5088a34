"""Videos of a study: what is read from the container is what PyAV read, and the metadata is gone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.humaneval.video import BadVideo, read_video, same_facts
from gentron.errors import UserError
from tests.bench.humaneval.studies import humaneval, opened, refused

GOLDEN = Path(__file__).parents[2] / "golden" / "humaneval"
FACTS = json.loads((GOLDEN / "facts.json").read_text())  # made by make.py beside it
VIDEOS = sorted(name for name in FACTS if name != "made_with")
CODECS = {"avc1": "h264", "V_VP9": "vp9", "V_VP8": "vp8"}
SECRETS = (b"SecretModel", b"8877665544", b"Lavf", b"Lavc", b"x264 - core")


@pytest.mark.parametrize("name", VIDEOS)
def test_facts_are_those_that_a_decoder_finds(name: str) -> None:
    _, found = read_video(GOLDEN / name)
    known = FACTS[name]
    assert CODECS[found.codec] == known["codec"]
    assert (found.width, found.height, found.frames) == (known["width"], known["height"], known["frames"])
    assert found.fps == pytest.approx(known["fps"], abs=1e-3)
    assert found.format == name.rpartition(".")[2]


@pytest.mark.parametrize("name", VIDEOS)
def test_metadata_is_gone_and_nothing_else_moves(name: str) -> None:
    before = (GOLDEN / name).read_bytes()
    after, facts = read_video(GOLDEN / name)
    assert b"SecretModel" in before
    assert not any(secret in after for secret in SECRETS)
    assert len(after) == len(before)


@pytest.mark.parametrize("name", VIDEOS)
def test_cleaning_a_clean_file_changes_nothing(name: str, tmp_path: Path) -> None:
    once, facts = read_video(GOLDEN / name)
    (tmp_path / name).write_bytes(once)
    assert read_video(tmp_path / name) == (once, facts)


@pytest.mark.parametrize("name", VIDEOS)
def test_the_frames_are_the_same_after_cleaning(name: str) -> None:
    av = pytest.importorskip("av", reason="PyAV decodes the frames; the other tests need none")
    import hashlib
    import io

    digest = hashlib.sha256()
    with av.open(io.BytesIO(read_video(GOLDEN / name)[0])) as container:
        assert not {"title", "comment", "artist"} & {key.lower() for key in container.metadata}
        for frame in container.decode(video=0):
            digest.update(frame.to_ndarray().tobytes())
    assert digest.hexdigest() == FACTS[name]["frames_sha256"]


@pytest.mark.parametrize(
    ("other", "field"),
    [("other-fps.mp4", "fps"), ("shorter.mp4", "frames"), ("a.webm", "format")],
)
def test_videos_that_differ_are_refused_by_the_field(other: str, field: str) -> None:
    facts = {name: read_video(GOLDEN / name)[1] for name in ("a.mp4", other)}
    with pytest.raises(UserError, match=f"differ in {field}: a.mp4 .*, {other}"):
        same_facts(facts)
    with pytest.raises(UserError, match="differ in codec"):
        same_facts({name: read_video(GOLDEN / name)[1] for name in ("a.webm", "other-codec.webm")})


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_damaged_videos_have_a_reason(name: str, tmp_path: Path) -> None:
    data = (GOLDEN / name).read_bytes()
    path = tmp_path / name
    for cut in range(0, len(data), 37):
        path.write_bytes(data[:cut])
        with pytest.raises(BadVideo):
            read_video(path)
    for place in range(8, len(data), 5):  # a wrong length or count is a reason too, never a crash
        path.write_bytes(data[:place] + b"\xff" + data[place + 1 :])
        try:
            read_video(path)
        except BadVideo:
            pass
    with pytest.raises(BadVideo, match="missing"):
        read_video(tmp_path / "none")
    path.write_bytes(b"GIF89a.....................")
    with pytest.raises(BadVideo, match="neither MP4 nor WebM"):
        read_video(path)


def video_study(place: Path, suffix: str, *more: object):
    """Two prompts; A shows a then b, B shows b then a."""
    for system, names in (("va", "ab"), ("vb", "ba")):
        folder = place / system
        folder.mkdir()
        for k, name in enumerate(names, 1):
            shutil.copy(GOLDEN / f"{name}.{suffix}", folder / f"line-{k:04d}.{suffix}")
    (place / "prompts.txt").write_text("a bar moves\na bar moves on\n")
    systems = ("--a", f"folder:{place / 'va'}", "--b", f"folder:{place / 'vb'}", "--raters", 1)
    where = ("--prompts", place / "prompts.txt", "--out", place / "study", "--work", place / "work")
    return humaneval("export", *systems, *where, *more)


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_a_study_of_videos(suffix: str, tmp_path: Path) -> None:
    done = video_study(tmp_path, suffix)
    assert done.exit_code == 0, done.output
    study, _, key = opened(tmp_path)
    assert (study.media.kind, study.media.format, study.media.frames) == ("video", suffix, 16)
    assert study.questions[0].ask == "Which video looks better?"
    assert "not encoded" not in done.output and "bit rate" in key.settings["not_checked"]
    for path in (tmp_path / "study").rglob("*"):
        if path.is_file():
            assert not any(secret in path.read_bytes() for secret in SECRETS), path


def test_what_a_video_study_cannot_have_is_said(tmp_path: Path) -> None:
    refused(video_study(tmp_path, "mp4", "--gold", 1), "--gold and --image-size need pictures")
    shutil.copy(GOLDEN / "other-fps.mp4", tmp_path / "vb" / "line-0002.mp4")
    systems = ("--a", f"folder:{tmp_path / 'va'}", "--b", f"folder:{tmp_path / 'vb'}")
    where = ("--prompts", tmp_path / "prompts.txt", "--out", tmp_path / "study", "--work", tmp_path / "work")
    refused(humaneval("export", *systems, *where), "videos differ in fps: A line-0001 8.0, B line-0002 12.0")
    (tmp_path / "vb" / "line-0002.mp4").unlink()
    refused(humaneval("export", *systems, *where), "1 videos cannot be shown: B line-0002 (missing)")
