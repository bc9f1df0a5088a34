"""Frames out of files by timestamp, and frames into files that others can play."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from gentron.data import video
from gentron.data.clip_writer import contact_sheet, write_clip
from gentron.data.video import read_facts, read_frames, turned
from gentron.errors import MediaError, UserError
from tests.gentron.made_clips import counter, read_counter, write_clip_of, write_tone


def numbers(frames: np.ndarray) -> list[int]:
    return [read_counter(frame) for frame in frames]


def counters(count: int, **size: int) -> list[np.ndarray]:
    return [counter(index, **size) for index in range(count)]


@pytest.mark.parametrize("fps", [8, 24, 30000 / 1001, 12.5])
@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mov", ".avi", ".mkv"])
def test_frames_come_by_timestamp_at_any_rate_of_any_container(
    tmp_path: Path, suffix: str, fps: float
) -> None:
    path = write_clip_of(tmp_path / f"clip{suffix}", counters(min(36, int(2.5 * fps))), fps=fps)
    num_frames = 4
    wanted = [int((k / 4 + 1e-3) * fps) for k in range(num_frames)]  # shown at k/4 s, to a millisecond
    frames = read_frames(path, num_frames=num_frames, fps=4)
    assert frames.shape == (num_frames, 48, 64, 3) and frames.dtype == np.uint8
    assert numbers(frames) == wanted
    assert numbers(read_frames(path.read_bytes(), num_frames=num_frames, fps=4)) == wanted


def test_a_slower_file_repeats_its_frames(tmp_path: Path) -> None:
    path = write_clip_of(tmp_path / "slow.mp4", counters(4), fps=2)
    assert numbers(read_frames(path)) == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv"])
def test_a_variable_rate_is_read_by_the_clock(tmp_path: Path, suffix: str) -> None:
    times = [0, 0.04, 0.08, 0.9, 1.0, 1.3, 1.74, 1.76, 2.0]
    path = write_clip_of(tmp_path / f"clip{suffix}", counters(len(times)), times=times)
    assert numbers(read_frames(path)) == [0, 2, 2, 2, 4, 4, 5, 6]


def test_the_same_rate_gives_every_frame_once(tmp_path: Path) -> None:
    """Containers round 1/24 s up to their clock; without a tolerance every other frame would come twice."""
    for suffix in (".mp4", ".webm", ".mkv"):
        path = write_clip_of(tmp_path / f"clip{suffix}", counters(24), fps=24)
        assert numbers(read_frames(path, num_frames=24, fps=24)) == list(range(24))


def test_a_start_in_the_middle_is_sought_and_exact(tmp_path: Path) -> None:
    for suffix in (".mp4", ".webm", ".avi", ".gif"):
        path = write_clip_of(tmp_path / f"clip{suffix}", counters(36), fps=10, gop=8)
        assert numbers(read_frames(path, num_frames=4, fps=5, start=2.1)) == [21, 23, 25, 27], suffix


def test_a_seeded_window_repeats_and_covers_the_clip(tmp_path: Path) -> None:
    path = write_clip_of(tmp_path / "clip.mp4", counters(36), fps=12)
    firsts = []
    for seed in range(30):
        frames = read_frames(path, rng=np.random.default_rng(seed))
        again = read_frames(path, rng=np.random.default_rng(seed))
        assert np.array_equal(frames, again)
        found = numbers(frames)
        assert all(2 <= later - earlier <= 4 for earlier, later in zip(found, found[1:], strict=False))
        firsts.append(found[0])
    assert min(firsts) <= 1 and max(firsts) >= 13 and max(firsts) <= 15  # 3 s hold 1.25 s of starts


def test_short_side_and_centre_crop(tmp_path: Path) -> None:
    pixels = np.zeros((48, 96, 3), np.uint8)
    pixels[:, 24:72] = 255
    path = write_clip_of(tmp_path / "wide.mp4", [pixels] * 8, fps=4)
    frames = read_frames(path, image_size=16)
    assert frames.shape == (8, 16, 16, 3) and frames[:, :, 1:-1].min() > 200


QUADRANTS = np.zeros((64, 96, 3), np.uint8)
QUADRANTS[:32, :48], QUADRANTS[:32, 48:], QUADRANTS[32:, :48] = (250, 0, 0), (0, 250, 0), (0, 0, 250)


def corners(pixels: np.ndarray) -> str:
    """The colours top left, top right, bottom left, bottom right."""
    height, width, _ = pixels.shape
    places = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return "".join("rgb"[int(pixels[p].argmax())] if pixels[p].max() > 100 else "." for p in places)


@pytest.mark.parametrize(
    "degrees,expected", [(0, "rgb."), (90, "g.rb"), (180, ".bgr"), (-90, "br.g"), (270, "br.g")]
)
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_rotation_is_honoured(tmp_path: Path, suffix: str, degrees: int, expected: str) -> None:
    """Counterclockwise as libav counts; the corners of the turned picture are its definition."""
    path = write_clip_of(tmp_path / f"turned{suffix}", [QUADRANTS] * 8, fps=4, rotation=degrees)
    frames = read_frames(path)
    assert frames.shape[1:3] == ((64, 96) if degrees % 180 == 0 else (96, 64))
    assert corners(frames[3]) == expected
    facts = read_facts(path)
    assert (facts.height, facts.width) == frames.shape[1:3]


def test_rotation_agrees_with_opencv(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    for degrees in (90, 180, 270):
        path = write_clip_of(tmp_path / f"{degrees}.mp4", [QUADRANTS] * 2, fps=4, rotation=degrees)
        ok, theirs = cv2.VideoCapture(str(path)).read()
        assert ok and corners(theirs[:, :, ::-1]) == corners(read_frames(path, num_frames=1)[0])


@pytest.mark.parametrize(
    "abcd,expected",
    [((1, 0, 0, 1), "rgb."), ((-1, 0, 0, 1), "gr.b"), ((1, 0, 0, -1), "b.rg"), ((0, 1, 1, 0), "rbg.")],
)
def test_a_mirrored_display_matrix_mirrors(abcd: tuple[int, ...], expected: str) -> None:
    a, b, c, d = (value << 16 for value in abcd)
    matrix = struct.pack("=9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    assert corners(turned(QUADRANTS, matrix)) == expected


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    path = write_clip_of(tmp_path / "sd.mp4", [QUADRANTS] * 4, fps=4, aspect=Fraction(4, 3))
    frames = read_frames(path, num_frames=4)
    assert frames.shape[1:3] == (64, 128) and corners(frames[0]) == "rgb."


def cut_in_half(path: Path) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def noise(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(count)]


def test_damaged_and_odd_files_raise_one_error_with_their_name(tmp_path: Path) -> None:
    write_clip_of(tmp_path / "no-index.mp4", noise(16), fps=8)
    cut_in_half(tmp_path / "no-index.mp4")
    write_clip(tmp_path / "cut.mp4", np.stack(noise(16)), 8)  # its index comes first
    cut_in_half(tmp_path / "cut.mp4")
    cut_in_half(write_clip_of(tmp_path / "cut.webm", noise(16), fps=8))
    write_tone(tmp_path / "audio.m4a").rename(tmp_path / "audio.mp4")
    write_clip_of(tmp_path / "short.mp4", counters(3), fps=24)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("<html>404 not found</html>")
    (tmp_path / "frames").mkdir()
    (tmp_path / "broken.webp").write_bytes(b"RIFF\x10\x00\x00\x00WEBPVP8 ")
    reasons = {
        "no-index.mp4": "Invalid data",
        "cut.mp4": "cut short: .* of 16 frames",
        "cut.webm": "shorter than asked|Invalid data|damaged",
        "audio.mp4": "no video stream",
        "short.mp4": "shorter than asked: 8 frames at 4 fps from 0 s on, got 0.125 s with 3 frames",
        "empty.mp4": "Invalid data",
        "text.mp4": "Invalid data",
        "frames": "no frame",
        "broken.webp": "",
        "missing.mp4": "No such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(MediaError, match=f"cannot read clip .*{name}: .*({reason})"):
            read_frames(tmp_path / name)


def test_a_thousand_frames_of_a_short_clip_is_refused(tmp_path: Path) -> None:
    path = write_clip_of(tmp_path / "clip.mp4", counters(8), fps=4)
    with pytest.raises(MediaError, match="shorter than asked: 1000 frames"):
        read_frames(path, num_frames=1000)
    for bad in (0.0, float("nan"), -1.0):
        with pytest.raises(UserError, match="fps must be above 0"):
            read_frames(path, fps=bad)


def test_nothing_stays_open(tmp_path: Path) -> None:
    """Also where reading fails half-way."""
    good = write_clip_of(tmp_path / "clip.mp4", counters(8), fps=4)
    bad = write_tone(tmp_path / "tone.mp4")
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("needs /proc")
    before = len(list(descriptors.iterdir()))
    for _ in range(5):
        read_frames(good)
        with pytest.raises(MediaError):
            read_frames(bad)
    assert len(list(descriptors.iterdir())) == before


# ---- writing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ".webp", ""])
def test_what_is_written_reads_back(tmp_path: Path, suffix: str) -> None:
    frames = np.stack(counters(8, height=64, width=64))
    path = tmp_path / f"clip{suffix}"
    write_clip(path, frames, 4)
    back = read_frames(path)
    assert numbers(back) == list(range(8))
    tolerance = {".mp4": 4, ".webm": 6, ".gif": 2, ".webp": 0, "": 0}[suffix]
    difference = np.abs(back.astype(int) - frames)
    assert np.median(difference) <= tolerance if suffix == ".gif" else difference.max() <= 3 * tolerance
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no temporary left


def test_colours_survive_where_the_file_says_which_they_are(tmp_path: Path) -> None:
    """BT.709 written and tagged: read as BT.601 this red would be off by 14."""
    frames = np.full((4, 64, 64, 3), (200, 40, 90), np.uint8)
    for suffix in (".mp4", ".webm"):
        write_clip(tmp_path / f"red{suffix}", frames, 4)
        back = read_frames(tmp_path / f"red{suffix}", num_frames=4)
        assert np.abs(back.astype(int) - frames).max() <= 4


def test_mp4_is_what_browsers_play(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", np.stack(counters(8, height=63, width=65)), 4)
    data = (tmp_path / "clip.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # it plays while it loads
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.height, context.width) == (64, 66)  # even sides
        assert stream.average_rate == 4 and stream.frames == 8
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for suffix in (".mp4", ".webm", ".gif", ".webp", ".png"):
        frames = np.stack(noise(8))
        for name in ("a", "b"):
            write_clip(tmp_path / f"{name}{suffix}", frames, 4)
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_a_folder_of_frames_states_its_rate(tmp_path: Path) -> None:
    write_clip(tmp_path / "frames", np.stack(counters(16)), 8)
    assert numbers(read_frames(tmp_path / "frames")) == list(range(0, 16, 2))
    (tmp_path / "frames" / "clip.json").unlink()  # as other people's folders: a frame a frame
    assert numbers(read_frames(tmp_path / "frames")) == list(range(8))
    (tmp_path / "frames" / "clip.json").write_text(json.dumps({"rate": 8}))
    with pytest.raises(MediaError, match="clip.json must be"):
        read_frames(tmp_path / "frames")


def test_frame_numbers_without_zeros_in_front_are_numbers(tmp_path: Path) -> None:
    for index in range(12):
        Image.fromarray(counter(index)).save(tmp_path / f"frame{index}.png")
    (tmp_path / "._frame0.png").write_bytes(b"AppleDouble")
    assert numbers(read_frames(tmp_path, num_frames=12)) == list(range(12))


def test_a_folder_of_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds other files"):
        write_clip(tmp_path / "mine", np.stack(counters(2)), 4)
    assert (tmp_path / "mine" / "thesis.tex").is_file()
    write_clip(tmp_path / "frames", np.stack(counters(3)), 4)
    write_clip(tmp_path / "frames", np.stack(counters(2)), 4)
    assert len(list((tmp_path / "frames").glob("*.png"))) == 2


def test_an_animation_lasts_as_long_as_the_clip(tmp_path: Path) -> None:
    """24 fps is no whole number of hundredths: the ends are rounded, so that errors do not add up."""
    for suffix in (".gif", ".webp"):
        write_clip(tmp_path / f"clip{suffix}", np.stack(counters(24)), 24)
        facts = read_facts(tmp_path / f"clip{suffix}")
        assert facts.num_frames == 24 and facts.seconds == pytest.approx(1.0, abs=0.011)


def test_contact_sheet_shows_the_frames_in_order(tmp_path: Path) -> None:
    write_clip(tmp_path / "sheet.png", np.stack(counters(8)), 4)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 66 - 2, 48)
        assert [read_counter(np.asarray(sheet)[:, k * 66 : k * 66 + 64]) for k in range(8)] == list(range(8))
    assert contact_sheet([Image.new("RGB", (10, 10))] * 9).size == (34, 34)


def test_pictures_are_taken_as_frames_and_bad_ones_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.gif", [Image.fromarray(counter(index)) for index in range(4)], 4)
    assert read_facts(tmp_path / "clip.gif").num_frames == 4
    with pytest.raises(UserError, match="unknown kind of clip '.wmv'"):
        write_clip(tmp_path / "clip.wmv", np.stack(counters(2)), 4)
    with pytest.raises(ValueError, match="frames must be"):
        write_clip(tmp_path / "clip.mp4", np.zeros((2, 8, 8, 3), np.float32), 4)
    with pytest.raises(UserError, match="fps must be above 0"):
        write_clip(tmp_path / "clip.mp4", np.stack(counters(2)), float("nan"))


def test_transparent_parts_of_a_gif_are_white(tmp_path: Path) -> None:
    image = Image.new("P", (32, 32), 0)
    image.putpalette([0, 0, 0, 250, 0, 0])
    image.paste(1, (0, 0, 16, 32))
    image.save(tmp_path / "clear.gif", transparency=0)
    frame = read_frames(tmp_path / "clear.gif", num_frames=1)[0]
    assert frame[16, 24].tolist() == [255, 255, 255] and frame[16, 8].tolist() == [250, 0, 0]


def test_a_huge_frame_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip_of(tmp_path / "clip.mp4", counters(8), fps=4)
    monkeypatch.setattr(video, "MAX_FRAME_PIXELS", 1000)
    with pytest.raises(MediaError, match="frames of 64 x 48 pixels"):
        read_frames(path)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the program ffmpeg")
def test_files_of_ffmpeg_in_several_codecs_and_rates(tmp_path: Path) -> None:
    kinds = {
        "h264.mp4": ["-c:v", "libx264"],
        "mpeg2.mkv": ["-c:v", "mpeg2video"],
        "mjpeg.mov": ["-c:v", "mjpeg"],
    }
    for name, options in kinds.items():
        for rate in ("15", "24000/1001", "50"):
            source = ["-f", "lavfi", "-i", f"testsrc=duration=3:size=96x64:rate={rate}"]
            command = ["ffmpeg", "-y", "-v", "error", *source, *options, str(tmp_path / name)]
            subprocess.run(command, check=True, timeout=60)
            assert read_frames(tmp_path / name).shape == (8, 64, 96, 3)
            facts = read_facts(tmp_path / name)
            assert facts.fps == pytest.approx(float(Fraction(rate)), rel=0.01)
