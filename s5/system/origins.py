"""What a system and its trainings come to, each key with the file that says it; kept where something was made of it."""

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
"""Its name in the folders of experiments and results."""

COLUMN = 60
"""Where the names of the files begin."""


def describe_system(system: str | Path, train_data: str | Path = "data/train") -> str:
    """A system and below ``trainings`` its trainings by their folders, as YAML with a comment a line.

    Args:
        system: YAML, at a size if one stands after a colon.
        train_data: data directory that sizes of networks follow from, if it is there.
    """
    config, (values, files), size = SystemConfig.load(system), resolve_system(system), split_size(system)[1]
    values["trainings"], files["trainings"] = {}, {}
    for model in [*config.taggers, *config.separators]:
        for phase in model.phases():
            known = all(resolve(file).is_file() for file in model.files(phase))  # a system decodes without
            keys: Any = (None, None)
            if known:
                keys = with_derived(resolve_training(model.files(phase), size), train_data)
            values["trainings"][model.folder(phase)], files["trainings"][model.folder(phase)] = keys
    return describe(values, files)


def describe(values: Mapping[str, Any], files: Mapping[str, Any]) -> str:
    """A mapping as YAML whose lines name the file that the value comes from.

    Args:
        values: plain data.
        files: the same with a file in the place of each value, see :class:`s5.system.sizes.Keys`.
    """
    lines = _lines(values, files)
    return "".join(f"{line}\n" if file is None else f"{line:<{COLUMN}} # {_short(file)}\n" for line, file in lines)


def write_system(folder: str | Path, system: str | Path, where: object) -> None:
    """Writes ``origins.yaml`` of a system; of an archive what its own YAML says.

    Args:
        folder: of results.
        system: as it was named.
        where: the YAML of an archive.
    """
    if split_size(system)[0].endswith((".yaml", ".yml")):
        write_origins(folder, describe_system(system))
    else:
        write_origins(folder, read_text(Path(str(where)), "a YAML file"))


def write_origins(folder: str | Path, text: str) -> None:
    """Writes ``origins.yaml``."""
    title = "# Each key with the file that says it (python -m s5.bin.config).\n"
    write_text(Path(folder, FILE), title + text)


def _lines(value: Mapping[str, Any], file: Any, indent: str = "") -> Iterator[tuple[str, Any]]:
    """The lines of a mapping in YAML, each with the file that its value comes from, or None."""
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
    """A file by its path below the repository, where it lies there."""
    path = Path(os.path.abspath(file))
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else file


def _plain(value: Any) -> str:
    """A value in one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("...\n").strip()
