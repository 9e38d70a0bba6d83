"""Limits of the numbers in a scene."""

from __future__ import annotations

LARGEST = 1e9
"""Largest magnitude of times, positions and the like."""

LOUDEST = 200.0
"""Largest magnitude of a level in dB."""

MAX_SAMPLES = 1 << 27
"""Most samples of a scene, or of an event at its rate: 70 minutes at 32 kHz."""
