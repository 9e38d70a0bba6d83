"""Checksums of a data directory's content, by which a training notices that its data changed.

Two directories made of the same data have the same content, whenever they were made.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from s5.data.datadir import CONTENT, RESTS
from s5.utils.config import load_yaml
from s5.utils.errors import InputError
from s5.utils.files import write_json
from s5.utils.text import read_json

FILES = ".files"
"""File in data/raw with names, sizes and times of all recordings, written by run.sh."""


def data_content(path: str | Path) -> dict[str, Any]:
    """Content of a data directory.

    Args:
        path: a virtual set (``sampler.yaml``) or a fixed one.

    Returns:
        For a virtual set the sampler's keys and a checksum of its list of excluded files; for a fixed set checksums of
        its labels, its scene documents and the names of its files; for both a checksum of the underlying recordings.

    Raises:
        InputError: no data directory.
    """
    path = Path(path)
    folders: list[str] = []
    if (path / "sampler.yaml").is_file():
        keys = load_yaml(path / "sampler.yaml")
        content: dict[str, Any] = {"sampler": keys, "excluded": _sum_of_files([path / "excluded.txt"])}
        folders = [str(folder) for folder in (keys.get("dirs") or {}).values() if folder]
    elif (path / "wav.scp").is_file():
        scenes = list(_paths(path / "scene.scp"))
        others = [p.name for p in path.glob("interference[0-9]*.scp")]
        others += [f"{name}.scp" for name in RESTS.values() if (path / f"{name}.scp").is_file()]
        scps = ["wav.scp", *sorted(p.name for p in path.glob("source[0-9]*.scp")), *sorted(others)]
        content = {
            "labels": _sum_of_files([path / "labels"]),
            "scenes": _sum_of_files(scenes),
            "files": _sum_of_files(path / name for name in (scps[0], "n_slots", *scps[1:])),
        }
        if not scenes:
            files = (file for name in scps for file in _paths(path / name))
            content["sizes"] = _sum(f"{file}\t{file.stat().st_size if file.exists() else '-'}" for file in files)
    else:
        raise InputError(path, "no wav.scp and no sampler.yaml", "a data directory (stages 1 and 2)")
    return content | {"recordings": _recorded(path) or _recordings(path, folders)}


def write_content(path: str | Path) -> None:
    """Writes the content of a data directory into it, as the last of its files."""
    path = Path(path)
    (path / CONTENT).unlink(missing_ok=True)
    write_json(path / CONTENT, data_content(path), indent=1, sort_keys=True)


def _recorded(path: Path) -> str | None:
    """Checksum of the recordings that was written when the set was made."""
    try:
        return str(read_json(path / CONTENT, "the content of a data directory")["recordings"])
    except (InputError, KeyError, TypeError):
        return None


def _recordings(path: Path, folders: Iterable[str]) -> str:
    """Checksum of the file that stage 1 left beside the set; without one, of names, sizes and times in ``folders``."""
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
    """Files that a ``.scp`` names, in its order; none if it does not exist."""
    if scp.is_file():
        for line in scp.read_text(encoding="utf-8").splitlines():
            if len(words := line.split(maxsplit=1)) == 2:
                yield Path(words[1])


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
