"""Describes a recipe's data set in ``conf/data.yaml``: its parts, their addresses, and the data made from them.

A part is downloaded and unpacked as a whole (``dev_set``, ``eval_set``, or another corpus). Additions are sounds of
another corpus that join the development set. Sets are ready-made mixtures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from s5.utils.config import load_inherited, parse, resolve
from s5.utils.errors import InputError, one_of

DEV = "dev_set"
"""Name of the part that additions join and whose training events are curated."""


@dataclass
class Part:
    """A part of the data set, which is downloaded and unpacked as a whole."""

    urls: list[str]
    """Addresses of the folder with its files; they are tried in this order."""
    files: list[str]
    """File names; ``p{001..107}.zip`` means a range. All parts of a split zip archive are listed."""
    folder: str = "."
    """Folder of its content, relative to the folder it is unpacked in."""
    found: list[str] = field(default_factory=list)
    """Possible folders of its content, relative to the user's ``--data_root``."""
    holds: list[str] = field(default_factory=list)
    """Folders and files by which its content is recognised."""
    record: str | None = None
    """Address of its record at Zenodo's API, which lists sizes and checksums."""
    checksums: dict[str, str] = field(default_factory=dict)
    """``md5:...`` or ``sha256:...`` by file name, for files without a Zenodo record."""

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
    """Sounds of another corpus that join the development set if they pass :class:`KeepRules`.

    Give either ``picks``, a list of files, or ``classes``, whose files are all added.
    """

    name: str
    part: str
    into: Literal["sound_event", "interference"]
    """Folder of the development set that they join."""
    folder: str = "."
    """Their folder in the part."""
    picks: str | None = None
    """JSON list of {file_name, t4_label, convert_path} in the development set; convert_path is relative to ``into``."""
    classes: list[str] = field(default_factory=list)
    splits: dict[str, str] = field(default_factory=dict)
    """For ``classes``: our split's name by the corpus's. The files are <folder>/<split>/<class>/*.wav."""

    def __post_init__(self) -> None:
        if (self.picks is None) == (not self.classes):
            raise InputError(
                f"addition {self.name}", "picks and classes" if self.picks else "neither", "picks or classes"
            )
        if self.classes and not self.splits:
            raise InputError(f"addition {self.name}: splits", "none", "a split for its classes")


@dataclass
class KeepRules:
    """Rules for additional sounds."""

    peak: float = 0.02
    """Smallest peak of a sound that is kept (full scale 1)."""
    min_seconds: float = 0.1
    """Smallest duration in seconds, without the zeros at its ends."""
    segment: float = 10.0
    """A sound that stays below ``peak`` for so many seconds in a row is left out."""
    shift: float = 0.1
    """Seconds between the starts of the segments that are tested."""
    sampling_rate: int = 32000
    """Sampling rate in Hz that sounds are resampled to."""


@dataclass
class MixtureSet:
    """A set of ready-made mixtures, with or without their sources."""

    part: str
    mixtures: str
    """Folder of wav files in the part."""
    sources: str | None = None
    """Folder of ``<mixture>_<slot>_<Label>.wav`` or ``<mixture>_<Label>.wav``."""
    names: list[str] = field(default_factory=list)
    """Names of all mixtures without suffix, if known; ``eval_{0000..2566}`` means a range."""
    count: int | None = None
    """Number of mixtures, if their names are not known."""

    def __post_init__(self) -> None:
        self.names = [name for pattern in self.names for name in expand(pattern)]


@dataclass
class Corpus:
    """A recipe's data set."""

    parts: dict[str, Part]
    labels: str = "conf/labels.txt"
    n_slots: int = 3
    channels: int = 4
    """Number of channels of mixtures and backgrounds."""
    additions: list[Addition] = field(default_factory=list)
    keep: KeepRules = field(default_factory=KeepRules)
    sets: dict[str, MixtureSet] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    """Folders that must exist; their paths start with a part's name."""
    scenes: str | None = None
    """List of scenes (``valid.json``) whose files must exist; the path starts with a part's name."""
    filelist: str | None = None
    """Optional JSON list of files that must exist; the path starts with a part's name."""

    def __post_init__(self) -> None:
        named = [(f"addition {a.name}", a.part) for a in self.additions]
        named += [(f"sets.{name}", s.part) for name, s in self.sets.items()]
        for where, part in named:
            if part not in self.parts:
                raise InputError(where, f"part {part}", one_of(self.parts, part))
        if self.additions and DEV not in self.parts:
            raise InputError("parts", f"no {DEV}", "this part, which the additions join")

    @classmethod
    def load(cls, path: str | Path) -> Corpus:
        """Reads ``conf/data.yaml`` and the files it inherits from. Raises InputError naming the file and the key."""
        return parse(cls, load_inherited(path), resolve(path))


def expand(pattern: str) -> list[str]:
    """All names of a pattern with one range of numbers.

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
    """Names of parts in an option such as ``dev_set,ears``; None means all. Raises InputError for an unknown part."""
    names = list(corpus.parts) if wanted is None else [name for name in wanted.split(",") if name]
    for name in names:
        if name not in corpus.parts:
            raise InputError("--parts", name, one_of(corpus.parts, name))
    return names
