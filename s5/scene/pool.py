"""The files and rooms in a sampler's folders, measured once."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s5.data import audio_info
from s5.scene.rendering.room import SofaRoom
from s5.utils.errors import InputError

if TYPE_CHECKING:
    from s5.scene.config import SceneDirs

AUDIO = (".flac", ".ogg", ".wav")
SOFA = ".sofa"
"""Suffixes of recordings and rooms, in lower or upper case."""


@dataclass(frozen=True)
class AudioFile:
    """An audio file of a folder."""

    name: str
    """Path relative to its directory."""
    duration: float
    """Duration in seconds."""
    channels: int

    def source_folder(self, depth: int) -> str | None:
        """Folder of the file ``depth`` levels below its label; None for a file above that level.

        Example:
            >>> AudioFile("Speech/spk1/day2/a.wav", 1, 1).source_folder(1)
            'Speech/spk1'
            >>> AudioFile("Speech/a.wav", 1, 1).source_folder(1) is None
            True
        """
        parts = self.name.split(os.sep)
        return os.sep.join(parts[: depth + 1]) if 0 < depth < len(parts) - 1 else None


@dataclass
class RoomInfo:
    """A room that scenes may use."""

    path: str
    """Path in the scenes."""
    room: SofaRoom


class SourcePool:
    """Files and rooms by kind.

    Args:
        dirs: the folders.
        labels: names of the folders of ``dirs.sound_event`` that are used.
        root: folder that relative paths start from.
        nested: whether to use files in folders below that of a label (or of the backgrounds).
        excluded: paths, as :meth:`sources`, :meth:`backgrounds` and :meth:`room_paths` return them, that are left out.

    Attributes:
        events, interference: files by label; ``interference`` is empty without a folder.
        noise: backgrounds.
        rooms: rooms in the order of their names.

    Raises:
        InputError: a folder is missing or holds nothing usable.
    """

    def __init__(
        self, dirs: SceneDirs, labels: Sequence[str], root: str, nested: bool = True, excluded: Collection[str] = ()
    ) -> None:
        self.root, self.dirs, self.nested, self.excluded = root, dirs, nested, frozenset(excluded)
        self.events = {label: self._files(dirs.sound_event, label) for label in labels}
        self.interference: dict[str, list[AudioFile]] = {}
        if dirs.interference is not None:
            kinds = self._folders(dirs.interference)
            self.interference = {kind: self._files(dirs.interference, kind) for kind in kinds}
        self.noise = self._files(dirs.noise) if dirs.noise is not None else []
        self.rooms = self._find_rooms(dirs.room_ir)

    def sources(self) -> Iterator[tuple[str, float]]:
        """Yields path and duration (s) of each recording of events and interference."""
        for folder, kinds in ((self.dirs.sound_event, self.events), (self.dirs.interference, self.interference)):
            for file in (file for files in kinds.values() for file in files):
                yield os.path.join(self.root, str(folder), file.name), file.duration

    def backgrounds(self) -> list[str]:
        """Paths of the backgrounds."""
        return [os.path.join(self.root, str(self.dirs.noise), file.name) for file in self.noise]

    def room_paths(self) -> list[str]:
        """Paths of the SOFA files."""
        return [os.path.join(self.root, room.path) for room in self.rooms]

    def _folders(self, folder: str) -> list[str]:
        """Names of the folders below one, sorted."""
        path = os.path.join(self.root, folder)
        try:
            names = sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and entry.name[0] != ".")
        except OSError as e:
            raise InputError(path, e.strerror or "no folder", "a folder with a folder for each label") from e
        if not names:
            raise InputError(path, "no folder in it", "a folder for each label")
        return names

    def _files(self, folder: str, label: str = "") -> list[AudioFile]:
        """Audio files of a label's folder, sorted."""
        base = os.path.join(self.root, folder)
        top = os.path.join(base, label) if label else base
        if not os.path.isdir(top):
            raise InputError(top, "no folder", f"a folder with audio ({', '.join(AUDIO)})")
        names = audio_names(base, label, self.nested)
        kept = [name for name in names if os.path.join(base, name) not in self.excluded]
        if not kept:
            found = f"only excluded audio ({len(names)} files)" if names else "no audio in it"
            raise InputError(top, found, f"files of {', '.join(AUDIO)}" + ("" if self.nested else ", not in folders"))
        return [_measure(os.path.join(base, name), name) for name in kept]

    def _find_rooms(self, folder: str) -> list[RoomInfo]:
        path = os.path.join(self.root, folder)
        found = room_names(self.root, folder)
        names = [name for name in found if os.path.join(self.root, name) not in self.excluded]
        if not names:
            raise InputError(path, "only excluded rooms" if found else "no SOFA file", "one or more")
        rooms = []
        for name in names:
            room = SofaRoom(os.path.join(self.root, name))
            room.close()
            rooms.append(RoomInfo(name, room))
        return rooms


def audio_names(base: str, label: str = "", nested: bool = True) -> list[str]:
    """Paths, relative to ``base``, of the audio files in its folder ``label`` (empty: in ``base`` itself), sorted.

    ``nested`` says whether to search the folders below, too.
    """
    top = os.path.join(base, label)
    return sorted(
        os.path.relpath(os.path.join(parent, name), base)
        for parent, _, names in os.walk(top, followlinks=True)
        for name in names
        if name.lower().endswith(AUDIO) and name[0] != "." and (nested or parent == top)
    )


def room_names(root: str, folder: str) -> list[str]:
    """Paths, relative to ``root``, of the SOFA files in a folder, sorted; ``folder`` itself if it is a file."""
    path = os.path.join(root, folder)
    if not os.path.isdir(path):
        return [folder]
    names = sorted(os.listdir(path))
    return [os.path.join(folder, name) for name in names if name.lower().endswith(SOFA) and name[0] != "."]


def _measure(path: str, name: str) -> AudioFile:
    channels, n_frames, rate = audio_info(path)
    if not n_frames:
        raise InputError(path, "no sample", "an audio file")
    return AudioFile(name, n_frames / rate, channels)
