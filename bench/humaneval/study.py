"""A pairwise study as records: study.json, which raters may see, and key.json, which they may not.

The two are bound: study.json holds the sha256 of key.json, and every answer that of study.json, so nothing
can change once a study is out. A trial is one item shown to one rater, sides decided.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from bench.results.record import SystemRecord
from gentron.config import from_dict, to_dict
from gentron.errors import UserError
from gentron.hashing import sha256
from gentron.versioned import StoredFormat

SCHEMA_VERSION = 1
STUDY_KIND, KEY_KIND = "gentron-humaneval-study", "gentron-humaneval-key"
STUDY_FILE, KEY_FILE, ANSWERS_FILE = "study.json", "key.json", "answers.jsonl"
PAIR, GOLD, REPEAT = "pair", "gold", "repeat"
SIDES = ("left", "right")


# ---- the public half -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    code: str
    label: str
    keys: list[str]
    """As the browser names them (KeyboardEvent.key)."""
    outcome: Literal["left", "right", "tie"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    name: str
    shows_prompt: bool
    ask: str
    help: str
    choices: list[Choice]

    def outcome(self, code: str) -> str:
        """left, right or tie: what a choice counts as in the analysis."""
        return next(choice.outcome for choice in self.choices if choice.code == code)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """When an answer or a rater does not count; see questions.yaml."""

    min_seconds: float
    max_fast_share: float
    max_gold_failed_share: float
    max_contradicted_share: float
    min_checks: int

    def __post_init__(self) -> None:
        if not 0 <= self.min_seconds <= 600:
            raise ValueError(f"min_seconds must be in 0..600, got {self.min_seconds:g}")
        for name in ("max_fast_share", "max_gold_failed_share", "max_contradicted_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in 0..1, got {getattr(self, name)}")
        if self.min_checks < 1:
            raise ValueError(f"min_checks must be >= 1, got {self.min_checks}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """What every file of the study is alike in."""

    kind: Literal["image", "video"]
    format: Literal["png", "mp4", "webm"]
    width: int
    height: int
    codec: str | None
    """Of videos; as the file names it."""
    frames: int | None
    fps: float | None

    @property
    def noun(self) -> str:
        return "picture" if self.kind == "image" else "video"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    id: str
    rater: str
    question: str
    left: str
    """File below media/."""
    right: str
    text: int | None
    """Index of the prompt in `texts`; None where it is hidden."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """study.json. Trials stand in the order in which each rater sees them."""

    schema_version: int
    kind: str
    study_id: str
    title: str
    wording_version: int
    wording_sha256: str
    media: Media
    questions: list[Question]
    raters: list[str]
    texts: list[str]
    trials: list[Trial]
    rules: Rules
    analysis: str
    """What will be computed, fixed before the first answer."""
    key_sha256: str

    def __post_init__(self) -> None:
        names = {question.name for question in self.questions}
        if len({trial.id for trial in self.trials}) < len(self.trials):
            raise ValueError("trials must have different ids")
        for trial in self.trials:
            if trial.question not in names or trial.rater not in self.raters:
                raise ValueError(f"trial {trial.id} names an unknown question or rater")
            if trial.text is not None and not 0 <= trial.text < len(self.texts):
                raise ValueError(f"trial {trial.id} names text {trial.text} of {len(self.texts)}")

    def question(self, name: str) -> Question:
        return next(question for question in self.questions if question.name == name)


# ---- the private half ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Spec:
    """As a person named the system."""

    spec: str


@dataclass(frozen=True, kw_only=True)
class KeySystem(SystemRecord, Spec):
    """A system with every setting that shaped its pictures; in key.json `spec` comes first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyPrompt:
    id: str
    category: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSource:
    """Where the prompts come from and how they were drawn."""

    name: str
    sha256: str
    num_available: int
    num_drawn: int
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyFile:
    """A file below media/: of which system ("a" or "b") and prompt, from which bytes and seed."""

    system: Literal["a", "b"]
    prompt_id: str
    corrupted: bool
    seed: int
    """Of the image; -1 for images made elsewhere."""
    source_sha256: str
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyTrial:
    """left: "a" or "b" of a pair or its flipped repeat, "intact" or "corrupted" of a gold item."""

    kind: Literal["pair", "gold", "repeat"]
    prompt_id: str
    left: Literal["a", "b", "intact", "corrupted"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """key.json: all that was chosen and all that raters must not know."""

    schema_version: int
    kind: str
    study_id: str
    secret: str
    """Hex; decides ids, sides and orders."""
    systems: dict[str, KeySystem]
    seed: int
    """Run seed of the images."""
    source: PromptSource
    prompts: list[KeyPrompt]
    files: dict[str, KeyFile]
    trials: dict[str, KeyTrial]
    settings: dict[str, Any]
    """Resize, corruption, numbers of gold items and repeats, what was checked of videos."""
    provenance: dict[str, Any]


# ---- the wording -----------------------------------------------------------------------------------------


def read_wording() -> tuple[dict[str, Any], str]:
    """questions.yaml and its sha256."""
    data = (Path(str(files("bench"))) / "humaneval" / "questions.yaml").read_bytes()
    return yaml.safe_load(data), sha256(data)


def worded_questions(wording: dict[str, Any], names: list[str], noun: str) -> list[Question]:
    """The named questions for pictures or videos; ValueError for an unknown or repeated one."""
    known = wording["questions"]
    for name in names:
        if name not in known:
            raise ValueError(f"unknown question '{name}'; known: {', '.join(known)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"questions must be different ones of {', '.join(known)}, got '{','.join(names)}'")
    return [from_dict(Question, {"name": name, **_filled(known[name], noun)}) for name in names]


def _filled(value: Any, noun: str) -> Any:
    if isinstance(value, str):
        return value.replace("{medium}", noun).replace("{Medium}", noun.capitalize())
    if isinstance(value, list):
        return [_filled(item, noun) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, noun) for key, item in value.items()}
    return value


def worded_title(wording: dict[str, Any], noun: str) -> str:
    return _filled(wording["title"], noun)


# ---- files -----------------------------------------------------------------------------------------------


def beside(study: Path, suffix: str) -> Path:
    """A sibling of the study's folder: study-key/, study-answers/. Nothing private lies inside it."""
    study = study.resolve()
    return study.with_name(f"{study.name}-{suffix}")


def dump(record: Any) -> bytes:
    return (json.dumps(to_dict(record), indent=1, ensure_ascii=False) + "\n").encode()


def digest(*parts: str | int) -> bytes:
    """sha256 of a list of words: what ids, sides and orders are drawn from."""
    return hashlib.sha256(json.dumps(parts).encode()).digest()


STUDY = StoredFormat(record=Study, what="humaneval-study", version=SCHEMA_VERSION, kind=STUDY_KIND)
KEY = StoredFormat(record=Key, what="humaneval-key", version=SCHEMA_VERSION, kind=KEY_KIND)


def read_study(folder: Path) -> tuple[Study, str]:
    """The study in a folder made by `humaneval export`, and the sha256 of its file."""
    path = folder / STUDY_FILE
    if not path.is_file():
        raise UserError(f"no study in '{folder}': expected {STUDY_FILE}, which 'humaneval export' writes")
    data = path.read_bytes()
    return STUDY.parse(data, str(path)), sha256(data)


def read_key(path: Path, study: Study) -> Key:
    """The key of this study; UserError if it is absent, damaged, changed, or another study's."""
    if path.is_dir():
        path = path / KEY_FILE
    if not path.is_file():
        raise UserError(
            f"no key at '{path}': give the {KEY_FILE} that 'humaneval export' wrote as --key FILE"
        )
    data = path.read_bytes()
    key, found = KEY.parse(data, str(path)), sha256(data)
    if key.study_id != study.study_id:
        raise UserError(f"{path} is the key of study {key.study_id}, not of {study.study_id}")
    if found != study.key_sha256:
        raise UserError(
            f"{path} was changed since the export: sha256 must be {study.key_sha256[:12]}...,"
            f" got {found[:12]}..."
        )
    return key
