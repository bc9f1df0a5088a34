"""Damaged data sets: does anything but a named error come out of reading them? Counts, printed as Markdown.

    nice python benchmarks/fuzz_data.py [--inputs 2000] [--seed 0]

Each input is a good data set with some bytes of one file changed, cut off, doubled or replaced. It is listed
and every sample decoded, as training would. Right is: samples, or a UserError of one line. Anything else
is printed with its seed and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import tarfile
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from gentron.data.clip_writer import write_clip
from gentron.data.folder import load_clip, load_picture
from gentron.data.listing import Media
from gentron.data.samples import list_samples
from gentron.errors import UserError

WORDS = [
    *(
        b"\xef\xbb\xbf",
        b"\x00",
        b"\xff",
        b"\r\n",
        b'"',
        b"{",
        b"}",
        b"[[[[",
        b"NaN",
        b"1e999",
        b"\xe2\x80\xa8",
    ),
    *(b"null", b"../../x", b"\\ud800", b"\t", b";", b"\x80" * 8, b"9" * 30, b"\x7f\xff\xff\xff"),
]


def picture(form: str, rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(buffer, format=form)
    return buffer.getvalue()


def make_pictures(folder: Path, rng: np.random.Generator) -> None:
    for suffix, form in {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF"}.items():
        (folder / f"{suffix}.{suffix}").write_bytes(picture(form, rng))
        (folder / f"{suffix}.txt").write_text(f"a {suffix}\ntwo\n")


def make_json(folder: Path, rng: np.random.Generator) -> None:
    for k in range(3):
        (folder / f"{k}.png").write_bytes(picture("PNG", rng))
        (folder / f"{k}.json").write_text(json.dumps({"caption": ["ein Käfer", None, "b"], "n": 1.5}))


def make_jsonl(folder: Path, rng: np.random.Generator) -> None:
    rows = [{"file": f"{k}.png", "caption": [f"picture {k}", "\u2028é"]} for k in range(3)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for k in range(3):
        (folder / f"{k}.png").write_bytes(picture("PNG", rng))


def make_csv(folder: Path, rng: np.random.Generator) -> None:
    (folder / "metadata.csv").write_text('file_name,text\n0.png,"one, ""two"""\n1.png,x\n')
    for k in range(2):
        (folder / f"{k}.png").write_bytes(picture("PNG", rng))


def make_tar(folder: Path, rng: np.random.Generator) -> None:
    members = {
        f"d.1/{k}.{s}": picture("PNG", rng) if s == "png" else b"x" for k in range(3) for s in ("png", "txt")
    }
    with tarfile.open(folder / "0.tar", "w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def make_parquet(folder: Path, rng: np.random.Generator) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {"image": [picture("PNG", rng) for _ in range(3)], "text": ["a", "b", "c"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "0.parquet")


def make_clips(folder: Path, rng: np.random.Generator) -> None:
    wide = rng.integers(0, 255, (32, 96, 3), dtype=np.uint8)
    frames = np.stack([wide[:, 4 * t : 4 * t + 48] for t in range(12)])
    for suffix in (".mp4", ".webm", ".gif", ".webp"):
        write_clip(folder / f"clip{suffix}", frames, 4)
        (folder / "clip.txt").write_text("a clip")


KINDS: dict[str, tuple[Callable[[Path, np.random.Generator], None], Media]] = {
    "pictures": (make_pictures, Media.PICTURES),
    "JSON beside pictures": (make_json, Media.PICTURES),
    "JSONL": (make_jsonl, Media.PICTURES),
    "CSV": (make_csv, Media.PICTURES),
    "tar": (make_tar, Media.PICTURES),
    "Parquet": (make_parquet, Media.PICTURES),
    "clips": (make_clips, Media.CLIPS),
}


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four changes; every second one near the start, where headers are."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        end = len(changed) if rng.random() < 0.5 else min(len(changed), 600)
        place = int(rng.integers(0, max(end, 1)))
        how = rng.integers(6)
        if how == 0 and changed:
            changed[place % len(changed)] ^= 1 << int(rng.integers(8))
        elif how == 1:
            changed[place : place + int(rng.integers(1, 9))] = rng.bytes(int(rng.integers(0, 9)))
        elif how == 2:
            word = WORDS[int(rng.integers(len(WORDS)))]
            changed[place : place + len(word) * int(rng.integers(2))] = word
        elif how == 3:
            del changed[place:]
        elif how == 4:
            changed[place:place] = changed[place : place + int(rng.integers(1, 300))]
        else:
            changed[place : place + int(rng.integers(1, 64))] = bytes(int(rng.integers(1, 64)))
    return bytes(changed)


def read_all(folder: Path, media: Media, cache: Path) -> str:
    """What came of it, as training would see it."""
    try:
        items = list_samples(folder, media=media, cache_dir=cache).checked(1.0).items
    except UserError as error:
        assert "\n" not in " ".join(str(error).split())
        return "refused"
    outcome = "read"
    for item in items:
        try:
            if media is Media.PICTURES:
                load_picture(item, 16)
            else:
                load_clip(item, np.random.default_rng(0), num_frames=8, fps=4, image_size=16)
        except UserError:
            outcome = "read, with broken files"
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        whole = {kind: Path(name) / "whole" / kind.replace(" ", "-") for kind in KINDS}
        for kind, folder in whole.items():
            folder.mkdir(parents=True)
            KINDS[kind][0](folder, np.random.default_rng(0))
        for number in range(arguments.inputs):
            rng = np.random.default_rng([arguments.seed, number])
            kind = list(KINDS)[number % len(KINDS)]
            folder, cache = Path(name) / "damaged", Path(name) / "cache"
            shutil.copytree(whole[kind], folder)
            files = sorted(folder.iterdir())
            path = files[int(rng.integers(len(files)))]
            path.write_bytes(damaged(path.read_bytes(), rng))
            try:
                outcomes[kind][read_all(folder, KINDS[kind][1], cache)] += 1
            except Exception:  # what is looked for
                outcomes[kind]["TRACEBACK"] += 1
                print(f"input {number} ({kind}, {path.name}):\n{traceback.format_exc()}", flush=True)
            shutil.rmtree(folder)
            shutil.rmtree(cache, ignore_errors=True)
    columns = ("read", "read, with broken files", "refused", "TRACEBACK")
    print(f"| form | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for kind in KINDS:
        print(f"| {kind} | {' | '.join(str(outcomes[kind][column]) for column in columns)} |")
    print(f"\n{arguments.inputs} inputs, seed {arguments.seed}, {time.perf_counter() - begin:.0f} s.")
    if any(counts["TRACEBACK"] for counts in outcomes.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
