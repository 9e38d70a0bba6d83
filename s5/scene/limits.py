"""Largest and least numbers that a scene may have."""

from __future__ import annotations

LARGEST = 1e9
"""Times, positions and the like are at most so large."""


LOUDEST = 200.0
"""dB: levels are between it and its negative."""


MAX_SAMPLES = 1 << 27
"""Of a scene, and of an event at its rate: 70 minutes at 32 kHz."""
