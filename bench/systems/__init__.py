"""Systems under test, named by a string; the rest of the bench does not know how their images are made.

mini | xl2 | g2 | s2 | b2 | l2   a preset: bundled weights, or those in the models folder
DIR                              a GenTron checkpoint folder
folder:DIR                       images made elsewhere, or folders of frames
diffusers:REPO or diffusers:DIR  any text-to-image pipeline of diffusers, from the local cache or a folder
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from bench.prompts import Prompt
from gentron.errors import UserError

if TYPE_CHECKING:
    from gentron.media import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One image to make. `id` names its file; the seed is a function of run seed, prompt id and sample."""

    id: str
    prompt_id: str
    sample: int
    text: str
    seed: int


@dataclass(frozen=True, slots=True)
class Media:
    """What a system answers with. A picture has one frame and no rate."""

    kind: Literal["image", "video"] = "image"
    num_frames: int = 1
    fps: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemInfo:
    """What a result says about the system."""

    kind: str
    name: str
    """As it appears in the path of a result: letters, digits, - _ ."""
    weights_sha256: str | None
    untrained: bool
    settings: dict[str, Any]
    """All that shapes the images besides weights and seeds."""
    device: str
    media: Media = Media()


class System(Protocol):
    """Makes what is asked for: a picture or a clip a request."""

    info: SystemInfo

    def samples(self, requests: Sequence[Request]) -> Iterator[Sample]:
        """One per request, in order, each as soon as it is made."""
        ...


@runtime_checkable
class Collection(Protocol):
    """Images that exist already."""

    info: SystemInfo

    def find(self, requests: Sequence[Request], prompts: Sequence[Prompt]) -> list[Path]:
        """Where the images of these requests are or should be.

        prompts: all of the lists in order, whether asked for or not; UserError where images and prompts do
        not match one to one.
        """
        ...

    def count(self, prompts: Sequence[Prompt]) -> int:
        """The most images that it holds of one prompt, at least 1."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipShape:
    """What is asked of a system that draws clips."""

    num_frames: int
    fps: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemOptions:
    """How to run a system; None takes the system's own setting. clip: None for pictures."""

    device: str = "auto"
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    motion_guidance_scale: float | None = None
    sampler: str | None = None
    batch_size: int | None = None
    random_weights: bool = False
    checkpoint: Path | None = None
    image_size: int | None = None
    clip: ClipShape | None = None

    def refuse(self, what: str, *names: str) -> None:
        """Raise ValueError if one of these options is set: a setting without effect would mislead."""
        for name in names:
            if getattr(self, name) not in (None, False):
                raise ValueError(f"--{name.replace('_', '-')} has no effect on {what}")


def safe_name(text: str) -> str:
    """A system's name as part of a path."""
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in text).strip("-.")
    return kept[:80] or "unnamed"


def check_system(name: str) -> None:
    """UserError for a name that no system can have; cheap, before anything is read or loaded."""
    kind, _, rest = name.partition(":")
    if kind in ("folder", "diffusers") and rest:
        return
    from gentron.presets import PRESETS

    if name not in PRESETS and not (name and Path(name).is_dir()):
        known = ", ".join(PRESETS)
        raise UserError(
            f"unknown model '{name}'; known: {known}, the folder of a checkpoint, folder:DIR or"
            " diffusers:REPO_OR_DIR"
        )


def parse_system(name: str, options: SystemOptions) -> System | Collection:
    """The system of this name; UserError if it does not exist or its weights are not here."""
    kind, _, rest = name.partition(":")
    if kind == "folder" and rest and options.clip:
        from bench.systems.clip_folder import ClipFolderSystem

        return ClipFolderSystem(Path(rest), options)
    if kind == "folder" and rest:
        from bench.systems.folder import FolderSystem

        return FolderSystem(Path(rest), options)
    if kind == "diffusers" and rest:
        from bench.systems.diffusers import DiffusersSystem

        return DiffusersSystem(rest, options)
    from bench.systems.gentron import GenTronSystem

    return GenTronSystem(name, options)
