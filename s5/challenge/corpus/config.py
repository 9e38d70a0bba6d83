"""What a recipe's ``conf/data.yaml`` says: the parts of a data set, where they come from and what is made of them.

A part is what is downloaded and unpacked together (``dev_set``, ``eval_set``, another corpus that sounds are taken
from). Additions are sounds of such a corpus that join the development set. Sets are mixtures that come ready-made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from s5.utils.config import load_inherited, parse, resolve
from s5.utils.errors import InputError, one_of

DEV = "dev_set"
"""The part that additions join and refinement works on."""


@dataclass
class Part:
    """Something that is downloaded and unpacked together."""

    urls: list[str]
    """Addresses of the folder that its files lie in; the first that works is taken."""
    files: list[str]
    """File names; ``p{001..107}.zip`` stands for many. The parts of a split zip archive stand together."""
    folder: str = "."
    """Where its content lies below the folder that it is unpacked in."""
    found: list[str] = field(default_factory=list)
    """Where its content may lie below a folder of the user's (``--data_root``)."""
    holds: list[str] = field(default_factory=list)
    """Folders and files that its content has: what tells it from another folder."""
    record: str | None = None
    """Address of the record at Zenodo's API, which says sizes and checksums."""
    checksums: dict[str, str] = field(default_factory=dict)
    """``md5:...`` or ``sha256:...`` by file name, where they are published elsewhere."""

    def __post_init__(self) -> None:
        self.files = [name for pattern in self.files for name in expand(pattern)]
        for name in self.files:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
                raise InputError("files", repr(name), "a file name")
        for name in self.checksums:
            if name not in self.files:
                raise InputError("checksums", name, one_of(self.files, name))


@dataclass
class Addition:
    """Sounds of another corpus that are added to the development set, if they pass the rules of :class:`KeepRules`.

    Either a list picks the files (``picks``), or all files of some classes are taken (``classes``).
    """

    name: str
    part: str
    into: Literal["sound_event", "interference"]
    """Folder of the development set that they join."""
    folder: str = "."
    """Where they lie in the part."""
    picks: str | None = None
    """JSON list of {file_name, t4_label, convert_path}, in the development set; convert_path starts from ``into``."""
    classes: list[str] = field(default_factory=list)
    splits: dict[str, str] = field(default_factory=dict)
    """For classes: name of a split there -> here. Files are <folder>/<split>/<class>/*.wav."""

    def __post_init__(self) -> None:
        if (self.picks is None) == (not self.classes):
            raise InputError(f"addition {self.name}", "picks and classes" if self.picks else "neither", "one of them")
        if self.classes and not self.splits:
            raise InputError(f"addition {self.name}: splits", "none", "one or more, as it has classes")


@dataclass
class KeepRules:
    """Which additional sounds are kept, and in which form they are written."""

    peak: float = 0.02
    """A sound whose largest absolute sample is below this is left out (full scale 1)."""
    min_seconds: float = 0.1
    """A shorter one is left out, zeros at its ends not counted."""
    segment: float = 10.0
    """One with a stretch of so many seconds that stays below ``peak`` is left out."""
    shift: float = 0.1
    """Seconds between the stretches that are looked at."""
    sampling_rate: int = 32000
    """What is kept is resampled to this."""


@dataclass
class MixtureSet:
    """A set of ready-made mixtures, with their sources or without."""

    part: str
    mixtures: str
    """Folder of wav files in the part."""
    sources: str | None = None
    """Folder of ``<mixture>_<slot>_<Label>.wav`` or ``<mixture>_<Label>.wav``."""
    names: list[str] = field(default_factory=list)
    """Names without suffix of all its mixtures, where they are known; ``eval_{0000..2566}`` stands for many."""
    count: int | None = None
    """Number of its mixtures, where only that is known."""

    def __post_init__(self) -> None:
        self.names = [name for pattern in self.names for name in expand(pattern)]


@dataclass
class Corpus:
    """A recipe's data set."""

    parts: dict[str, Part]
    labels: str = "conf/labels.txt"
    n_slots: int = 3
    channels: int = 4
    """Of mixtures and backgrounds."""
    additions: list[Addition] = field(default_factory=list)
    keep: KeepRules = field(default_factory=KeepRules)
    sets: dict[str, MixtureSet] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    """Folders that the data set has to have; they start with a part's name."""
    scenes: str | None = None
    """List of scenes (``valid.json``), likewise: what they name has to be there."""
    filelist: str | None = None
    """JSON list of files, likewise, where the data set may bring one."""

    def __post_init__(self) -> None:
        named = [(f"addition {a.name}", a.part) for a in self.additions]
        named += [(f"sets.{name}", s.part) for name, s in self.sets.items()]
        for where, part in named:
            if part not in self.parts:
                raise InputError(where, f"part {part}", one_of(self.parts, part))
        if self.additions and DEV not in self.parts:
            raise InputError("parts", f"no {DEV}", "it, as additions join it")

    @classmethod
    def load(cls, path: str | Path) -> Corpus:
        """Reads ``conf/data.yaml``, with what it inherits. Raises InputError naming the file and the key."""
        return parse(cls, load_inherited(path), resolve(path))


def expand(pattern: str) -> list[str]:
    """Names that a pattern with one range of numbers stands for.

    Example:
        >>> expand("a.z{09..11}"), expand("a.zip")
        (['a.z09', 'a.z10', 'a.z11'], ['a.zip'])
    """
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if match is None:
        return [pattern]
    digits = len(match[1])
    numbers = range(int(match[1]), int(match[2]) + 1)
    return [f"{pattern[: match.start()]}{n:0{digits}d}{pattern[match.end() :]}" for n in numbers]


def choose_parts(corpus: Corpus, wanted: str | None) -> list[str]:
    """Names of parts from an option, ``dev_set,ears``; None: all.

    Raises:
        InputError: an unknown one.
    """
    names = list(corpus.parts) if wanted is None else [name for name in wanted.split(",") if name]
    for name in names:
        if name not in corpus.parts:
            raise InputError("--parts", name, one_of(corpus.parts, name))
    return names
