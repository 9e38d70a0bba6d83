"""Atomic writing: a file gets a temporary name and is renamed, so that readers find the old or the new one."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

PARTIAL = ".partial"
"""Suffix of temporary names."""


@contextmanager
def atomic_write(path: str | Path, durable: bool = False) -> Iterator[IO[bytes]]:
    """Opens a binary file to write. It is renamed when the block ends, and removed if the block fails.

    Args:
        path: final name. An old file is replaced. The folder must exist.
        durable: whether to sync file and folder to the disk, so that a power failure leaves the old or the new file.

    Raises:
        OSError: with ``path``, e.g. for a full disk.
    """
    path = Path(path)
    partial = _temporary(path)
    try:
        with partial.open("xb") as file:
            yield file
            if durable:
                to_disk(file)
        os.replace(partial, path)
        if durable:
            _sync_folder(path.parent)
    except BaseException as e:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(e, OSError) and e.errno and e.filename in (None, str(partial)):
            raise OSError(e.errno, e.strerror, str(path)) from None
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Makes a folder to fill. It replaces ``path`` when the block ends, and is removed if the block fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder, old = _temporary(path), _temporary(path)
    folder.mkdir()
    try:
        yield folder
        if os.path.lexists(path):
            os.replace(path, old)
        try:
            os.replace(folder, path)
        except BaseException:
            if os.path.lexists(old):
                os.replace(old, path)
            raise
    finally:
        for left in (folder, old):
            left.unlink() if left.is_symlink() else shutil.rmtree(left, ignore_errors=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes a file as :func:`atomic_write` does."""
    with atomic_write(path) as file:
        file.write(content)


def write_text(path: str | Path, text: str) -> None:
    """Writes a file in UTF-8 as :func:`atomic_write` does."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, data: Any, **style: Any) -> None:
    """Writes a JSON file as :func:`atomic_write` does. ``style`` are options of ``json.dumps``, e.g. ``indent``."""
    write_text(path, json.dumps(data, **style) + "\n")


def link(path: str | Path, target: str) -> None:
    """Makes ``path`` a symbolic link to ``target``. An old file of that name is replaced at once."""
    _link(Path(path), lambda partial: partial.symlink_to(target))


def hard_link(path: str | Path, target: str | Path) -> None:
    """Makes ``path`` a second name of a file, as :func:`link`. Raises OSError on a file system without hard links."""
    _link(Path(path), lambda partial: partial.hardlink_to(target))


def _link(path: Path, make: Callable[[Path], None]) -> None:
    partial = _temporary(path)
    make(partial)
    try:
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)  # the rename does nothing if both names are the same file already


def leftovers(folder: str | Path, name: str = "*") -> Iterator[Path]:
    """Temporary files of killed processes in a folder. ``name`` is a pattern of their final names."""
    return Path(folder).glob(f".{name}.*{PARTIAL}")


def to_disk(file: IO[bytes]) -> None:
    """Syncs a file to the disk. Raises OSError if the disk is full."""
    file.flush()
    os.fsync(file.fileno())


def _temporary(path: Path) -> Path:
    """A hidden name that no other process uses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")


def _sync_folder(folder: Path) -> None:
    """Syncs a rename to the disk, if the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
