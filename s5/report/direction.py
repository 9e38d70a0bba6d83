"""Directions of a mixture's sources, from its scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s5.labels import SILENCE

if TYPE_CHECKING:
    from s5.scene.spec import Event, Scene


@dataclass(frozen=True)
class Direction:
    """A source's direction as seen from the microphone.

    Attributes:
        azimuth: degrees from the front (x), counter-clockwise (to the left, y), in (-180, 180].
        elevation: degrees above the horizontal plane, in [-90, 90].
    """

    azimuth: float
    elevation: float

    @classmethod
    def of(cls, point: Sequence[float]) -> Direction:
        """Direction of a cartesian point [x, y, z].

        Example:
            >>> Direction.of([0, -2, 2])
            Direction(azimuth=-90.0, elevation=45.0)
        """
        x, y, z = point
        return cls(math.degrees(math.atan2(y, x)), math.degrees(math.atan2(z, math.hypot(x, y))))

    def __str__(self) -> str:
        """The direction in words: ``azimuth 90° (left), elevation 12°``."""
        return f"azimuth {_degrees(self.azimuth)} ({side(self.azimuth)}), elevation {_degrees(self.elevation)}"


def side(azimuth: float) -> str:
    """Name of the nearest of eight directions.

    Example:
        >>> side(0), side(46), side(-90), side(180), side(-179)
        ('front', 'front left', 'right', 'back', 'back')
    """
    names = ("front", "front left", "left", "back left", "back", "back right", "right", "front right")
    return names[round(azimuth / 45) % 8]


def directions(scene: Scene, ref_labels: Sequence[str]) -> list[list[Direction]]:
    """Directions of each of a mixture's references: one, several of a moving source, or none if they are not known.

    A data directory may list classes in another order than the scene, but keeps the order of events within a class.
    Positions in scenes of 2025 may be spherical; their directions are not known.

    Args:
        scene: the mixture's scene.
        ref_labels: labels of the references.
    """
    waiting: dict[str, list[Event]] = {}
    for event in scene.targets:
        waiting.setdefault(str(event.label), []).append(event)
    cartesian = scene.rules.position == "equal"
    found: list[list[Direction]] = []
    for label in ref_labels:
        events = waiting.get(label, []) if label != SILENCE else []
        points = (events.pop(0).event_position or []) if events else []
        found.append([Direction.of(point) for point in points] if cartesian else [])
    return found


def _degrees(value: float) -> str:
    return f"{round(value) + 0}°".replace("-", "−")
