"""Images made elsewhere: a folder with a manifest, or with files named by prompt.

manifest.jsonl: one object a line with "file" (relative to the folder) and either "prompt_id" or "prompt" (the
text), and "sample" where there are several images of a prompt (default: in order). manifest.json, as
`gentron sample` writes it, holds the same rows in a list "images".
Without either: <prompt id>_<sample>.png, <prompt text>_<number>.png or <prompt text>.png in the folder or
below it; jpg, jpeg and webp too.

A number after a text is T2I-CompBench's index of the image in its list (place of the prompt x images per
prompt + sample) where that fits all files of the text; else the sample, where all of them are less than the
images asked for; else it says the order.

A prompt takes the images under its id; else those whose index says so; else those of its very text; else
those of its text but for case, outer blanks and final full stops, where no prompt and no spelling competes.
Two images for one sample, and one image for two prompts of a category, are errors that name both.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.prompts import Prompt
from bench.systems import Request, SystemInfo, SystemOptions, safe_name
from gentron.errors import UserError
from gentron.hashing import sha256
from gentron.textfiles import read_json, read_jsonl

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MANIFEST = "manifest.jsonl"
SAMPLE_MANIFEST = "manifest.json"  # of `gentron sample`
NUMBERED = re.compile(r"(.+)_(\d{1,18})", re.DOTALL)
OFFICIAL_IMAGES_PER_PROMPT = 10  # of T2I-CompBench, by which its files are numbered

Sampled = tuple[int, "Found"]  # sample, image


@dataclass(frozen=True, slots=True)
class Found:
    """An image of the folder.

    key: the prompt id or text that it is under.   number: beside it, or None.   is_sample: the number is the
    sample, as in a manifest.   where: for messages: the file, or the manifest's row with it.
    """

    key: str
    number: int | None
    is_sample: bool
    path: Path
    where: str


class FolderSystem:
    """Finds images by prompt id or text; never writes."""

    made = "images made elsewhere"
    suffixes = SUFFIXES

    def __init__(self, folder: Path, options: SystemOptions) -> None:
        options.refuse(
            self.made,
            *("num_inference_steps", "guidance_scale", "sampler", "batch_size"),
            *("random_weights", "checkpoint", "image_size"),
        )
        if not folder.is_dir():
            raise UserError(f"no folder '{folder}': give one with images as folder:DIR")
        self._files = NamedFiles(folder, self.suffixes)
        name = safe_name(folder.resolve().name)
        self.info = SystemInfo(
            kind="folder",
            name=name,
            weights_sha256=None,
            untrained=False,
            settings={"folder": name, "listing_sha256": self._files.listing_sha256},
            device="none",
        )

    def find(self, requests: Sequence[Request], prompts: Sequence[Prompt]) -> list[Path]:
        return self._files.find(requests, prompts)

    def count(self, prompts: Sequence[Prompt]) -> int:
        return self._files.count(prompts)


class NamedFiles:
    """The files of a folder that end in one of these suffixes, by prompt id or text; UserError if none does.

    listing_sha256: of their names.
    """

    def __init__(self, folder: Path, suffixes: Sequence[str]) -> None:
        self._folder, self._suffixes = folder, suffixes
        found = _find_files(folder, suffixes)
        if not found:
            raise UserError(f"no images in '{folder}': expected {MANIFEST} or files named by prompt or id")
        self._files = _by_key(found)
        listing = json.dumps({key: [each.path.name for each in some] for key, some in self._files.items()})
        self.listing_sha256 = sha256(listing.encode())

    def find(self, requests: Sequence[Request], prompts: Sequence[Prompt]) -> list[Path]:
        """Where the images of these requests are or should be.

        prompts: all of the lists, in order, those not asked for too: their places give the index, and an
        image of another prompt is not taken. UserError for a match that is not one to one.
        """
        images_per_prompt = 1 + max((request.sample for request in requests), default=0)
        matched = _match(self._files, prompts, images_per_prompt)
        wanted = {(request.prompt_id, request.sample) for request in requests}
        self._check_one_to_one(matched, prompts, wanted)
        found = {(id, sample): each.path for id, some in matched.items() for sample, each in some}
        return [
            found.get((r.prompt_id, r.sample), self._folder / f"{r.id}{self._suffixes[0]}") for r in requests
        ]

    def count(self, prompts: Sequence[Prompt]) -> int:
        """The most images that it holds of one prompt, at least 1."""
        most = max(len(some) for some in self._files.values())
        matched = _match(self._files, prompts, most)
        return max((len({sample for sample, _ in some}) for some in matched.values()), default=0) or 1

    def _check_one_to_one(
        self,
        matched: Mapping[str, Sequence[Sampled]],
        prompts: Sequence[Prompt],
        wanted: set[tuple[str, int]],
    ) -> None:
        for prompt in prompts:
            taken: dict[int, Found] = {}
            for sample, each in matched[prompt.id]:
                if sample in taken and (prompt.id, sample) in wanted:
                    raise UserError(
                        f"{self._folder}: {taken[sample].where} and {each.where} are both image {sample} of"
                        f" {_named(prompt)}: keep one of them"
                    )
                taken[sample] = each
        owners: dict[tuple[str, Path], Prompt] = {}
        asked = {id for id, _ in wanted}
        for prompt in prompts:
            for sample, each in matched[prompt.id]:
                owner = owners.setdefault((prompt.category, each.path), prompt)
                if owner is not prompt and asked & {owner.id, prompt.id}:
                    raise UserError(
                        f"{self._folder}: {each.where} would be an image of two prompts, {_named(owner)} and"
                        f" {_named(prompt)}: name images by id, as {prompt.id}_{sample:02d}, or by index"
                    )


def _named(prompt: Prompt) -> str:
    return f"{prompt.id} ('{prompt.text}')"


# ---- which images are whose ------------------------------------------------------------------------------


def _match(
    files: Mapping[str, Sequence[Found]], prompts: Sequence[Prompt], images_per_prompt: int
) -> dict[str, list[Sampled]]:
    """Prompt id -> its images with their samples; more than one of a sample is for the caller to see."""
    loosely: dict[str, dict[str, Sequence[Found]]] = defaultdict(dict)
    for key, some in files.items():
        loosely[_loose(key)][key] = some
    places = _places(prompts)
    indexed = {
        key: found
        for key, groups in loosely.items()
        if key in places and (found := _by_index(groups.values(), places[key], images_per_prompt))
    }
    exact = {(prompt.category, _loose(prompt.text)) for prompt in prompts if prompt.text in files}
    matched: dict[str, list[Sampled]] = {}
    for prompt in prompts:
        key = _loose(prompt.text)
        spellings = list(loosely.get(key, {}).values())
        if prompt.id in files:
            matched[prompt.id] = _by_number(files[prompt.id], images_per_prompt, are_samples=True)
        elif key in indexed:
            matched[prompt.id] = indexed[key].get(prompt.id, [])
        elif prompt.text in files:
            matched[prompt.id] = _by_number(files[prompt.text], images_per_prompt)
        elif (prompt.category, key) in exact:
            matched[prompt.id] = []  # another prompt's: its text is the very one
        elif len(spellings) == 1:
            matched[prompt.id] = _by_number(spellings[0], images_per_prompt)
        else:  # each could be image 0: an error if it is asked for
            matched[prompt.id] = [(0, some[0]) for some in spellings]
    return matched


def _loose(text: str) -> str:
    """Without case, outer blanks and final full stops."""
    return text.strip().rstrip(".").lower()


def _places(prompts: Sequence[Prompt]) -> dict[str, dict[int, list[Prompt]]]:
    """Loose text -> place in its category's list -> the prompts there, one of each category."""
    places: dict[str, dict[int, list[Prompt]]] = defaultdict(lambda: defaultdict(list))
    counts: dict[str, int] = defaultdict(int)
    for prompt in prompts:
        places[_loose(prompt.text)][counts[prompt.category]].append(prompt)
        counts[prompt.category] += 1
    return places


def _by_index(
    groups: Iterable[Sequence[Found]], places: Mapping[int, list[Prompt]], images_per_prompt: int
) -> dict[str, list[Sampled]]:
    """Prompt id -> images, if the numbers of all are indices of these prompts; else nothing."""
    some = [each for group in groups for each in group]
    numbers = [each.number for each in some if each.number is not None and not each.is_sample]
    for stride in dict.fromkeys((OFFICIAL_IMAGES_PER_PROMPT, images_per_prompt)):
        if len(numbers) == len(some) and all(number // stride in places for number in numbers):
            found: dict[str, list[Sampled]] = defaultdict(list)
            for number, each in zip(numbers, some, strict=True):
                for prompt in places[number // stride]:
                    found[prompt.id].append((number % stride, each))
            return found
    return {}


def _by_number(some: Sequence[Found], images_per_prompt: int, *, are_samples: bool = False) -> list[Sampled]:
    """Images of one name with their samples: their numbers, or, if those go too far, the order of these."""
    numbers = [each.number or 0 for each in some]
    if are_samples or all(each.is_sample for each in some) or max(numbers) < images_per_prompt:
        return list(zip(numbers, some, strict=True))
    ranks = {number: rank for rank, number in enumerate(sorted(set(numbers)))}
    return [(ranks[number], each) for number, each in zip(numbers, some, strict=True)]


def _by_key(found: Iterable[Found]) -> dict[str, list[Found]]:
    groups: dict[str, list[Found]] = defaultdict(list)
    for each in found:
        groups[each.key].append(each)
    return dict(groups)


# ---- reading the folder ----------------------------------------------------------------------------------


def _find_files(folder: Path, suffixes: Sequence[str]) -> list[Found]:
    if (folder / MANIFEST).is_file():
        lines = read_jsonl(folder / MANIFEST)
        rows = [(f"{folder / MANIFEST}:{line}", row) for line, row in lines]
        return list(_from_rows(folder, rows))
    path = folder / SAMPLE_MANIFEST
    if path.is_file():
        data = read_json(path)
        images = data.get("images") if isinstance(data, dict) else None
        if not isinstance(images, list):
            raise UserError(f'{path} must hold a list "images"')
        rows = [(f"{path}, image {k}", row) for k, row in enumerate(images)]
        return list(_from_rows(folder, rows))
    return _from_names(folder, suffixes)


def _from_names(folder: Path, suffixes: Sequence[str]) -> list[Found]:
    from gentron.data.walk import (
        walk_files,
    )  # its package loads torch, which a study of a manifest does not need

    found = []
    for path in walk_files(folder):
        if path.suffix.lower() in suffixes:
            numbered = NUMBERED.fullmatch(path.stem)
            text, number = (numbered[1], int(numbered[2])) if numbered else (path.stem, None)
            where = f"'{path.relative_to(folder).as_posix()}'"
            found.append(Found(text, number, False, path, where))
    return found


def _from_rows(folder: Path, rows: Iterable[tuple[str, Any]]) -> Iterator[Found]:
    counts: dict[str, int] = defaultdict(int)
    files: dict[str, str] = {}
    for where, value in rows:
        row = _row(value, where)
        file = row["file"]
        if file in files:
            raise UserError(f"{where}: '{file}' stands in {files[file]} too: an image is of one prompt only")
        files[file] = where
        key = row["prompt_id"] if isinstance(row.get("prompt_id"), str) else row["prompt"]
        sample = row.get("sample", counts[key])
        counts[key] += 1
        yield Found(key, sample, True, folder / file, f"'{file}' ({where})")


def _row(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict) or not isinstance(row.get("file"), str) or "\0" in row["file"]:
        raise UserError(f'{where} must be an object with "file" and "prompt_id" or "prompt"')
    if not any(isinstance(row.get(name), str) for name in ("prompt_id", "prompt")):
        raise UserError(f'{where} must have "prompt_id" or "prompt"')
    sample = row.get("sample", 0)
    if isinstance(sample, bool) or not isinstance(sample, int) or not 0 <= sample < 100_000:
        raise UserError(f"{where}: sample must be an integer from 0, got {sample!r}")
    return row
