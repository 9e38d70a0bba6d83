"""Names of single sources as files, ``<utt>_<slot>_<Label>.wav`` (2025: ``<utt>_<Label>.wav``): written and read here.

Data sets, estimates and submissions have them.
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
"""Suffixes of the files that are read, in small letters or capitals."""

AUDIO = (*READ, ".aac", ".aif", ".aiff", ".au", ".caf", ".m4a", ".mp3", ".ogg", ".opus", ".rf64", ".w64", ".wma")
"""Suffixes by which a person may expect a file to be read."""

_SLOT = re.compile(r"[0-9]{1,2}")


@dataclass(frozen=True)
class SourceName:
    """What the name of a source's file says."""

    utt: str
    slot: int | None
    """None in the naming of 2025."""
    label: str


@dataclass(frozen=True)
class SourceFile:
    """A single source on disk."""

    path: Path
    label: str


def source_name(utt: str, slot: int, label: str, suffix: str = ".wav") -> str:
    """Name of a source's file.

    Example:
        >>> source_name("test_0001", 2, "Speech")
        'test_0001_2_Speech.wav'
    """
    return f"{utt}_{slot}_{label}{suffix}"


def parse(stem: str, utts: Collection[str], where: object) -> SourceName | None:
    """Takes a name without suffix apart; None where it fits no mixture.

    Names of mixtures may end in a number, too, so the known ones decide.

    Args:
        stem: the name.
        utts: mixtures that there are.
        where: what a complaint names.

    Raises:
        InputError: it fits two mixtures.

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
    """Audio files of a folder by their names without suffix, sorted by name; hidden ones (macOS's ``._*``) are none.

    Raises:
        InputError: no such folder, or two files of a name.
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
    """The sources of each mixture by slot, sorted; those named without a slot have the next one in order of names.

    Raises:
        InputError: no such folder; audio in it that is no source: in a folder of its own, of another suffix, of a name
            that fits no mixture or more than one; two files of a slot.
    """
    found: dict[str, dict[int, SourceFile]] = {utt: {} for utt in utts}
    strangers = []
    for stem, path in audio_files(folder).items():
        name = parse(stem, found, path)
        if name is None:
            strangers.append(path)
            continue
        slots = found[name.utt]
        slot = len(slots) if name.slot is None else name.slot
        if slot in slots:
            raise InputError(path, f"a second file for slot {slot} of {name.utt}", "one")
        slots[slot] = SourceFile(path, name.label)
    if strangers:
        others = f" (and {shortened([path.name for path in strangers[1:]])})" if strangers[1:] else ""
        raise InputError(strangers[0], f"a name that fits no mixture of the references{others}", FORM)
    for path in _not_read(folder):
        raise InputError(path, "audio that is not read here", f"{FORM} or .flac in {folder} itself")
    return {utt: dict(sorted(slots.items())) for utt, slots in found.items()}


def _not_read(folder: str | Path) -> list[Path]:
    """Audio files that are no files of the folder itself or have other suffixes."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            suffix = os.path.splitext(name)[1].lower()
            if suffix in AUDIO and not name.startswith(".") and (parent != str(folder) or suffix not in READ):
                found.append(Path(parent, name))
    return found


def shortened(names: Collection[str], most: int = 5) -> str:
    """The first few names, and how many more there are.

    Example:
        >>> shortened(["a", "b", "c"], 2)
        'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(list(names)[:most]) + more
