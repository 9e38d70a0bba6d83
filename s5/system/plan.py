"""Lists the name, the files and the trainings of a system, in the order in which run.sh needs them."""

from __future__ import annotations

from collections.abc import Iterator

from s5.system.config import ARCHIVE_SUFFIX, ModelConfig, SystemConfig, system_name
from s5.system.sizes import system_files
from s5.utils.config import resolve


def plan(system: str) -> list[dict[str, str]]:
    """Entries of a system's plan; the key ``what`` names the kind of an entry.

    * ``system``: the ``name`` of the system.
    * ``file``: the ``path`` of one of its files.
    * ``training``: its ``kind`` (tagger or separator), ``model``, ``phase`` (train, finetune, finetune2, ...),
      ``order`` (first or further) and experiment ``folder``; the folder ``before`` whose checkpoint it starts from, and
      ``last`` if the system decodes with it. Model archives have no trainings.
    * ``ready``: a model that is not trained here.

    Args:
        system: YAML, ``YAML:SIZE``, or a model archive.
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
