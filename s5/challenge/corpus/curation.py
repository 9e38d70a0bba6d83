"""Curates the training events (Park et al., section 2.2): removes short and listed events, adds external ones.

A list of files to leave out is text: on each line a path below ``sound_event/train`` and, after a tab, the reason.
Lines that begin with # are comments.

    Doorbell/ring_7.wav	a voice
    Percussion/set2/roll.wav

A manifest of external clips is CSV with a header. ``id`` and ``start`` (seconds) are those of AudioSet's lists and
determine the name of the user's file. ``end`` is needed if the clip has to be cut from a longer file:

    id,start,end,label
    --aE2O5G5WE,30,40,Doorbell
"""

from __future__ import annotations

import csv
import difflib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from s5.challenge.corpus.additions import Item
from s5.data import audio_info
from s5.utils.config import load_inherited, parse, resolve
from s5.utils.errors import InputError, one_of
from s5.utils.text import read_text

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


@dataclass
class External:
    """Clips of the user's that are added."""

    manifest: str
    """CSV file with the columns id, start, label and, with ``cut``, end."""
    audio: str
    """Folder of the user's audio files."""
    names: list[str] = field(default_factory=lambda: ["{id}_{start}", "{id}_{start_ms}", "Y{id}", "{id}"])
    """Possible names of a clip's file, without suffix."""
    cut: bool = False
    """Whether clips are cut from longer files, from start to end."""

    def __post_init__(self) -> None:
        for name in self.names:
            try:
                name.format(id="", start="", start_ms="")
            except (KeyError, IndexError, ValueError) as e:
                raise InputError("names", name, "a name with {id}, {start} or {start_ms}") from e


@dataclass
class Curation:
    """Content of a curation's YAML file. Paths are relative to the recipe folder."""

    min_duration: float = 0.0
    """Smallest duration of a training event in seconds."""
    drop: list[str] = field(default_factory=list)
    """Lists of files that are left out."""
    external: list[External] = field(default_factory=list)

    @classmethod
    def load(cls, path: str | Path) -> Curation:
        """Reads the YAML file and the files it inherits from. Raises InputError naming the file and the key."""
        return parse(cls, load_inherited(path), resolve(path))


@dataclass
class Curated:
    """Curated training events, and the counts by label."""

    files: dict[str, str]
    """File by its path below ``sound_event/train``."""
    original: Counter[str]
    short: Counter[str]
    listed: Counter[str]
    added: Counter[str]


def curate(files: Mapping[str, str], rules: Curation, external: Mapping[str, str]) -> Curated:
    """Applies the rules to the training events.

    Args:
        files: file by its path below ``sound_event/train``, ``<Label>/...``.
        rules: the curation.
        external: converted external clips by their paths there.

    Raises:
        InputError: a listed file does not exist, an external clip has an existing name, or a file is no audio.
    """
    label_of = {path: path.partition("/")[0] for path in files}
    original = Counter(label_of.values())
    short = {path for path, file in files.items() if rules.min_duration > 0 and seconds(file) < rules.min_duration}
    listed = {path for name in rules.drop for path in read_drop_list(name, files)} - short
    kept = {path: file for path, file in files.items() if path not in short and path not in listed}
    added: Counter[str] = Counter()
    for path, file in external.items():
        if path in files:
            raise InputError(file, f"{path} in the training events", "a name that is not used")
        if seconds(file) >= rules.min_duration:
            kept[path] = file
            added[path.partition("/")[0]] += 1
    return Curated(
        kept, original, Counter(label_of[path] for path in short), Counter(label_of[path] for path in listed), added
    )


def seconds(file: str | Path) -> float:
    """Duration of an audio file in seconds, from its header. Raises InputError if it is no audio file."""
    _, n_samples, fs = audio_info(file)
    return n_samples / fs


def read_drop_list(path: str | Path, files: Iterable[str] | None = None) -> dict[str, str]:
    """Reason by path below ``sound_event/train`` from a list of files to leave out.

    Args:
        path: the list.
        files: existing paths; None skips this check.

    Raises:
        InputError: the list is missing, or a line names a path twice or one that does not exist.
    """
    out: dict[str, str] = {}
    known = None if files is None else set(files)
    for number, line in enumerate(read_text(resolve(path), "a list of files").splitlines(), 1):
        name, _, reason = line.partition("\t")
        name = name.strip()
        if not name or name.startswith("#"):
            continue
        if name in out:
            raise InputError(f"{path}:{number}", f"{name} twice", "each path once")
        if known is not None and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InputError(f"{path}:{number}", f"{name}", f"{near[0]}" if near else "a file below sound_event/train")
        out[name] = reason.strip()
    return out


def external_items(external: External, labels: Sequence[str], into: str) -> list[Item]:
    """Files to convert to ``<into>/<Label>/<manifest>_<id>_<start>.wav``. Raises InputError for a clip without file."""
    stem = re.sub(r"[^A-Za-z0-9-]", "-", Path(external.manifest).stem)
    items = []
    for row in read_manifest(external, labels):
        file = _find(external, row)
        times = (row.start, row.end) if external.cut else (None, None)
        items.append(Item(file, f"{into}/{row.label}/{stem}_{row.id}_{row.start:g}.wav", *times))
    return items


@dataclass(frozen=True)
class Clip:
    """A line of a manifest."""

    id: str
    start: float
    end: float | None
    label: str
    where: str


def read_manifest(external: External, labels: Sequence[str]) -> list[Clip]:
    """Reads a manifest. Raises InputError naming the line for a wrong id, number or label, or a repeated clip."""
    path = external.manifest
    lines = read_text(resolve(path), "a CSV file").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    needed = ["id", "start", "label", *(["end"] if external.cut else [])]
    for name in needed:
        if name not in (rows.fieldnames or ()):
            raise InputError(path, f"columns {', '.join(rows.fieldnames or ()) or 'none'}", f"a header with {name}")
    clips, seen = [], set()
    for number, row in enumerate(rows, 2):
        where = f"{path}:{number}"
        name, label = (row["id"] or "").strip(), (row["label"] or "").strip()
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise InputError(f"{where}: id", repr(name), "letters, digits, '_', '-' and '.'")
        if label not in labels:
            raise InputError(f"{where}: label", label or "nothing", one_of(labels, label))
        start = _number(row["start"], f"{where}: start")
        end = _number(row["end"], f"{where}: end") if row.get("end") else None
        if external.cut and (end is None or end <= start):
            raise InputError(f"{where}: end", row.get("end") or "nothing", f"more than start ({start:g})")
        if (name, start, label) in seen:
            raise InputError(where, f"clip {name} {start:g} twice", "each clip once")
        seen.add((name, start, label))
        clips.append(Clip(name, start, end, label, where))
    return clips


def _number(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise InputError(where, repr(text), "seconds, 0 or more")
    return value


def _find(external: External, row: Clip) -> str:
    places = {"id": row.id, "start": f"{row.start:g}", "start_ms": f"{round(1000 * row.start)}"}
    tried = [name.format(**places) for name in external.names]
    paths = (os.path.join(external.audio, name + suffix) for name in tried for suffix in SUFFIXES)
    if path := next(filter(os.path.isfile, paths), None):
        return path
    raise InputError(row.where, f"no audio in {external.audio}", f"{' or '.join(tried)} ({', '.join(SUFFIXES)})")


def counts_table(curated: Curated, labels: Sequence[str], min_duration: float) -> str:
    """The counts as a Markdown table like Table 1 of Park et al."""
    head = f"| Class | Original count | Under {min_duration:g} s | Listed | Added | Final count |"
    lines = [head, "| --- |" + " ---: |" * 5]
    columns = (curated.original, curated.short, curated.listed, curated.added)
    for name, of in [*((label, [label]) for label in labels), ("all", list(labels))]:
        original, short, listed, added = (sum(column[label] for label in of) for column in columns)
        lines.append(f"| {name} | {original} | {short} | {listed} | {added} | {original - short - listed + added} |")
    return "\n".join(lines) + "\n"
