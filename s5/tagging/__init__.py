"""Tags recordings: encoders, auxiliary features, heads, losses and decisions.

The public names are imported on first use, so decisions on posteriors need no torch.
"""

from __future__ import annotations

from typing import Any

__all__ = ["TAGGERS", "M2DTagger", "Tagger"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from s5.tagging import tagger

        return getattr(tagger, name)
    raise AttributeError(f"module 's5.tagging' has no attribute {name!r}")
