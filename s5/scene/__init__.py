"""Scenes: their specification (JSON), rooms (SOFA), sampler and renderer. Importing this package needs no torch."""

from __future__ import annotations

from s5.scene.config import SamplerConfig
from s5.scene.formats.lists import MetadataList, load_scenes
from s5.scene.rendering.cpu import Rendered, render, render_plan
from s5.scene.rendering.room import SofaRoom, open_room
from s5.scene.rendering.rules import RenderRules
from s5.scene.sampler import Sampler, scene_seed
from s5.scene.spec import Event, Room, Scene, SceneConfig

__all__ = [
    "Event",
    "MetadataList",
    "RenderRules",
    "Rendered",
    "Room",
    "Sampler",
    "SamplerConfig",
    "Scene",
    "SceneConfig",
    "SofaRoom",
    "load_scenes",
    "open_room",
    "render",
    "render_plan",
    "scene_seed",
]
