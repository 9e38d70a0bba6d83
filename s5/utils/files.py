"""Files out: written under a temporary name beside their own and renamed, so that readers find old or new."""

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
"""End of the temporary names."""


@contextmanager
def atomic_write(path: str | Path, durable: bool = False) -> Iterator[IO[bytes]]:
    """A binary file to write. It takes its name when the block ends; if the block fails, it is removed.

    Args:
        path: its name; what has it before is replaced. The folder has to exist.
        durable: have it on the disk before it takes its name, and the name before this returns: a loss of power then
            leaves the old or the new file as well.

    Raises:
        OSError: naming ``path``, e.g. for a full disk.
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
    """A folder to fill, which takes the place of ``path`` when the block ends. If the block fails, it is removed."""
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
    """Writes a JSON file as :func:`atomic_write` does.

    Args:
        path: its name.
        data: what ``json.dumps`` takes.
        style: options of ``json.dumps``, e.g. ``indent``.
    """
    write_text(path, json.dumps(data, **style) + "\n")


def link(path: str | Path, target: str) -> None:
    """Makes ``path`` a symbolic link to ``target``; what has the name before is there until then."""
    _link(Path(path), lambda partial: partial.symlink_to(target))


def hard_link(path: str | Path, target: str | Path) -> None:
    """Makes ``path`` a second name of a file; what has the name before is there until then.

    Raises OSError, for a file system without hard links.
    """
    _link(Path(path), lambda partial: partial.hardlink_to(target))


def _link(path: Path, make: Callable[[Path], None]) -> None:
    partial = _temporary(path)
    make(partial)
    try:
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)  # a second name of what is there already is not renamed but left


def leftovers(folder: str | Path, name: str = "*") -> Iterator[Path]:
    """The temporary files that processes left which were killed while they wrote.

    Args:
        folder: where they lie.
        name: pattern of the names that they would have taken.
    """
    return Path(folder).glob(f".{name}.*{PARTIAL}")


def to_disk(file: IO[bytes]) -> None:
    """Hands what was written to the disk. Raises OSError where it does not fit."""
    file.flush()
    os.fsync(file.fileno())


def _temporary(path: Path) -> Path:
    """A name that no other process uses, and that no pattern for the file's kind finds."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")


def _sync_folder(folder: Path) -> None:
    """Makes a rename last through a loss of power, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
