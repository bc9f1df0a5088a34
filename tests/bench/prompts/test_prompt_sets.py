from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bench.commands.prompts import prompts_app
from bench.prompts import sets as prompt_sets
from bench.prompts.sets import (
    COMPBENCH,
    PARTIPROMPTS,
    PromptFile,
    PromptSet,
    complex_classes,
    complex_key,
    content_sha256,
    fetch,
    find_prompt_set,
    load_list,
    load_partiprompts,
    prompt_set,
    read_file,
    split_lines,
    state,
)
from gentron.errors import UserError
from gentron.hashing import sha256

LISTS = Path(__file__).parents[4] / "shared" / "data" / "t2i-compbench"
needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason="the official lists are not in shared/data")

TEXTS = ["a red cat", "a blue dog"]


def pinned(name: str, lines: list[str], *, required: bool = True, ends: str = "\n") -> PromptFile:
    data = ends.join(lines).encode()
    return PromptFile(
        name=name,
        url=f"https://example.org/{name}",
        num_lines=len(lines),
        sha256=sha256(data),
        content_sha256=content_sha256(lines),
        required=required,
        needed_by="" if required else "nothing",
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PromptSet:
    """A set of two files, one of them not required, that stands for the big ones."""
    files = (pinned("color_val.txt", TEXTS, ends="\r\n"), pinned("more.txt", ["x"], required=False))
    lists = {"color": {"current": "color_val.txt", "old": "more.txt"}}
    small = PromptSet(name="small", source="example.org", licence="MIT", files=files, lists=lists)
    monkeypatch.setitem(prompt_sets.PROMPT_SETS, "small", small)
    monkeypatch.setenv("GENTRON_PROMPTS", str(tmp_path / "prompts"))
    return small


def served(texts: dict[str, str]) -> Callable[[str], bytes]:
    return lambda url: texts[url.rsplit("/", 1)[1]].encode()


GOOD = {"color_val.txt": "a red cat\r\na blue dog", "more.txt": "x\n"}


def test_all_line_ends_give_the_same_lines() -> None:
    for ends in ("\n", "\r\n", "\r"):
        for last in ("", ends):
            assert split_lines((ends.join(TEXTS) + last).encode()) == TEXTS
    assert split_lines(b"one\r\n\r\ntwo\n") == ["one", "", "two"]
    assert split_lines("a\u2028b".encode()) == ["a\u2028b"]  # a line separator to str.splitlines


def test_fetch_stores_what_is_pinned_and_goes_on_where_it_stopped(small: PromptSet, tmp_path: Path) -> None:
    folder = tmp_path / "prompts" / "small"
    asked: list[str] = []

    def breaks(url: str) -> bytes:
        asked.append(url)
        if url.endswith("more.txt") and len(asked) == 2:
            raise UserError("connection lost")
        return served(GOOD)(url)

    with pytest.raises(UserError, match="connection lost"):
        fetch("small", read=breaks)
    assert [p.name for p in folder.iterdir()] == ["color_val.txt"]
    found = fetch("small", read=breaks)
    assert (found.stored, found.present, found.absent) == (["more.txt"], ["color_val.txt"], [])
    assert fetch("small", read=breaks).stored == [] and len(asked) == 3
    assert state(small.files[0], folder) == "as published"
    assert (folder / "color_val.txt").read_bytes() == GOOD["color_val.txt"].encode()


def test_a_changed_file_is_fetched_again(small: PromptSet, tmp_path: Path) -> None:
    fetch("small", read=served(GOOD))
    path = tmp_path / "prompts" / "small" / "color_val.txt"
    path.write_text("something else")
    assert state(small.files[0], path.parent) == "changed"
    assert fetch("small", read=served(GOOD)).stored == ["color_val.txt"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            "a red cat\na blue hog",
            r"color_val.txt from https://.*must have the content sha256 \w{16}.*got \w{16}",
        ),
        ("a red cat\n", r"must hold 2 lines, got 1; nothing was stored"),
        ("a red cat\na blue dog\n\n", "must hold 2 lines, got 3"),
        ("<html>404</html>", "must hold 2 lines, got 1"),
    ],
)
def test_what_is_not_as_pinned_is_not_stored(
    small: PromptSet, tmp_path: Path, bad: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fetch("small", read=served({**GOOD, "color_val.txt": bad}))
    assert not (tmp_path / "prompts" / "small").exists()


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_folder_with_other_line_ends_is_the_same_set(small: PromptSet, tmp_path: Path, ends: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "color_val.txt").write_bytes((ends.join(TEXTS) + ends).encode())
    found = fetch("small", source=source)
    assert found.stored == ["color_val.txt"] and found.absent == ["more.txt"]
    assert state(small.files[0], find_prompt_set("small")) == "other line ends"
    assert [p.text for p in load_list("small", "color")] == TEXTS


def test_labels_behind_a_tab_are_cut(small: PromptSet, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "color_val.txt").write_text("a red cat\tcolor\na blue dog\tcolor\t1\n")
    fetch("small", source=source)
    assert [p.text for p in load_list("small", "color")] == TEXTS


def test_a_folder_with_one_wrong_file_stores_nothing(small: PromptSet, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "color_val.txt").write_text(GOOD["color_val.txt"])
    (source / "more.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"more.txt: must be UTF-8 text"):
        fetch("small", source=source, folder=target)
    assert not target.exists()


def test_missing_folders_and_files_name_the_way_on(small: PromptSet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder .*nowhere"):
        fetch("small", source=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="color_val.txt missing; small is at example.org"):
        fetch("small", source=tmp_path / "empty")
    with pytest.raises(UserError, match="no prompts in .*gentron-bench prompts fetch small"):
        find_prompt_set("small")
    fetch("small", read=served(GOOD))
    (find_prompt_set("small") / "more.txt").unlink()
    with pytest.raises(UserError, match="more.txt: missing, needed by nothing; run: gentron-bench prompts"):
        load_list("small", "color", "old")
    (tmp_path / "prompts" / "small" / "color_val.txt").unlink()
    with pytest.raises(UserError, match="color_val.txt missing in"):
        find_prompt_set("small")


def test_a_list_is_checked_each_time_it_is_read(small: PromptSet) -> None:
    fetch("small", read=served(GOOD))
    (find_prompt_set("small") / "color_val.txt").write_text("a red cat\na green dog")
    with pytest.raises(UserError, match="color_val.txt: must have the content sha256 .* run: gentron-bench"):
        load_list("small", "color")


def test_unknown_names_list_the_known_ones(small: PromptSet) -> None:
    with pytest.raises(UserError, match="unknown prompt set 'coco'; known: t2i-compbench, partiprompts"):
        find_prompt_set("coco")
    with pytest.raises(UserError, match="no list 'taste'; known: color"):
        load_list("small", "taste")
    with pytest.raises(UserError, match="no edition 'newer' of the list 'color'; known: current, old"):
        load_list("small", "color", "newer")
    with pytest.raises(UserError, match="partiprompts has no list 'color'; known: none"):
        load_list(PARTIPROMPTS, "color")


def test_default_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GENTRON_PROMPTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert prompt_sets.prompts_folder() == tmp_path / "gentron" / "prompts"


def test_pins_are_whole_and_lists_name_their_files() -> None:
    for known in prompt_sets.PROMPT_SETS.values():
        names = [file.name for file in known.files]
        assert len(set(names)) == len(names)
        for file in known.files:
            assert len(file.sha256) == len(file.content_sha256) == 64
            assert file.url.startswith("https://") and bool(file.needed_by) != file.required
        assert all(name in names for editions in known.lists.values() for name in editions.values())


def test_partiprompts_reads_its_columns_and_keeps_quotation_marks(tmp_path: Path) -> None:
    path = tmp_path / "parti.tsv"
    rows = ["Prompt\tCategory\tChallenge\tNote", 'a sign that says "Go" \tArts\tWriting & Symbols\t']
    path.write_text("\n".join(rows) + "\n")
    (prompt,) = load_partiprompts(path)
    assert (prompt.id, prompt.text) == ("parti-0000", 'a sign that says "Go" ')
    assert (prompt.category, prompt.challenge, prompt.note) == ("Arts", "Writing & Symbols", "")
    path.write_text("Prompt\tCategory\nx\ty\n")
    with pytest.raises(UserError, match="columns must be Prompt, Category, Challenge, Note, got Prompt, Cat"):
        load_partiprompts(path)
    path.write_text("\n".join([*rows, "short"]))
    with pytest.raises(UserError, match="line 3 must hold 4 columns, got 1"):
        load_partiprompts(path)


# ---- the official lists ----------------------------------------------------------------------------------


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENTRON_PROMPTS", str(LISTS.parent))
    return LISTS


@needs_lists
def test_official_lists_have_their_counts_ids_and_splits(official: Path) -> None:
    assert find_prompt_set(COMPBENCH) == official
    seen = set()
    for category in prompt_set(COMPBENCH).lists:
        prompts = load_list(COMPBENCH, category)
        assert [p.id for p in prompts] == [f"{category}-{i:04d}" for i in range(300)]
        assert len({p.text for p in prompts}) == 300
        seen |= {p.id for p in prompts}
        if category in ("color", "shape", "texture"):
            assert [p.split for p in prompts] == ["seen"] * 200 + ["unseen"] * 100
        else:
            assert {p.split for p in prompts} == {None}
    assert len(seen) == 2400


@needs_lists
def test_complex_prompts_fall_into_58_about_space_212_about_actions_and_30_about_both(official: Path) -> None:
    spatial, action = complex_classes()
    keys = [complex_key(p.text) for p in load_list(COMPBENCH, "complex")]
    found = [sum(key in spatial for key in keys), sum(key in action for key in keys)]
    both = {complex_key(line) for line in read_file(COMPBENCH, "complex_val_spatialaction.txt")}
    others = {key for key in keys if key not in spatial and key not in action}
    assert found == [58, 212] and others == both and len(both) == 30


@needs_lists
def test_fetching_from_a_folder_of_the_official_lists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GENTRON_PROMPTS", str(tmp_path))
    shown = CliRunner().invoke(prompts_app, ["fetch", COMPBENCH, "--from", str(LISTS)])
    assert shown.exit_code == 0, shown.output
    assert (
        "11 files stored, 0 were there" in shown.output
        and "new_objects.txt, needed by numeracy" in shown.output
    )
    shown = CliRunner().invoke(prompts_app, ["show", COMPBENCH])
    assert (
        "color_val.txt: 300 lines, as published" in shown.output
        and "new_objects.txt: 101 lines, missing" in shown.output
    )
    shown = CliRunner().invoke(prompts_app, ["show", "--category", "spatial"])
    assert (
        shown.output.splitlines()[0].split("\t")[0] == "spatial-0000"
        and len(shown.output.splitlines()) == 300
    )
    with pytest.raises(UserError, match=r"color_val.pre-2025-09.txt: missing, needed by the color list"):
        load_list(COMPBENCH, "color", "pre-2025-09")


def test_cli_shows_errors_in_one_line(small: PromptSet, tmp_path: Path) -> None:
    for words in (
        ["fetch", "coco"],
        ["fetch", "small", "--from", str(tmp_path / "x")],
        ["show", "--category", "z"],
    ):
        shown = CliRunner().invoke(prompts_app, words)
        assert shown.exit_code == 2, shown.output
        assert shown.output.startswith("error: ") and len(shown.output.splitlines()) == 1


def test_the_command_line_stays_free_of_heavy_imports() -> None:
    import subprocess
    import sys

    code = "import bench.commands.prompts, sys; print({'torch', 'numpy', 'PIL', 'scipy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
    assert isinstance(prompts_app, typer.Typer)
