"""Protocols: published contracts in YAML, read strictly and named by their hash. No torch here.

Two kinds: the shapes world's, whose prompt lists lie beside the protocol, and those over prompt sets that the
user fetches (`gentron-bench prompts fetch`), pinned by hash all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from bench.prompts import Prompt, motion, shapes
from bench.prompts.limit import limited
from bench.prompts.seeds import image_seed
from bench.shipped import shipped_folder
from gentron.config import from_dict
from gentron.errors import UserError
from gentron.hashing import sha256

CURRENT = "current"  # the edition of a prompt list that counts unless another is asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class Versioned:
    name: str
    version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Chance:
    """How the chance levels are drawn."""

    seed: int
    draws: int
    """Descriptions drawn for each picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedCategory:
    """Of a protocol whose pictures or clips a rule can judge, with its list beside the protocol."""

    TESTED: ClassVar[tuple[str, ...]]

    tested: str
    """What is redrawn for the chance level."""
    prompts: str
    """File beside the protocol."""
    num_prompts: int
    sha256: str

    def __post_init__(self) -> None:
        if self.tested not in self.TESTED:
            raise ValueError(f"tested must be one of {', '.join(self.TESTED)}, got '{self.tested}'")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapesCategory(JudgedCategory):
    TESTED = tuple(shapes.TESTED)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapesConfig:
    """The YAML file of a protocol over the shapes world, field by field."""

    name: str
    world: Versioned
    scorer: Versioned
    image_size: int
    """Side of the pictures that the scorer sees, in pixels."""
    resize: Literal["area"]
    """How pictures of another size are brought there."""
    images_per_prompt: int
    seed: int
    chance: Chance
    categories: dict[str, ShapesCategory]
    suites: dict[str, list[str]]

    def scorer_of(self, category: str) -> tuple[str, dict[str, Any]]:
        """Name and settings of the category's scorer."""
        settings = {
            "version": self.scorer.version,
            "world_version": self.world.version,
            "image_size": self.image_size,
            "tested": self.categories[category].tested,
            "chance_seed": self.chance.seed,
            "chance_draws": self.chance.draws,
        }
        return self.scorer.name, settings

    def image_seed(self, seed: int, prompt_id: str, sample: int) -> int:
        """The seed of an image: keyed, so that no two images share one."""
        return image_seed(seed, prompt_id, sample)


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionCategory(JudgedCategory):
    TESTED = tuple(motion.TESTED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """What is asked of a system: so many frames at this rate."""

    num_frames: int
    fps: float


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionConfig:
    """The YAML file of a protocol over clips of the shapes world, field by field."""

    name: str
    kind: Literal["shapes-motion"]
    world: Versioned
    motion: Versioned
    """Version of the world's clips and their captions."""
    scorer: Versioned
    clip: Clip
    image_size: int
    """Side of the frames that the scorer sees, in pixels."""
    resize: Literal["area"]
    """How frames of another size are brought there."""
    images_per_prompt: int
    """Clips, here."""
    seed: int
    chance: Chance
    categories: dict[str, MotionCategory]
    suites: dict[str, list[str]]

    def scorer_of(self, category: str) -> tuple[str, dict[str, Any]]:
        """Name and settings of the category's scorer."""
        settings = {
            "version": self.scorer.version,
            "world_version": self.world.version,
            "motion_version": self.motion.version,
            "image_size": self.image_size,
            "num_frames": self.clip.num_frames,
            "fps": self.clip.fps,
            "tested": self.categories[category].tested,
            "chance_seed": self.chance.seed,
            "chance_draws": self.chance.draws,
        }
        return self.scorer.name, settings

    def image_seed(self, seed: int, prompt_id: str, sample: int) -> int:
        """The seed of a clip: keyed, so that no two clips share one."""
        return image_seed(seed, prompt_id, sample)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    source: str
    """Name of the prompt set, as in `gentron-bench prompts fetch`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsecutiveSeeds:
    """Image n of every prompt takes the seed first + n."""

    kind: Literal["consecutive"]
    first: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SetCategory:
    scorer: str
    prompts: str
    """File of the prompt set."""
    num_prompts: int
    sha256: str
    """Of the lines joined by line feeds, whatever the line ends of the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSetConfig:
    """The YAML file of a protocol over a fetched prompt set, field by field."""

    name: str
    kind: Literal["prompt-sets"]
    prompts: Source
    images_per_prompt: int
    seeds: ConsecutiveSeeds
    image_size: int | None
    """Side of the pictures asked of a system, in pixels; None leaves it to the system."""
    categories: dict[str, SetCategory]
    editions: dict[str, dict[str, str]]
    """Older prompt lists by category and name, with their sha256."""
    suites: dict[str, list[str]]
    scorers: dict[str, dict[str, Any]]
    """Settings of each scorer; the scorer reads them strictly."""

    def __post_init__(self) -> None:
        for name, category in self.categories.items():
            if category.scorer not in self.scorers:
                raise ValueError(
                    f"categories.{name} asks for the scorer '{category.scorer}' without settings"
                )

    @property
    def seed(self) -> int:
        return self.seeds.first

    def scorer_of(self, category: str) -> tuple[str, dict[str, Any]]:
        """Name and settings of the category's scorer."""
        name = self.categories[category].scorer
        return name, self.scorers[name]

    def image_seed(self, seed: int, prompt_id: str, sample: int) -> int:
        """The seed of an image: the run's plus the sample index, the same for every prompt."""
        return seed + sample


ProtocolConfig = ShapesConfig | MotionConfig | PromptSetConfig
KINDS = {"shapes-motion": MotionConfig, "prompt-sets": PromptSetConfig}  # without a kind: ShapesConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """A protocol with the hash of its file, which pins the prompt lists through theirs.

    editions: the prompt lists chosen where there are several, by category.
    """

    config: ProtocolConfig
    sha256: str
    prompts: Mapping[str, list[Prompt]]
    editions: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.config.name

    def categories(self, suite: str) -> list[str]:
        """Categories of a suite, in the protocol's order; a category's own name is a suite of one."""
        if suite in self.config.categories:
            return [suite]
        if suite not in self.config.suites:
            known = dict.fromkeys([*self.config.suites, *self.config.categories])
            raise ValueError(f"unknown suite '{suite}'; known: {', '.join(known)}")
        return [name for name in self.config.categories if name in self.config.suites[suite]]

    def select(self, suite: str, *, limit: int | None) -> list[Prompt]:
        """The prompts of a suite, all or `limit` of each category, see bench.prompts.limit."""
        return [prompt for name in self.categories(suite) for prompt in limited(self.prompts[name], limit)]

    @property
    def all_prompts(self) -> list[Prompt]:
        """Of every category, in the order of the lists."""
        return [prompt for prompts in self.prompts.values() for prompt in prompts]

    @property
    def images_key(self) -> list[Any]:
        """All of the protocol that shapes an image: evaluators of the same prompts share their images."""
        if isinstance(self.config, PromptSetConfig):
            return [self.config.prompts.source, self.editions, self.config.image_size]
        return [self.sha256]

    @property
    def images_name(self) -> str:
        """Name of the folder of its images."""
        return self.config.prompts.source if isinstance(self.config, PromptSetConfig) else self.name


def protocols_folder() -> Path:
    """Where the published protocols are."""
    return shipped_folder("protocols")


def protocol_names(folder: Path | None = None) -> list[str]:
    return sorted(path.stem for path in (folder or protocols_folder()).glob("*.yaml"))


def read_config(name: str, *, folder: Path | None = None) -> tuple[ProtocolConfig, str]:
    """A published protocol's configuration and the sha256 of its file; UserError if unknown or invalid."""
    known = protocol_names(folder)
    if name not in known:
        raise UserError(f"unknown protocol '{name}'; known: {', '.join(known)}")
    path = (folder or protocols_folder()) / f"{name}.yaml"
    data = path.read_bytes()
    try:
        fields = yaml.safe_load(data)
        config = from_dict(_kind(fields), fields)
        _check_suites(config)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    return config, sha256(data)


def _kind(fields: Any) -> type[ProtocolConfig]:
    """The class of a protocol's fields; ValueError if they name none that is known."""
    if not isinstance(fields, dict) or "kind" not in fields:
        return ShapesConfig
    if fields["kind"] not in KINDS:
        raise ValueError(f"unknown kind '{fields['kind']}'; known: {', '.join(KINDS)}")
    return KINDS[fields["kind"]]


def _check_suites(config: ProtocolConfig) -> None:
    for suite, names in config.suites.items():
        for name in names:
            if name not in config.categories:
                raise ValueError(f"suites.{suite} names an unknown category '{name}'")


def load_protocol(
    name: str, *, folder: Path | None = None, editions: Mapping[str, str] | None = None
) -> Protocol:
    """Read a published protocol and its prompt lists; UserError if unknown, not fetched or not as pinned.

    editions: by category, another edition of its list than the current one.
    """
    config, digest = read_config(name, folder=folder)
    chosen = {category: edition for category, edition in (editions or {}).items() if edition != CURRENT}
    if isinstance(config, PromptSetConfig):
        prompts = _fetched_prompts(config, chosen)
    elif chosen:
        raise ValueError(f"{name} has one edition of its prompt lists, got {chosen}")
    else:
        prompts = _own_prompts(config, folder or protocols_folder())
    return Protocol(config=config, sha256=digest, prompts=prompts, editions=chosen)


def _own_prompts(config: ShapesConfig | MotionConfig, folder: Path) -> dict[str, list[Prompt]]:
    load = motion.load if isinstance(config, MotionConfig) else shapes.load
    prompts = {}
    for category, entry in config.categories.items():
        prompts[category] = load(folder / entry.prompts, category, sha256=entry.sha256)
        if (found := len(prompts[category])) != entry.num_prompts:
            raise UserError(
                f"{config.name}: {entry.prompts} must hold {entry.num_prompts} prompts, got {found}"
            )
    return prompts


def _fetched_prompts(config: PromptSetConfig, editions: dict[str, str]) -> dict[str, list[Prompt]]:
    from bench.prompts.sets import load_list

    for category, edition in editions.items():
        known = config.editions.get(category, {})
        if edition not in known:
            names = ", ".join([CURRENT, *known])
            raise ValueError(f"no edition '{edition}' of the list '{category}'; known: {names}")
    prompts = {}
    for category, entry in config.categories.items():
        edition = editions.get(category, CURRENT)
        prompts[category] = load_list(config.prompts.source, category, edition)
        pinned = entry.sha256 if edition == CURRENT else config.editions[category][edition]
        digest = sha256("\n".join(p.text for p in prompts[category]))
        if digest != pinned or len(prompts[category]) != entry.num_prompts:
            raise UserError(
                f"{config.name}: {entry.prompts} must hold {entry.num_prompts} prompts with sha256"
                f" {pinned[:12]}..., got {len(prompts[category])} with {digest[:12]}...: fetch them again"
            )
    return prompts
