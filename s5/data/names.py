"""File names of single sources, ``<utt>_<slot>_<Label>.wav`` (2025: ``<utt>_<Label>.wav``): writes and parses them.

Data sets, estimates and submissions use these names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from s5.utils.errors import InputError

FORM = "<utt>_<slot>_<Label>.wav"
FORM_2025 = "<utt>_<Label>.wav"

READ = (".wav", ".flac")
"""Suffixes of the files that are read, in lower or upper case."""

AUDIO = (*READ, ".aac", ".aif", ".aiff", ".au", ".caf", ".m4a", ".mp3", ".ogg", ".opus", ".rf64", ".w64", ".wma")
"""Suffixes of audio; files whose suffix is not in ``READ`` are refused, not ignored."""

_SLOT = re.compile(r"[0-9]{1,2}")


@dataclass(frozen=True)
class SourceName:
    """Parts of the file name of a source."""

    utt: str
    slot: int | None
    """Slot from 0; None in the naming of 2025."""
    label: str


@dataclass(frozen=True)
class SourceFile:
    """A single source on disk."""

    path: Path
    label: str


def source_name(utt: str, slot: int, label: str, suffix: str = ".wav") -> str:
    """File name of a source.

    Example:
        >>> source_name("test_0001", 2, "Speech")
        'test_0001_2_Speech.wav'
    """
    return f"{utt}_{slot}_{label}{suffix}"


def parse(stem: str, utts: Collection[str], where: object) -> SourceName | None:
    """Parses a name without suffix; None if it fits no mixture.

    Names of mixtures may end in a number too, so the known ones decide.

    Args:
        stem: the name without suffix.
        utts: names of all mixtures.
        where: the place that an error names.

    Raises:
        InputError: the name fits two mixtures.

    Example:
        >>> parse("test_0001_2_Speech", {"test_0001"}, "")
        SourceName(utt='test_0001', slot=2, label='Speech')
        >>> parse("test_0001_Speech", {"test_0001"}, "")
        SourceName(utt='test_0001', slot=None, label='Speech')
        >>> parse("test_0002_Speech", {"test_0001"}, "")
    """
    head, _, label = stem.rpartition("_")
    shorter, _, number = head.rpartition("_")
    with_slot = _SLOT.fullmatch(number) is not None and shorter in utts
    if with_slot and head in utts:
        raise InputError(where, f"a name that fits the mixtures {shorter} and {head}", f"{FORM} of one mixture")
    if with_slot:
        return SourceName(shorter, int(number), label)
    return SourceName(head, None, label) if head in utts else None


def audio_files(folder: str | Path) -> dict[str, Path]:
    """Audio files of a folder by their names without suffix, sorted. Hidden ones (macOS's ``._*``) are ignored.

    Raises:
        InputError: the folder does not exist, or two files share a name.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as e:
        found = "no such folder" if isinstance(e, FileNotFoundError) else e.strerror
        raise InputError(folder, found, "a folder of audio files") from e
    files: dict[str, Path] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in READ or name.startswith("."):
            continue
        path = Path(folder, name)
        if stem in files:
            raise InputError(path, f"a second file of that name, {files[stem].name}", "one")
        files[stem] = path
    return files


def find_source_files(folder: str | Path, utts: Collection[str]) -> dict[str, dict[int, SourceFile]]:
    """Sources of each mixture by slot, sorted. Names without a slot get the next free one in alphabetical order.

    Raises:
        InputError: the folder does not exist or holds two files for a slot, or audio that is no source: in a folder
            below it, with another suffix, or with a name that fits no mixture or more than one.
    """
    found: dict[str, dict[int, SourceFile]] = {utt: {} for utt in utts}
    unmatched = []
    for stem, path in audio_files(folder).items():
        name = parse(stem, found, path)
        if name is None:
            unmatched.append(path)
            continue
        slots = found[name.utt]
        slot = len(slots) if name.slot is None else name.slot
        if slot in slots:
            raise InputError(path, f"a second file for slot {slot} of {name.utt}", "one")
        slots[slot] = SourceFile(path, name.label)
    if unmatched:
        others = f" (and {shortened([path.name for path in unmatched[1:]])})" if unmatched[1:] else ""
        raise InputError(unmatched[0], f"a name that fits no mixture of the references{others}", FORM)
    for path in _not_read(folder):
        raise InputError(path, "audio that is not read here", f"{FORM} or .flac in {folder} itself")
    return {utt: dict(sorted(slots.items())) for utt, slots in found.items()}


def _not_read(folder: str | Path) -> list[Path]:
    """Audio files in folders below, or with suffixes that are not read."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            suffix = os.path.splitext(name)[1].lower()
            if suffix in AUDIO and not name.startswith(".") and (parent != str(folder) or suffix not in READ):
                found.append(Path(parent, name))
    return found


def shortened(names: Collection[str], most: int = 5) -> str:
    """The first few names and the number of the others.

    Example:
        >>> shortened(["a", "b", "c"], 2)
        'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(list(names)[:most]) + more
