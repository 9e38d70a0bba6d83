"""What a scene is and how it is made: specification (JSON), rooms (SOFA), sampler, renderer. Needs no torch."""

from __future__ import annotations

from s5.scene.render import Rendered, preload, render, set_cache_budget
from s5.scene.room import SofaRoom, open_room
from s5.scene.sampler import Sampler, SamplerConfig, scene_seed
from s5.scene.spec import Event, Room, Scene, SceneConfig

__all__ = [
    "Event",
    "Rendered",
    "Room",
    "Sampler",
    "SamplerConfig",
    "Scene",
    "SceneConfig",
    "SofaRoom",
    "open_room",
    "preload",
    "render",
    "scene_seed",
    "set_cache_budget",
]
