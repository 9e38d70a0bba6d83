"""Comparison of a training with the model in its folder, without torch and ESPnet.

Two trainings are the same if their merged YAMLs, the options of the command line, their initial weights and the content
of their data are the same. Comments, dates and the order of keys do not count. ``resolved.yaml`` in the experiment
folder describes the training of its model.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from s5.data import data_content
from s5.system.config import SystemConfig
from s5.system.sizes import resolve_training, split_size
from s5.system.trained import best_checkpoint
from s5.utils.config import load_yaml, merge, parse_value
from s5.utils.errors import InputError, one_of
from s5.utils.files import write_text

RESOLVED = "resolved.yaml"

CONTINUED = ("max_epoch", "patience")
"""Options of the end of a training. With other values it resumes from its checkpoint. ``max_epoch`` may only grow, and
only if the schedule of the learning rate does not depend on it."""

HOW = (
    *("num_workers", "num_threads", "device_cache_mb", "ngpu", "unused_parameters", "dist_timeout"),
    *("dist_backend", "dist_init_method", "dist_world_size", "dist_rank", "local_rank", "dist_launcher"),
    *("dist_master_addr", "dist_master_port", "multiprocessing_distributed", "checkpoint_minutes"),
    *("log_level", "log_interval", "print_config", "use_matplotlib", "use_tensorboard", "create_graph_in_tensorboard"),
    *("use_wandb", "wandb_project", "wandb_id", "wandb_entity", "wandb_name", "wandb_model_log_interval"),
    *("num_examples", "examples_interval", "num_att_plot"),
)
"""Options that do not change the model but only how the training runs and what it shows. They are not compared."""

_SHOWN = 5
"""Number of differences that an error names."""

_LONG = 60
"""Number of characters of a value that an error shows."""


class Phase(NamedTuple):
    """A training of a system."""

    kind: str
    """Kind of :data:`s5.system.kinds.KINDS`."""
    file: str
    """YAML of the training, which errors name."""
    config: dict[str, Any]
    """All keys of the training."""
    origins: dict[str, Any]
    """File of each key."""
    folder: str
    """Folder of the model below the folder of the experiments."""
    before: str | None
    """Folder of the phase that it starts from, if any."""
    checkpoint: str | None
    """Checkpoint in that folder that the system names, if any."""
    estimators: list[tuple[str, str | None]]
    """Folder and checkpoint, if the system names one, of each model whose outputs it is trained on."""


def phase_of(system: str | Path, name: str, phase: str) -> Phase:
    """Finds a training of a system. Raises InputError if there is no such model or phase."""
    config = SystemConfig.load(system)
    kind, model = config.find(name)
    phases = model.phases()
    if phase not in phases:
        raise InputError(f"{system}: {name}", f"no {phase} phase", one_of(phases, phase))
    before = model.phase_before(phase)
    files, size = model.files(phase), split_size(system)[1]
    estimators = [config.find(other)[1] for other in model.estimators(phase)]
    return Phase(
        kind,
        phases[phase],
        *resolve_training(files, size),
        model.folder(phase),
        model.folder(before) if before else None,
        model.checkpoint,
        [(estimator.folder(), estimator.checkpoint) for estimator in estimators],
    )


def start_options(phase: Phase, expdir: str | Path) -> list[str]:
    """ESPnet options that name the weights which a training needs: of its previous phase and of its estimators.

    Of the previous phase only the network is loaded: the average of the weights, if that phase has one.
    """
    options = []
    if phase.before is not None:
        options = ["--init_param", f"{best_checkpoint(Path(expdir, phase.before), phase.checkpoint)}:network:network"]
    estimators = [str(best_checkpoint(Path(expdir, folder), name)) for folder, name in phase.estimators]
    return [*options, *(["--estimators", *estimators] if estimators else [])]


def resolved(
    config: Mapping[str, Any], train_data: str | Path, valid_data: str | Path, extra: Sequence[str] = ()
) -> dict[str, Any]:
    """Description of a training as plain data.

    Args:
        config: keys of the training's YAML, with the inherited ones.
        train_data: data directory.
        valid_data: data directory.
        extra: ESPnet options as on a command line, which override the YAML.
    """
    config = dict(config)
    for option in _options(extra):
        config = merge(config, option)
    for key in config.keys() & {"init_param", "estimators"}:
        given = config[key]
        config[key] = [_weights(entry) for entry in (given if isinstance(given, list) else [given])]
    kept = {key: value for key, value in sorted(config.items()) if key not in HOW}
    data = {"train_data": data_content(train_data), "valid_data": data_content(valid_data)}
    return yaml.safe_load(yaml.safe_dump({"config": kept, **data}))


def write_resolved(folder: str | Path, now: Mapping[str, Any]) -> None:
    """Writes ``resolved.yaml``."""
    write_text(Path(folder, RESOLVED), as_text(now))


def as_text(now: Mapping[str, Any]) -> str:
    """Content of ``resolved.yaml``."""
    title = "# The training of this model; another training is refused here (docs/training.md).\n"
    return title + yaml.safe_dump(dict(now), sort_keys=True, allow_unicode=True)


def check_same(folder: str | Path, now: Mapping[str, Any]) -> None:
    """Refuses a training that differs from the training of the model in its folder.

    Args:
        folder: experiment folder. Without weights in it, every training is accepted.
        now: result of :func:`resolved`.

    Raises:
        InputError: the training differs.
    """
    folder = Path(folder)
    if not has_weights(folder):
        return
    known = (folder / RESOLVED).is_file()
    if found := differences(load_yaml(folder / RESOLVED), now) if known else [f"no {RESOLVED}"]:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise InputError(
            folder,
            f"a model of another training ({'; '.join(found[:_SHOWN])}{more})",
            "the same training (--overwrite true renames the folder, another --expdir keeps it)",
        )


def check_goes_on(folder: str | Path) -> None:
    """Refuses to train from the start in a folder with weights. Raises InputError."""
    folder = Path(folder)
    there = any((folder / name).exists() for name in ("checkpoint.pth", "checkpoint.previous.pth"))
    if has_weights(folder) and not there:
        raise InputError(
            folder,
            "weights but no checkpoint.pth",
            "a checkpoint to resume from (--overwrite true renames the folder and trains from the start)",
        )


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weights. Those of a first epoch do not count: they are written before its checkpoint."""
    return any(path.name != "1epoch.pth" for path in folder.glob("*.pth") if not path.name.startswith("."))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences that make another model, one a key: ``batch_size: 4 -> 8``."""
    found = []
    for keys, old, new in _changes(before, now):
        if keys[:1] == ("config",):
            keys = keys[1:]
            if len(keys) == 1 and keys[0] in CONTINUED and _goes_on(keys[0], old, new, now["config"]):
                continue
        found.append(f"{'.'.join(keys)}: {_shown(old)} -> {_shown(new)}")
    return found


def _goes_on(key: str, old: Any, new: Any, config: Mapping[str, Any]) -> bool:
    if key != "max_epoch":
        return True
    schedule = config.get("scheduler_conf") or {}
    follows = config.get("scheduler") == "onecyclelr" and not {"total_steps", "epochs"} & schedule.keys()
    return not follows and isinstance(old, int) and isinstance(new, int) and old < new


_MISSING = object()


def _changes(before: Any, now: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}, key=str):
            yield from _changes(before.get(key, _MISSING), now.get(key, _MISSING), (*above, str(key)))
    elif before != now or isinstance(before, bool) != isinstance(now, bool):
        yield above, before, now


def _shown(value: Any) -> str:
    if value is _MISSING:
        return "nothing"
    if isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"):
        return value[:8]
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("...\n").strip()
    return text if len(text) <= _LONG else text[: _LONG - 3] + "..."


def _options(words: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Options of a command line as keys of a YAML; ``--optim_conf lr=1e-3`` is a mapping."""
    groups: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            groups.append((name, [value] if equals else []))
        elif groups:
            groups[-1][1].append(word)
    for name, values in groups:
        if name.endswith("_conf") and values and all("=" in value for value in values):
            mapping: dict[str, Any] = {}
            for value in values:
                keys, _, plain = value.partition("=")
                place = mapping
                *parents, last = keys.split(".")
                for parent in parents:
                    place = place.setdefault(parent, {})
                place[last] = parse_value(plain)
            yield {name: mapping}
        else:
            found = [parse_value(value) for value in values]
            yield {name: found[0] if len(found) == 1 else found}


def _weights(entry: Any) -> dict[str, str]:
    """Checksum of weights that ``--init_param`` or ``--estimators`` names, so that their place does not count."""
    path, _, parts = str(entry).partition(":")
    if os.path.isdir(path):
        path = str(best_checkpoint(path))
    if not os.path.isfile(path):
        return {"file": path, "parts": parts}
    with open(path, "rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "parts": parts}
