"""A stage's work item by item in shards: jobs, on whatever machines, that each do their part, and one that joins them.

A folder of parts holds a folder ``<index>`` a shard, which gets its name when the shard is complete: a shard without it
is to be done (again). In it ``items`` tells of which items it is made; the rest are tables, a line or array an item.
To join them is to put each table behind that of the shard before, as ``cat`` does. Whole files that items write (audio)
go into ``files/``, which becomes the stage's folder in the end. Whatever the number of shards, the outcome is the same
to the byte.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from s5.utils.errors import InputError
from s5.utils.files import atomic_folder, write_json
from s5.utils.text import parse_json, read_json, read_text

Item = TypeVar("Item")
Out = TypeVar("Out")

PREPARED = "prepared.json"
"""What all shards have to know beforehand."""
ITEMS, RESULTS = "items", "results.jsonl"
"""Tables of a part: its items, and what :func:`results` makes of them."""


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
        write_json(self.folder / PREPARED, content, default=_plain)

    def prepared(self) -> Any:
        """What :meth:`prepare` was given."""
        return read_json(self.folder / PREPARED, "what --prepare writes")

    @contextmanager
    def writing(self, items: Sequence[Any]) -> Iterator[Path]:
        """A folder for the tables of this shard; it gets its name if all goes well.

        Args:
            items: all that the stage works on.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        # Another run of the same job, on a node that was thought to be dead, may write too.
        partial = Path(tempfile.mkdtemp(prefix=f".{self.index}.", dir=self.folder))
        partial.chmod(0o755)
        try:
            yield partial
            (partial / ITEMS).write_text(_listed(self.part(items, self.index or 0)), encoding="utf-8")
            try:
                partial.rename(self._part(self.index or 0))
            except OSError:  # the other run has done it: its part is the same
                if not (self._part(self.index or 0) / ITEMS).is_file():
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def parts(self, items: Sequence[Any]) -> Iterator[Path]:
        """Folders of all shards, in the order of the items.

        Raises:
            InputError: a shard is missing, or was made of other items.
        """
        for index in range(1, self.count + 1):
            part, expected = self._part(index), self.part(items, index)
            listed = read_text(part / ITEMS, f"shard {index} of {self.count}")
            if listed != _listed(expected):
                found = f"{len(listed.splitlines())} items"
                raise InputError(part, found, f"{len(expected)}, those of shard {index} of {self.count}")
            yield part

    def joined(self, items: Sequence[Any], name: str) -> Iterator[str]:
        """Lines of a table of all shards; one file is open at a time. Raises InputError as :meth:`parts`."""
        for part in self.parts(items):
            try:
                with open(part / name, encoding="utf-8") as lines:
                    yield from lines
            except (OSError, ValueError) as e:
                raise InputError(part / name, getattr(e, "strerror", None) or e, "what the shard wrote") from e

    def _part(self, index: int) -> Path:
        return self.folder / str(index)


def results(shards: Shards | None, items: Sequence[Item], work: Callable[[Sequence[Item]], Iterable[Out]]) -> Any:
    """Results of all items in their order; None from a process that does a shard, which are in its part then.

    Args:
        shards: what this process is to do; None: everything.
        items: all of them.
        work: does some of them. What comes out can be said in JSON, in which a shard writes it, a line an item.
    """
    if shards is None:
        return work(items)
    if shards.joins:
        return (parse_json(line.encode(), shards.folder, "what shards write") for line in shards.joined(items, RESULTS))
    with shards.writing(items) as part, open(part / RESULTS, "w", encoding="utf-8") as file:
        for result in work(shards.part(items, shards.index or 0)):
            file.write(json.dumps(result, default=_plain) + "\n")
    return None


@contextmanager
def whole_folder(folder: Path, shards: Shards | None = None) -> Iterator[Path]:
    """A folder to fill, which takes the place of ``folder`` if all goes well.

    Without shards it is empty at first, and removed if not all goes well. A shard only adds to it; joining them makes
    it ``folder``.
    """
    if shards is None:
        with atomic_folder(folder) as whole:
            yield whole
        return
    shards.files.mkdir(parents=True, exist_ok=True)
    yield shards.files
    if shards.joins:
        for unfinished in shards.files.rglob(".*"):  # of jobs that were ended
            unfinished.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        shards.files.rename(folder)


def _listed(items: Sequence[Any]) -> str:
    return "".join(f"{item}\n" for item in items)


def _plain(value: Any) -> Any:
    """Numbers of numpy."""
    return value.item()
