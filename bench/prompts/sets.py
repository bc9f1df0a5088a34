"""Prompt lists that the user fetches: where they come from, their pins, where they lie, how they are read.

A list is pinned by two hashes. `sha256` is that of the bytes as published. `content_sha256` is that of the
lines, cut at the first tab and joined by line feeds; it decides, so that a copy with other line ends is still
the list. A list is checked each time it is read.
"""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Literal, NamedTuple

from bench.prompts import Prompt
from gentron.atomic import atomic_file
from gentron.errors import UserError
from gentron.hashing import sha256

ENVIRONMENT = "GENTRON_PROMPTS"
COMPBENCH, PARTIPROMPTS = "t2i-compbench", "partiprompts"
PARTIPROMPTS_FILE = "PartiPrompts.tsv"
CURRENT, PRE_2025_09 = "current", "pre-2025-09"
SEEN, UNSEEN = "seen", "unseen"
NUM_SEEN = 200  # of 300: what T2I-CompBench publishes as *_val_seen.txt, the rest as *_val_unseen.txt
SPLIT_CATEGORIES = ("color", "shape", "texture")
TIMEOUT_S = 60
NEWLINE = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptFile:
    """One file of a prompt set.

    name: here, inside the set's folder.   sha256: of the bytes as published.   content_sha256: of the lines.
    required: without it the set is not usable.   needed_by: what cannot be done without one that is not.
    """

    name: str
    url: str
    num_lines: int
    sha256: str
    content_sha256: str
    required: bool = True
    needed_by: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSet:
    """lists: category -> edition -> name of its file."""

    name: str
    source: str
    licence: str
    files: tuple[PromptFile, ...]
    lists: dict[str, dict[str, str]]

    def file(self, name: str) -> PromptFile:
        return next(file for file in self.files if file.name == name)


# ---- T2I-CompBench: MIT, (c) 2023 HKU; the last color prompts are adapted COCO-style captions -------------

_T2I = "https://raw.githubusercontent.com/Karine-Huang/T2I-CompBench"
_T2I_COMMIT = "1b7094991a57f3c22abdd4f6e8ba6c1a15517073"  # 2026-05-07
_T2I_BEFORE_3310C2F = (
    "7728deac05e17903b3145befd9b7207c7c019573"  # until 2025-09-03, when 5 color lines changed
)
_OLD_COLOR = "color_val.pre-2025-09.txt"


def _t2i_file(name: str, num_lines: int, sha256: str, content_sha256: str, needed_by: str = "") -> PromptFile:
    return PromptFile(
        name=name,
        url=f"{_T2I}/{_T2I_COMMIT}/examples/dataset/{name}",
        num_lines=num_lines,
        sha256=sha256,
        content_sha256=content_sha256,
        required=not needed_by,
        needed_by=needed_by,
    )


_T2I_FILES = (
    _t2i_file(
        "color_val.txt",
        300,
        "1634259756dbc77d13093d907d414480080ec9790a8c97ad09efaea7b2534f2d",
        "c735840f3de605316c72203af5e32ef88dc95a541333eaef1f42d6e155647651",
    ),
    _t2i_file(
        "shape_val.txt",
        300,
        "37e1a276906c7ea9516cbd7ac8501be896006c0c17ca7344f260562834455bae",
        "bf557e22414dbc69b118111cdf0242f6bdec5e27a854d7a90436207b1e806d87",
    ),
    _t2i_file(
        "texture_val.txt",
        300,
        "fbb5363515b4a28009e360afaaaf389d2dd2289e50dbb0c6ef4ea0c7fe4f3d4f",
        "fa60c83f215a8753a3795d1aceba0a1576777ac816c9f1a617de8d7c1e21342b",
    ),
    _t2i_file(
        "spatial_val.txt",
        300,
        "8707a1d7e42ce3002d95363cf55f74bd043c843ae27108f5125aaaa7840ca988",
        "ae35e77cafeffb077e463854aba7dbeaf44e60010c663e81b7d3ba1a3338831d",
    ),
    _t2i_file(
        "non_spatial_val.txt",
        300,
        "04c56cc9ac441dc9ea6c5157652058bd1635b5308526dd31bb29a1caab9a758d",
        "2b9c2b1a26350308f5e2732f70c2f807f1cbaec241220ec709a4ea3eb34c2e98",
    ),
    _t2i_file(
        "complex_val.txt",
        300,
        "1b808018b8d9916db3d47d5aa2ef18377a3549a56901a474156f799824cdf3b4",
        "e23a7dfb80d4a4ee7c5aef7cfe2cfc26e061870b6f094c90441558b0281c5872",
    ),
    _t2i_file(
        "3d_spatial_val.txt",
        300,
        "c9953597315f36a5fcb41291bb19bdc6ab5f64a0fa760d691b4854a73f5d1fe9",
        "c9953597315f36a5fcb41291bb19bdc6ab5f64a0fa760d691b4854a73f5d1fe9",
    ),
    _t2i_file(
        "numeracy_val.txt",
        300,
        "dad8df141604b70ba7554bec724e3db0a80023680769b5c514854ea2d2527bbe",
        "dad8df141604b70ba7554bec724e3db0a80023680769b5c514854ea2d2527bbe",
    ),
    _t2i_file(
        "complex_val_spatial.txt",
        58,
        "6c7ac0ab75c7c9080cfc7b421fb059b9b0febb98471707aeedf58771088abc02",
        "9d7e0b789ea91bf19e89850974ce6a1c959924d00995b8481711de7ab7124761",
    ),
    _t2i_file(
        "complex_val_action.txt",
        212,
        "d49ee4c7f99e3f3379fb8704a54ff5288b83bb412971edf616a4721c2473308e",
        "2495e6dec9fc13d5e80a0b0668f3a3ec98ba869e170cbf38e2f3414cd945fbc4",
    ),
    _t2i_file(
        "complex_val_spatialaction.txt",
        30,
        "e02ddc7fed812e6577e7386ec2137ce0a994a5ce19771661f68df7ac349a6ca9",
        "9802b4a524606c3c1d95afa0431ea942f462bf1c2441e6aba4ae20576b9df5bf",
        needed_by="no score (what neither complex helper list holds)",
    ),
    _t2i_file(
        "new_objects.txt",
        101,
        "f39a3d2ff6067d7738673cbf465dc659ccc750776162989a5d9916f1d5f3e231",
        "f39a3d2ff6067d7738673cbf465dc659ccc750776162989a5d9916f1d5f3e231",
        needed_by="numeracy",
    ),
    PromptFile(
        name=_OLD_COLOR,
        url=f"{_T2I}/{_T2I_BEFORE_3310C2F}/examples/dataset/color_val.txt",
        num_lines=300,
        sha256="1e37a12c1861bf6b11623eaffb0bf6d6eeea9702caf45b95d040f1721bba7f4f",
        content_sha256="722d31a76d08f4c42967339b1bba8640228af45e6df14cca9b69657437387c64",
        required=False,
        needed_by=f"the color list of edition {PRE_2025_09}",
    ),
    PromptFile(
        name="License.txt",
        url=f"{_T2I}/{_T2I_COMMIT}/License.txt",
        num_lines=21,
        sha256="905b2fb8de6611b855171c41985efc7a36698016c083f1b39485a6f9e9d4ae00",
        content_sha256="e4a0043540ffe385467b3f3ee6837ce194f4a0f1c189d2b6fcadb4b117a373ba",
        required=False,
        needed_by="passing the lists on to others",
    ),
)

_T2I_LISTS = {
    "color": {CURRENT: "color_val.txt", PRE_2025_09: _OLD_COLOR},
    "shape": {CURRENT: "shape_val.txt"},
    "texture": {CURRENT: "texture_val.txt"},
    "spatial": {CURRENT: "spatial_val.txt"},
    "non_spatial": {CURRENT: "non_spatial_val.txt"},
    "complex": {CURRENT: "complex_val.txt"},
    "3d_spatial": {CURRENT: "3d_spatial_val.txt"},
    "numeracy": {CURRENT: "numeracy_val.txt"},
}

# ---- PartiPrompts: Apache-2.0 ----------------------------------------------------------------------------

_PARTI_COLUMNS = ("Prompt", "Category", "Challenge", "Note")
_PARTI_FILE = PromptFile(
    name=PARTIPROMPTS_FILE,
    url="https://raw.githubusercontent.com/google-research/parti/5a657978134374ce28973948331b319adef164bd/PartiPrompts.tsv",
    num_lines=1633,  # with the line of column names
    sha256="fab29e41bb512a169b56acab4cf2a41dcb675e285df2efcde6640c7dd3c440eb",
    content_sha256="8ff04fed3bb3e68b7f84e3ac509e6a88f3324057e86ea00a069b5e55b8077f98",
)

PROMPT_SETS = {
    COMPBENCH: PromptSet(
        name=COMPBENCH,
        source=f"github.com/Karine-Huang/T2I-CompBench at {_T2I_COMMIT[:12]}",
        licence="MIT, Copyright (c) 2023 HKU",
        files=_T2I_FILES,
        lists=_T2I_LISTS,
    ),
    PARTIPROMPTS: PromptSet(
        name=PARTIPROMPTS,
        source="github.com/google-research/parti at 5a6579781343",
        licence="Apache-2.0",
        files=(_PARTI_FILE,),
        lists={},
    ),
}


# ---- folders and files -----------------------------------------------------------------------------------


def prompt_set(name: str) -> PromptSet:
    if name not in PROMPT_SETS:
        raise UserError(f"unknown prompt set '{name}'; known: {', '.join(PROMPT_SETS)}")
    return PROMPT_SETS[name]


def prompts_folder() -> Path:
    """Where prompt sets lie, one folder each: GENTRON_PROMPTS, or in the user's cache."""
    if given := os.environ.get(ENVIRONMENT):
        return Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "gentron" / "prompts"


def split_lines(data: bytes) -> list[str]:
    """The lines of a UTF-8 file with line ends of any kind; one at the very end opens no further line."""
    lines = NEWLINE.split(data.decode())
    return lines[:-1] if lines[-1] == "" else lines


def content_sha256(lines: list[str]) -> str:
    """What pins a list whatever its line ends."""
    return sha256("\n".join(lines))


def _lines_of(file: PromptFile, data: bytes) -> list[str]:
    """Prompts end at the first tab: old lists carried labels behind it. A table keeps its columns."""
    lines = split_lines(data)
    return lines if file.name.endswith(".tsv") else [line.split("\t", 1)[0] for line in lines]


class Content(NamedTuple):
    """fault: what differs from the pin, None if nothing does.   as_published: also byte for byte."""

    lines: list[str]
    fault: str | None
    as_published: bool


def inspect(file: PromptFile, data: bytes) -> Content:
    """Hold a file against its pin."""
    as_published = sha256(data) == file.sha256
    try:
        lines = _lines_of(file, data)
    except UnicodeDecodeError:
        return Content([], "must be UTF-8 text, got other bytes", as_published)
    if len(lines) != file.num_lines:
        return Content(lines, f"must hold {file.num_lines} lines, got {len(lines)}", as_published)
    found = content_sha256(lines)
    if found != file.content_sha256:
        fault = f"must have the content sha256 {file.content_sha256[:16]}..., got {found[:16]}..."
        return Content(lines, fault, as_published)
    return Content(lines, None, as_published)


State = Literal["as published", "other line ends", "missing", "changed"]


def state(file: PromptFile, folder: Path) -> State:
    path = folder / file.name
    if not path.is_file():
        return "missing"
    content = inspect(file, path.read_bytes())
    if content.fault is not None:
        return "changed"
    return "as published" if content.as_published else "other line ends"


def _way_on(name: str) -> str:
    return f"run: gentron-bench prompts fetch {name} (or --from DIR)"


def find_prompt_set(name: str) -> Path:
    """The folder that holds the set; UserError with the way on if it is not there or not whole."""
    known = prompt_set(name)
    folder = prompts_folder() / name
    missing = [file.name for file in known.files if file.required and not (folder / file.name).is_file()]
    if missing:
        what = "no prompts" if not folder.is_dir() else f"{', '.join(missing)} missing"
        raise UserError(f"{name}: {what} in '{folder}'; {_way_on(name)}, or set {ENVIRONMENT}")
    return folder


def read_file(name: str, file_name: str, *, folder: Path | None = None) -> list[str]:
    """The lines of one file of a set, as pinned; UserError that names file, expected, got and the way on.

    folder: the set's, if not where `find_prompt_set` looks.
    """
    file = prompt_set(name).file(file_name)
    path = (folder or find_prompt_set(name)) / file_name
    if not path.is_file():
        needed = f", needed by {file.needed_by}" if file.needed_by else ""
        raise UserError(f"{path}: missing{needed}; {_way_on(name)}")
    content = inspect(file, path.read_bytes())
    if content.fault is not None:
        raise UserError(f"{path}: {content.fault}; {_way_on(name)}")
    return content.lines


# ---- reading ---------------------------------------------------------------------------------------------


def prompt_id(category: str, place: int) -> str:
    """Stable, and safe as a file name, unlike the prompts themselves (two hold a colon)."""
    return f"{category}-{place:04d}"


def load_list(
    name: str, category: str, edition: str = CURRENT, *, folder: Path | None = None
) -> list[Prompt]:
    """The prompts of a category in the order of its file.

    Splits of color, shape and texture are the benchmark's own, by place; other lists have none.
    """
    lists = prompt_set(name).lists
    if category not in lists:
        raise UserError(f"{name} has no list '{category}'; known: {', '.join(lists) or 'none'}")
    if edition not in lists[category]:
        known = ", ".join(lists[category])
        raise UserError(f"{name}: no edition '{edition}' of the list '{category}'; known: {known}")
    lines = read_file(name, lists[category][edition], folder=folder)
    return [
        Prompt(id=prompt_id(category, place), category=category, text=text, split=_split(category, place))
        for place, text in enumerate(lines)
    ]


def _split(category: str, place: int) -> str | None:
    if category not in SPLIT_CATEGORIES:
        return None
    return SEEN if place < NUM_SEEN else UNSEEN


def complex_key(text: str) -> str:
    """What the 3-in-1 score looks a prompt up by: all before the first full stop, in lower case."""
    return text.split(".", 1)[0].lower()


def complex_classes(*, folder: Path | None = None) -> tuple[frozenset[str], frozenset[str]]:
    """Keys of the complex prompts about space and of those about actions; the others are about both."""
    spatial, action = (
        frozenset(complex_key(line) for line in read_file(COMPBENCH, file, folder=folder))
        for file in ("complex_val_spatial.txt", "complex_val_action.txt")
    )
    return spatial, action


@dataclass(frozen=True, slots=True)
class PartiPrompt:
    """One row of PartiPrompts; `text` keeps the blanks at its ends, as published."""

    id: str
    text: str
    category: str
    challenge: str
    note: str


def load_partiprompts(path: Path | None = None) -> list[PartiPrompt]:
    """The 1632 rows of PartiPrompts.tsv in its order.

    path: a table of the same columns, taken as it is; by default the fetched one, as pinned.
    """
    if path is None:
        return parse_partiprompts(read_file(PARTIPROMPTS, PARTIPROMPTS_FILE), PARTIPROMPTS_FILE)
    return parse_partiprompts(split_lines(path.read_bytes()), str(path))


def parse_partiprompts(lines: list[str], where: str) -> list[PartiPrompt]:
    """The rows of a table; UserError that names `where` unless its columns are those of PartiPrompts."""
    # quotation marks are part of the prompts, not of the format
    rows = [tuple(line.split("\t")) for line in lines]
    if not rows or rows[0] != _PARTI_COLUMNS:
        got = ", ".join(rows[0])[:80] if rows else "an empty file"
        raise UserError(f"{where}: columns must be {', '.join(_PARTI_COLUMNS)}, got {got}")
    for number, row in enumerate(rows, 1):
        if len(row) != len(_PARTI_COLUMNS):
            raise UserError(f"{where}: line {number} must hold {len(_PARTI_COLUMNS)} columns, got {len(row)}")
    return [PartiPrompt(prompt_id("parti", place), *row) for place, row in enumerate(rows[1:])]


# ---- fetching --------------------------------------------------------------------------------------------


def download(url: str) -> bytes:
    """The bytes at `url`; the only function here that uses a network."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            return response.read()
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{url}: {reason}; run the command again to go on, or get the files elsewhere and use --from DIR"
        ) from error


class Fetched(NamedTuple):
    """Names of the files that were stored now, that were there already, and that the source does not have."""

    stored: list[str]
    present: list[str]
    absent: list[str]


def fetch(
    name: str,
    *,
    source: Path | None = None,
    folder: Path | None = None,
    read: Callable[[str], bytes] = download,
    done: Callable[[int], None] = lambda count: None,
) -> Fetched:
    """Store a set's files, each whole or not at all; files that are right already are left as they are.

    source: a folder to copy from; the public source if None.   folder: where to; None for the user's.
    read: gives the bytes at an address.   done: called with 1 after each file.
    Raises UserError for a file that is not as pinned, which is then not stored.
    """
    known = prompt_set(name)
    folder = prompts_folder() / name if folder is None else folder
    if source is not None:
        _check_source(known, source)
    result = Fetched([], [], [])
    for file in known.files:
        if state(file, folder) in ("as published", "other line ends"):
            result.present.append(file.name)
        elif source is not None and not (source / file.name).is_file():
            result.absent.append(file.name)
        else:
            origin = file.url if source is None else str(source / file.name)
            data = read(file.url) if source is None else (source / file.name).read_bytes()
            _store(file, data, origin, folder)
            result.stored.append(file.name)
        done(1)
    return result


def _check_source(known: PromptSet, source: Path) -> None:
    """All that can be said of a local folder is said before anything is stored."""
    if not source.is_dir():
        raise UserError(f"no folder '{source}' to take {known.name} from")
    missing = [f.name for f in known.files if f.required and not (source / f.name).is_file()]
    if missing:
        raise UserError(f"{source}: {', '.join(missing)} missing; {known.name} is at {known.source}")
    for file in known.files:
        if (source / file.name).is_file():
            content = inspect(file, (source / file.name).read_bytes())
            if content.fault is not None:
                raise UserError(f"{source / file.name}: {content.fault}; {known.name} is at {known.source}")


def _store(file: PromptFile, data: bytes, origin: str, folder: Path) -> None:
    content = inspect(file, data)
    if content.fault is not None:
        raise UserError(f"{file.name} from {origin}: {content.fault}; nothing was stored, try another source")
    with atomic_file(folder / file.name) as temporary:
        temporary.write_bytes(data)
