"""What a video system is asked to draw, and its clips once they are drawn.

A protocol's prompts or those of a file, each with its seeds; clips lie in the folder of the system, the
prompts and the seed, so every command with the same settings finds the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.jobs.clipscore import prompts_digest, read_prompts
from bench.prompts import Prompt
from bench.prompts.protocol import MotionConfig, Protocol, load_protocol
from bench.sharding import Shard
from bench.stages import Stage
from bench.systems import ClipShape, Request, System, SystemInfo, safe_name
from bench.systems.clips import Clip
from bench.systems.generate import images_folder, make_images, work_folder
from bench.systems.requests import requests
from bench.systems.samples import SampleRecord
from gentron.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """folder: of a system's clips.   judged: by the rules of the shapes world."""

    prompts: Sequence[Prompt]
    wanted: Sequence[Request]
    folder: Callable[[SystemInfo], Path]
    judged: bool
    protocol: str
    protocol_sha256: str
    suite: str
    seed: int
    clips_per_prompt: int
    limit: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which prompts and seeds; None takes the protocol's, or of a file's prompts 1 clip and seed 0."""

    suite: str = "all"
    limit: int | None = None
    clips_per_prompt: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("limit", 1), ("clips_per_prompt", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}")


@dataclass(frozen=True, kw_only=True)
class ClipPrompts:
    """A protocol, or a file of prompts, before any is chosen."""

    protocol: Protocol | None = None
    file: Path | None = None

    @property
    def judged(self) -> bool:
        return self.protocol is not None and isinstance(self.protocol.config, MotionConfig)

    @property
    def shape(self) -> ClipShape | None:
        """Of the clips that the protocol asks for; None where the model's own is taken."""
        config = None if self.protocol is None else self.protocol.config
        if not isinstance(config, MotionConfig):
            return None
        return ClipShape(num_frames=config.clip.num_frames, fps=config.clip.fps)

    def source(self, choice: Choice, *, work: Path) -> ClipSource:
        """UserError for an unknown suite or a file that holds no prompts."""
        return self._of_file(choice, work) if self.protocol is None else self._of_protocol(choice, work)

    def _of_protocol(self, choice: Choice, work: Path) -> ClipSource:
        protocol = self.protocol
        assert protocol is not None
        config = protocol.config
        seed = config.seed if choice.seed is None else choice.seed
        count = choice.clips_per_prompt or config.images_per_prompt
        prompts = protocol.select(choice.suite, limit=choice.limit)
        return ClipSource(
            prompts=prompts,
            wanted=requests(prompts, images_per_prompt=count, seed=seed, seed_of=config.image_seed),
            folder=lambda info: work_folder(work, protocol, info, seed=seed),
            judged=self.judged,
            protocol=protocol.name,
            protocol_sha256=protocol.sha256,
            suite=choice.suite,
            seed=seed,
            clips_per_prompt=count,
            limit=choice.limit,
        )

    def _of_file(self, choice: Choice, work: Path) -> ClipSource:
        assert self.file is not None
        if choice.suite != "all":
            raise ValueError("--suite has no effect on a file of prompts")
        prompts = read_prompts(self.file)[: choice.limit]
        digest, name = prompts_digest(prompts), f"prompts-{safe_name(self.file.stem)}"
        seed, count = choice.seed or 0, choice.clips_per_prompt or 1
        return ClipSource(
            prompts=prompts,
            wanted=requests(prompts, images_per_prompt=count, seed=seed),
            folder=lambda info: images_folder(work / name, info, before=[digest], after=[seed]),
            judged=False,
            protocol=name,
            protocol_sha256=digest,
            suite="all",
            seed=seed,
            clips_per_prompt=count,
            limit=choice.limit,
        )


def clip_prompts(protocol: str | None, file: Path | None, *, default: str | None) -> ClipPrompts:
    """default: the protocol of the model's world, if it has one."""
    if protocol is not None and file is not None:
        raise ValueError("--protocol and --prompts exclude each other")
    if file is not None:
        if not file.is_file():
            raise UserError(f"no file '{file}' with prompts")
        return ClipPrompts(file=file)
    name = protocol or default
    if name is None:
        raise UserError("give prompts for this model with --prompts FILE or --protocol NAME")
    return ClipPrompts(protocol=load_protocol(name))


# ---- drawing ---------------------------------------------------------------------------------------------


def draw_clips(system: System, source: ClipSource, stage: Stage, shard: Shard) -> list[Clip]:
    """All clips, made or found, once every process has made its share."""
    folder = source.folder(system.info)
    made = make_images(system, list(source.wanted), folder, shard, stage, prompts=source.prompts)
    texts = {prompt.id: prompt.text for prompt in source.prompts}
    return [_clip(folder, record, texts[record.prompt_id]) for record in made]


def _clip(folder: Path, record: SampleRecord, text: str) -> Clip:
    """Its frames lie alone in a folder of their own."""
    if record.kind != "video":
        raise UserError(f"the system drew a picture of '{text}', expected a clip: give a video model")
    return Clip(
        name=f"{record.prompt_id}_{record.sample:02d}",
        path=(folder / record.file).parent,
        prompt_id=record.prompt_id,
        sample=record.sample,
        seed=record.seed,
        text=text,
    )
