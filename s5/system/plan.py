"""Lists the name, the files and the trainings of a system, in the order in which run.sh needs them."""

from __future__ import annotations

from s5.system.archive import archived_system
from s5.system.config import ARCHIVE_SUFFIX, SystemConfig, system_name
from s5.system.kinds import KINDS
from s5.system.sizes import system_files
from s5.utils.config import resolve

LAST_STAGE = 6
"""Stage of run.sh of all trainings that build on another model than a tagger."""


def plan(system: str) -> list[dict[str, str]]:
    """Entries of a system's plan; the key ``what`` names the kind of an entry.

    * ``system``: the ``name`` of the system and its ``kind``; ``tags`` if it tags the mixtures.
    * ``file``: the ``path`` of one of its files.
    * ``training``: its ``kind`` (tagger, separator, ...), ``model``, ``phase`` (train, finetune, finetune2, ...),
      ``stage`` and experiment ``folder``; ``needs``: the folders whose weights it needs, separated by spaces; ``last``
      if the system decodes with it. Trainings follow those that they need. Model archives have no trainings.
    * ``ready``: a model that is not trained here.

    Args:
        system: YAML, ``YAML:SIZE``, or a model archive.
    """
    archived = system.endswith(ARCHIVE_SUFFIX)
    config = archived_system(resolve(system)) if archived else SystemConfig.load(system)
    entries = [{"what": "system", "name": system_name(system), "kind": config.kind}]
    if config.tags:
        entries[0]["tags"] = "yes"
    if archived:
        return [*entries, {"what": "file", "path": str(resolve(system))}]
    entries += [{"what": "file", "path": str(path)} for path in system_files(system)]
    models = config.all_models()
    for kind, model in models:
        ready = {"what": "ready", "kind": kind, "model": model.folder(), "folder": model.folder(), "last": "yes"}
        if not model.phases() and ready not in entries:
            entries.append(ready)
    stages: dict[str, int] = {}
    last = {model.folder() for _, model in models}
    taggers = {model.folder() for model in config.taggers}
    for folder, training in config.trainings().items():
        model = training.model
        builds = any(one.folder() not in taggers for one in training.estimators)
        builds |= any(stages.get(name) == LAST_STAGE for name in training.needs)
        stages[folder] = LAST_STAGE if builds else KINDS[training.kind].stage + bool(training.before)
        entry = {"what": "training", "kind": training.kind, "model": model.experiment or model.name}
        entry |= {"phase": training.phase, "stage": str(stages[folder]), "folder": folder}
        if training.needs:
            entry["needs"] = " ".join(training.needs)
        entries.append(entry | ({"last": "yes"} if folder in last else {}))
    return entries
