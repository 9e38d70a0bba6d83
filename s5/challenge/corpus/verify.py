"""Checks a recipe's data set: lists missing and unexpected files by name."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from s5.challenge.corpus import additions
from s5.challenge.corpus.archives import unpacked
from s5.challenge.corpus.config import DEV, Corpus, MixtureSet
from s5.challenge.corpus.paths import CorpusPaths, is_added, main_files
from s5.challenge.corpus.prepare import MERGED
from s5.data import DataDir
from s5.labels import LabelSet
from s5.scene.formats.lists import MetadataList
from s5.scene.pool import AUDIO
from s5.scene.rendering.plan import event_path
from s5.utils.config import resolve
from s5.utils.errors import InputError
from s5.utils.files import write_text
from s5.utils.text import read_json

REPORT = "verify.tsv"

MOST = 20
"""Number of lines of each kind that are printed; the report has all of them."""


@dataclass
class Findings:
    """Missing and unexpected paths with their reasons, and notes."""

    missing: list[tuple[str, str]] = field(default_factory=list)
    unexpected: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def miss(self, path: str | Path, reason: str) -> None:
        """Adds a missing path."""
        self.missing.append((str(path), reason))

    def unexpect(self, path: str | Path, reason: str) -> None:
        """Adds an unexpected path."""
        self.unexpected.append((str(path), reason))

    def text(self, most: int = MOST) -> str:
        """Text for the terminal, with at most ``most`` lines of each kind."""
        lines = []
        for word, found in (("missing", self.missing), ("unexpected", self.unexpected)):
            lines += [f"{word}: {path} ({reason})" for path, reason in found[:most]]
            if len(found) > most:
                lines.append(f"{word}: {len(found) - most} more")
        lines += self.notes
        lines.append(f"{len(self.missing)} missing, {len(self.unexpected)} unexpected")
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Writes all findings, one a line: kind, tab, path, tab, reason."""
        rows = [("missing", *x) for x in self.missing] + [("unexpected", *x) for x in self.unexpected]
        write_text(path, "".join("\t".join(row) + "\n" for row in rows))


def verify(places: CorpusPaths, parts: list[str], data: Path = Path("data")) -> Findings:
    """Checks all data that stage 1 makes. Unpacked files must have the sizes that they have in their archives.

    Args:
        places: folders of the data set.
        parts: names of the parts to check.
        data: folder of links and data directories.
    """
    corpus, findings = places.corpus, Findings()
    labels = LabelSet.load(resolve(corpus.labels))
    for name in parts:
        _check_unpacked(places, name, findings)
    left_out = _left_out(places, parts)
    for folder in corpus.folders:
        if folder.startswith(tuple(left_out)):
            continue
        if folder.partition("/")[0] in parts and not _entries(data / folder):
            findings.miss(data / folder, "an empty folder" if (data / folder).is_dir() else "no folder")
    if DEV in parts and (data / DEV).is_dir():
        _check_events(data / DEV, labels, findings)
        _check_audio(data / DEV, findings)
        _check_additions(places, parts, data / DEV, findings)
        if corpus.scenes is not None:
            _check_scenes(data / corpus.scenes, {str(data / top): name for top, name in left_out.items()}, findings)
        if corpus.filelist is not None and (data / corpus.filelist).is_file():
            _check_filelist(data / corpus.filelist, data, places.find(DEV), findings)
    for name, found in corpus.sets.items():
        if found.part in parts:
            _check_set(data / name, found, labels, corpus, findings)
    return findings


def _entries(folder: Path) -> list[str]:
    """Names in a folder, sorted, without hidden ones; an empty list if the folder is missing."""
    return sorted(name for name in os.listdir(folder) if name[0] != ".") if folder.is_dir() else []


def _check_unpacked(places: CorpusPaths, name: str, findings: Findings) -> None:
    out = places.unpacked(name)
    for archive in main_files(places.corpus.parts[name].files):
        for path, size in (unpacked(archive, out) or {}).items():
            if not (out / path).exists():
                findings.miss(out / path, f"a file of {archive}")
            elif (found := (out / path).stat().st_size) != size:
                findings.miss(out / path, f"{found} bytes instead of {size}")


def _check_events(dev: Path, labels: LabelSet, findings: Findings) -> None:
    """Checks that each split has a folder with audio for each label, and no other folder."""
    for split in ("train", "valid"):
        folder = dev / "sound_event" / split
        for label in labels.names:
            if not any(name.lower().endswith(AUDIO) for _, _, names in os.walk(folder / label) for name in names):
                findings.miss(folder / label, "no sound of this label")
        for name in _entries(folder):
            if name not in labels:
                findings.unexpect(folder / name, "no label")


def _check_audio(dev: Path, findings: Findings) -> None:
    """Checks for files that are empty or no audio, and for links whose targets are missing."""
    for top in (*MERGED, "noise"):
        for parent, _, names in os.walk(dev / top, followlinks=True):
            for name in sorted(names):
                path = os.path.join(parent, name)
                if not os.path.exists(path):
                    findings.miss(path, f"a link to {os.readlink(path)}, which is missing")
                elif name.startswith("."):
                    continue
                elif not name.lower().endswith(AUDIO):
                    findings.unexpect(path, "no audio file by its name")
                elif not os.path.getsize(path):
                    findings.miss(path, "an empty file")


def _check_additions(places: CorpusPaths, parts: list[str], dev: Path, findings: Findings) -> None:
    for addition in places.corpus.additions:
        status = additions.statuses(addition.name, places.raw / "added")
        for name in addition.classes:
            for split in addition.splits.values():
                folder = dev / addition.into / split / name
                if addition.part in parts and not _entries(folder):
                    findings.miss(folder, f"no sound of this class of {addition.name}")
        if addition.picks is None or not (dev / addition.picks).is_file():
            continue
        origin = places.find(DEV)
        items = additions.items_of(addition, Path(), dev)
        there = [x for x in items if x.target in status or (origin is not None and (origin / x.target).is_file())]
        if status or not there:
            known = {item.target for item in there}
            if addition.part in parts or status:
                reason = f"picked for {addition.name}, neither added nor left out by the rules"
                findings.missing += [(str(dev / item.target), reason) for item in items if item.target not in known]
        else:
            findings.notes.append(f"{addition.name}: {len(there)} of {len(items)} picked files are there")


def _left_out(places: CorpusPaths, parts: list[str]) -> dict[str, str]:
    """Addition by the folder that it would join, for additions that were left out."""
    dev = places.find(DEV)
    return {
        f"{DEV}/{addition.into}/": addition.name
        for addition in places.corpus.additions
        if addition.part not in parts and dev is not None and not is_added(addition, dev)
    }


def _check_scenes(path: Path, left_out: dict[str, str], findings: Findings) -> None:
    """Checks the files that a list's scenes name; missing files of additions that were left out are only counted."""
    try:
        scenes = MetadataList.load(path)
    except InputError as e:
        findings.miss(path, str(e))
        return
    needed: dict[str, str] = {}
    for entry, i in zip(scenes.entries, range(len(scenes)), strict=True):
        try:
            scene = scenes[i]
        except InputError as e:
            findings.miss(path.parent / entry.metadata_path, str(e))
            continue
        config = scene.config
        for folder, events in (
            (config.foreground_dir, scene.fg_events),
            (config.interference_dir, scene.int_events),
            (config.background_dir, scene.bg_events),
        ):
            for event in events:
                needed.setdefault(event_path(".", folder, event), entry.metadata_path)
        needed.setdefault(os.path.normpath(scene.room.sofa_path), entry.metadata_path)
    absent = {os.path.normpath(file): scene for file, scene in needed.items() if not os.path.isfile(file)}
    for top, name in left_out.items():
        if n := len([absent.pop(file) for file in list(absent) if file.startswith(f"{top}/")]):
            findings.notes.append(f"{path} cannot be rendered: {n} files of {top} are missing ({name} was left out)")
    findings.missing += [(file, f"scene {scene} needs it") for file, scene in absent.items()]


def _check_set(path: Path, expected: MixtureSet, labels: LabelSet, corpus: Corpus, findings: Findings) -> None:
    """Checks that a data directory is complete, with the right files and mixtures."""
    try:
        data = DataDir.load(path, labels, corpus.n_slots)
        data.check(corpus.keep.sampling_rate, corpus.channels)
    except InputError as e:
        findings.miss(path, str(e))
        return
    folder, there, names = data.mixture_path(data.utts[0]).parent, set(data.utts), set(expected.names)
    findings.missing += [(f"{folder}/{name}.wav", "no such mixture") for name in expected.names if name not in there]
    if names:
        findings.unexpected += [(f"{folder}/{utt}.wav", "not of the set") for utt in data.utts if utt not in names]
    if expected.count is not None and len(there) != expected.count:
        findings.miss(folder, f"{len(there)} mixtures instead of {expected.count}")


def _check_filelist(path: Path, data: Path, origin: Path | None, findings: Findings) -> None:
    """Checks that a list's files exist here or, for events that were curated away, in the original development set."""
    names = read_json(path, "a list of files")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(path, "no list of names", "a JSON list of paths")
    for name in names:
        below = Path(name.removeprefix("data/"))
        curated = origin is not None and below.parts[:1] == (DEV,) and (origin.parent / below).is_file()
        if not (data / below).is_file() and not curated:
            findings.miss(data / below, f"{path.name} names it")
