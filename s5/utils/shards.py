"""Shards of a stage: jobs on any machines that each work on a part of the items, and one that joins the parts.

The folder of parts has a folder ``<index>`` for each complete shard; a shard without it must be done (again). Its file
``items`` lists its items, and the others are tables with a line or array for each item. Joining concatenates the tables
as ``cat`` does. Files of items (audio) go into ``files/``, which becomes the stage's folder at the end. The result is
the same to the byte for any number of shards.
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
"""File with the data that all shards need."""
ITEMS, RESULTS = "items", "results.jsonl"
"""Tables of a part: its items, and their results from :func:`results`."""


@dataclass(frozen=True)
class Shards:
    """Task of this process in a stage with shards."""

    folder: Path
    """Folder of the parts."""
    count: int
    """Number of shards."""
    index: int | None = None
    """Shard to do, from 1; 0: prepare the shards; None: join them."""

    @classmethod
    def parse(cls, shard: str | None, join: int | None, parts: str | None, prepare: bool = False) -> Shards | None:
        """Reads the options ``--shard 3/8``, ``--join 8`` or ``--prepare`` with ``--parts FOLDER``; None without them.

        Raises:
            InputError: an impossible shard, or options that do not go together.

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
        """Whether the task is to join the shards."""
        return self.index is None

    @property
    def files(self) -> Path:
        """Folder for the files of items, which becomes the stage's folder."""
        return self.folder / "files"

    def part(self, items: Sequence[Item], index: int) -> Sequence[Item]:
        """Items of a shard: consecutive ones, and equally many in each shard, or one more.

        Example:
            >>> [Shards(Path("."), 3).part("abcdefgh", i) for i in (1, 2, 3)]
            ['ab', 'cde', 'fgh']
        """
        n = len(items)
        return items[n * (index - 1) // self.count : n * index // self.count]

    def prepare(self, content: Any) -> None:
        """Writes the data that the shards need."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / PREPARED, content, default=_plain)

    def prepared(self) -> Any:
        """Reads the data that :meth:`prepare` has written."""
        return read_json(self.folder / PREPARED, "what --prepare writes")

    @contextmanager
    def writing(self, items: Sequence[Any]) -> Iterator[Path]:
        """Makes a folder for the tables of this shard, which is renamed if the block succeeds.

        Args:
            items: all items of the stage.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        # The same job may still run on a node that seemed to be dead.
        partial = Path(tempfile.mkdtemp(prefix=f".{self.index}.", dir=self.folder))
        partial.chmod(0o755)
        try:
            yield partial
            (partial / ITEMS).write_text(_listed(self.part(items, self.index or 0)), encoding="utf-8")
            try:
                partial.rename(self._part(self.index or 0))
            except OSError:  # the other run has written the same part
                if not (self._part(self.index or 0) / ITEMS).is_file():
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def parts(self, items: Sequence[Any]) -> Iterator[Path]:
        """Folders of all shards in the order of the items.

        Raises:
            InputError: a shard is missing or has other items.
        """
        for index in range(1, self.count + 1):
            part, expected = self._part(index), self.part(items, index)
            listed = read_text(part / ITEMS, f"shard {index} of {self.count}")
            if listed != _listed(expected):
                found = f"{len(listed.splitlines())} items"
                raise InputError(part, found, f"{len(expected)}, those of shard {index} of {self.count}")
            yield part

    def joined(self, items: Sequence[Any], name: str) -> Iterator[str]:
        """Lines of a table of all shards. Raises InputError as :meth:`parts`."""
        for part in self.parts(items):
            try:
                with open(part / name, encoding="utf-8") as lines:
                    yield from lines
            except (OSError, ValueError) as e:
                raise InputError(part / name, getattr(e, "strerror", None) or e, "what the shard wrote") from e

    def _part(self, index: int) -> Path:
        return self.folder / str(index)


def results(shards: Shards | None, items: Sequence[Item], work: Callable[[Sequence[Item]], Iterable[Out]]) -> Any:
    """Results of all items in their order; None in a process that works on a shard and writes them into its part.

    Args:
        shards: task of this process; None: everything.
        items: all items.
        work: function from some items to their results. A shard writes the results as JSON.
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
    """Makes a folder to fill, which replaces ``folder`` if the block succeeds. With shards, the join replaces it."""
    if shards is None:
        with atomic_folder(folder) as whole:
            yield whole
        return
    shards.files.mkdir(parents=True, exist_ok=True)
    yield shards.files
    if shards.joins:
        for unfinished in shards.files.rglob(".*"):  # temporary files of killed jobs
            unfinished.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        shards.files.rename(folder)


def _listed(items: Sequence[Any]) -> str:
    return "".join(f"{item}\n" for item in items)


def _plain(value: Any) -> Any:
    """JSON form of numpy's numbers."""
    return value.item()
