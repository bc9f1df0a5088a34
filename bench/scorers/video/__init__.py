"""Scorers of clips: a number a clip, each with its definition, network and settings in its record.

A clip is scored alone and its frames pair by pair, so a number depends on its clip and nothing else: not on a
batch, on the number of processes or on where a run was killed. Nothing heavy is imported before one is built.
"""

# F frames of a clip, H W size of a frame

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from bench.scorers import Context, Scored, ScorerRecord
from gentron.errors import UserError

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


class ClipScorer(Protocol):
    """Scores one clip at a time."""

    @property
    def record(self) -> ScorerRecord: ...

    @property
    def needs_text(self) -> bool:
        """Whether it compares frames with the prompt."""
        ...

    def score(self, frames: np.ndarray, digest: str, text: str | None) -> Scored:
        """frames: (F, H, W, 3) uint8, F >= 2.   digest: names these frames.   text: the prompt, if any."""
        ...


class OfLastClip(Generic[T]):
    """What several scorers need of one clip, such as its optical flow, worked out once.

    Only the last clip's is kept: scorers are called one after the other on the same clip.
    """

    def __init__(self, compute: Callable[[np.ndarray], T]) -> None:
        self._compute = compute
        self._last: tuple[str, T] | None = None

    def __call__(self, frames: np.ndarray, digest: str) -> T:
        if self._last is None or self._last[0] != digest:
            self._last = digest, self._compute(frames)
        return self._last[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """What a number a clip is, for a reader.

    module: has build(names, context), which makes those of its scorers that are asked for, sharing a network.
    higher_is_better: None where neither is, as for the amount of motion.   unit: of the number.
    """

    module: str
    words: str
    unit: str
    higher_is_better: bool | None


_FLOW = "bench.scorers.video.flow"
_CLIP = "bench.scorers.video.clip_frames"
_PLAIN = "bench.scorers.video.neighbours"
_JUDGE = "bench.scorers.video.judge"


def _of_flow(flow: str) -> dict[str, Measure]:
    """The three measures over one optical flow; the flow is a part of their names."""
    return {
        f"flow_magnitude_{flow}": Measure(
            module=_FLOW,
            words=f"mean length of the {flow.upper()} flow between neighbouring frames",
            unit="pixels a frame",
            higher_is_better=None,
        ),
        f"warping_error_{flow}": Measure(
            module=_FLOW,
            words=f"mean squared difference of a frame and the next one warped back by {flow.upper()} flow,"
            " over visible pixels",
            unit="of 1",
            higher_is_better=False,
        ),
        f"static_flicker_{flow}": Measure(
            module=_FLOW,
            words=f"mean absolute difference of neighbouring frames where {flow.upper()} sees no motion",
            unit="of 1",
            higher_is_better=False,
        ),
    }


# name -> what it is. An optical flow, like an extractor, is a part of the name of what is measured with it.
MEASURES: dict[str, Measure] = {
    "temporal_flickering": Measure(
        module=_PLAIN,
        words="VBench's: (255 - mean absolute difference of neighbouring frames) / 255",
        unit="of 1",
        higher_is_better=True,
    ),
    "neighbour_ssim": Measure(
        module=_PLAIN,
        words="mean structural similarity of neighbouring frames (torchmetrics)",
        unit="of 1",
        higher_is_better=True,
    ),
    "neighbour_psnr": Measure(
        module=_PLAIN,
        words="mean peak signal-to-noise ratio of neighbouring frames, at most 100 dB (torchmetrics)",
        unit="dB",
        higher_is_better=True,
    ),
    **_of_flow("raft"),
    **_of_flow("dis"),
    "clip_frames": Measure(
        module=_CLIP,
        words="mean cosine of the frames and the prompt, CLIP ViT-B/32",
        unit="cosine",
        higher_is_better=True,
    ),
    "clip_consistency": Measure(
        module=_CLIP,
        words="mean cosine of neighbouring frames, CLIP ViT-B/32",
        unit="cosine",
        higher_is_better=True,
    ),
    "clip_consistency_first": Measure(
        module=_CLIP,
        words="mean cosine of the first frame and each other, CLIP ViT-B/32",
        unit="cosine",
        higher_is_better=True,
    ),
    **{
        f"judge_{kind}": Measure(module=_JUDGE, words=words, unit="of 1", higher_is_better=True)
        for kind, words in (
            ("motion", "share of clips in which every object moves as asked"),
            ("appearance", "mean over frames of the picture judge's score"),
            ("persistence", "share of frames in which an asked object is found"),
            ("caption", "mean over frames of the cosine of objects seen and named"),
        )
    },
}


def measure(name: str) -> Measure:
    """ValueError that lists the names for an unknown one."""
    if name not in MEASURES:
        raise ValueError(f"unknown video metric '{name}'; known: {', '.join(MEASURES)}")
    return MEASURES[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """scorers: by name, in the order asked.   skipped: name -> why it is not here, and the way on."""

    scorers: dict[str, ClipScorer]
    skipped: dict[str, str] = field(default_factory=dict)


def build_clip_scorers(names: Sequence[str], context: Context) -> Built:
    """The scorers of these names; one whose network or library is not here is skipped with the way on.

    The scorers of a module and a network share it, and what it finds in a clip.
    """
    from bench.weights import MissingWeights

    families: dict[tuple[str, str], list[str]] = {}
    for name in dict.fromkeys(names):
        families.setdefault(_family(name), []).append(name)
    made: dict[str, ClipScorer] = {}
    skipped: dict[str, str] = {}
    for (module, _), members in families.items():
        try:
            made |= import_module(module).build(members, context)
        except MissingWeights as missing:
            skipped |= {name: str(missing) for name in members}
    ordered = [name for name in dict.fromkeys(names)]
    return Built(
        scorers={name: made[name] for name in ordered if name in made},
        skipped={name: skipped[name] for name in ordered if name in skipped},
    )


def _family(name: str) -> tuple[str, str]:
    module = measure(name).module
    return module, name.rpartition("_")[2] if module == _FLOW else ""


def check_frames(frames: np.ndarray) -> None:
    """UserError unless there are two frames to compare."""
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be (F, H, W, 3), got {frames.shape}")
    if len(frames) < 2:
        raise UserError(f"a clip must have at least 2 frames, got {len(frames)}")
