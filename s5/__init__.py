"""S5: spatial semantic segmentation of sound scenes.

Four-channel first-order Ambisonics in, up to three dry labelled sources out. The public names are imported on first
use, so that ``import s5`` alone loads neither torch nor ESPnet.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["DecodeConfig", "S5System", "Source"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from s5.system import system

        return getattr(system, name)
    raise AttributeError(f"module 's5' has no attribute {name!r}")
