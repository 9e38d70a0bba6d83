"""Formats in which scenes are written down, and lists of scenes. Importing this package makes all formats known."""

from s5.scene.formats import scaper2025, spaudsyn

__all__ = ["scaper2025", "spaudsyn"]
