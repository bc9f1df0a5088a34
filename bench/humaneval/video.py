"""Videos of a study: what a file holds, read from its container, and the same file without its metadata.

MP4 (boxes) and WebM (EBML) are walked by hand, so a pair can be checked and cleaned without a video library.
Frames are not decoded and nothing is encoded anew: the coded pictures stay as they are, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from bench.systems.folder import FolderSystem
from gentron.errors import UserError

SUFFIXES = (".mp4", ".webm")


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFacts:
    format: str
    codec: str
    width: int
    height: int
    frames: int
    fps: float
    """Frames by the time they are shown, rounded to 3 decimals."""


class BadVideo(Exception):
    """A file that cannot be shown in a study; the message is the reason."""


def read_video(path: Path) -> tuple[bytes, VideoFacts]:
    """The file without metadata, and its facts; raises BadVideo with the reason."""
    try:
        data = bytearray(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError):
        raise BadVideo("missing") from None
    try:
        if data[4:8] == b"ftyp":
            return _clean_mp4(data)
        if data[:4] == b"\x1a\x45\xdf\xa3":
            return _clean_webm(data)
    except (LookupError, StopIteration, ArithmeticError) as error:
        raise BadVideo("corrupt") from error
    raise BadVideo("neither MP4 nor WebM")


def same_facts(found: dict[str, VideoFacts]) -> VideoFacts:
    """The facts that all files share; UserError naming the first field and files that differ."""
    first_name, first = next(iter(found.items()))
    for name, facts in found.items():
        for field in ("format", "codec", "width", "height", "fps", "frames"):
            if getattr(facts, field) != getattr(first, field):
                raise UserError(
                    f"videos differ in {field}: {first_name} {getattr(first, field)}, {name}"
                    f" {getattr(facts, field)}; raters could tell the systems apart: encode them alike"
                )
    return first


# ---- MP4 -------------------------------------------------------------------------------------------------

MP4_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
MP4_METADATA = (b"udta", b"meta", b"uuid")
X264_NOTE = bytes.fromhex("dc45e9bde6d948b7962cd820d923eeef")  # before x264's settings, in the first frame


def _boxes(data: bytearray, start: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
    """(type, start, start of the payload, end) of each box."""
    while start + 8 <= end:
        size, header = int.from_bytes(data[start : start + 4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        elif size == 0:
            size = end - start
        if size < header or start + size > end:
            raise BadVideo("corrupt")
        yield bytes(data[start + 4 : start + 8]), start, start + header, start + size
        start += size


def _walk_mp4(data: bytearray, start: int, end: int, path: tuple[bytes, ...]) -> Iterator[tuple]:
    for kind, begin, payload, stop in _boxes(data, start, end):
        yield (*path, kind), begin, payload, stop
        if kind in MP4_PARENTS:
            yield from _walk_mp4(data, payload, stop, (*path, kind))


def _clean_mp4(data: bytearray) -> tuple[bytes, VideoFacts]:
    tracks: list[dict[bytes, tuple[int, int]]] = []
    for path, begin, payload, stop in list(_walk_mp4(data, 0, len(data), ())):
        kind = path[-1]
        if kind == b"moof":
            raise BadVideo("a fragmented MP4")
        if kind in MP4_METADATA:  # a free box of the same size: no offset moves
            data[begin + 4 : begin + 8] = b"free"
            data[payload:stop] = bytes(stop - payload)
        elif kind == b"trak":
            tracks.append({})
        elif b"trak" in path:
            tracks[-1][kind] = (payload, stop)
        if kind in (b"mvhd", b"tkhd", b"mdhd"):  # creation and modification time
            size = 16 if data[payload] == 1 else 8
            data[payload + 4 : payload + 4 + size] = bytes(size)
    _blank_x264_note(data)
    videos = [t for t in tracks if data[t[b"hdlr"][0] + 8 : t[b"hdlr"][0] + 12] == b"vide"]
    if len(videos) != 1:
        raise BadVideo(f"{len(videos)} video tracks")
    return bytes(data), _mp4_facts(data, videos[0])


def _blank_x264_note(data: bytearray) -> None:
    place = data.find(X264_NOTE)
    while place >= 0:
        place += len(X264_NOTE)
        while place < len(data) and 0x20 <= data[place] < 0x7F:
            data[place] = 0x20
            place += 1
        place = data.find(X264_NOTE, place)


def _int(data: bytearray, place: int, size: int) -> int:
    return int.from_bytes(data[place : place + size], "big")


def _mp4_facts(data: bytearray, track: dict[bytes, tuple[int, int]]) -> VideoFacts:
    mdhd, stsd, stts = (track.get(kind, (0, 0))[0] for kind in (b"mdhd", b"stsd", b"stts"))
    if not (mdhd and stsd and stts):
        raise BadVideo("corrupt")
    timescale = _int(data, mdhd + (20 if data[mdhd] == 1 else 12), 4)
    count = _int(data, stts + 4, 4)
    if stts + 8 + 8 * count > track[b"stts"][1]:  # a damaged count could be billions
        raise BadVideo("corrupt")
    entries = [(_int(data, stts + 8 + 8 * k, 4), _int(data, stts + 12 + 8 * k, 4)) for k in range(count)]
    frames = sum(count for count, _ in entries)
    ticks = sum(count * delta for count, delta in entries)
    entry = stsd + 8  # the first sample entry: size, codec, 24 bytes, width, height
    return VideoFacts(
        format="mp4",
        codec=bytes(data[entry + 4 : entry + 8]).decode("latin-1"),
        width=_int(data, entry + 32, 2),
        height=_int(data, entry + 34, 2),
        frames=frames,
        fps=round(float(Fraction(frames * timescale, ticks)), 3),
    )


# ---- WebM ------------------------------------------------------------------------------------------------

SEGMENT, INFO, TRACKS, TRACK, VIDEO, CLUSTER, GROUP = (
    0x18538067,
    0x1549A966,
    0x1654AE6B,
    0xAE,
    0xE0,
    0x1F43B675,
    0xA0,
)
WEBM_PARENTS = (SEGMENT, INFO, TRACKS, TRACK, VIDEO, CLUSTER, GROUP)
TAGS, ATTACHMENTS, TITLE, DATE, CRC, TRACK_NAME = 0x1254C367, 0x1941A469, 0x7BA9, 0x4461, 0xBF, 0x536E
SEGMENT_UID, FILE_NAME = 0x73A4, 0x7384
WEBM_METADATA = (TAGS, ATTACHMENTS, TITLE, DATE, CRC, TRACK_NAME, SEGMENT_UID, FILE_NAME)
MUXER, WRITER = 0x4D80, 0x5741  # must be there: their text is blanked
TIMESCALE, DURATION, CODEC, TRACK_TYPE, WIDTH, HEIGHT, NUMBER = 0x2AD7B1, 0x4489, 0x86, 0x83, 0xB0, 0xBA, 0xD7
DEFAULT_DURATION, CLUSTER_TIME, SIMPLE_BLOCK, BLOCK = 0x23E383, 0xE7, 0xA3, 0xA1


def _vint(data: bytearray, place: int, *, keep_marker: bool) -> tuple[int, int]:
    """(value, length) of a variable-length integer."""
    first = data[place]
    length = 9 - first.bit_length()
    if length > 8 or place + length > len(data):
        raise BadVideo("corrupt")
    value = _int(data, place, length)
    return (value if keep_marker else value & ~(1 << 7 * length)), length


def _walk_webm(data: bytearray, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(id, start, start of the payload, end) of each element, parents before their children."""
    while start < end:
        kind, id_length = _vint(data, start, keep_marker=True)
        size, length = _vint(data, start + id_length, keep_marker=False)
        payload = start + id_length + length
        if size == (1 << 7 * length) - 1:  # unknown: a live recording
            if kind != SEGMENT:
                raise BadVideo("a live WebM")
            size = end - payload
        if payload + size > end:
            raise BadVideo("corrupt")
        yield kind, start, payload, payload + size
        if kind in WEBM_PARENTS:
            yield from _walk_webm(data, payload, payload + size)
        start = payload + size


def _void(data: bytearray, start: int, end: int) -> None:
    """Put an empty element of the same length there."""
    length = 8 if end - start >= 9 else 1
    size = end - start - 1 - length
    data[start : start + 1 + length] = b"\xec" + (size | 1 << 7 * length).to_bytes(length, "big")
    data[start + 1 + length : end] = bytes(size)


def _clean_webm(data: bytearray) -> tuple[bytes, VideoFacts]:
    tracks: list[dict[int, int | bytes]] = []
    times: list[tuple[int, int]] = []  # (track, time in ticks)
    tick_ns, cluster = 1_000_000, 0
    for kind, start, payload, end in list(_walk_webm(data, 0, len(data))):
        if kind == TRACK:
            tracks.append({})
        elif kind in (WIDTH, HEIGHT, TRACK_TYPE, DEFAULT_DURATION, NUMBER) and tracks:
            tracks[-1][kind] = _int(data, payload, end - payload)
        elif kind == CODEC and tracks:
            tracks[-1][kind] = bytes(data[payload:end])
        elif kind == TIMESCALE:
            tick_ns = _int(data, payload, end - payload)
        elif kind == CLUSTER_TIME:
            cluster = _int(data, payload, end - payload)
        elif kind in (SIMPLE_BLOCK, BLOCK):
            number, length = _vint(data, payload, keep_marker=False)
            offset = int.from_bytes(data[payload + length : payload + length + 2], "big", signed=True)
            times.append((number, cluster + offset))
        elif kind in WEBM_METADATA:
            _void(data, start, end)
        elif kind in (MUXER, WRITER):
            data[payload:end] = b" " * (end - payload)
    videos = [track for track in tracks if track.get(TRACK_TYPE) == 1]
    if len(videos) != 1:
        raise BadVideo(f"{len(videos)} video tracks")
    return bytes(data), _webm_facts(videos[0], times, tick_ns)


def _webm_facts(track: dict, times: list[tuple[int, int]], tick_ns: int) -> VideoFacts:
    shown = sorted(time for number, time in times if number == track[NUMBER])
    if not shown or WIDTH not in track or HEIGHT not in track or CODEC not in track:
        raise BadVideo("corrupt")
    if DEFAULT_DURATION in track:
        fps = 1e9 / track[DEFAULT_DURATION]
    elif len(shown) > 1:  # times are rounded to ticks of 1 ms, the mean over all is not
        fps = 1e9 * (len(shown) - 1) / ((shown[-1] - shown[0]) * tick_ns)
    else:
        raise BadVideo("a single frame")
    return VideoFacts(
        format="webm",
        codec=track[CODEC].decode("latin-1"),
        width=track[WIDTH],
        height=track[HEIGHT],
        frames=len(shown),
        fps=round(fps, 3),
    )


# ---- folders of videos -----------------------------------------------------------------------------------


def is_video_folder(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())


class VideoFolder(FolderSystem):
    """Videos made elsewhere: <prompt id>_00.mp4, <prompt id>.mp4 or <prompt text>.mp4; .webm too."""

    made = "videos made elsewhere"
    suffixes = SUFFIXES
