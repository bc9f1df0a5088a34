"""`gentron data clips`: films in, training clips out, with cuts, measures and captions; resumable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gentron.data import prepare as preparing
from gentron.data.folder import FolderClips
from gentron.data.listing import Item, Media
from gentron.data.prepare import ClipSettings, Piece, pieces, prepare, scene_cuts, shrunk
from gentron.data.quality import Thresholds
from gentron.data.samples import list_samples
from gentron.data.video import read_facts
from gentron.errors import UserError
from tests.gentron.made_clips import write_clip_of, write_tone

SETTINGS = ClipSettings(short_side=32, fps=12, min_seconds=1, max_seconds=4)


def scene(seed: int, count: int, *, height: int = 48, width: int = 80, step: int = 2) -> list[np.ndarray]:
    """Coloured blobs that move: one scene of a film."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (6, 20, 3), dtype=np.uint8)
    wide = np.asarray(Image.fromarray(small).resize((width + step * count, height), Image.Resampling.BICUBIC))
    return [wide[:, step * t : step * t + width].copy() for t in range(count)]


def make_films(folder: Path) -> Path:
    """Two scenes of 2.5 s in one film, a short film, a black one, an unreadable one, a song, an orphan."""
    folder.mkdir()
    write_clip_of(folder / "film.mp4", [*scene(1, 30), *scene(2, 30)], fps=12)
    write_clip_of(folder / "long.webm", scene(3, 132, step=1), fps=12)
    write_clip_of(folder / "short.mp4", scene(4, 6), fps=12)
    write_clip_of(folder / "black.mp4", [np.zeros((48, 80, 3), np.uint8)] * 24, fps=12)
    (folder / "cut.mp4").write_bytes((folder / "film.mp4").read_bytes()[:2000])
    write_tone(folder / "song.mp4")
    for path in list(folder.iterdir()):
        path.with_suffix(".txt").write_text(f"the {path.stem}\nthe {path.stem} again\n")
    return folder


def run(films: Path, out: Path, **changes: Any) -> preparing.Outcome:
    items = list_samples(films, media=Media.CLIPS).checked(1.0).items
    return prepare(items, out, **{"settings": SETTINGS, "thresholds": Thresholds(), **changes})


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_scenes_are_cut_where_they_change() -> None:
    film = [*scene(1, 30), *scene(2, 40), *scene(3, 20)]
    assert scene_cuts(iter(film), 12.0, 27.0) == [30, 70]
    assert scene_cuts(iter(film[:30]), 12.0, 27.0) == []
    assert scene_cuts(iter([]), 12.0, 27.0) == []


@pytest.mark.parametrize(
    "num_frames,cuts,expected",
    [
        (30, [], [(0, 30)]),
        (30, [20], [(0, 20)]),  # ten frames are less than a second
        (96, [], [(0, 48), (48, 96)]),  # of at most 4 s
        (97, [], [(0, 32), (32, 64), (64, 97)]),
        (100, [4, 60], [(4, 32), (32, 60), (60, 100)]),
        (5, [], []),
    ],
)
def test_pieces_are_neither_too_long_nor_too_short(
    num_frames: int, cuts: list[int], expected: list[tuple[int, int]]
) -> None:
    assert pieces(num_frames, cuts, SETTINGS) == [Piece(*piece) for piece in expected]


@pytest.mark.parametrize(
    "size,expected", [((64, 96), (32, 48)), ((96, 64), (48, 32)), ((16, 30), (32, 60)), ((50, 50), (32, 32))]
)
def test_the_short_side_is_as_asked_and_both_are_even(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert shrunk(np.zeros((*size, 3), np.uint8), 32).shape[:2] == expected


def test_a_set_is_prepared_as_the_paper_did(tmp_path: Path) -> None:
    outcome = run(make_films(tmp_path / "films"), tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "captions.jsonl")
    found = [(row["source"], row["start"], row["seconds"]) for row in rows]
    assert found == [
        ("black.mp4", 0.0, 2.0),
        ("film.mp4", 0.0, 2.5),
        ("film.mp4", 2.5, 2.5),
        ("long.webm", 0.0, 3.667),
        ("long.webm", 3.667, 3.667),
        ("long.webm", 7.333, 3.667),
    ]
    for row in rows:
        stem = Path(row["source"]).stem
        assert row["caption"] == [f"the {stem}", f"the {stem} again"]
        facts = read_facts(tmp_path / "out" / row["file"])
        assert min(facts.height, facts.width) == 32 and facts.fps == pytest.approx(12)
        assert facts.seconds == pytest.approx(row["seconds"], abs=0.01)
    assert outcome.num_kept == 6 and outcome.num_dropped == 0
    assert outcome.reasons == {"cannot be read": 2, "too short": 1}
    assert len(outcome.unreadable) == 2
    assert "song.mp4: no video stream" in " ".join(outcome.unreadable)


def test_what_was_prepared_can_be_trained_on(tmp_path: Path) -> None:
    run(make_films(tmp_path / "films"), tmp_path / "out", thresholds=Thresholds(max_black=0.5))
    source = FolderClips(
        tmp_path / "out",
        encode=lambda images: images,
        image_size=16,
        num_frames=4,
        fps=4,
        seed=0,
        validation_size=1,
    )
    assert not source.listing.dropped  # what was dropped is out of the way
    batch = source.batch(range(8))
    assert batch.latents.shape == (8, 4, 3, 16, 16) and not batch.unreadable


def test_thresholds_drop_clips_and_bring_them_back(tmp_path: Path) -> None:
    films, out = make_films(tmp_path / "films"), tmp_path / "out"
    run(films, out)
    before = {path.name: path.stat().st_mtime_ns for path in (out / "clips").iterdir()}
    dropped = run(films, out, thresholds=Thresholds(max_black=0.5))
    assert (dropped.num_kept, dropped.num_dropped) == (5, 1) and dropped.reasons["black"] == 1
    reasons = {row["source"]: row.get("dropped") for row in rows_of(out / "quality.jsonl")}
    assert reasons["black.mp4"] == "black 1 above 0.5" and reasons["film.mp4"] is None
    assert len(list((out / "clips").iterdir())) == 5
    assert run(films, out).num_kept == 6
    assert {
        path.name: path.stat().st_mtime_ns for path in (out / "clips").iterdir()
    } == before  # not made anew


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    films = make_films(tmp_path / "films")
    run(films, tmp_path / "whole")
    real, calls = preparing._write_piece, []

    def dies(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:  # in the middle of film.mp4
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(preparing, "_write_piece", dies)
    with pytest.raises(KeyboardInterrupt):
        run(films, tmp_path / "out")
    assert not (tmp_path / "out" / "captions.jsonl").exists()
    monkeypatch.setattr(preparing, "_write_piece", real)
    run(films, tmp_path / "out")
    for name in ("captions.jsonl", "quality.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for path in (tmp_path / "whole" / "clips").iterdir():
        assert (tmp_path / "out" / "clips" / path.name).read_bytes() == path.read_bytes()


def test_threads_change_nothing(tmp_path: Path) -> None:
    films = make_films(tmp_path / "films")
    run(films, tmp_path / "one")
    run(films, tmp_path / "three", num_threads=3)
    names = sorted(
        str(path.relative_to(tmp_path / "one")) for path in (tmp_path / "one").rglob("*") if path.is_file()
    )
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes(), name


def test_other_settings_and_other_files_are_refused(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    write_clip_of(films / "a.mp4", scene(1, 24), fps=12)
    (films / "a.txt").write_text("a")
    run(films, tmp_path / "out")
    with pytest.raises(UserError, match=r"holds clips of other settings \(fps\)"):
        run(
            films, tmp_path / "out", settings=ClipSettings(short_side=32, fps=8, min_seconds=1, max_seconds=4)
        )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
        run(films, tmp_path / "mine")
    bads: list[dict[str, Any]] = [{"short_side": 33}, {"fps": float("nan")}, {"min_seconds": 3.0, "max_seconds": 4.0}]
    for bad in bads:
        with pytest.raises(UserError, match="must be"):
            ClipSettings(**bad)


def test_two_sources_never_share_a_file_name() -> None:
    names = [
        "a b.mp4",
        "a_b.mp4",
        "a/b.mp4",
        "a b.webm",
        "é.mp4",
        "../../etc/passwd",
        "x" * 300,
        "\udcff.mp4",
    ]
    keys = {preparing.key_of(name) for name in names}
    assert len(keys) == len(names)
    assert all(len(key) < 80 and "/" not in key and not key.startswith(".") for key in keys)


def test_subtitles_and_letterbox_are_found_in_the_files(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    plain = scene(5, 36, height=256, width=384, step=6)
    framed, titled = [], []
    for frame in plain:
        bars = frame.copy()
        bars[:32] = bars[-32:] = 0
        framed.append(bars)
        image = Image.fromarray(frame)
        draw = ImageDraw.Draw(image)
        for row in range(180, 240, 12):
            draw.text(
                (40, row),
                "these are subtitles, line by line by line",
                (255,) * 3,
                stroke_width=1,
                stroke_fill=(0,) * 3,
            )
        titled.append(np.asarray(image))
    for name, frames in {"plain": plain, "framed": framed, "titled": titled}.items():
        write_clip_of(films / f"{name}.mp4", frames, fps=12)
        (films / f"{name}.txt").write_text(name)
    run(films, tmp_path / "out", settings=ClipSettings(short_side=256, fps=12, min_seconds=1, max_seconds=4))
    measured = {row["source"]: row for row in rows_of(tmp_path / "out" / "quality.jsonl")}
    assert measured["plain.mp4"]["border"] == 0 and measured["plain.mp4"]["overlay"] < 0.005
    assert measured["framed.mp4"]["border"] == pytest.approx(0.25, abs=0.03)
    assert measured["titled.mp4"]["overlay"] > 0.03


def test_a_full_disk_is_not_blamed_on_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    films = make_films(tmp_path / "films")

    def full(path: Path, *arguments: Any, **options: Any) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(preparing, "encode", full)
    with pytest.raises(OSError, match="No space left"):
        run(films, tmp_path / "out")


def test_an_item_is_read_by_its_content(tmp_path: Path) -> None:
    """Clips of shards and tables are bytes."""
    path = write_clip_of(tmp_path / "a.mp4", scene(1, 24), fps=12)

    class InMemory:
        def read(self) -> bytes:
            return path.read_bytes()

    outcome = prepare(
        [Item("x/a", ("c",), InMemory())], tmp_path / "out", settings=SETTINGS, thresholds=Thresholds()
    )
    assert outcome.num_kept == 1
