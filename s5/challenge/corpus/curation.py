"""Refinement of the training events (Park et al., section 2.2): short ones and listed ones leave, external ones join.

A list of files to leave out is text: a path below ``sound_event/train`` a line, then, after a tab, what is wrong with
it; lines that begin with # are comments.

    Doorbell/ring_7.wav	a voice
    Percussion/set2/roll.wav

A manifest of external clips is CSV with a header. ``id`` and ``start`` (seconds) are those of AudioSet's lists and say
how the user's file is called; ``end`` is needed where a clip is to be cut from a longer file:

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
    """CSV with a header: id, start, label, and end where ``cut``."""
    audio: str
    """Folder of the user's audio files."""
    names: list[str] = field(default_factory=lambda: ["{id}_{start}", "{id}_{start_ms}", "Y{id}", "{id}"])
    """How a clip's file may be called, without suffix."""
    cut: bool = False
    """Whether the files are longer, and start and end say which part is meant."""

    def __post_init__(self) -> None:
        for name in self.names:
            try:
                name.format(id="", start="", start_ms="")
            except (KeyError, IndexError, ValueError) as e:
                raise InputError("names", name, "a name with {id}, {start} or {start_ms}") from e


@dataclass
class Refinement:
    """Keys of a refinement's YAML. Paths start from the recipe folder."""

    min_duration: float = 0.0
    """Seconds; shorter training events are left out."""
    drop: list[str] = field(default_factory=list)
    """Lists of files that are left out."""
    external: list[External] = field(default_factory=list)

    @classmethod
    def load(cls, path: str | Path) -> Refinement:
        """Reads the YAML file, with what it inherits. Raises InputError naming the file and the key."""
        return parse(cls, load_inherited(path), resolve(path))


@dataclass
class Refined:
    """What is left, and the counts by label."""

    files: dict[str, str]
    """Path below ``sound_event/train`` -> file."""
    original: Counter[str]
    short: Counter[str]
    listed: Counter[str]
    added: Counter[str]


def refine(files: Mapping[str, str], rules: Refinement, external: Mapping[str, str]) -> Refined:
    """Applies the rules to the training events.

    Args:
        files: path below ``sound_event/train``, ``<Label>/...`` -> file.
        rules: the refinement.
        external: the same for external clips, as they were converted.

    Raises:
        InputError: a listed file that is not there, an external one of a name that is there, a file that is no audio.
    """
    label_of = {path: path.partition("/")[0] for path in files}
    original = Counter(label_of.values())
    short = {path for path, file in files.items() if rules.min_duration > 0 and seconds(file) < rules.min_duration}
    listed = {path for name in rules.drop for path in read_drop_list(name, files)} - short
    kept = {path: file for path, file in files.items() if path not in short and path not in listed}
    added: Counter[str] = Counter()
    for path, file in external.items():
        if path in files:
            raise InputError(file, f"{path} in the training events", "a name of its own")
        if seconds(file) >= rules.min_duration:
            kept[path] = file
            added[path.partition("/")[0]] += 1
    return Refined(
        kept, original, Counter(label_of[path] for path in short), Counter(label_of[path] for path in listed), added
    )


def seconds(file: str | Path) -> float:
    """Duration of an audio file, from its header. Raises InputError for none."""
    _, n_samples, fs = audio_info(file)
    return n_samples / fs


def read_drop_list(path: str | Path, files: Iterable[str] | None = None) -> dict[str, str]:
    """Path below ``sound_event/train`` -> what is wrong with it.

    Args:
        path: the list.
        files: paths that there are; None: not checked.

    Raises:
        InputError: no such list, a path twice or (with its line) one that is not there.
    """
    out: dict[str, str] = {}
    known = None if files is None else set(files)
    for number, line in enumerate(read_text(resolve(path), "a list of files").splitlines(), 1):
        name, _, reason = line.partition("\t")
        name = name.strip()
        if not name or name.startswith("#"):
            continue
        if name in out:
            raise InputError(f"{path}:{number}", f"{name} twice", "each once")
        if known is not None and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InputError(f"{path}:{number}", f"{name}", f"{near[0]}" if near else "a file below sound_event/train")
        out[name] = reason.strip()
    return out


def external_items(external: External, labels: Sequence[str], into: str) -> list[Item]:
    """The clips of a manifest, as files to convert to ``<into>/<Label>/<manifest>_<id>_<start>.wav``.

    Raises:
        InputError: a bad line of the manifest, or a clip without a file.
    """
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
    """Reads a manifest. Raises InputError with the line for a wrong id, number or label, or a clip twice."""
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
            raise InputError(where, f"clip {name} {start:g} twice", "each once")
        seen.add((name, start, label))
        clips.append(Clip(name, start, end, label, where))
    return clips


def _number(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise InputError(where, repr(text), "seconds from 0")
    return value


def _find(external: External, row: Clip) -> str:
    places = {"id": row.id, "start": f"{row.start:g}", "start_ms": f"{round(1000 * row.start)}"}
    tried = [name.format(**places) for name in external.names]
    paths = (os.path.join(external.audio, name + suffix) for name in tried for suffix in SUFFIXES)
    if path := next(filter(os.path.isfile, paths), None):
        return path
    raise InputError(row.where, f"no audio in {external.audio}", f"{' or '.join(tried)} ({', '.join(SUFFIXES)})")


def counts_table(refined: Refined, labels: Sequence[str], min_duration: float) -> str:
    """The counts as a Markdown table in the manner of Park et al., Table 1."""
    head = f"| Class | Original count | Under {min_duration:g} s | Listed | Added | Final count |"
    lines = [head, "| --- |" + " ---: |" * 5]
    columns = (refined.original, refined.short, refined.listed, refined.added)
    for name, of in [*((label, [label]) for label in labels), ("all", list(labels))]:
        original, short, listed, added = (sum(column[label] for label in of) for column in columns)
        lines.append(f"| {name} | {original} | {short} | {listed} | {added} | {original - short - listed + added} |")
    return "\n".join(lines) + "\n"
