"""The built-in world: scenes of one to three objects, their exact pictures and their captions."""

from gentron.shapes.captions import Description, ObjectDescription, caption, describe, phrase
from gentron.shapes.render import render
from gentron.shapes.scene import Scene, SceneObject, sample_scene, scene_rng

__all__ = [
    "Description",
    "ObjectDescription",
    "Scene",
    "SceneObject",
    "caption",
    "describe",
    "phrase",
    "render",
    "sample_scene",
    "scene_rng",
]
