"""Lists the kinds of models that a system can have."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A kind of models."""

    key: str
    """Key of a system and of a size that holds the models by name."""
    task: str
    """Class of the ESPnet task that trains them."""
    networks: str
    """Table of their networks by the name under ``network``."""
    stage: int
    """Stage of run.sh of their first trainings."""
    required: str = ""
    """Kind of systems that cannot do without one."""
    separates: bool = False
    """Whether their outputs are waveforms, so that other models can be trained on these (``estimates``)."""
    takes_estimates: bool = False
    """Whether they can be trained on the outputs of other models."""
    takes_frames: bool = False
    """Whether their networks may want a tagger's frame posteriors (``frames``)."""


KINDS = {
    "tagger": Kind("taggers", "s5.tasks.tagging.TaggingTask", "s5.tagging.TAGGERS", 3, required="queried"),
    "separator": Kind(
        "separators",
        "s5.tasks.separation.SeparationTask",
        "s5.separation.SEPARATORS",
        5,
        required="queried",
        separates=True,
        takes_frames=True,
    ),
    "uss": Kind("uss", "s5.tasks.uss.USSTask", "s5.separation.uss.USS_NETWORKS", 5, required="objects", separates=True),
    "tse": Kind(
        "tse",
        "s5.tasks.tse.TSETask",
        "s5.separation.tse.TSE_NETWORKS",
        6,
        required="objects",
        separates=True,
        takes_estimates=True,
        takes_frames=True,
    ),
    "source_tagger": Kind(
        "source_taggers",
        "s5.tasks.source_tagging.SourceTaggingTask",
        "s5.tagging.source.SOURCE_TAGGERS",
        6,
        required="objects",
        takes_estimates=True,
    ),
}
"""All kinds by name."""

KEYS = tuple(kind.key for kind in KINDS.values())
"""Keys of a system that hold models."""


def load(path: str) -> Any:
    """Imports the object of a dotted path: networks and tasks take seconds, and are needed late."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def networks(kind: str | None = None) -> dict[str, Any]:
    """Networks of a kind by name; by default those of all kinds."""
    names = KINDS if kind is None else (kind,)
    return {name: network for one in names for name, network in load(KINDS[one].networks).items()}
