"""Export: the draw, the design, and that the bundle tells raters nothing."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import stat
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from PIL import Image
from typer.core import TyperGroup

from bench.commands.humaneval import app
from bench.humaneval.design import place_all, rater_names
from bench.humaneval.media import corrupt, png_chunks
from bench.humaneval.platforms import as_html, protect, unprotect
from bench.humaneval.prompts import draw, parse_tsv, read_prompts
from bench.humaneval.render import json_in_html
from bench.humaneval.study import read_wording, worded_questions
from bench.prompts import Prompt
from gentron.errors import UserError
from tests.bench.humaneval.studies import (
    HOSTILE,
    NAMES,
    export,
    humaneval,
    opened,
    refused,
    write_pictures,
    write_prompts,
)

QUESTIONS = worded_questions(read_wording()[0], ["quality", "alignment"], "picture")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 6 prompts, 3 raters, 2 gold items and 2 flipped repeats a question; read only."""
    place = tmp_path_factory.mktemp("export")
    done = export(
        place, "--gold", 2, "--flipped", 0.34, "--seed", 4242424242, "--media-url", "https://host.test/s"
    )
    assert done.exit_code == 0, done.output
    return place


# ---- prompts ---------------------------------------------------------------------------------------------


def many(count: int) -> list[Prompt]:
    return [Prompt(id=f"p{k}", category="abcd"[min(k * 7 // count, 3)], text=f"t{k}") for k in range(count)]


def test_the_draw_is_stratified_and_a_function_of_the_seed() -> None:
    prompts = many(700)
    drawn = draw(prompts, 70, seed=0)
    sizes = Counter(prompt.category for prompt in prompts)
    assert Counter(p.category for p in drawn) == {name: size // 10 for name, size in sizes.items()}
    assert drawn == draw(prompts, 70, seed=0) != draw(prompts, 70, seed=1)
    assert len(draw(prompts, 33, seed=0)) == 33
    assert draw(prompts, 700, seed=0) == prompts


def test_partiprompts_are_read_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "PartiPrompts.tsv"
    rows = [f'a "{k}" of\t{("Arts", "People")[k % 2]}\tBasic\t' for k in range(30)]
    path.write_text("Prompt\tCategory\tChallenge\tNote\n" + "\n".join(rows) + "\n")
    drawn = read_prompts(str(path), num_prompts=10, seed=0)
    assert Counter(prompt.category for prompt in drawn.prompts) == {"Arts": 5, "People": 5}
    assert drawn.prompts[0].text.startswith('a "')
    assert (drawn.source.num_available, drawn.source.num_drawn) == (30, 10)
    monkeypatch.setenv("GENTRON_PROMPTS", str(tmp_path / "fetched"))
    with pytest.raises(UserError, match="gentron-bench prompts fetch partiprompts"):
        read_prompts("partiprompts", num_prompts=None, seed=0)
    (tmp_path / "fetched" / "partiprompts").mkdir(parents=True)
    path.rename(tmp_path / "fetched" / "partiprompts" / path.name)
    with pytest.raises(UserError, match="must hold 1633 lines"):
        read_prompts("partiprompts", num_prompts=None, seed=0)
    with pytest.raises(UserError, match="columns must be Prompt, Category"):
        parse_tsv(b"a\tb\n", "x.tsv")


def test_a_protocol_is_a_source_of_prompts() -> None:
    drawn = read_prompts("compbench-shapes_v1", num_prompts=12, seed=0)
    assert len({prompt.category for prompt in drawn.prompts}) == 6
    assert drawn.source.name == "compbench-shapes_v1"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.jsonl", "{\n", "line 1 is not JSON"),
        ("p.jsonl", '{"id": "a"}\n', 'strings "id" and "text"'),
        ("p.jsonl", '{"id": "../a", "text": "b"}\n', "must be letters"),
        ("p.jsonl", '{"id": "a", "text": "b"}\n' * 2, "occurs twice"),
        ("p.txt", "\n\n", "no prompts"),
        ("p.tsv", "Prompt\tCategory\tChallenge\tNote\na\n", "line 2 must hold 4 columns, got 1"),
    ],
)
def test_bad_lists_of_prompts_are_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_prompts(str(tmp_path / name), num_prompts=None, seed=0)


# ---- design ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prompts", "raters"), [(7, 1), (10, 4), (11, 5)])
def test_sides_are_balanced_for_every_item_and_every_rater(prompts: int, raters: int) -> None:
    ids = [f"p{k}" for k in range(prompts)]
    placed = place_all(QUESTIONS, ids, rater_names(raters), gold=3, flipped=0.3, secret="s")
    for kind, first in (("pair", "a"), ("gold", "intact")):
        for key in (lambda p: (p.question, p.item), lambda p: (p.question, p.rater)):
            left: dict[object, Counter[bool]] = defaultdict(Counter)
            for p in placed:
                if p.item.kind == kind:
                    left[key(p)][p.left == first] += 1
            assert all(abs(count[True] - count[False]) <= 1 for count in left.values())


def test_repeats_are_the_same_prompts_with_sides_changed() -> None:
    placed = place_all(
        QUESTIONS, [f"p{k}" for k in range(10)], rater_names(2), gold=0, flipped=0.3, secret="s"
    )
    left = {(p.rater, p.question, p.item.prompt_id): p.left for p in placed if p.item.kind == "pair"}
    repeats = [p for p in placed if p.item.kind == "repeat"]
    assert len(repeats) == 2 * 2 * 3
    assert all(left[p.rater, p.question, p.item.prompt_id] != p.left for p in repeats)


@pytest.mark.parametrize("count", [3, 4, 6, 30])
def test_items_of_one_prompt_are_never_neighbours(count: int) -> None:
    for secret in map(str, range(20)):
        ids = [f"p{k}" for k in range(count)]
        placed = place_all(QUESTIONS, ids, ["r01"], gold=count // 2, flipped=1.0, secret=secret)
        for question in QUESTIONS:
            order = [p.item.prompt_id for p in placed if p.question == question.name]
            assert len(order) == count + count // 2 + count
            assert all(one != other for one, other in zip(order, order[1:], strict=False))


def test_each_rater_has_an_order_and_it_does_not_depend_on_the_others() -> None:
    ids = [f"p{k}" for k in range(20)]
    five = place_all(QUESTIONS, ids, rater_names(5), gold=0, flipped=0.0, secret="s")
    two = place_all(QUESTIONS, ids, rater_names(2), gold=0, flipped=0.0, secret="s")
    order = {
        name: [p.item.prompt_id for p in placed if p.rater == "r01" and p.question == "quality"]
        for name, placed in (("five", five), ("two", two))
    }
    assert order["five"] == order["two"]
    second = [p.item.prompt_id for p in five if p.rater == "r02" and p.question == "quality"]
    assert sorted(second) == sorted(order["five"]) and second != order["five"]
    assert [p.question for p in five][:21] == ["quality"] * 20 + ["alignment"]


def test_too_few_prompts_to_keep_apart_is_an_error() -> None:
    with pytest.raises(UserError, match="too few to keep"):
        place_all(QUESTIONS, ["p"], ["r01"], gold=1, flipped=1.0, secret="s")


# ---- the bundle ------------------------------------------------------------------------------------------


def test_the_bundle_names_no_system_no_seed_and_no_metadata(place: Path) -> None:
    study, _, key = opened(place)
    seeds = [str(file.seed) for file in key.files.values() if file.seed >= 0]
    words = [*NAMES, "4242424242", "8877665544", "parameters", "folder:", str(place), key.secret, *seeds]
    words += [f"line-{k:04d}" for k in range(1, 7)]  # prompt ids, by which files were named
    files = [path for path in (place / "study").rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        data = path.read_bytes().lower()
        for word in words:
            assert word.lower().encode() not in data, f"{path.name} holds '{word}'"
            assert word.lower() not in path.name.lower()
    times = {path.stat().st_mtime for path in files}
    assert len(times) == 1
    assert not (place / "study" / "key.json").exists()


def test_all_pictures_are_alike_and_hold_pixels_only(place: Path) -> None:
    study, _, key = opened(place)
    pictures = sorted((place / "study" / "media").iterdir())
    assert [path.name for path in pictures] == sorted(key.files)
    assert len(pictures) == 2 * 6 + len({n for n, f in key.files.items() if f.corrupted})
    for path in pictures:
        assert set(png_chunks(path.read_bytes())) == {b"IHDR", b"IDAT", b"IEND"}
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((16, 16), "RGB")
            assert not image.getexif() and not image.info
        assert re.fullmatch(r"[0-9a-f]{16}\.png", path.name)


def test_pixels_are_those_of_the_system_that_the_key_names(place: Path) -> None:
    _, _, key = opened(place)
    for name, file in key.files.items():
        if not file.corrupted:
            source = place / NAMES[0 if file.system == "a" else 1] / f"{file.prompt_id}_00.png"
            with Image.open(source) as one, Image.open(place / "study" / "media" / name) as other:
                assert np.array_equal(np.asarray(one.convert("RGB")), np.asarray(other))


def test_the_key_is_private_and_outside(place: Path) -> None:
    key = place / "study-key" / "key.json"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700


def test_quality_trials_hide_the_prompt_and_alignment_trials_show_it(place: Path) -> None:
    study, _, key = opened(place)
    texts = {prompt.id: prompt.text for prompt in key.prompts}
    for trial in study.trials:
        if trial.question == "quality":
            assert trial.text is None
        else:
            assert trial.text is not None
            assert study.texts[trial.text] == texts[key.trials[trial.id].prompt_id]


def test_trials_show_what_the_key_says(place: Path) -> None:
    study, _, key = opened(place)
    assert Counter(trial.kind for trial in key.trials.values()) == {"pair": 36, "gold": 12, "repeat": 12}
    for trial in study.trials:
        truth, left, right = key.trials[trial.id], key.files[trial.left], key.files[trial.right]
        assert left.prompt_id == right.prompt_id == truth.prompt_id
        if truth.kind == "gold":
            assert left.system == right.system
            assert (left.corrupted, right.corrupted) == (truth.left == "corrupted", truth.left == "intact")
        else:
            assert {left.system, right.system} == {"a", "b"} and left.system == truth.left


def test_every_choice_is_pinned(place: Path) -> None:
    study, _, key = opened(place)
    assert key.systems["a"].name == NAMES[0] and key.systems["a"].settings["listing_sha256"]
    assert (key.seed, key.source.num_drawn, key.source.seed) == (4242424242, 6, 4242424242)
    assert key.settings["gold"] == 2 and key.settings["resize"] == "lanczos to 16x16"
    assert "command" in key.provenance
    assert study.rules.min_seconds == 1.0 and "clustered by prompt" in study.analysis


def test_the_page_is_closed_to_the_outside(place: Path) -> None:
    page = (place / "study" / "index.html").read_text()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    assert "http://" not in page and "https://" not in page
    assert page.count("<script") == 2 and HOSTILE not in page
    data = page.split('id="study">')[1].split("</script>")[0]
    assert HOSTILE in json.loads(data)["texts"]
    assert set("<>&") & set(data) == set()


def test_json_cannot_leave_its_element() -> None:
    text = json_in_html({"x": "</script><!--\u2028&"})
    assert not set("<>&\u2028") & set(text) and json.loads(text) == {"x": "</script><!--\u2028&"}


def test_gold_pictures_are_far_from_the_intact_one() -> None:
    y, x = np.mgrid[0:64, 0:48]
    image = np.stack([4 * y, 5 * x, np.full_like(x, 90)], axis=-1).astype(np.uint8)
    bad = corrupt(image, b"seed")
    assert bad.shape == image.shape and np.array_equal(bad, corrupt(image, b"seed"))
    assert np.abs(bad.astype(int) - image).mean() > 50
    assert not np.array_equal(bad, corrupt(image, b"other"))


# ---- platforms -------------------------------------------------------------------------------------------


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(), newline="")))


def test_platform_files_hold_every_trial_once(place: Path) -> None:
    study, digest, _ = opened(place)
    folder = place / "study" / "platforms"
    for question in study.questions:
        wanted = {t.id: t for t in study.trials if t.question == question.name}
        mturk = rows(folder / f"mturk-{question.name}.csv")
        tasks = json.loads((folder / f"label-studio-{question.name}.json").read_text())
        lines = (folder / f"potato-{question.name}.jsonl").read_text().splitlines()
        qualtrics = [row for r in study.raters for row in rows(folder / f"qualtrics-{question.name}-{r}.csv")]
        for ids in (
            [row["trial"] for row in mturk],
            [row["trial"] for row in qualtrics],
            [task["data"]["trial"] for task in tasks],
            [json.loads(line)["id"] for line in lines],
        ):
            assert sorted(ids) == sorted(wanted)
        for row in mturk:
            assert row["left_url"] == f"https://host.test/s/media/{wanted[row['trial']].left}"
            assert row["study_sha256"] == digest
    assert rows(folder / "prolific.csv")[0]["url"] == "https://host.test/s/index.html?rater=r01"


def test_platform_templates_parse_and_offer_the_choices(place: Path) -> None:
    study, _, _ = opened(place)
    folder = place / "study" / "platforms"
    for question in study.questions:
        root = ElementTree.fromstring((folder / f"label-studio-{question.name}.xml").read_text())
        assert [c.get("alias") for c in root.iter("Choice")] == [c.code for c in question.choices]
        names = {element.get("name") for element in root.iter()} & {"left", "right", "prompt"}
        assert names == ({"left", "right", "prompt"} if question.shows_prompt else {"left", "right"})
        config = yaml.safe_load((folder / f"potato-{question.name}.yaml").read_text())
        assert config["annotation_schemes"][0]["labels"] == [c.label for c in question.choices]
        assert (folder / config["data_files"][0]).is_file()
        template = (folder / f"mturk-{question.name}.html").read_text()
        assert all(f'value="{c.code}"' in template for c in question.choices)
        assert ("${prompt_html}" in template) == question.shows_prompt


def test_a_hostile_prompt_is_text_on_every_platform(place: Path) -> None:
    folder = place / "study" / "platforms"
    cells = {row["prompt_html"] for row in rows(folder / "mturk-alignment.csv")}
    assert as_html(HOSTILE) in cells
    assert all(not set("<>\"'") & set(cell) and "${" not in cell for cell in cells)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-2", "@SUM(A1)", "\tx", "\rx", "'=x", "plain", ""])
def test_cells_are_no_formulas_and_come_back(text: str) -> None:
    assert not protect(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert unprotect(protect(text)) == text
    assert not as_html(text).startswith(("=", "+", "-", "@", "\t", "\r"))


# ---- refusals --------------------------------------------------------------------------------------------


def test_a_study_and_a_key_are_never_written_over(tmp_path: Path) -> None:
    assert export(tmp_path).exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    refused(export(tmp_path), "is not empty: a study is never written over")
    (tmp_path / "study").rename(tmp_path / "elsewhere")
    refused(export(tmp_path), "a key stands at")
    assert (tmp_path / "study-key" / "key.json").read_bytes() in before.values()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--questions", "beauty"], "unknown question 'beauty'; known: quality, alignment"),
        (["--questions", "quality,quality"], "questions must be different"),
        (["--raters", "0"], "raters must be in 1..999"),
        (["--gold", "7"], "gold must be in 0..6"),
        (["--flipped", "1.5"], "flipped must be a share"),
        (["--min-seconds", "-1"], "min_seconds must be in"),
        (["--num-prompts", "9"], "holds 6 prompts"),
        (["--prompts", "nowhere"], "no prompts 'nowhere'"),
        (["--set-a", "colour=1"], "KEY=VALUE with KEY among"),
        (["--set-a", "guidance_scale=2"], "has no effect on images made elsewhere"),
        (["--media-url", "javascript:alert(1)"], "--media-url must be an address"),
        (["--image-size", "1"], "--image-size must be in"),
        (["--a", "folder:nowhere"], "no folder 'nowhere'"),
    ],
)
def test_bad_settings_are_one_line_and_leave_nothing(tmp_path: Path, more: list[str], message: str) -> None:
    refused(export(tmp_path, *more), message)
    assert not (tmp_path / "study").exists() and not (tmp_path / "study-key").exists()


def test_the_key_may_not_lie_in_the_bundle(tmp_path: Path) -> None:
    refused(export(tmp_path, "--key", tmp_path / "study" / "key.json"), "inside the bundle")


def test_missing_pictures_are_named_and_blank_ones_shown(tmp_path: Path) -> None:
    assert export(tmp_path).exit_code == 0
    (tmp_path / NAMES[0] / "line-0002_00.png").unlink()
    Image.new("RGB", (16, 16)).save(tmp_path / NAMES[1] / "line-0003_00.png")
    prompts = tmp_path / "prompts.txt"
    systems = ("--a", f"folder:{tmp_path / NAMES[0]}", "--b", f"folder:{tmp_path / NAMES[1]}")
    done = humaneval(
        "export", *systems, "--prompts", prompts, "--out", tmp_path / "two", "--work", tmp_path / "w"
    )
    refused(done, "A line-0002 (missing)")


def test_pictures_of_other_sizes_are_brought_to_one_and_other_shapes_refused(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 3)
    a = write_pictures(tmp_path / "small", 3, size=8)
    b = write_pictures(tmp_path / "large", 3, size=24, tint=1)
    systems = ("--a", f"folder:{a}", "--b", f"folder:{b}", "--prompts", prompts, "--work", tmp_path / "w")
    assert humaneval("export", *systems, "--out", tmp_path / "study").exit_code == 0
    assert opened(tmp_path)[0].media.width == 24
    assert humaneval("export", *systems, "--out", tmp_path / "s2", "--image-size", 16).exit_code == 0
    with Image.open(next((tmp_path / "s2" / "media").iterdir())) as image:
        assert image.size == (16, 16)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 16, 3), dtype=np.uint8)).save(
        a / "line-0001_00.png"
    )
    refused(humaneval("export", *systems, "--out", tmp_path / "s3"), "differ in shape")


def test_the_same_system_twice_is_nothing_to_compare(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 3)
    a = write_pictures(tmp_path / "one", 3)
    b = write_pictures(tmp_path / "two", 3)
    where = ("--prompts", prompts, "--out", tmp_path / "study", "--work", tmp_path / "w")
    same = humaneval("export", "--a", f"folder:{a}", "--b", f"folder:{a}", *where)
    refused(same, "A and B are the same system")
    alike = humaneval("export", "--a", f"folder:{a}", "--b", f"folder:{b}", *where)
    refused(alike, "gave the same for every prompt")


def test_a_model_is_sampled_once_and_found_again(tiny_checkpoint: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 3)
    b = write_pictures(tmp_path / "made-elsewhere", 3, size=16)
    common = ("--a", tiny_checkpoint, "--b", f"folder:{b}", "--prompts", prompts, "--work", tmp_path / "w")
    setting = ("--set-a", "num_inference_steps=2", "--device", "cpu")
    done = humaneval("export", *common, *setting, "--out", tmp_path / "study")
    assert done.exit_code == 0, done.output
    study, _, key = opened(tmp_path)
    assert key.systems["a"].settings["num_inference_steps"] == 2 and key.systems["a"].weights_sha256
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "w").rglob("*.png")}
    assert len(made) == 3
    assert humaneval("export", *common, *setting, "--out", tmp_path / "again").exit_code == 0
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "w").rglob("*.png")}
    seeds = {str(file.seed) for file in key.files.values() if file.system == "a"}
    assert len(seeds) == 3
    for path in (tmp_path / "study").rglob("*"):
        if path.is_file():
            assert not any(seed.encode() in path.read_bytes() for seed in seeds)


def test_one_model_with_two_settings_is_named_by_what_differs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.txt", 2)
    systems = ("--a", tiny_checkpoint, "--b", tiny_checkpoint, "--set-a", "num_inference_steps=2")
    where = ("--prompts", prompts, "--out", tmp_path / "study", "--work", tmp_path / "w", "--device", "cpu")
    done = humaneval("export", *systems, "--set-b", "num_inference_steps=3", *where, "--raters", 1)
    assert done.exit_code == 0, done.output
    assert humaneval("simulate", tmp_path / "study", "--out", tmp_path / "sim").exit_code == 0
    assert humaneval("import", tmp_path / "study", *(tmp_path / "sim").iterdir()).exit_code == 0
    assert humaneval("analyze", tmp_path / "study", "--allow-simulated").exit_code == 0
    found = json.loads((tmp_path / "study-answers" / "analysis.json").read_text())
    assert (found["a"], found["b"]) == tuple(f"checkpoint, num_inference_steps {k}" for k in (2, 3))


# ---- the documentation -----------------------------------------------------------------------------------


def documented() -> list[str]:
    text = (Path(__file__).parents[3] / "docs" / "humaneval.md").read_text("utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("gentron-bench humaneval")]


@pytest.mark.parametrize("line", documented())
def test_a_documented_command_parses(line: str) -> None:
    name, *words = shlex.split(line)[2:]
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    group.commands[name].make_context(name, words)


def test_the_documentation_shows_every_command() -> None:
    assert {shlex.split(line)[2] for line in documented()} == {"export", "import", "analyze", "simulate"}
