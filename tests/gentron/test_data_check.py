"""`gentron data check` and `clips` as typed; near-duplicates of a benchmark."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from gentron.cli import app
from gentron.data.check import aspect_name
from gentron.data.near import CaptionIndex, difference_hash, features, near_hashes, read_prompts, words
from gentron.errors import UserError
from tests.gentron.made_clips import counter, write_clip_of, write_tone
from tests.gentron.test_data_prepare import make_films, scene


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def make_set(folder: Path, count: int = 12) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(count):
        small = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        size = (96 + 16 * (k % 3), 96)
        Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(folder / f"{k:02d}.png")
        (folder / f"{k:02d}.txt").write_text(f"a photo of thing number {k} on a table\n")
    return folder


# ---- near-duplicates ---------------------------------------------------------------------------------------


def test_words_know_no_case_or_punctuation() -> None:
    assert words("A red  Circle, left-of (the) BLUE one.") == (
        "a",
        "red",
        "circle",
        "left",
        "of",
        "the",
        "blue",
        "one",
    )
    assert words("Ein Käfer läuft über die Straße") == words("EIN KÄFER LÄUFT ÜBER DIE STRASSE")


def test_the_index_finds_what_comparing_all_pairs_finds() -> None:
    """Prefix filtering leaves nothing out."""
    rng = random.Random(0)
    vocabulary = "a red blue green circle square on the left of right big small and near".split()
    prompts = [" ".join(rng.choices(vocabulary, k=rng.randint(1, 9))) for _ in range(150)]
    captions = [" ".join(rng.choices(vocabulary, k=rng.randint(1, 9))) for _ in range(300)]
    for prompt in rng.sample(prompts, 60):
        tokens = prompt.split()
        tokens.insert(rng.randrange(len(tokens) + 1), rng.choice(vocabulary))
        captions.append(" ".join(tokens))
    for threshold in (0.5, 0.8, 1.0):
        index = CaptionIndex(prompts, threshold=threshold)
        num_found = 0
        for caption in captions:
            found = features(words(caption))
            best = max(len(found & f) / len(found | f) for f in (features(words(p)) for p in prompts))
            nearest = index.nearest(caption)
            num_found += nearest is not None
            if best >= threshold:
                assert nearest is not None and nearest[1] >= best
            elif nearest is not None:
                assert f" {nearest[0]} " in f" {caption} " and len(nearest[0].split()) >= 5  # contained
        assert num_found > 0


BATHROOM = "a bathroom with green tile and a red shower curtain"


@pytest.mark.parametrize(
    "caption,prompt",
    [
        ("A Bathroom with green tile and a red shower curtain.", BATHROOM),
        ("a photo: a red car and a white sheep, sharp", "a red car and a white sheep"),
        (BATHROOM + " today", BATHROOM),
        ("a bathroom with green tile and a blue shower curtain", None),
        ("a white sheep and a red car", "a red car and a white sheep"),
        ("a cat on a dog", None),
        ("a dog", None),
        ("a wooden dog on a lawn", None),
        ("", None),
    ],
)
def test_captions_near_a_prompt_are_named_and_others_not(caption: str, prompt: str | None) -> None:
    prompts = [
        "a red car and a white sheep",
        "a dog and a cat",
        "a bathroom with green tile and a red shower curtain",
        "a dog on",
    ]
    nearest = CaptionIndex(prompts).nearest(caption)
    assert (nearest and nearest[0]) == prompt


def test_difference_hash_survives_scaling_and_jpeg(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    pictures = [
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize(
            (120, 90), Image.Resampling.BICUBIC
        )
        for _ in range(20)
    ]
    hashes = [difference_hash(picture) for picture in pictures]
    altered = []
    for number, picture in enumerate(pictures):
        picture.resize((64, 64)).save(tmp_path / f"{number}.jpg", quality=60)
        with Image.open(tmp_path / f"{number}.jpg") as image:
            altered.append(difference_hash(image))
    assert [(a, b) for a, b, _ in near_hashes(altered, hashes)] == [(k, k) for k in range(20)]
    mirrored = [difference_hash(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) for picture in pictures]
    assert not list(near_hashes(mirrored, hashes)) and not list(near_hashes(hashes, []))


def test_prompts_of_every_kind_of_list(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\ufeffa red car\ta red car\r\na dog\n\na red car\n", newline="")
    assert read_prompts(tmp_path / "list.txt") == ["a red car", "a dog"]
    (tmp_path / "list.jsonl").write_text('{"prompt": "one\u2028two"}\n')
    assert read_prompts(tmp_path / "list.jsonl") == ["one\u2028two"]
    protocol = {"name": "p", "categories": {"a": {"prompts": "list.txt"}, "b": {"prompts": ["x", "y"]}}}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(protocol))
    assert read_prompts(tmp_path / "p.yaml") == ["a red car", "a dog", "x", "y"]
    (tmp_path / "p.yaml").write_text("categories: {a: {prompts: gone.txt}}")
    with pytest.raises(UserError, match="names the prompt list gone.txt, which is not beside it"):
        read_prompts(tmp_path / "p.yaml")
    (tmp_path / "p.yaml").write_text("name: nothing")
    with pytest.raises(UserError, match="holds no prompts"):
        read_prompts(tmp_path / "p.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    for name, reason in {"bad.yaml": "not YAML", "x.pdf": "is no protocol"}.items():
        with pytest.raises(UserError, match=reason):
            read_prompts(tmp_path / name)


def test_the_shipped_protocol_can_be_read() -> None:
    path = Path(__file__).parents[2] / "protocols" / "compbench-shapes_v1.yaml"
    assert len(read_prompts(path)) > 1500


# ---- the commands ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size,name",
    [
        ((64, 64), "1:1"),
        ((640, 480), "1:1 to 4:3"),
        ((1366, 768), "3:2 to 16:9"),
        ((1920, 1080), "3:2 to 16:9"),
        ((480, 640), "2:3 to 3:4"),
        ((101, 100), "1:1 to 4:3"),
        ((99, 100), "3:4 to 1:1"),
        ((1080, 1920), "under 2:3"),
        ((3000, 2000), "4:3 to 3:2"),
        ((3000, 100), "over 16:9"),
    ],
)
def test_aspect_ratios_have_names(size: tuple[int, int], name: str) -> None:
    assert aspect_name(*size) == name


def test_a_data_set_is_checked(tmp_path: Path) -> None:
    root = make_set(tmp_path / "data")
    (root / "03.png").write_bytes(b"not a picture")
    (root / "none.png").write_bytes((root / "04.png").read_bytes())
    (root / "twin.png").write_bytes((root / "05.png").read_bytes())
    (root / "twin.txt").write_text("a photo of thing number 5 on a table")
    (tmp_path / "prompts.txt").write_text("A photo of thing number 7 on a table!\nsomething else entirely\n")
    (tmp_path / "reference").mkdir()
    with Image.open(root / "08.png") as image:
        image.resize((50, 50)).save(tmp_path / "reference" / "eight.jpg")
    arguments = [
        "check",
        root,
        "--sheet",
        tmp_path / "s.png",
        "--report",
        tmp_path / "r.json",
        "--against",
        tmp_path / "prompts.txt",
        "--against-pictures",
        tmp_path / "reference",
    ]
    output = run(*arguments)
    for line in (
        f"{root}: 13 pictures, 13 captions; dropped 1: 1 no caption (none.png)",
        "readable: 12 of 13 pictures",
        "  broken: cannot read picture 03.png: cannot identify image file",
        "short side, pixels: 96 to 96, median 96",
        "aspect ratio: 1:1 3, 1:1 to 4:3 9",
        "words a caption: 9 to 9, median 9",
        "repeated captions: 1 of 13",
        "pictures that look like another: 1 of 12",
        "captions near one of 2 benchmark prompts: 1 of 13",
        "  near: 07.png: 'a photo of thing number 7 on a table' ~ 'A photo of thing number 7 on a table!'",
        "pictures near one of the benchmark's: 1",
    ):
        assert line in output, output
    assert "  near: 08.png ~ eight.jpg" in output
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["dropped"] == {"no caption": ["none.png"]} and len(report["broken"]) == 1
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 300 and sheet.height > 200
    first = (tmp_path / "s.png").read_bytes()
    run(*arguments, "--threads", 3, "--strict", code=1)
    assert (tmp_path / "s.png").read_bytes() == first


def test_a_set_of_clips_is_checked(tmp_path: Path) -> None:
    root = tmp_path / "clips"
    root.mkdir()
    write_clip_of(root / "a.mp4", [counter(index) for index in range(36)], fps=12)
    write_clip_of(root / "b.webm", [counter(index) for index in range(24)], fps=12)
    write_clip_of(root / "short.mp4", [counter(0)] * 3, fps=24)
    write_tone(root / "song.mp4")
    for name in ("a", "b", "short", "song"):
        (root / f"{name}.txt").write_text(name)
    output = run("check", root, "--media", "clips", "--sheet", tmp_path / "s.png")
    assert "readable: 2 of 4 clips" in output and "seconds: 2 to 3, median 2.5" in output
    assert "song.mp4: no video stream" in output and "short.mp4: shorter than asked" in output


def test_check_says_plainly_what_it_cannot_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run("check", tmp_path / "empty", code=2).startswith("error: no captioned pictures in")
    root = make_set(tmp_path / "data", 2)
    assert "--sheet must be a .png" in run("check", root, "--sheet", "x.jpg", code=2)
    assert "No such file" in run("check", root, "--against", tmp_path / "gone.yaml", code=2)
    assert "no such folder" in run("check", root, "--against-pictures", tmp_path / "gone", code=2)


def test_clips_are_prepared_by_the_command(tmp_path: Path) -> None:
    films, out = make_films(tmp_path / "films"), tmp_path / "out"
    options: list[Any] = [
        "--short-side",
        32,
        "--fps",
        12,
        "--min-seconds",
        1,
        "--max-seconds",
        4,
        "--max-black",
        0.5,
    ]
    output = run("clips", films, "--out", out, *options)
    assert f"{films}: 6 clips, 12 captions" in output
    assert f"{out}: 5 clips, 1 dropped (1 black, 2 cannot be read, 1 too short)" in output
    assert "note: cannot read clip song.mp4: no video stream" in output
    assert run("clips", films, "--out", out, *options).splitlines()[-1] == output.splitlines()[-1]
    assert "holds clips of other settings (short_side)" in run(
        "clips", films, "--out", out, *options[2:], "--short-side", 48, code=2
    )
    checked = run("check", out, "--media", "clips", "--sheet", tmp_path / "s.png", "--num-frames", 4)
    assert "readable: 5 of 5 clips" in checked and "dropped" not in checked


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    write_clip_of(tmp_path / "films" / "a.mp4", scene(1, 6), fps=12)
    (tmp_path / "films" / "a.txt").write_text("a")
    output = run("clips", tmp_path / "films", "--out", tmp_path / "out", "--no-cut", code=2)
    assert "error: no clip is left of" in output and "(1 too short)" in output
