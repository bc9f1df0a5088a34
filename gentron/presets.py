"""Named configurations as functions, to be varied with `dataclasses.replace`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gentron.model import GenTronConfig, TemporalConfig

# Models


def mini() -> GenTronConfig:
    """The bundled model of the shapes world: 64 px pictures as 16x16 latents, 16 image tokens."""
    return GenTronConfig(
        hidden_size=256,
        depth=6,
        num_heads=8,
        patch_size=4,
        sample_size=16,
        in_channels=4,
        clip_width=128,
        t5_width=128,
        pooled_width=128,
    )


def xl_2() -> GenTronConfig:
    """GenTron-XL/2: 930.0M parameters in the paper, 927.7M here."""
    return GenTronConfig(hidden_size=1152, depth=28, num_heads=16)


def g_2() -> GenTronConfig:
    """GenTron-G/2: 3083.8M parameters in the paper, 3081.5M here."""
    return GenTronConfig(hidden_size=1664, depth=48, num_heads=16)


def xl_2_clip_adaln() -> GenTronConfig:
    """The paper's ablation: DiT's block, the pooled CLIP text in place of the class."""
    return replace(xl_2_clip(), conditioning="adaln")


def xl_2_clip() -> GenTronConfig:
    """The paper's ablation: every block attends to CLIP-L."""
    return replace(xl_2(), t5_width=None)


def xl_2_t5() -> GenTronConfig:
    """The paper's ablation: every block attends to Flan-T5-XXL."""
    return replace(xl_2(), clip_width=None)


def s_2() -> GenTronConfig:
    """DiT's S/2 depth, width and heads with GenTron's text conditioning."""
    return GenTronConfig(hidden_size=384, depth=12, num_heads=6)


def b_2() -> GenTronConfig:
    """DiT's B/2 depth, width and heads with GenTron's text conditioning."""
    return GenTronConfig(hidden_size=768, depth=12, num_heads=12)


def l_2() -> GenTronConfig:
    """DiT's L/2 depth, width and heads with GenTron's text conditioning."""
    return GenTronConfig(hidden_size=1024, depth=24, num_heads=16)


CLIPS = TemporalConfig(num_frames=8, fps=4.0)
"""The paper's clips."""


def mini_t2v() -> GenTronConfig:
    """The bundled video model of the shapes world: mini and 1.6M parameters of temporal attention."""
    return replace(mini(), temporal=replace(CLIPS, null_key=True))


def xl2_t2v() -> GenTronConfig:
    """The video form of GenTron-XL/2: 148.8M parameters more. The paper gives no count."""
    return replace(xl_2(), temporal=CLIPS)


def g2_t2v() -> GenTronConfig:
    """The paper's text-to-video model, on GenTron-G/2: 531.9M parameters more. The paper gives no count."""
    return replace(g_2(), temporal=CLIPS)


PRESETS: dict[str, Callable[[], GenTronConfig]] = {
    "mini": mini,
    "s2": s_2,
    "b2": b_2,
    "l2": l_2,
    "xl2": xl_2,
    "g2": g_2,
    "xl2-clip-adaln": xl_2_clip_adaln,
    "xl2-clip": xl_2_clip,
    "xl2-t5": xl_2_t5,
    "mini-t2v": mini_t2v,
    "xl2-t2v": xl2_t2v,
    "g2-t2v": g2_t2v,
}

PAPER_PARAMETERS = {"xl2": 930.0e6, "g2": 3083.8e6}
"""Of GenTron-XL/2 and GenTron-G/2 with CLIP-L and Flan-T5-XXL."""


def preset_of(config: GenTronConfig) -> str | None:
    """The name of the preset that a config is, every field of it."""
    return next((name for name, preset in PRESETS.items() if preset() == config), None)


def paper_parameters(config: GenTronConfig) -> float | None:
    """The paper's parameter count of a model, where it has one."""
    return PAPER_PARAMETERS.get(preset_of(config) or "")


# Training recipes
