"""Scene files in SpAudSyn's format (DCASE 2026 Task 4); :mod:`s5.scene.spec` shows one."""

from __future__ import annotations

from typing import Any

from s5.scene.formats import scaper2025
from s5.scene.spec import Event, Room, Scene, SceneConfig, pop_fields

_LISTS = ("fg_events", "bg_events", "int_events")


def matches(data: Any) -> bool:
    """Whether a JSON object is a scene of this format: any object that is not of the format of 2025."""
    return not scaper2025.matches(data)


def read(data: Any, where: str = "scene") -> Scene:
    """Scene of a JSON object. Raises InputError naming ``where`` and the key."""
    kinds: dict[str, tuple[type, ...]] = {"config": (dict,), **dict.fromkeys(_LISTS, (list,)), "room": (dict,)}
    known, extra = pop_fields(data, where, kinds)
    fg, bg, interference = (
        [Event.from_dict(event, f"{where}: {key}[{i}]") for i, event in enumerate(known[key])] for key in _LISTS
    )
    config = SceneConfig.from_dict(known["config"], f"{where}: config")
    return Scene(config, fg, bg, interference, Room.from_dict(known["room"], f"{where}: room"), extra)


def write(scene: Scene) -> dict[str, Any]:
    """JSON object of a scene: SpAudSyn's keys in SpAudSyn's order, then unknown keys."""
    return {
        "config": scene.config.to_dict(),
        **{key: [event.to_dict() for event in getattr(scene, key)] for key in _LISTS},
        "room": scene.room.to_dict(),
    } | scene.extra
