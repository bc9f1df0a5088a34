"""`gentron-bench clipscore`: figures, resuming, views, the stand-in, bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from bench.commands.clipscore import clipscore
from bench.jobs.clipscore import (
    COSINES,
    SHAPES_VIEW,
    Row,
    compute,
    figure,
    gather,
    read_cosines,
    read_prompts,
    stated,
    truncated_share,
)
from bench.prompts import Prompt
from bench.prompts.protocol import load_protocol
from bench.scorers import ScorerRecord
from bench.scorers.shapes_attributes import caption_counts, cosine, look, parse_caption
from bench.sharding import Shard
from bench.systems.images import encode_png
from bench.systems.rows import read_rows
from bench.systems.samples import MediaFile, SampleRecord
from bench.weights import make_random
from gentron.console import make_app
from gentron.errors import UserError
from gentron.hashing import sha256
from gentron.shapes.captions import Description, ObjectDescription
from tests.bad_input import refused
from tests.bench.worlds import perfect_image, write_perfect_folder

PROTOCOL = load_protocol("compbench-shapes_v1")
STAND_IN = ("--extractor", "shapes-attributes")

app = make_app("The command on its own.")
app.command(name="clipscore")(clipscore)
app.callback()(lambda: None)


def run(tmp_path: Path, *args: str) -> Result:
    where = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    return CliRunner().invoke(app, ["clipscore", *args, *where, "--models", str(tmp_path / "models")])


def figure_of(tmp_path: Path, view: str) -> dict:
    (path,) = (tmp_path / "out").rglob(f"{view}.json")
    return json.loads(path.read_text())


@pytest.fixture
def perfect(tmp_path: Path) -> Path:
    return write_perfect_folder(tmp_path / "images", PROTOCOL.select("all", limit=3))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Two prompts and two pictures of each, named as T2I-CompBench names them."""
    (tmp_path / "prompts.txt").write_bytes(b"A red star.\r\na dog on a hill\r\n")
    folder = tmp_path / "made"
    folder.mkdir()
    for number, text in enumerate(("A red star.", "A red star.", "a dog on a hill", "a dog on a hill")):
        pixels = np.random.RandomState(number).randint(0, 256, (40, 60, 3)).astype(np.uint8)
        (folder / f"{text}_{number:06d}.png").write_bytes(encode_png(pixels))
    return folder


# ---- the stand-in ----------------------------------------------------------------------------------------


def test_captions_are_read_as_they_were_meant():
    prompts = [prompt for category in PROTOCOL.prompts.values() for prompt in category]
    assert len(prompts) == 1800
    for prompt in prompts:
        assert parse_caption(prompt.text) == prompt.description, prompt.text


@pytest.mark.parametrize("text", ["a dog", "a red stars", "red and blue", ""])
def test_other_texts_are_not_captions(text: str):
    with pytest.raises(ValueError, match="is no word of the shapes world|no object in the caption"):
        parse_caption(text)


def described(*things: tuple[str, str], relation: str | None = None) -> Description:
    objects = tuple(ObjectDescription(shape=shape, color=color) for color, shape in things)
    return Description(objects, relation)


def test_bindings_and_relations_count():
    asked = caption_counts(described(("red", "star"), ("blue", "ring"), relation="left of"))
    turned = caption_counts(described(("blue", "ring"), ("red", "star"), relation="right of"))
    swapped = caption_counts(described(("blue", "star"), ("red", "ring"), relation="left of"))
    mirrored = caption_counts(described(("red", "star"), ("blue", "ring"), relation="right of"))
    assert cosine(asked, turned) == pytest.approx(1)
    assert cosine(asked, swapped) < cosine(asked, mirrored) < 1


def test_a_true_picture_is_nearer_to_its_caption_than_another_one():
    prompts = PROTOCOL.select("all", limit=5)
    seen = [look(perfect_image(prompt)) for prompt in prompts]
    asked = [caption_counts(prompt.claim) for prompt in prompts]
    own = [cosine(a, b) for a, b in zip(seen, asked, strict=True)]
    strangers = [cosine(a, b) for a, b in zip(seen, asked[1:] + asked[:1], strict=True)]
    assert np.mean(own) > 0.75 and np.mean(strangers) < 0.45
    assert max(own) <= 1


def test_an_empty_picture_scores_nothing():
    grey = np.full((64, 64, 3), 235, np.uint8)
    assert cosine(look(grey), caption_counts(described(("red", "star")))) == 0


def test_the_stand_in_runs_without_weights_under_its_own_name(tmp_path: Path, perfect: Path):
    done = run(tmp_path, "--images", str(perfect), "--prompts", PROTOCOL.name, "--limit", "3", *STAND_IN)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{SHAPES_VIEW} 0.")
    assert "no CLIP score" in done.stdout and "clip_" not in done.stdout
    found = figure_of(tmp_path, SHAPES_VIEW)
    assert found["value"]["num_images"] == 18
    assert found["extractor"]["name"] == SHAPES_VIEW
    assert len(read_rows(next((tmp_path / "out").rglob("*.jsonl")))) == 18


# ---- CLIP ------------------------------------------------------------------------------------------------


def test_every_view_is_stated_of_the_same_cosines(tmp_path: Path, texts: Path):
    make_random("clip-vit-b-32", tmp_path / "models", seed=1)
    args = ("--images", str(texts), "--prompts", str(tmp_path / "prompts.txt"))
    for view in ("clip_cosine", "clip_x100", "clipscore_w2.5"):
        done = run(tmp_path, *args, "--view", view)
        assert done.exit_code == 0, done.output
        assert "random scorer weights: a rehearsal, not a result" in done.stdout
        assert "n = 4 images of 2 prompts; 0.0 % of the prompts are longer than 77 tokens" in done.stdout
    plain, hundred, prefixed = (
        figure_of(tmp_path, view) for view in ("clip_cosine", "clip_x100", "clipscore_w2.5")
    )
    assert hundred["value"]["mean"] == pytest.approx(max(100 * plain["value"]["mean"], 0))
    assert prefixed["prefix"] == "A photo depicts "
    assert plain["images_per_prompt"] == 2  # as many as the folder holds
    assert plain["extractor"]["settings"]["model"] == "ViT-B-32-quickgelu"
    rows = read_rows(next((tmp_path / "out").rglob("clip_cosine.jsonl")))
    means = [
        np.mean([row["value"] for row in rows if row["text"] == text])
        for text in ("A red star.", "a dog on a hill")
    ]
    assert plain["value"]["mean"] == pytest.approx(np.mean(means))
    assert plain["value"]["stderr"] == pytest.approx(abs(means[0] - means[1]) / 2)
    known = read_rows(next((tmp_path / "work").rglob(COSINES)))
    assert len(known) == 8  # x100 took those of clip_cosine, the prefix made new ones


def test_without_weights_the_line_names_both_ways_on(tmp_path: Path, texts: Path):
    done = run(tmp_path, "--images", str(texts), "--prompts", str(tmp_path / "prompts.txt"))
    refused(done, "gentron-bench weights fetch clip-vit-b-32")
    assert "--extractor shapes-attributes" in done.stderr


# ---- resuming --------------------------------------------------------------------------------------------


class CountedCosines:
    """A cosine that is a function of the image, and the number of times it was asked for."""

    max_tokens: int | None = 3

    def __init__(self, *, stop_after: int = 10**9) -> None:
        self.record = ScorerRecord(name="counted", version=1)
        self.asked, self.stop_after = 0, stop_after

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def cosine(self, image: np.ndarray, prompt: Prompt, text: str) -> float:
        if self.asked == self.stop_after:
            raise KeyboardInterrupt
        self.asked += 1
        return float(image.mean()) / 255


PROMPTS = [Prompt(id=f"p-{k}", category="p", text=f"text {k}") for k in range(4)]
VIEW = stated("clip_cosine", "clip")


@pytest.fixture
def records(tmp_path: Path) -> list[SampleRecord]:
    made = []
    for k, prompt in enumerate(PROMPTS):
        data = encode_png(np.random.RandomState(k).randint(0, 256, (8, 8, 3)).astype(np.uint8))
        (tmp_path / f"{prompt.id}.png").write_bytes(data)
        made.append(
            SampleRecord(
                prompt_id=prompt.id, sample=0, seed=k, files=(MediaFile(f"{prompt.id}.png", sha256(data)),)
            )
        )
    return made


def work(tmp_path: Path, records: list[SampleRecord], cosines: CountedCosines, **more) -> None:
    compute(cosines, VIEW, PROMPTS, records, tmp_path, advance=lambda count: None, **more)


def test_a_stopped_run_goes_on_where_it_stopped(tmp_path: Path, records: list[SampleRecord]):
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path, records, CountedCosines(stop_after=2))
    assert len(read_cosines(tmp_path)) == 2
    with (tmp_path / COSINES).open("ab") as file:
        file.write(b'{"sha256": "cut')  # a line that a kill cut off
    second = CountedCosines()
    work(tmp_path, records, second)
    assert second.asked == 2
    once = (tmp_path / COSINES).read_bytes()
    (tmp_path / COSINES).unlink()
    work(tmp_path, records, CountedCosines())
    assert (tmp_path / COSINES).read_bytes() == once


def test_an_image_that_changed_is_not_taken_for_the_old_one(tmp_path: Path, records: list[SampleRecord]):
    work(tmp_path, records, CountedCosines())
    (tmp_path / records[0].file).write_bytes((tmp_path / records[1].file).read_bytes())
    files = (MediaFile(records[0].file, records[1].sha256),)
    changed = [replace(records[0], files=files), *records[1:]]
    again = CountedCosines()
    work(tmp_path, changed, again)
    assert again.asked == 1  # the same bytes under another text
    rows, missing = gather(again, VIEW, PROMPTS, changed, tmp_path)
    assert not missing and rows[0].cosine == rows[1].cosine


def test_two_processes_write_the_same_bytes_as_one(
    tmp_path: Path, records: list[SampleRecord], monkeypatch: pytest.MonkeyPatch
):
    work(tmp_path, records, CountedCosines())
    one = (tmp_path / COSINES).read_bytes()
    (tmp_path / COSINES).unlink()
    monkeypatch.setattr(Shard, "barrier", lambda self: None)
    parts = [CountedCosines(), CountedCosines()]
    for rank in (1, 0):  # the first process gathers, so it comes last
        work(tmp_path, records, parts[rank], shard=Shard(rank, 2))
    assert [part.asked for part in parts] == [2, 2]
    assert (tmp_path / COSINES).read_bytes() == one
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == [COSINES]


@pytest.mark.slow
def test_a_run_killed_in_the_middle_is_finished_by_the_same_command(tmp_path: Path):
    prompts = PROTOCOL.select("all", limit=40)
    images = write_perfect_folder(tmp_path / "images", prompts)
    command = [
        *(sys.executable, "-c", "from tests.bench.jobs.test_clipscore import app; app()", "clipscore"),
        *("--images", str(images), "--prompts", PROTOCOL.name, "--limit", "40", *STAND_IN),
        *("--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")),
    ]
    with subprocess.Popen(command) as process:
        while not (started := list((tmp_path / "work").rglob(COSINES))) and process.poll() is None:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and started
    assert not (tmp_path / "out").exists()
    subprocess.run(command, check=True, capture_output=True)
    resumed = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for path in (tmp_path / "work").rglob(COSINES):
        path.unlink()
    subprocess.run(command, check=True, capture_output=True)
    assert resumed == {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}


# ---- figures ---------------------------------------------------------------------------------------------


def row(prompt_id: str, value: float, *, num_tokens: int = 2) -> Row:
    return Row(
        prompt_id=prompt_id,
        sample=0,
        file="x.png",
        sha256="ab",
        text="t",
        num_tokens=num_tokens,
        cosine=value,
        value=value,
        blank=False,
    )


def test_the_figure_is_the_mean_of_prompt_means():
    found = figure([row("a", 0.1), row("a", 0.3), row("b", 0.4)], VIEW)
    assert found.mean == pytest.approx(0.3)
    assert found.stderr == pytest.approx(0.1)
    assert (found.num_images, found.num_prompts) == (3, 2)


def test_only_clip_x100_is_held_at_zero():
    rows = [row("a", -0.3), row("b", 0.1)]
    assert figure(rows, VIEW).mean == pytest.approx(-0.1)
    held = figure(rows, stated("clip_x100", "clip"))
    assert held.mean == 0 and held.stderr == figure(rows, VIEW).stderr


def test_truncation_is_a_share_of_prompts():
    rows = [row("a", 0, num_tokens=78), row("a", 0, num_tokens=78), row("b", 0), row("c", 0), row("d", 0)]
    assert truncated_share(rows, 77) == 0.25
    assert truncated_share(rows, None) == 0


def test_a_view_belongs_to_its_extractor():
    for view, extractor in (("clip_cosine", "shapes-attributes"), (SHAPES_VIEW, "clip"), ("fid", "clip")):
        with pytest.raises(ValueError, match="unknown view"):
            stated(view, extractor)


# ---- prompts ---------------------------------------------------------------------------------------------


def test_prompts_are_lines_or_rows(tmp_path: Path):
    (tmp_path / "my list.txt").write_bytes("a dog\r\na café.\r\n".encode())
    first, second = read_prompts(tmp_path / "my list.txt")
    assert (first.id, second.text) == ("my-list-0000", "a café.")
    (tmp_path / "list.jsonl").write_text('{"id": "x-1", "text": "a dog"}\n{"text": "a cat"}\n')
    assert [prompt.id for prompt in read_prompts(tmp_path / "list.jsonl")] == ["x-1", "list-0001"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"", "holds no prompts"),
        ("a.txt", b"a dog\n\na cat\n", "line 2 is empty"),
        ("a.txt", b"\xff\xfe", "is not UTF-8 text"),
        ("a.jsonl", b"a dog\n", "line 1 is not JSON"),
        ("a.jsonl", b'["a dog"]\n', 'must be an object with a "text"'),
        ("a.jsonl", b'{"id": "../x", "text": "a"}\n', "id must be letters, digits"),
        ("a.jsonl", b'{"id": "x", "text": "a"}\n{"id": "x", "text": "b"}\n', "'x' stands for two prompts"),
    ],
)
def test_bad_lists_of_prompts_are_said_in_one_line(tmp_path: Path, name: str, data: bytes, message: str):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_prompts(tmp_path / name)


# ---- bad input -------------------------------------------------------------------------------------------


def test_missing_and_corrupt_pictures_are_listed_and_stop_the_run(tmp_path: Path, perfect: Path):
    first, second, _ = (f"{prompt.id}_00" for prompt in PROTOCOL.select("color", limit=3))
    (perfect / f"{first}.png").unlink()
    (perfect / f"{second}.png").write_bytes((perfect / f"{second}.png").read_bytes()[:60])
    args = ("--images", str(perfect), "--prompts", f"{PROTOCOL.name}:color", "--limit", "3", *STAND_IN)
    done = run(tmp_path, *args)
    refused(done, f"2 of 3 images cannot be scored: {first} (missing), {second} (corrupt)")
    assert not (tmp_path / "out").exists()
    done = run(tmp_path, *args, "--allow-missing")
    assert done.exit_code == 0, done.output
    assert "2 images could not be scored: a mean over what was left" in done.stdout
    assert figure_of(tmp_path, SHAPES_VIEW)["missing"] == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--prompts", "x.txt"), "give the pictures with --images DIR, or the system"),
        (("--images", "a", "--model", "mini"), "give the pictures with --images DIR, or the system"),
        (("--model", "no-such-model", "--prompts", PROTOCOL.name), "unknown model 'no-such-model'"),
        (("--images", "nowhere", "--prompts", PROTOCOL.name, *STAND_IN), "no folder 'nowhere'"),
        (("--model", "mini", "--prompts", "none.txt"), "no file 'none.txt' with prompts"),
        (("--model", "mini", "--prompts", f"{PROTOCOL.name}:x"), "unknown category 'x'"),
        (("--images", "nowhere"), "give the prompts with --prompts"),
        (("--model", "mini", "--view", "fid"), "unknown view 'fid' of the extractor clip"),
        (("--model", "mini", "--extractor", "x"), "unknown extractor 'x'; known: clip, shapes-attributes"),
        (("--model", "mini", "--limit", "0"), "limit must be >= 1, got 0"),
        (("--model", "mini", "--images-per-prompt", "0"), "images_per_prompt must be >= 1, got 0"),
        (("--model", "mini", "--seed", "-1"), "seed must be >= 0, got -1"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, args: tuple[str, ...], message: str):
    refused(run(tmp_path, *args), message)


def test_the_stand_in_refuses_other_prompts_before_it_draws(tmp_path: Path):
    (tmp_path / "p.txt").write_text("a dog\n")
    done = run(tmp_path, "--model", "mini", "--prompts", str(tmp_path / "p.txt"), *STAND_IN)
    refused(done, "'dog' is no word of the shapes world's captions: 'a dog'")
    assert not (tmp_path / "work").exists()


def test_a_damaged_file_of_weights_is_one_line(tmp_path: Path, texts: Path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "ViT-B-32.pt").write_bytes(b"not weights")
    done = run(tmp_path, "--images", str(texts), "--prompts", str(tmp_path / "prompts.txt"))
    refused(done, "is not the published file of 'clip-vit-b-32'")
