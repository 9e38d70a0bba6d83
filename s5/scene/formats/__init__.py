"""File formats of scenes, and lists of scenes. Importing this package registers all formats."""

from s5.scene.formats import scaper2025, spaudsyn
from s5.scene.rendering.rules import DCASE2025, DCASE2026
from s5.scene.spec import FORMATS

FORMATS.update({DCASE2026.name: spaudsyn, DCASE2025.name: scaper2025})
