"""Sizes: what ``--size`` lays over a system and its trainings, and what a training comes to.

A system is named by its YAML, with a size after a colon if it is not the YAML's own:
``conf/systems/deng2026/final.yaml:mini`` is ``--system conf/systems/deng2026/final.yaml --size mini``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from s5.utils.config import ROOT, load_inherited, load_yaml, merge, origins, parse, resolve, working_folder, yaml_chain
from s5.utils.errors import InputError, one_of

FULL = "full"
"""The size of a system's own YAML."""

KINDS = ("taggers", "separators")


@dataclass
class SizeConfig:
    """The content of a size's YAML; conf/sizes/mini.yaml tells what the keys do."""

    system: dict[str, Any] = field(default_factory=dict)
    taggers: dict[str, dict[str, Any]] = field(default_factory=dict)
    separators: dict[str, dict[str, Any]] = field(default_factory=dict)
    trainings: dict[str, dict[str, Any]] = field(default_factory=dict)


def with_size(system: str, size: str | None) -> str:
    """The name of a system at a size. Raises InputError for a size of what is no YAML."""
    if not size or size == FULL:
        return system
    if not system.endswith((".yaml", ".yml")):
        raise InputError("--size", size, f"none with {system}, whose size is what it is")
    return f"{system}:{size}"


def split_size(system: str | Path) -> tuple[str, str]:
    """The YAML and the size that a system is named by.

    Example:
        >>> split_size("conf/systems/deng2026/final.yaml:mini"), split_size("final.yaml")
        (('conf/systems/deng2026/final.yaml', 'mini'), ('final.yaml', 'full'))
    """
    path, _, size = str(system).rpartition(":")
    return (path, size) if path.endswith((".yaml", ".yml")) and size else (str(system), FULL)


def size_file(size: str) -> Path | None:
    """The YAML of a size: the recipe's own, else the repository's; None of :data:`FULL`. Raises InputError."""
    if size == FULL:
        return None
    path = resolve(f"conf/sizes/{size}.yaml")
    if not path.is_file():
        folders = (working_folder() / "conf/sizes", ROOT / "conf/sizes")
        raise InputError(
            "--size", size, one_of([FULL, *sorted({p.stem for f in folders for p in f.glob("*.yaml")})], size)
        )
    return path


def system_files(system: str | Path) -> list[Path]:
    """The files that say what a system is: its YAML, what that inherits, and the size's."""
    path, size = split_size(system)
    file = size_file(size)
    return [*yaml_chain(path), *([file] if file else [])]


class Keys(NamedTuple):
    """Keys of a system or a training, with all that they inherit.

    Attributes:
        values: the keys.
        files: the same with, in the place of each value that is no mapping, the file that it comes from.
    """

    values: dict[str, Any]
    files: dict[str, Any]

    def under(self, values: dict[str, Any], files: dict[str, Any]) -> Keys:
        """These keys with others laid over them."""
        return Keys(merge(self.values, values), merge(self.files, files))


def system_keys(system: str | Path) -> dict[str, Any]:
    """The keys of a system with all that it inherits, at its size."""
    return resolve_system(system).values


def training_keys(files: Sequence[str], size: str = FULL) -> dict[str, Any]:
    """The keys of a training; arguments as of :func:`resolve_training`."""
    return resolve_training(files, size).values


def today(keys: dict[str, Any]) -> dict[str, Any]:
    """Keys of a system as they are called today: ``bf16: true`` of older ones is ``precision: bf16``."""
    if not isinstance(keys.get("bf16"), bool):
        return keys
    return {k: v for k, v in keys.items() if k != "bf16"} | {"precision": "bf16" if keys["bf16"] else "fp32"}


def resolve_system(system: str | Path) -> Keys:
    """The keys of a system with all that it inherits, at its size."""
    path, size = split_size(system)
    keys = Keys(today(load_inherited(path)), origins(path))
    if "bf16" in keys.files and "bf16" not in keys.values:
        keys.files["precision"] = keys.files.pop("bf16")
    for kind in KINDS:
        if isinstance(keys.values.get(kind), dict):
            gone = [name for name, entry in keys.values[kind].items() if entry is None]
            for table in keys:
                table[kind] = {name: entry for name, entry in table[kind].items() if name not in gone}
    file = size_file(size)
    if file is None:
        return keys
    laid = _load(file)
    keys = Keys(_replaced(keys.values, laid.system), _replaced(keys.files, from_file(laid.system, file)))
    for kind in KINDS:
        entries: dict[str, dict[str, Any]] = getattr(laid, kind)
        names = keys.values[kind] if isinstance(keys.values.get(kind), dict) else {}
        for name in names:
            if name not in entries:
                raise InputError(f"{file}: key {kind}", f"no {name}, which {path} has", "an entry of this name")
        own = {kind: {name: entries[name] for name in names}}
        keys = keys.under(own, from_file(own, file))
    return keys


def resolve_training(files: Sequence[str], size: str = FULL) -> Keys:
    """The keys of a training.

    Args:
        files: YAMLs of its phases up to the one that is asked for; each lies over the ones before it.
        size: of the system.
    """
    keys, over = Keys({}, {}), size_file(size)
    sections = _load(over).trainings if over else {}
    for file in files:
        keys = keys.under(load_inherited(file), origins(file))
        for part in reversed(yaml_chain(file)):
            section = sections.get(part.stem, {})
            keys = keys.under(section, from_file(section, over))
    return keys


def _load(file: Path) -> SizeConfig:
    config: SizeConfig = parse(SizeConfig, load_yaml(file), file)
    return config


def from_file(value: Any, file: Any) -> Any:
    """A file in the place of each value that is no mapping."""
    return {key: from_file(part, file) for key, part in value.items()} if isinstance(value, dict) else file


def _replaced(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with what ``top`` says of keys that it has."""
    replaced = dict(base)
    for key in base.keys() & top.keys():
        both = isinstance(base[key], dict) and isinstance(top[key], dict)
        replaced[key] = _replaced(base[key], top[key]) if both else top[key]
    return replaced
