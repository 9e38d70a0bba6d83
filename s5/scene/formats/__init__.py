"""File formats of scenes, and lists of scenes. Importing this package registers all formats."""

from s5.scene.formats import scaper2025, spaudsyn

__all__ = ["scaper2025", "spaudsyn"]
