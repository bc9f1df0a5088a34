"""The built-in world: scenes of one to three objects, their exact pictures and clips, and their captions."""

from gentron.shapes.captions import Description, ObjectDescription, caption, describe, phrase
from gentron.shapes.motion import (
    Motion,
    MotionMixture,
    Movement,
    MovingScene,
    is_heldout_clip,
    render_clip,
    sample_clip,
)
from gentron.shapes.motion_captions import (
    ClipDescription,
    clip_caption,
    describe_clip,
    opposite,
    opposite_caption,
    phrase_clip,
)
from gentron.shapes.render import render
from gentron.shapes.scene import Scene, SceneObject, sample_scene, scene_rng

__all__ = [
    "ClipDescription",
    "Description",
    "Motion",
    "MotionMixture",
    "Movement",
    "MovingScene",
    "ObjectDescription",
    "Scene",
    "SceneObject",
    "caption",
    "clip_caption",
    "describe",
    "describe_clip",
    "is_heldout_clip",
    "opposite",
    "opposite_caption",
    "phrase",
    "phrase_clip",
    "render",
    "render_clip",
    "sample_clip",
    "sample_scene",
    "scene_rng",
]
