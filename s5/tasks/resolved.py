"""What a training is made of, compared with what the model in its folder was made of. Needs neither torch nor ESPnet.

Two trainings are alike if their merged YAMLs, the options given on the command line, the weights that they start from
and the content of their data are; comments, the order of keys and dates say nothing. ``resolved.yaml`` in the
experiment folder holds it.
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
from s5.system.sizes import split_size, training_keys, training_origins
from s5.system.trained import best_checkpoint
from s5.utils.config import load_yaml, merge, parse_value
from s5.utils.errors import InputError, one_of
from s5.utils.files import write_text

RESOLVED = "resolved.yaml"

CONTINUED = ("max_epoch", "patience")
"""Options that only say when a training ends: with others it goes on from its checkpoint. ``max_epoch`` may only grow,
and only where the schedule of the learning rate does not follow from it."""

HOW = (
    *("num_workers", "num_threads", "device_cache_mb", "ngpu", "unused_parameters", "dist_timeout"),
    *("dist_backend", "dist_init_method", "dist_world_size", "dist_rank", "local_rank", "dist_launcher"),
    *("dist_master_addr", "dist_master_port", "multiprocessing_distributed", "checkpoint_minutes"),
    *("log_level", "log_interval", "print_config", "use_matplotlib", "use_tensorboard", "create_graph_in_tensorboard"),
    *("use_wandb", "wandb_project", "wandb_id", "wandb_entity", "wandb_name", "wandb_model_log_interval"),
    *("num_examples", "examples_interval", "num_att_plot"),
)
"""Options that say how a training runs and what it shows, not what comes out: they are not compared. When in doubt an
option is not one of them."""

_SHOWN = 5
"""Differences that a complaint names."""

_LONG = 60
"""Characters of a value that a complaint shows."""


class Phase(NamedTuple):
    """What a system says of a training.

    Attributes:
        kind: ``tagger`` or ``separator``.
        file: the training's YAML, which complaints name.
        config: all keys of the training.
        origins: the file that each of them comes from.
        folder: below the folder of the experiments.
        before: the folder of the phase that it starts from, if it does.
        checkpoint: the file there that the system names, if it does.
    """

    kind: str
    file: str
    config: dict[str, Any]
    origins: dict[str, Any]
    folder: str
    before: str | None
    checkpoint: str | None


def phase_of(system: str | Path, name: str, phase: str) -> Phase:
    """A training of a system. Raises InputError if there is no such model or phase."""
    kind, model = SystemConfig.load(system).find(name)
    phases = model.phases()
    if phase not in phases:
        raise InputError(f"{system}: {name}", f"no {phase} phase", one_of(phases, phase))
    before = model.phase_before(phase)
    files, size = model.files(phase), split_size(system)[1]
    return Phase(
        kind,
        phases[phase],
        training_keys(files, size),
        training_origins(files, size),
        model.folder(phase),
        model.folder(before) if before else None,
        model.checkpoint,
    )


def start_options(phase: Phase, expdir: str | Path) -> list[str]:
    """The ESPnet options by which a training starts from the phase before it; none for a first one.

    The network alone is taken: of a training that kept an average of the weights, that average.
    """
    if phase.before is None:
        return []
    return ["--init_param", f"{best_checkpoint(Path(expdir) / phase.before, phase.checkpoint)}:network:network"]


def resolved(
    config: Mapping[str, Any], train_data: str | Path, valid_data: str | Path, extra: Sequence[str] = ()
) -> dict[str, Any]:
    """What a training is made of, as plain data.

    Args:
        config: keys of the training's YAML, with all that it inherits.
        train_data: data directory.
        valid_data: data directory.
        extra: ESPnet options as on a command line, which win over the YAML.
    """
    config = dict(config)
    for option in _options(extra):
        config = merge(config, option)
    if "init_param" in config:
        given = config["init_param"]
        config["init_param"] = [_start(entry) for entry in (given if isinstance(given, list) else [given])]
    kept = {key: value for key, value in sorted(config.items()) if key not in HOW}
    data = {"train_data": data_content(train_data), "valid_data": data_content(valid_data)}
    return yaml.safe_load(yaml.safe_dump({"config": kept, **data}))


def write_resolved(folder: str | Path, now: Mapping[str, Any]) -> None:
    """Writes ``resolved.yaml``."""
    write_text(Path(folder, RESOLVED), as_text(now))


def as_text(now: Mapping[str, Any]) -> str:
    """The content of ``resolved.yaml``."""
    title = "# What this model is made of; a training that differs does not touch it (docs/training.md).\n"
    return title + yaml.safe_dump(dict(now), sort_keys=True, allow_unicode=True)


def check_same(folder: str | Path, now: Mapping[str, Any]) -> None:
    """Refuses a training that is not the one of the model in its folder.

    Args:
        folder: of the experiment; anything goes where it holds no weights.
        now: of :func:`resolved`.

    Raises:
        InputError: it differs in what makes another model.
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
            "the same one (--overwrite true moves it to a name with the date, another --expdir leaves it alone)",
        )


def check_goes_on(folder: str | Path) -> None:
    """Refuses to begin anew over weights. Raises InputError."""
    folder = Path(folder)
    there = any((folder / name).exists() for name in ("checkpoint.pth", "checkpoint.previous.pth"))
    if has_weights(folder) and not there:
        raise InputError(
            folder,
            "weights but no checkpoint.pth",
            "one to go on from (--overwrite true moves them to a name with the date and trains anew)",
        )


def has_weights(folder: Path) -> bool:
    """Whether there is anything that a training has reached: its first epoch alone is written before a checkpoint."""
    return any(path.name != "1epoch.pth" for path in folder.glob("*.pth") if not path.name.startswith("."))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What makes another model, a line a key: ``batch_size: 4 -> 8``; none for what only goes on."""
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
    """Options as on a command line, each as it would stand in a YAML; ``--optim_conf lr=1e-3`` is a mapping."""
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


def _start(entry: Any) -> dict[str, str]:
    """What ``--init_param`` names: the weights themselves, wherever they lie."""
    path, _, parts = str(entry).partition(":")
    if not os.path.isfile(path):
        return {"file": path, "parts": parts}
    with open(path, "rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "parts": parts}
