"""Which images of a folder are whose: never one for two prompts, never two for one sample."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.prompts import Prompt
from bench.systems import SystemOptions
from bench.systems.folder import FolderSystem
from bench.systems.requests import requests
from gentron.errors import UserError

CASES = Path(__file__).parents[2] / "data" / "cases"


def prompts_of(*texts: str, category: str = "shape") -> list[Prompt]:
    return [Prompt(id=f"{category}-{k:04d}", category=category, text=text) for k, text in enumerate(texts)]


def write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def found(
    folder: Path, prompts: Sequence[Prompt], images_per_prompt: int = 1, *, only: int | None = None
) -> list[str | None]:
    """Names of the files, None where there is none, of all prompts or of one; links are followed."""
    asked = prompts if only is None else [prompts[only]]
    wanted = requests(asked, images_per_prompt=images_per_prompt, seed=0)
    paths = FolderSystem(folder, SystemOptions()).find(wanted, prompts)
    return [path.name if path.is_file() else None for path in paths]


def refused(folder: Path, prompts: Sequence[Prompt], images_per_prompt: int = 1) -> str:
    with pytest.raises(UserError) as error:
        found(folder, prompts, images_per_prompt)
    return str(error.value)


def sampled(text: str, *numbers: int) -> list[str]:
    return [f"{text}_{number:06d}.png" for number in numbers]


# ---- the official index ----------------------------------------------------------------------------------


def test_prompts_that_differ_in_the_final_stop_keep_their_own_images(tmp_path: Path) -> None:
    """Lines 54 and 151 of the official shape list, as the official code names their images."""
    text = "a round bagel and a square toaster"
    prompts = prompts_of(*[f"prompt {k}" for k in range(151)])
    prompts[53] = Prompt(id="shape-0053", category="shape", text=text)
    prompts[150] = Prompt(id="shape-0150", category="shape", text=f"{text}.")
    first, second = sampled(text, *range(530, 540)), sampled(f"{text}.", *range(1500, 1510))
    write(tmp_path, *first, *second)
    assert found(tmp_path, prompts, 10, only=53) == first
    assert found(tmp_path, prompts, 10, only=150) == second
    assert found(tmp_path, prompts, 4, only=150) == second[:4]  # fewer are asked for than were made


def test_the_index_tells_prompts_apart_that_a_tool_spelled_alike(tmp_path: Path) -> None:
    prompts = prompts_of("A cup", "a cup.")
    names = [*sampled("a cup", *range(20))]
    write(tmp_path, *names)
    assert found(tmp_path, prompts, 10) == names


def test_a_missing_image_moves_no_other_one(tmp_path: Path) -> None:
    prompts = prompts_of("a cup", "a bowl")
    write(tmp_path, *sampled("a bowl", 10, 12, 13), *sampled("a cup", 0, 1, 2, 3))
    assert found(tmp_path, prompts, 4, only=1) == [
        "a bowl_000010.png",
        None,
        "a bowl_000012.png",
        "a bowl_000013.png",
    ]


def test_an_index_of_fewer_images_a_prompt_is_known_too(tmp_path: Path) -> None:
    prompts = prompts_of("a cup", "a bowl")
    write(tmp_path, *sampled("a cup", 0, 1), *sampled("a bowl", 2, 3))
    assert found(tmp_path, prompts, 2) == [*sampled("a cup", 0, 1), *sampled("a bowl", 2, 3)]


def test_other_numbers_say_the_order(tmp_path: Path) -> None:
    prompts = prompts_of("a cup", "a bowl")
    write(tmp_path, *sampled("a bowl", 7, 31, 8), *sampled("a cup", 1, 2))
    assert found(tmp_path, prompts, 3, only=1) == sampled("a bowl", 7, 8, 31)
    # all less than the images asked for: samples, the first of which is not there
    assert found(tmp_path, prompts, 3, only=0) == [None, *sampled("a cup", 1, 2)]


def test_two_categories_may_hold_the_same_prompt(tmp_path: Path) -> None:
    both = [*prompts_of("a cup", "a bowl"), *prompts_of("a jar", "a pan", "a bowl", category="texture")]
    write(tmp_path, *sampled("a bowl", 10, 20))
    assert found(tmp_path, both, only=1) == ["a bowl_000010.png"]
    assert found(tmp_path, both, only=4) == ["a bowl_000020.png"]
    (tmp_path / "a bowl_000020.png").rename(tmp_path / "a jar_000000.png")
    (tmp_path / "a bowl_000010.png").rename(tmp_path / "a bowl.png")
    assert found(tmp_path, both, only=1) == found(tmp_path, both, only=4) == ["a bowl.png"]


# ---- texts -----------------------------------------------------------------------------------------------


def test_prompts_that_differ_in_case_or_final_stop_take_their_very_own() -> None:
    case = CASES / "prompts_differ_in_case"
    prompts = prompts_of(*(case / "p.txt").read_text().splitlines())
    assert found(case / "imgs", prompts) == [f"{prompt.text}.png" for prompt in prompts]
    assert FolderSystem(case / "imgs", SystemOptions()).count(prompts) == 1


def test_another_spelling_serves_where_it_is_the_only_one(tmp_path: Path) -> None:
    prompts = prompts_of("A red Cup.", "a bowl")
    write(tmp_path, " a RED cup_0.PNG", "a bowl.jpg")
    assert found(tmp_path, prompts) == [" a RED cup_0.PNG", "a bowl.jpg"]
    write(tmp_path, "a red cup_0.png")
    said = refused(tmp_path, prompts)
    assert "' a RED cup_0.PNG' and 'a red cup_0.png' are both image 0 of shape-0000 ('A red Cup.')" in said
    assert found(tmp_path, prompts, only=1) == ["a bowl.jpg"]  # what is not asked for does no harm


def test_a_spelling_that_two_prompts_could_take_is_refused(tmp_path: Path) -> None:
    prompts = prompts_of("a cup.", "A cup")
    write(tmp_path, "A CUP.png")
    said = refused(tmp_path, prompts)
    assert "'A CUP.png' would be an image of two prompts" in said
    assert "shape-0000 ('a cup.') and shape-0001 ('A cup')" in said and "shape-0001_00" in said
    # once it is the very text of one, it is no image of the other
    write(tmp_path, "A cup.png").joinpath("A CUP.png").unlink()
    assert found(tmp_path, prompts) == [None, "A cup.png"]


def test_a_prompt_that_stands_twice_in_a_list_needs_an_index(tmp_path: Path) -> None:
    prompts = prompts_of("a cup", "a cup")
    write(tmp_path, "a cup_70.png", "a cup_80.png")
    assert "would be an image of two prompts" in refused(tmp_path, prompts)
    write(tmp_path, *sampled("a cup", 0, 10)).joinpath("a cup_70.png").unlink()
    (tmp_path / "a cup_80.png").unlink()
    assert found(tmp_path, prompts) == sampled("a cup", 0, 10)


def test_underscores_without_a_number_are_part_of_the_text(tmp_path: Path) -> None:
    prompts = prompts_of("a", "a_b")
    write(tmp_path, "a_b.png")
    assert found(tmp_path, prompts) == [None, "a_b.png"]


# ---- two images for one sample ---------------------------------------------------------------------------


def test_one_image_in_two_formats_is_refused() -> None:
    prompts = prompts_of(*[f"prompt {k}" for k in range(6)], category="color")
    said = refused(CASES / "two_extensions", prompts)
    assert "'color-0000_00.jpg' and 'color-0000_00.png' are both image 0 of color-0000" in said


def test_numbers_that_are_equal_are_one_sample(tmp_path: Path) -> None:
    prompts = prompts_of("a cup")
    write(tmp_path, "shape-0000_1.png", "shape-0000_01.png", "shape-0000.png")
    assert "'shape-0000_01.png' and 'shape-0000_1.png' are both image 1" in refused(tmp_path, prompts, 2)
    assert found(tmp_path, prompts) == ["shape-0000.png"]
    write(tmp_path, "shape-0000_0.webp")
    assert "'shape-0000.png' and 'shape-0000_0.webp' are both image 0" in refused(tmp_path, prompts)


# ---- manifests -------------------------------------------------------------------------------------------


def manifest(folder: Path, *rows: dict) -> Path:
    write(folder, *{row["file"] for row in rows})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_manifest_may_begin_with_a_byte_order_mark() -> None:
    rows = (CASES / "manifest_bom" / "manifest.jsonl").read_text("utf-8-sig").splitlines()
    prompts = prompts_of(*(json.loads(row)["prompt"] for row in rows))
    assert found(CASES / "manifest_bom", prompts) == [f"{k}.png" for k in range(6)]


def test_two_rows_for_one_sample_are_refused(tmp_path: Path) -> None:
    prompts = prompts_of("a cup")
    rows = [{"file": f"{name}.png", "prompt": "a cup", "sample": 0} for name in "ab"]
    said = refused(manifest(tmp_path, *rows), prompts)
    assert "manifest.jsonl:1) and 'b.png' (" in said and "manifest.jsonl:2) are both image 0" in said


def test_one_file_in_two_rows_is_refused(tmp_path: Path) -> None:
    rows = [{"file": "a.png", "prompt_id": f"shape-000{k}"} for k in range(2)]
    with pytest.raises(UserError, match=r"jsonl:2: 'a.png' stands in .*jsonl:1 too: an image is of one"):
        FolderSystem(manifest(tmp_path, *rows), SystemOptions())


# ---- folders and links -----------------------------------------------------------------------------------


def test_images_below_the_folder_and_behind_links_are_found_once(tmp_path: Path) -> None:
    prompts = prompts_of("a cup", "a bowl", "a jar")
    folder = write(tmp_path / "images", "a cup.png", "samples/a bowl.png", "__MACOSX/._a cup.png")
    elsewhere = write(tmp_path / "elsewhere", "a jar.png")
    write(folder, ".ipynb_checkpoints/a cup.png")
    (folder / "more").symlink_to(elsewhere)
    (folder / "again").symlink_to(elsewhere)
    (folder / "loop").symlink_to(folder)
    assert found(folder, prompts) == ["a cup.png", "a bowl.png", "a jar.png"]
