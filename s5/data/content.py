"""What a data directory holds, as a few sums: sets that were made of the same are alike, whenever they were made."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from s5.data.datadir import CONTENT
from s5.utils.config import load_yaml
from s5.utils.errors import InputError
from s5.utils.files import write_json
from s5.utils.text import read_json

FILES = ".files"
"""In data/raw: names, sizes and times of all recordings, written by run.sh."""


def data_content(path: str | Path) -> dict[str, Any]:
    """What a data directory holds.

    Args:
        path: a virtual set (``sampler.yaml``) or a fixed one.

    Returns:
        Of a virtual set the sampler's keys and the files that it leaves out, of a fixed one sums over its labels, its
        scene documents and the names of its files; of both a sum over the recordings that they are made of.

    Raises:
        InputError: no data directory.
    """
    path = Path(path)
    sampler = path / "sampler.yaml"
    if sampler.is_file():
        keys = load_yaml(sampler)
        content: dict[str, Any] = {"sampler": keys, "excluded": _sum_of_files([path / "excluded.txt"])}
        folders = [str(folder) for folder in (keys.get("dirs") or {}).values() if folder]
    elif (path / "wav.scp").is_file():
        scenes = list(_paths(path / "scene.scp"))
        names = ["wav.scp", "n_slots", *sorted(p.name for p in path.glob("source[0-9]*.scp"))]
        content = {
            "labels": _sum_of_files([path / "labels"]),
            "scenes": _sum_of_files(scenes),
            "files": _sum_of_files(path / name for name in names),
        }
        if not scenes:
            content["sizes"] = _sum(_sizes(p for name in names if name != "n_slots" for p in _paths(path / name)))
        folders = []
    else:
        raise InputError(path, "no wav.scp and no sampler.yaml", "a data directory (stages 1 and 2)")
    return content | {"recordings": _recorded(path) or _recordings(path, folders)}


def write_content(path: str | Path) -> None:
    """Writes a data directory's content into it, as the last of its files."""
    path = Path(path)
    (path / CONTENT).unlink(missing_ok=True)
    write_json(path / CONTENT, data_content(path), indent=1, sort_keys=True)


def _recorded(path: Path) -> str | None:
    """The sum over recordings that was noted when the set was made."""
    try:
        return str(read_json(path / CONTENT, "the content of a data directory")["recordings"])
    except (InputError, KeyError, TypeError):
        return None


def _recordings(path: Path, folders: Iterable[str]) -> str:
    """The sum that stage 1 left beside the set; of recordings elsewhere names, sizes and times."""
    for name in (CONTENT, FILES):
        if (path.parent / "raw" / name).is_file():
            return _sum_of_files([path.parent / "raw" / name])
    return _sum(_listing(folders))


def _listing(folders: Iterable[str]) -> Iterator[str]:
    for folder in folders:
        for parent, below, names in os.walk(folder, followlinks=True):
            below[:] = sorted(name for name in below if not name.startswith("."))
            for name in sorted(name for name in names if not name.startswith(".")):
                found = os.stat(os.path.join(parent, name))
                yield f"{os.path.join(parent, name)}\t{found.st_size}\t{found.st_mtime_ns}"


def _paths(scp: Path) -> Iterator[Path]:
    """The files that a ``.scp`` names, in its order; none where there is no such file."""
    if scp.is_file():
        for line in scp.read_text(encoding="utf-8").splitlines():
            if len(words := line.split(maxsplit=1)) == 2:
                yield Path(words[1])


def _sizes(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        yield f"{path}\t{path.stat().st_size if path.exists() else '-'}"


def _sum_of_files(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"-")
    return digest.hexdigest()


def _sum(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(os.fsencode(f"{line}\n"))
    return digest.hexdigest()
