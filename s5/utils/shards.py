"""A stage's work item by item in shards: jobs, on whatever machines, that each do their part, and one that joins them.

A folder of parts holds ``<index>.jsonl``, the results of a shard, a line of JSON an item. It gets its name when the
shard is complete: a shard without it is to be done (again). What items write of their own goes into ``files/``, which
becomes the stage's folder in the end. Whatever the number of shards, the outcome is the same to the byte.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from s5.utils.errors import InputError
from s5.utils.files import atomic_write

Item = TypeVar("Item")
Out = TypeVar("Out")

PREPARED = "prepared.json"
"""What all shards have to know beforehand."""


@dataclass(frozen=True)
class Shards:
    """What this process is to do of a stage that goes in shards.

    Attributes:
        folder: of the parts.
        count: number of shards.
        index: of the shard to do, from 1; 0: to prepare; None: to join the shards.
    """

    folder: Path
    count: int
    index: int | None = None

    @classmethod
    def parse(cls, shard: str | None, join: int | None, parts: str | None, prepare: bool = False) -> Shards | None:
        """From the options ``--shard 3/8``, ``--join 8`` or ``--prepare`` with ``--parts FOLDER``; None without.

        Raises:
            InputError: a shard that does not exist, or options that do not go together.

        Example:
            >>> Shards.parse("3/8", None, "posteriors.parts")
            Shards(folder=PosixPath('posteriors.parts'), count=8, index=3)
        """
        given = [name for name, value in (("--shard", shard), ("--join", join), ("--prepare", prepare)) if value]
        if not given and parts is None:
            return None
        if len(given) != 1 or parts is None:
            found = " ".join(given + ["--parts"] * (parts is not None))
            raise InputError("options", found, "--parts with one of --shard, --join, --prepare")
        if shard is None:
            return cls(Path(parts), join or 0, 0 if prepare else None)
        index, _, count = shard.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise InputError("--shard", shard, "INDEX/COUNT, the index from 1 to the count")
        return cls(Path(parts), int(count), int(index))

    @property
    def joins(self) -> bool:
        """Whether the shards are to be joined."""
        return self.index is None

    @property
    def files(self) -> Path:
        """Where items write what becomes the stage's folder."""
        return self.folder / "files"

    def part(self, items: Sequence[Item], index: int) -> Sequence[Item]:
        """Items of a shard: neighbours, as many as of any other shard, or one more.

        Example:
            >>> [Shards(Path("."), 3).part("abcdefgh", i) for i in (1, 2, 3)]
            ['ab', 'cde', 'fgh']
        """
        n = len(items)
        return items[n * (index - 1) // self.count : n * index // self.count]

    def prepare(self, content: Any) -> None:
        """Writes what the shards have to know."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(self.folder / PREPARED, [content])

    def prepared(self) -> Any:
        """What :meth:`prepare` was given."""
        return next(_lines(self.folder / PREPARED, "what --prepare writes"))

    def save(self, results: Iterable[Any]) -> None:
        """Writes the results of this shard."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(self._file(self.index or 0), results)

    def load(self, items: Sequence[Any]) -> Iterator[Any]:
        """Results of all shards in the order of the items; one file is open at a time.

        Raises:
            InputError: a shard is missing, or was made of other items.
        """
        for index in range(1, self.count + 1):
            file, expected = self._file(index), len(self.part(items, index))
            found = 0
            for result in _lines(file, f"shard {index} of {self.count}"):
                found += 1
                yield result
            if found != expected:
                raise InputError(file, f"{found} items", f"{expected}, those of shard {index} of {self.count}")

    def _file(self, index: int) -> Path:
        return self.folder / f"{index}.jsonl"

    @staticmethod
    def _write(file: Path, contents: Iterable[Any]) -> None:
        # Another run of the same job, on a node that was thought to be dead, may write too.
        with atomic_write(file) as lines:
            for content in contents:
                lines.write(f"{json.dumps(content, default=_plain)}\n".encode())


def results(
    shards: Shards | None,
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Iterable[Out]],
    encode: Callable[[Out], Any] = lambda out: out,
    decode: Callable[[Any], Out] = lambda found: found,
) -> Iterable[Out] | None:
    """Results of all items in their order; None from a process that does a shard, which are in its file then.

    Args:
        shards: what this process is to do; None: everything.
        items: all of them.
        work: does some of them.
        encode: makes a result fit for JSON, which keeps every bit of a float.
        decode: the way back.
    """
    if shards is None:
        return work(items)
    if shards.joins:
        return map(decode, shards.load(items))
    shards.save(map(encode, work(shards.part(items, shards.index or 0))))
    return None


@contextmanager
def whole_folder(folder: Path, shards: Shards | None = None) -> Iterator[Path]:
    """A folder to fill, which takes the place of ``folder`` if all goes well.

    Without shards it is empty at first, and removed if not all goes well. A shard only adds to it; joining them makes
    it ``folder``.
    """
    partial = folder.with_name(f"{folder.name}.partial") if shards is None else shards.files
    if shards is None:
        shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, exist_ok=shards is not None)
    try:
        yield partial
        if shards is None or shards.joins:
            for unfinished in partial.rglob(".*"):  # of jobs that were ended
                unfinished.unlink()
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    finally:
        if shards is None:
            shutil.rmtree(partial, ignore_errors=True)


def _lines(file: Path, what: str) -> Iterator[Any]:
    try:
        with open(file, encoding="utf-8") as f:
            yield from map(json.loads, f)
    except (OSError, ValueError) as e:
        raise InputError(file, getattr(e, "strerror", None) or "no JSON", what) from e


def _plain(value: Any) -> Any:
    """Numbers of numpy."""
    return value.item()
