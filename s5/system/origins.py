"""Prints a system and its trainings with the file that each key comes from, and keeps that print beside results."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from s5.system.config import SystemConfig
from s5.system.derived import with_derived
from s5.system.sizes import from_file, resolve_system, resolve_training, split_size
from s5.utils.config import ROOT, resolve
from s5.utils.files import write_text
from s5.utils.text import read_text

FILE = "origins.yaml"
"""Name of the print in folders of experiments and results."""

COLUMN = 60
"""Column in which the names of the files begin."""


def describe_system(system: str | Path, train_data: str | Path = "data/train") -> str:
    """Prints a system, and below ``trainings`` its trainings by folder, as YAML with a comment on each line.

    Args:
        system: YAML, or ``YAML:SIZE``.
        train_data: data directory from which sizes of networks are derived, if it exists.
    """
    config, (values, files), size = SystemConfig.load(system), resolve_system(system), split_size(system)[1]
    values["trainings"], files["trainings"] = {}, {}
    for folder, training in config.trainings().items():
        yamls = training.model.files(training.phase)
        known = all(resolve(file).is_file() for file in yamls)  # a system decodes without
        keys: Any = with_derived(resolve_training(yamls, size), train_data) if known else (None, None)
        values["trainings"][folder], files["trainings"][folder] = keys
    return describe(values, files)


def describe(values: Mapping[str, Any], files: Mapping[str, Any]) -> str:
    """Prints a mapping as YAML; a comment on each line names the file of the value.

    Args:
        values: plain data.
        files: file of each value, see :class:`s5.system.sizes.Keys`.
    """
    lines = _lines(values, files)
    return "".join(f"{line}\n" if file is None else f"{line:<{COLUMN}} # {_short(file)}\n" for line, file in lines)


def write_system(folder: str | Path, system: str | Path, where: object) -> None:
    """Writes ``origins.yaml`` of a system; for an archive it holds the archive's own YAML.

    Args:
        folder: results folder.
        system: name of the system as given by the user.
        where: YAML inside the archive.
    """
    if split_size(system)[0].endswith((".yaml", ".yml")):
        write_origins(folder, describe_system(system))
    else:
        write_origins(folder, read_text(Path(str(where)), "a YAML file"))


def write_origins(folder: str | Path, text: str) -> None:
    """Writes ``origins.yaml`` into a folder."""
    title = "# Each key with the file that it comes from (python -m s5.bin.config).\n"
    write_text(Path(folder, FILE), title + text)


def _lines(value: Mapping[str, Any], file: Any, indent: str = "") -> Iterator[tuple[str, Any]]:
    """Lines of a mapping in YAML, each with the file of its value, or None."""
    for key, part in value.items():
        origin = file[key]
        if isinstance(part, dict) and part:
            yield f"{indent}{_plain(key)}:", None
            yield from _lines(part, origin, f"{indent}  ")
        elif isinstance(part, list) and part and all(isinstance(entry, dict) and entry for entry in part):
            yield f"{indent}{_plain(key)}:", None
            for i, entry in enumerate(part):
                own = origin[i] if isinstance(origin, list) else from_file(entry, origin)
                for n, (line, name) in enumerate(_lines(entry, own, f"{indent}  ")):
                    yield (line if n else f"{indent}- {line.removeprefix(f'{indent}  ')}"), name
        else:
            yield f"{indent}{_plain(key)}: {_plain(part)}", origin if isinstance(origin, Path) else None


def _short(file: Path) -> Path:
    """Path of a file relative to the repository, if the file is inside it."""
    path = Path(os.path.abspath(file))
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else file


def _plain(value: Any) -> str:
    """Value as one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("...\n").strip()
