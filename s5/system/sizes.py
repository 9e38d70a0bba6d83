"""Resolves the keys of systems and trainings, and applies the changes of ``--size``.

The name of a system is its YAML, or ``YAML:SIZE`` at another size than the YAML's own:
``conf/systems/deng2026/final.yaml:mini`` is ``--system conf/systems/deng2026/final.yaml --size mini``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from s5.system.kinds import KEYS
from s5.utils.config import ROOT, load_inherited, load_yaml, merge, origins, parse, resolve, working_folder, yaml_chain
from s5.utils.errors import InputError, one_of

FULL = "full"
"""Name of the size that a system's own YAML has."""


@dataclass
class SizeConfig:
    """The keys of a size's YAML; conf/sizes/mini.yaml explains them."""

    system: dict[str, Any] = field(default_factory=dict)
    taggers: dict[str, dict[str, Any]] = field(default_factory=dict)
    separators: dict[str, dict[str, Any]] = field(default_factory=dict)
    uss: dict[str, dict[str, Any]] = field(default_factory=dict)
    tse: dict[str, dict[str, Any]] = field(default_factory=dict)
    source_taggers: dict[str, dict[str, Any]] = field(default_factory=dict)
    trainings: dict[str, dict[str, Any]] = field(default_factory=dict)


def with_size(system: str, size: str | None) -> str:
    """Name of a system at a size. Raises InputError for a size of anything but a YAML."""
    if not size or size == FULL:
        return system
    if not system.endswith((".yaml", ".yml")):
        raise InputError("--size", size, f"none with {system}, whose size is fixed")
    return f"{system}:{size}"


def split_size(system: str | Path) -> tuple[str, str]:
    """Splits the name of a system into its YAML and its size.

    Example:
        >>> split_size("conf/systems/deng2026/final.yaml:mini"), split_size("final.yaml")
        (('conf/systems/deng2026/final.yaml', 'mini'), ('final.yaml', 'full'))
    """
    path, _, size = str(system).rpartition(":")
    return (path, size) if path.endswith((".yaml", ".yml")) and size else (str(system), FULL)


def size_file(size: str) -> Path | None:
    """YAML of a size, the recipe's own or the repository's; None for :data:`FULL`. Raises InputError."""
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
    """Files that define a system: its YAML, the inherited ones, and the size's."""
    path, size = split_size(system)
    file = size_file(size)
    return [*yaml_chain(path), *([file] if file else [])]


class Keys(NamedTuple):
    """Keys of a system or a training, inherited ones included.

    Attributes:
        values: keys and values.
        files: the same keys with the file of each value; mappings are kept, other values replaced by the file.
    """

    values: dict[str, Any]
    files: dict[str, Any]

    def under(self, values: dict[str, Any], files: dict[str, Any]) -> Keys:
        """These keys overridden by others."""
        return Keys(merge(self.values, values), merge(self.files, files))


def system_keys(system: str | Path) -> dict[str, Any]:
    """Keys of a system at its size, inherited ones included."""
    return resolve_system(system).values


def training_keys(files: Sequence[str], size: str = FULL) -> dict[str, Any]:
    """Keys of a training; arguments as of :func:`resolve_training`."""
    return resolve_training(files, size).values


def today(keys: dict[str, Any]) -> dict[str, Any]:
    """Renames keys of older systems: ``bf16: true`` becomes ``precision: bf16``."""
    if not isinstance(keys.get("bf16"), bool):
        return keys
    return {k: v for k, v in keys.items() if k != "bf16"} | {"precision": "bf16" if keys["bf16"] else "fp32"}


def resolve_system(system: str | Path) -> Keys:
    """Keys of a system at its size, inherited ones included."""
    path, size = split_size(system)
    keys = Keys(today(load_inherited(path)), origins(path))
    if "bf16" in keys.files and "bf16" not in keys.values:
        keys.files["precision"] = keys.files.pop("bf16")
    for kind in KEYS:
        if isinstance(keys.values.get(kind), dict):
            gone = [name for name, entry in keys.values[kind].items() if entry is None]
            for table in keys:
                table[kind] = {name: entry for name, entry in table[kind].items() if name not in gone}
    file = size_file(size)
    if file is None:
        return keys
    laid = _load(file)
    keys = Keys(_replaced(keys.values, laid.system), _replaced(keys.files, from_file(laid.system, file)))
    for kind in KEYS:
        entries: dict[str, dict[str, Any]] = getattr(laid, kind)
        names = keys.values[kind] if isinstance(keys.values.get(kind), dict) else {}
        for name in names:
            if name not in entries:
                raise InputError(f"{file}: key {kind}", f"no {name}, which {path} has", "an entry of this name")
        own = {kind: {name: entries[name] for name in names}}
        keys = keys.under(own, from_file(own, file))
    return keys


def resolve_training(files: Sequence[str], size: str = FULL) -> Keys:
    """Keys of a training.

    Args:
        files: YAMLs of its phases up to the wanted one; later ones override earlier ones.
        size: size of the system.
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
    """Replaces each value that is no mapping by a file."""
    return {key: from_file(part, file) for key, part in value.items()} if isinstance(value, dict) else file


def _replaced(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``top`` for keys that ``base`` has."""
    replaced = dict(base)
    for key in base.keys() & top.keys():
        both = isinstance(base[key], dict) and isinstance(top[key], dict)
        replaced[key] = _replaced(base[key], top[key]) if both else top[key]
    return replaced
