"""Checkpoints of a training: written atomically, verified when they are read, with the previous one as a reserve."""

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
    """Whether a training in this folder resumes from a checkpoint."""
    return any(Path(folder, name).exists() for name in (NEWEST, PREVIOUS))


def save(data: Any, path: Path, before: Callable[[], None] | None = None) -> None:
    """Saves with ``torch.save``. Calls ``before`` when the data are on the disk and before the old file is replaced.

    If that fails, the old file remains, and OSError names it (e.g. for a full disk).
    """
    with atomic_write(path, durable=True) as file:
        watched: Any = _Watched(file)
        try:
            torch.save(data, watched)
        except BaseException:
            # Torch replaces the error of a failed write by one of its own, which hides the reason.
            if watched.error is not None:
                raise watched.error from None
            raise
        to_disk(file)
        if before is not None:
            before()


class _Watched:
    """A file opened for writing that keeps the error of a failed write."""

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
    """Raised for a checkpoint whose content is not what was written."""


def read(path: Path) -> Any:
    """Reads a checkpoint to the CPU: tensors and plain values only (``weights_only``), verified by their checksums.

    Raises Damaged for a truncated or changed file, OSError for a missing one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
        if wrong is not None:
            raise Damaged(f"wrong checksum of {wrong}")
        with allowing(plain_kinds()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Damaged:
        raise
    except Exception as e:
        if isinstance(e, OSError) and e.filename is not None:
            raise
        raise Damaged(f"{type(e).__name__}: {str(e).partition('. ')[0]}") from e


@dataclass(frozen=True)
class Position:
    """Progress of a training."""

    epoch: int
    """Current epoch, from 1."""
    batch: int = 0
    """Number of batches of the epoch that are done."""
    trained: bool = False
    """Whether all batches are done, so that validation follows."""

    def __str__(self) -> str:
        if self.trained:
            return f"validation of epoch {self.epoch}"
        return f"epoch {self.epoch}, batch {self.batch + 1}" if self.batch else f"epoch {self.epoch}"


class Checkpoints:
    """The two checkpoints of an experiment folder: the newest and the previous one."""

    def __init__(self, folder: Path) -> None:
        self.newest, self.previous = folder / NEWEST, folder / PREVIOUS

    def clear_leftovers(self) -> None:
        """Removes the temporary files of interrupted writes."""
        for path in leftovers(self.newest.parent, "*.pth"):
            path.unlink(missing_ok=True)

    def save(self, state: dict[str, Any]) -> None:
        """Saves a state and keeps the newest one as the previous one. If that fails, raises OSError and keeps both."""
        save(state, self.newest, before=self._keep_newest)

    def _keep_newest(self) -> None:
        if not self.newest.exists():
            return
        try:
            hard_link(self.previous, self.newest)  # the newest never disappears
        except OSError:  # a file system without hard links
            self.newest.replace(self.previous)

    def load(self) -> dict[str, Any] | None:
        """Loads the newest readable state; None if there is no checkpoint. Renames a damaged checkpoint.

        Raises InputError if there are checkpoints but none can be read.
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
                logging.warning("the training resumes from %s, the previous checkpoint", path)
            return state
        if found:
            expected = "a whole one (remove the experiment folder to train from the start)"
            raise InputError(" and ".join(map(str, found)), "a damaged checkpoint", expected)
        return None
