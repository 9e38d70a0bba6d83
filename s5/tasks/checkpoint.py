"""Checkpoints that survive: written whole or not at all, checked when they are read, the one before kept."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from s5.checkpoints import allowing, plain_kinds
from s5.utils.errors import InputError
from s5.utils.files import atomic_write, hard_link, leftovers, to_disk

NEWEST, PREVIOUS, DAMAGED = "checkpoint.pth", "checkpoint.previous.pth", "checkpoint.damaged.pth"


def has_checkpoint(folder: str | Path) -> bool:
    """Whether a training in this folder goes on from a checkpoint."""
    return any(Path(folder, name).exists() for name in (NEWEST, PREVIOUS))


def save(data: Any, path: Path) -> None:
    """``torch.save`` that leaves the file as it was, or whole and on the disk.

    Raises:
        OSError: with the file's name, e.g. for a full disk; what was written so far is removed.
    """
    write(path, lambda file: torch.save(data, file))


def write(path: Path, fill: Callable[[Any], None], before: Callable[[], None] | None = None) -> None:
    """Writes a file, hands it to the disk, and lets it take its name after calling ``before``.

    Raises OSError as :func:`save` does.
    """
    with atomic_write(path, durable=True) as file:
        watched = _Watched(file)
        try:
            fill(watched)
        except BaseException:
            # torch reports a write that failed as an error of its own; what the disk said is better.
            if watched.error is not None:
                raise watched.error from None
            raise
        to_disk(file)
        if before is not None:
            before()


class _Watched:
    """A file opened for writing that remembers why a write failed."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as e:
            self.error = e
            raise

    def flush(self) -> None:
        self.file.flush()


class Damaged(Exception):
    """A checkpoint that is not what was written."""


def read(path: Path) -> Any:
    """A checkpoint on the CPU: tensors and plain values only (``weights_only``), each compared with its checksum.

    Raises:
        Damaged: a truncated file, one that lost or changed bytes, or no checkpoint.
        OSError: no such file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
        if wrong is not None:
            raise Damaged(f"other bytes in {wrong} than were written")
        with allowing(plain_kinds()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, Damaged):
        raise
    except Exception as e:
        raise Damaged(f"{type(e).__name__}: {str(e).partition('. ')[0]}") from e


@dataclass(frozen=True)
class Position:
    """Where a training stands.

    Attributes:
        epoch: the epoch that it is in, from 1.
        batch: batches of the epoch that are trained on.
        trained: all of them are; what follows is the validation.
    """

    epoch: int
    batch: int = 0
    trained: bool = False

    def __str__(self) -> str:
        if self.trained:
            return f"validation of epoch {self.epoch}"
        return f"epoch {self.epoch}, batch {self.batch + 1}" if self.batch else f"epoch {self.epoch}"


class Checkpoints:
    """The two checkpoints of an experiment folder: the newest and the one before."""

    def __init__(self, folder: Path) -> None:
        self.newest, self.previous = folder / NEWEST, folder / PREVIOUS

    def clear_leftovers(self) -> None:
        """Removes what a write that was cut off left."""
        for path in leftovers(self.newest.parent, "*.pth"):
            path.unlink(missing_ok=True)

    def save(self, state: dict[str, Any]) -> None:
        """Saves a state; the newest one becomes the one before. Raises OSError and leaves both as they are."""
        write(self.newest, lambda file: torch.save(state, file), before=self._keep_newest)

    def _keep_newest(self) -> None:
        if not self.newest.exists():
            return
        try:
            hard_link(self.previous, self.newest)  # so that the newest is there at all times
        except OSError:  # a file system without hard links
            self.newest.replace(self.previous)

    def load(self) -> dict[str, Any] | None:
        """The newest state that can be read, or None where there is none. A damaged one is put aside.

        Raises:
            InputError: there are checkpoints, but none can be read.
        """
        found = []
        for path in (self.newest, self.previous):
            try:
                state = read(path)
            except FileNotFoundError:
                continue
            except Damaged as e:
                logging.warning("%s is damaged (%s)", path, e)
                found.append(path)
                continue
            if found:
                self.newest.replace(self.newest.with_name(DAMAGED))
            if path == self.previous:
                logging.warning("the training goes on from %s, the checkpoint before", path)
            return state
        if found:
            raise InputError(
                " and ".join(map(str, found)),
                "a damaged checkpoint",
                "a whole one (remove the experiment folder to train anew)",
            )
        return None
