"""Samples of data sets in every form that strangers bring, and what becomes of the odd ones."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gentron.data.folder import FolderClips, FolderSource
from gentron.data.listing import Columns, Listing, Media
from gentron.data.samples import expand_braces, list_samples
from gentron.data.tars import split_member
from gentron.data.walk import walk_files
from gentron.errors import UserError
from tests.gentron.made_clips import counter, read_counter, write_clip_of, write_tone

CASES = Path(__file__).parents[1] / "data" / "cases"


def png(level: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (level, 0, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def as_bytes(content: str | bytes | None, number: int) -> bytes:
    """None is a picture whose red tells its place."""
    return png(number) if content is None else content.encode() if isinstance(content, str) else content


def fill(folder: Path, files: Mapping[str, str | bytes | None]) -> Path:
    """Files by their names."""
    for number, (name, content) in enumerate(files.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_bytes(content, number))
    return folder


def captions_of(listing: Listing) -> dict[str, tuple[str, ...]]:
    return {item.name: item.captions for item in listing.items}


def tar(path: Path, members: Mapping[str, str | bytes | None], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for number, (name, content) in enumerate(members.items()):
            data = as_bytes(content, number)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
    return path


# ---- the collected cases -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case,expected",
    [
        ("apple_double_ascii", {"a.png": ("red",)}),
        ("apple_double_binary", {"a.png": ("red",)}),
        ("hidden_folder", {"a.png": ("red",)}),
        ("macosx_folder", {"a.png": ("red",)}),
        ("bom_caption", {"a.png": ("a red circle",), "b.png": ("a red circle",)}),
        ("folder_uppercase_TXT", {"a.png": ("x",), "b.png": ("y",)}),
        ("jsonl_bom", {"a.png": ("red",)}),
        ("jsonl_null_in_list", {"a.png": ("red",)}),
        ("jsonl_one_picture_two_rows", {"a.png": ("one", "two")}),
        ("jsonl_u2028", {"a.png": ("red\u2028circle",), "b.png": ("blue\x85square",)}),
        ("tar_dot_slash", {"x.tar/0001": ("red",), "x.tar/0002": ("blue",)}),
        ("tar_dotted_folder", {"x.tar/train.v1/0001": ("red",), "x.tar/train.v1/0002": ("blue",)}),
        ("tar_mixed_dots", {"x.tar/0001": ("red",), "x.tar/v1.5/0002": ("blue",), "x.tar/0003": ("green",)}),
        ("tar_uppercase", {"x.tar/0001": ("red",), "x.tar/0002": ("x",)}),
        ("bomb", {"a.png": ("x",), "b.png": ("y",), "c.png": ("y",)}),
    ],
)
def test_every_case_is_listed_right(case: str, expected: dict[str, tuple[str, ...]]) -> None:
    listing = list_samples(CASES / case)
    found = captions_of(listing)
    assert found.keys() == expected.keys() and not listing.dropped
    assert found == expected
    for item in listing.items:
        content = item.read()
        assert (content if isinstance(content, bytes) else content.read_bytes()).startswith(
            (b"\x89PNG", b"\xff\xd8")
        )


def test_entries_that_are_no_text_are_counted() -> None:
    summary = list_samples(CASES / "jsonl_null_in_list").summary
    assert summary.endswith("1 picture, 1 caption; 3 entries of caption lists are blank or no text")


def test_a_caption_in_another_encoding_is_named() -> None:
    listing = list_samples(CASES / "latin1_caption")
    with pytest.raises(
        UserError, match=r"1 unreadable captions \(a.txt:1: not UTF-8 text \(byte 0xe9 at 3\)"
    ):
        listing.checked()


def test_two_rows_of_one_picture_are_one_picture() -> None:
    with pytest.raises(UserError, match="holds 1 captioned picture, need at least 2"):
        source(CASES / "jsonl_one_picture_two_rows")


def test_a_bomb_is_named_and_the_run_goes_on() -> None:
    training = source(CASES / "bomb")
    batches = [training.batch(range(start, start + 4)) for start in (0, 4, 8)]
    told = [*training.held_back().unreadable, *(line for batch in batches for line in batch.unreadable)]
    assert told and all("b.png" in line and "bomb" in line for line in told)


# ---- folders -----------------------------------------------------------------------------------------------


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    fill(tmp_path / "target", {"a.png": None, "a.txt": "linked"})
    root = fill(tmp_path / "data", {"own.png": None, "own.txt": "own", "sub/b.png": None, "sub/b.txt": "sub"})
    (root / "cls").symlink_to(tmp_path / "target")
    (root / "f.png").symlink_to(tmp_path / "target" / "a.png")
    (root / "f.txt").symlink_to(tmp_path / "target" / "a.txt")
    (root / "loop").symlink_to(root)
    (root / "again").symlink_to(root / "sub")  # sorts before sub, whose place it must not take
    (root / "sub" / "up").symlink_to("..")
    assert captions_of(list_samples(root)) == {
        "own.png": ("own",),
        "f.png": ("linked",),
        "cls/a.png": ("linked",),
        "sub/b.png": ("sub",),
    }


def test_a_broken_link_is_named_when_it_is_read(tmp_path: Path) -> None:
    root = fill(tmp_path, {f"{k}.{s}": None if s == "png" else "x" for k in range(5) for s in ("png", "txt")})
    (root / "0.png").unlink()
    (root / "0.png").symlink_to("gone.png")
    training = source(root)
    told = [*training.held_back().unreadable, *training.batch(range(20)).unreadable]
    assert told and all("0.png: No such file" in line for line in told)


def test_what_systems_leave_behind_is_no_sample(tmp_path: Path) -> None:
    root = fill(
        tmp_path,
        {
            "a.png": None,
            "a.txt": "a",
            "._a.png": None,
            "._a.txt": "x",
            ".DS_Store": "x",
            "Thumbs.db": "x",
            "__MACOSX/a.png": None,
            "__MACOSX/a.txt": "x",
            ".ipynb_checkpoints/a.png": None,
            ".git/a.png": None,
            "@eaDir/a.png": None,
        },
    )
    assert [path.name for path in walk_files(root)] == ["a.png", "a.txt"]


def test_captions_come_from_the_first_file_that_holds_one(tmp_path: Path) -> None:
    root = fill(
        tmp_path,
        {
            "empty.png": None,
            "empty.txt": " \r\n\r\n",
            "empty.json": '{"caption": "from json"}',
            "both.png": None,
            "both.txt": "from txt",
            "both.json": '{"caption": "from json"}',
            "kohya.jpg": None,
            "kohya.caption": "a\r\nb\r\n",
            "list.webp": None,
            "list.json": '["one", null, "two"]',
            "text.BMP": None,
            "text.JSON": '{"caption": null, "text": "t"}',
            "scan.tiff": None,
            "scan.TxT": "s",
            "photo.1.png": None,
            "photo.1.txt": "dotted",
        },
    )
    assert captions_of(list_samples(root)) == {
        "empty.png": ("from json",),
        "both.png": ("from txt",),
        "kohya.jpg": ("a", "b"),
        "list.webp": ("one", "two"),
        "text.BMP": ("t",),
        "scan.tiff": ("s",),
        "photo.1.png": ("dotted",),
    }


def test_dropped_samples_are_counted_with_reasons(tmp_path: Path) -> None:
    files: dict[str, str | bytes | None] = {}
    for number in range(40):
        files |= {f"{number:02d}.png": None, f"{number:02d}.txt": "x"}
    files |= {"none.png": None, "blank.png": None, "blank.txt": "\n \n", "bad.png": None, "bad.json": "{"}
    files |= {"nul.png": None, "nul.json": '{"caption": [null, 3]}'}
    listing = list_samples(fill(tmp_path, files)).checked()
    assert listing.summary == (
        f"{tmp_path}: 40 pictures, 40 captions; dropped 4: 1 captions blank or no text (nul.png); "
        "2 no caption (blank.png, none.png); 1 unreadable captions (bad.json: not JSON: Expecting property "
        "name enclosed in double quotes at column 2)"
    )
    with pytest.raises(
        UserError, match=r"4 of 44 pictures have no usable caption or file, more than the share of 0\.05"
    ):
        list_samples(tmp_path).checked(0.05)


def test_a_run_whose_captions_are_missing_stops(tmp_path: Path) -> None:
    root = fill(tmp_path, {f"{k}.png": None for k in range(10)} | {f"{k}.txt": "x" for k in range(8)})
    with pytest.raises(
        UserError, match=r"2 of 10 pictures have no usable caption .* more than the share of 0.1"
    ):
        source(root)
    lines: list[str] = []
    assert len(source(root, max_dropped=0.2, report=lines.append).batch(range(4)).captions) == 4
    assert lines == [f"{root}: 8 pictures, 8 captions; dropped 2: 2 no caption (8.png, 9.png)"]


LISTED = [
    {"file_name": "a.png", "text": "first"},
    {"file_name": "a.png", "text": "second"},
    {"file_name": "sub/b.png", "text": "b", "id": 7},
    {"file_name": "sub/../c.png", "text": ["c", "see"]},
]


@pytest.mark.parametrize("name", ["captions.jsonl", "metadata.jsonl", "metadata.csv", "captions.csv"])
def test_listings_of_every_kind(tmp_path: Path, name: str) -> None:
    root = fill(tmp_path, {"a.png": None, "sub/b.png": None, "c.png": None, "d.png": None, "d.txt": "beside"})
    if name.endswith(".csv"):
        with open(root / name, "w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file, delimiter=";")
            writer.writerow(["file_name", "text"])
            for row in LISTED:
                for text in row["text"] if isinstance(row["text"], list) else [row["text"]]:
                    writer.writerow([row["file_name"], text])
    else:
        (root / name).write_text("".join(json.dumps(row) + "\r\n" for row in LISTED), newline="")
    expected = {
        "a.png": ("first", "second"),
        "sub/b.png": ("b",),
        "c.png": ("c", "see"),
        "d.png": ("beside",),
    }
    assert captions_of(list_samples(root)) == expected
    del expected["d.png"]
    assert captions_of(list_samples(root / name)) == expected  # the listing alone


def test_metadata_in_the_folders_of_splits(tmp_path: Path) -> None:
    """As `datasets` writes an imagefolder: one metadata.jsonl a split, relative to it."""
    for split, text in (("train", "x"), ("test", "y")):
        listing = json.dumps({"file_name": "a.png", "text": text})
        fill(tmp_path, {f"{split}/a.png": None, f"{split}/metadata.jsonl": listing})
    assert captions_of(list_samples(tmp_path)) == {"train/a.png": ("x",), "test/a.png": ("y",)}


def test_datasets_reads_the_same_imagefolder_alike(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"file_name": f"{k}.png", "text": f"picture {k}"} for k in range(4)]
    fill(tmp_path / "set", {f"{k}.png": None for k in range(4)})
    (tmp_path / "set" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    theirs = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "set"), split="train", cache_dir=str(tmp_path / "cache")
    )
    ours = list_samples(tmp_path / "set")
    assert sorted(theirs["text"]) == sorted(caption for item in ours.items for caption in item.captions)


def test_faults_of_listings_are_named(tmp_path: Path) -> None:
    root = fill(
        tmp_path, {"a.png": None, "b.png": None, "captions.jsonl": '{"file": "a.png", "caption": "x"}\n'}
    )
    (root / "metadata.csv").write_text("file,caption\na.png,x\n")
    with pytest.raises(UserError, match="has two listings, captions.jsonl and metadata.csv; keep one"):
        list_samples(root)
    (root / "captions.jsonl").unlink()
    (root / "metadata.csv").write_text("file,subtitle\na.png,x\n")
    with pytest.raises(UserError, match="metadata.csv: no column caption or .*, but file, subtitle"):
        list_samples(root)
    assert captions_of(list_samples(root, columns=Columns(caption="subtitle")))["a.png"] == ("x",)
    (root / "metadata.csv").write_text(
        "file,caption\na.png,x\nno/such.png,y\nclip.mp4,z\n" + "x" * 300 + ",q\n"
    )
    (root / "clip.mp4").write_bytes(b"")
    listing = list_samples(root)
    assert listing.dropped == {
        "file missing": ["no/such.png", "x" * 300],
        "not among pictures": ["clip.mp4"],
        "no caption": ["b.png"],
    }


# ---- shards ------------------------------------------------------------------------------------------------


def test_members_split_as_webdataset_splits_them() -> None:
    webdataset = pytest.importorskip("webdataset.tariterators")
    for name in (
        "a.png",
        "x/a.png",
        "train.v1/a.png",
        "x/a.seg.png",
        "a.PNG",
        "x.y/z/a.b.c",
        "noext",
        "x.y/noext",
    ):
        theirs = webdataset.base_plus_ext(name)
        ours = split_member(name)
        assert ours == (None if theirs[1] is None else (theirs[0], f".{theirs[1].lower()}"))
    for name in ("._a.png", "x/.a.png", "__MACOSX/a.png", ".ipynb_checkpoints/a.png", "./._a.png"):
        assert split_member(name) is None
    assert split_member("./a.png") == split_member("a.png") == ("a", ".png")


def test_shards_in_subfolders_and_compressed(tmp_path: Path) -> None:
    members: dict[str, str | bytes | None] = {
        "0.png": None,
        "0.txt": "zero",
        "1.jpg": None,
        "1.json": '{"caption": "one"}',
    }
    root = tmp_path / "data"
    tar(root / "train" / "00000.tar", members)
    tar(root / "00001.tar.gz", members, "w:gz")
    tar(root / "00002.TGZ", members, "w:gz")
    (root / "00000_stats.json").write_text("{}")
    listing = list_samples(root, cache_dir=tmp_path / "cache").checked()
    assert captions_of(listing) == {
        f"{shard}/{key}": (text,)
        for shard in ("train/00000.tar", "00001.tar.gz", "00002.TGZ")
        for key, text in (("0", "zero"), ("1", "one"))
    }
    assert len({item.read() for item in listing.items}) == 2
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    list_samples(root, cache_dir=tmp_path / "cache")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == before and len(
        before
    ) == 2


def test_odd_shards(tmp_path: Path) -> None:
    members: dict[str, str | bytes | None] = {
        "0.png": None,
        "0.jpg": None,
        "0.txt": "two pictures",
        "1.png": None,
        "1.txt": b"caf\xe9",
        "2.txt": "no picture",
        "3.png": None,
        "3.txt": " ",
        "3.json": '{"caption": "from json"}',
        "._0.png": None,
    }
    listing = list_samples(tar(tmp_path / "x.tar", members))
    assert captions_of(listing) == {
        "x.tar/0.png": ("two pictures",),
        "x.tar/0.jpg": ("two pictures",),
        "x.tar/3": ("from json",),
    }
    assert listing.dropped["unreadable captions"][0].startswith("x.tar/1.txt:1: not UTF-8 text")
    tar(tmp_path / "x.tar", {"0.png": None, "0.txt": "again"}, "a")  # appended: the last one counts
    assert captions_of(list_samples(tmp_path / "x.tar"))["x.tar/0.png"] == ("again",)


def test_a_shard_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", {"0.png": None, "0.txt": "a", "1.png": None, "1.txt": "b"})
    whole = path.read_bytes()
    for data in (b"not a tar", whole[:700], b""):
        path.write_bytes(data)
        with pytest.raises(UserError, match="cannot read shard .*x.tar"):
            list_samples(tmp_path)
    path.unlink()
    with gzip.open(tmp_path / "y.tar.gz", "wb") as file:
        file.write(whole)
    data = (tmp_path / "y.tar.gz").read_bytes()
    for cut in (data[: len(data) // 2], b"not gzip"):
        (tmp_path / "y.tar.gz").write_bytes(cut)
        with pytest.raises(UserError, match="cannot read shard .*y.tar.gz"):
            list_samples(tmp_path, cache_dir=tmp_path / "cache")
    assert not any((tmp_path / "cache").iterdir())


def test_shard_patterns(tmp_path: Path) -> None:
    assert list(expand_braces("a-{08..10}.tar")) == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert list(expand_braces("{0..1}/{0..1}")) == ["0/0", "0/1", "1/0", "1/1"]
    for number in range(3):
        tar(tmp_path / f"{number:03d}.tar", {"0.png": None, "0.txt": str(number)})
    listing = list_samples(f"{tmp_path}/{{000..001}}.tar")
    assert captions_of(listing) == {"000.tar/0": ("0",), "001.tar/0": ("1",)}
    with pytest.raises(UserError, match="no such data file: .*003.tar"):
        list_samples(f"{tmp_path}/{{000..003}}.tar")


# ---- tables ------------------------------------------------------------------------------------------------


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def read_red(item: Any) -> int:
    content = item.read()
    with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
        pixel = image.convert("RGB").getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return int(pixel[0])


@pytest.mark.parametrize("form", ["bytes", "struct", "path", "image"])
def test_parquet_holds_pictures_in_any_form(tmp_path: Path, form: str) -> None:
    import datasets

    root = tmp_path / "data"
    data = [png(20 * k) for k in range(4)]
    captions = ["zero", None, ["two", "zwei"], " "]
    texts = [caption if isinstance(caption, list) or caption is None else [caption] for caption in captions]
    if form == "path":
        fill(root, {f"{k}.png": data[k] for k in range(4)})
    cells = {
        "bytes": data,
        "struct": [{"bytes": d, "path": None} for d in data],
        "path": [f"{k}.png" for k in range(4)],
        "image": [{"bytes": d, "path": None} for d in data],
    }[form]
    if form == "image":
        features = datasets.Features(
            {"image": datasets.Image(), "caption": datasets.List(datasets.Value("string"))}
        )
        table = datasets.Dataset.from_dict({"image": cells, "caption": texts}, features=features)
        root.mkdir()
        table.to_parquet(root / "x.parquet")
    else:
        write_parquet(root / "x.parquet", {"image": cells, "caption": texts})
    listing = list_samples(root / "x.parquet", cache_dir=tmp_path / "cache")
    assert [item.captions for item in listing.items] == [("zero",), ("two", "zwei")]
    assert [read_red(item) for item in listing.items] == [0, 40]
    assert listing.num_dropped == 2


def test_columns_by_name_and_by_custom(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", {"photo": [png(1), png(2)], "alt": ["a", "b"], "n": [1, 2]})
    for columns, reason in (
        (
            Columns(),
            "no column with pictures: tried image, .*; the columns are photo, alt, n; name one with --media",
        ),
        (Columns(media="photo"), "no column with captions: .* --caption-column"),
        (Columns(media="foto"), "no column 'foto'; the columns are photo, alt, n"),
    ):
        with pytest.raises(UserError, match=reason):
            list_samples(path, columns=columns, cache_dir=tmp_path / "cache")
    listing = list_samples(path, columns=Columns(media="photo", caption="alt"), cache_dir=tmp_path / "cache")
    assert [item.captions for item in listing.items] == [("a",), ("b",)]


def test_parquet_beside_the_shards_of_img2dataset_is_no_data_set(tmp_path: Path) -> None:
    tar(tmp_path / "00000.tar", {"0.png": None, "0.txt": "x", "1.png": None, "1.txt": "y"})
    write_parquet(tmp_path / "00000.parquet", {"url": ["http://x"], "caption": ["x"]})
    assert len(list_samples(tmp_path).items) == 2


def test_a_damaged_parquet_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(UserError, match="cannot read .*x.parquet"):
        list_samples(tmp_path, cache_dir=tmp_path / "cache")


def test_a_hub_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local repository in the hub's layout stands for one in the cache."""

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    write_parquet(
        tmp_path / "set" / "data" / "train-00000-of-00001.parquet",
        {"image": [{"bytes": png(9), "path": None}], "text": ["x"]},
    )
    write_parquet(
        tmp_path / "set" / "data" / "test-00000-of-00001.parquet",
        {"image": [{"bytes": png(7), "path": None}], "text": ["y"]},
    )
    train, test = list_samples(f"hf:{tmp_path}/set"), list_samples(f"hf:{tmp_path}/set@test")
    assert captions_of(train) == {"000000000": ("x",)} and read_red(train.items[0]) == 9
    assert captions_of(test) == {"000000000": ("y",)} and read_red(test.items[0]) == 7
    with pytest.raises(UserError, match="cannot load the data set hf:no-such/set"):
        list_samples("hf:no-such/set")
    with pytest.raises(UserError, match="expected hf:NAME"):
        list_samples("hf:")


def test_all_forms_of_one_set_give_equal_captions_and_pictures(tmp_path: Path) -> None:
    names = [f"{k:02d}" for k in range(6)]
    files = {f"{name}.png": png(20 * k) for k, name in enumerate(names)}
    texts = {f"{name}.txt": f"picture {k}" for k, name in enumerate(names)}
    fill(tmp_path / "folder", {**files, **texts})
    tar(tmp_path / "tar" / "0.tar", {**files, **texts})
    fill(
        tmp_path / "listed",
        {
            **files,
            "metadata.csv": "file_name,text\n"
            + "".join(f"{name}.png,picture {k}\n" for k, name in enumerate(names)),
        },
    )
    write_parquet(
        tmp_path / "parquet" / "0.parquet", {"image": list(files.values()), "text": list(texts.values())}
    )
    sets = [
        [
            (read_red(item), item.captions)
            for item in list_samples(tmp_path / form, cache_dir=tmp_path / "c").checked().items
        ]
        for form in ("folder", "tar", "listed", "parquet")
    ]
    assert sets[0] == sets[1] == sets[2] == sets[3] == [(20 * k, (f"picture {k}",)) for k in range(6)]


# ---- clips -------------------------------------------------------------------------------------------------


def make_clips(folder: Path, count: int = 6) -> Path:
    """Clip k counts from 6 k on; three kinds of files, and a folder of frames."""
    folder.mkdir(parents=True)
    for number in range(count):
        frames = [counter(6 * (number % 6) + index // 4) for index in range(24)]
        write_clip_of(folder / f"{number}{('.mp4', '.webm', '.gif')[number % 3]}", frames, fps=8)
        (folder / f"{number}.txt").write_text(f"clip {number}\n")
    (folder / "frames").mkdir()
    for index in range(9):
        Image.fromarray(counter(index)).save(folder / "frames" / f"{index}.png")
    (folder / "frames.txt").write_text("frames\n")
    return folder


def encode(images: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(images, 8)


def source(folder: Path, **more: Any) -> FolderSource:
    return FolderSource(folder, encode=encode, image_size=16, seed=1, validation_size=1, **more)


def clip_source(folder: Path, **more: Any) -> FolderClips:
    settings = {"image_size": 32, "num_frames": 8, "fps": 4.0, "seed": 1, "validation_size": 1}
    return FolderClips(folder, encode=encode, **{**settings, **more})


def test_clips_of_every_form_are_listed(tmp_path: Path) -> None:
    listing = list_samples(make_clips(tmp_path / "clips"), media=Media.CLIPS).checked()
    assert captions_of(listing) == {
        "0.mp4": ("clip 0",),
        "1.webm": ("clip 1",),
        "2.gif": ("clip 2",),
        "3.mp4": ("clip 3",),
        "4.webm": ("clip 4",),
        "5.gif": ("clip 5",),
        "frames": ("frames",),
    }
    pictures = list_samples(tmp_path / "clips", media=Media.PICTURES)
    assert not pictures.items and pictures.num_dropped == 9  # the frames, which have no captions as pictures


def test_clips_as_a_source(tmp_path: Path) -> None:
    training = clip_source(make_clips(tmp_path / "clips"))
    batch = training.batch(range(12))
    assert batch.latents.shape == (12, 8, 3, 4, 4) and not batch.unreadable
    again = clip_source(tmp_path / "clips").batch([7, 2])
    assert again.captions == [batch.captions[7], batch.captions[2]]
    assert torch.equal(again.latents, batch.latents[[7, 2]])
    held_back = training.held_back()
    assert held_back.latents.shape == (1, 8, 3, 4, 4) and held_back.captions[0] not in batch.captions
    assert "6 clips, 1 held back" in training.name


def test_windows_of_a_clip_differ_between_visits(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for number in range(2):
        write_clip_of(tmp_path / "clips" / f"{number}.mp4", [counter(index) for index in range(36)], fps=8)
        (tmp_path / "clips" / f"{number}.txt").write_text("x")
    batch = clip_source(tmp_path / "clips", num_frames=2).batch(range(20))
    assert len({tuple(clip.flatten().tolist()) for clip in batch.latents}) > 5


def spoil(root: Path, broken: dict[str, Callable[[Path], Any]]) -> None:
    for name, make in broken.items():
        make(root / name)
        (root / name).with_suffix(".txt").write_text(name)


def test_odd_clips_are_counted_and_skipped_never_a_crash(tmp_path: Path) -> None:
    root = make_clips(tmp_path / "clips", 6)
    spoil(
        root,
        {
            "audio.mp4": lambda path: write_tone(path),
            "short.mp4": lambda path: write_clip_of(path, [counter(0)] * 3, fps=24),
            "cut.mp4": lambda path: path.write_bytes((root / "0.mp4").read_bytes()[:700]),
            "empty.webm": lambda path: path.write_bytes(b""),
        },
    )
    (root / "orphan.txt").write_text("a caption without a file")
    training = clip_source(root)
    told = list(training.held_back().unreadable)
    for start in range(0, 60, 6):
        batch = training.batch(range(start, start + 6))
        assert batch.latents.shape == (6, 8, 3, 4, 4)
        told += batch.unreadable
    for name, reason in {
        "audio": "no video stream",
        "short": "shorter than asked",
        "cut": "",
        "empty": "",
    }.items():
        assert any(f"cannot read clip {name}." in line and reason in line for line in told)
    assert len(set(told)) == 4


def test_clips_in_shards_and_parquet(tmp_path: Path) -> None:
    folder = make_clips(tmp_path / "clips", 3)
    shutil.rmtree(folder / "frames")
    os.remove(folder / "frames.txt")
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    tar(tmp_path / "tar" / "0.tar", dict(files))
    videos = [data for name, data in files.items() if not name.endswith(".txt")]
    write_parquet(
        tmp_path / "parquet" / "0.parquet", {"video": videos, "caption": [f"clip {k}" for k in range(3)]}
    )
    whole = clip_source(folder)
    for form in ("tar", "parquet"):
        other = clip_source(tmp_path / form, cache_dir=tmp_path / "cache")
        assert sorted(c for item in other.listing.items for c in item.captions) == [
            "clip 0",
            "clip 1",
            "clip 2",
        ]
        first = {item.captions: item.read() for item in other.listing.items}
        assert first == {item.captions: Path(str(item.read())).read_bytes() for item in whole.listing.items}
        assert other.batch(range(3)).latents.shape == (3, 8, 3, 4, 4)


def test_a_clip_shows_what_its_caption_says(tmp_path: Path) -> None:
    """No mixing of samples on the way through threads: clip k counts from 6 k on."""
    root = make_clips(tmp_path / "clips", 6)
    shutil.rmtree(root / "frames")
    batch = clip_source(root, image_size=48).batch(range(15))
    for caption, latents in zip(batch.captions, batch.latents, strict=True):
        pixels = ((latents[0] + 1) * 127.5).permute(1, 2, 0).repeat_interleave(8, 0).repeat_interleave(8, 1)
        assert read_counter(pixels.numpy()) // 6 == int(caption.split()[1])


def test_levels_of_grey_survive_the_stack() -> None:
    assert [read_counter(counter(index)) for index in range(36)] == list(range(36))
    assert np.asarray(counter(35)).max() == 220
