"""The plan of a system that run.sh walks: its name, its files, its trainings in order."""

from __future__ import annotations

from collections.abc import Iterator

from s5.system.config import ARCHIVE_SUFFIX, ModelConfig, SystemConfig, system_name
from s5.system.sizes import system_files
from s5.utils.config import resolve


def plan(system: str) -> list[dict[str, str]]:
    """What is to be done for a system, an entry each, with ``what`` it is.

    ``system`` has its ``name``; ``file``, one of those that say what it is, its ``path``. ``training`` has the ``kind``
    (tagger or separator), the ``model``, the ``phase`` (train, finetune, finetune2, ...), its ``order`` (first or
    further), its experiment ``folder``, the folder ``before`` that it goes on from, and ``last`` if the system decodes
    with it. ``ready`` is a model from elsewhere, which is not trained. Of a model archive there is no training.

    Args:
        system: YAML, at a size if one stands after a colon, or a model archive.
    """
    entries = [{"what": "system", "name": system_name(system)}]
    if system.endswith(ARCHIVE_SUFFIX):
        return [*entries, {"what": "file", "path": str(resolve(system))}]
    config = SystemConfig.load(system)
    entries += [{"what": "file", "path": str(path)} for path in system_files(system)]
    for kind in ("tagger", "separator"):
        for model in config.models(kind):
            # Two models of a system may be checkpoints of one training.
            entries += [entry for entry in _trainings(kind, model) if entry not in entries]
    return entries


def _trainings(kind: str, model: ModelConfig) -> Iterator[dict[str, str]]:
    common = {"kind": kind, "model": model.experiment or model.name}
    if not model.phases():
        yield {"what": "ready", **common, "folder": model.folder(), "last": "yes"}
    for phase in model.phases():
        before = model.phase_before(phase)
        entry = {"what": "training", **common, "phase": phase, "order": "further" if before else "first"}
        entry["folder"] = model.folder(phase)
        if before:
            entry["before"] = model.folder(before)
        if model.folder(phase) == model.folder():
            entry["last"] = "yes"
        yield entry
