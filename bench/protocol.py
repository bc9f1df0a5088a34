"""Protocols: published contracts in YAML, read strictly and named by their hash. No torch here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml

from bench.prompts import TESTED, Prompt, load
from gentron.config import from_dict
from gentron.errors import UserError


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
class Category:
    tested: str
    """The attribute that is redrawn for the chance level."""
    prompts: str
    """File beside the protocol."""
    num_prompts: int
    sha256: str

    def __post_init__(self) -> None:
        if self.tested not in TESTED:
            raise ValueError(f"tested must be one of {', '.join(TESTED)}, got '{self.tested}'")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProtocolConfig:
    """The YAML file, field by field."""

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
    categories: dict[str, Category]
    suites: dict[str, list[str]]

    def __post_init__(self) -> None:
        for suite, names in self.suites.items():
            for name in names:
                if name not in self.categories:
                    raise ValueError(f"suites.{suite} names an unknown category '{name}'")


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """A protocol with the hash of its file, which pins the prompt lists through theirs."""

    config: ProtocolConfig
    sha256: str
    prompts: dict[str, list[Prompt]]

    @property
    def name(self) -> str:
        return self.config.name

    def categories(self, suite: str) -> list[str]:
        """Categories of a suite, in the protocol's order."""
        if suite not in self.config.suites:
            raise ValueError(f"unknown suite '{suite}'; known: {', '.join(self.config.suites)}")
        return [name for name in self.config.categories if name in self.config.suites[suite]]

    def select(self, suite: str, *, limit: int | None) -> list[Prompt]:
        """The prompts of a suite, the first `limit` of each category."""
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be >= 1, got {limit}")
        return [prompt for name in self.categories(suite) for prompt in self.prompts[name][:limit]]


def protocols_folder() -> Path:
    """Where the published protocols are: package data."""
    return Path(str(files("bench"))) / "protocols"


def protocol_names() -> list[str]:
    return sorted(path.stem for path in protocols_folder().glob("*.yaml"))


def load_protocol(name: str, *, folder: Path | None = None) -> Protocol:
    """Read a published protocol and its prompt lists; UserError if unknown or not as pinned."""
    folder = folder or protocols_folder()
    path = folder / f"{name}.yaml"
    known = sorted(p.stem for p in folder.glob("*.yaml"))
    if name not in known:
        raise UserError(f"unknown protocol '{name}'; known: {', '.join(known)}")
    data = path.read_bytes()
    try:
        config = from_dict(ProtocolConfig, yaml.safe_load(data))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    prompts = {}
    for category, entry in config.categories.items():
        prompts[category] = load(folder / entry.prompts, category, sha256=entry.sha256)
        if len(prompts[category]) != entry.num_prompts:
            found = len(prompts[category])
            raise UserError(f"{path}: {entry.prompts} must hold {entry.num_prompts} prompts, got {found}")
    return Protocol(config=config, sha256=hashlib.sha256(data).hexdigest(), prompts=prompts)
