"""Reads lists of scenes: the ``valid.json`` of both challenges' development sets.

A list is a JSON array; each entry names a scene's file, relative to the list's folder or with its full path. The second
version of 2025 adds the order of the slots:

    [{"metadata_path": "valid/0000.json"}, {"metadata_path": "valid/0001.json", "ref_event": ["Cough", "Speech"]}]
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from s5.scene.spec import Scene, pop_fields
from s5.utils.errors import InputError
from s5.utils.text import read_json


class Entry(NamedTuple):
    """One entry of a list.

    Attributes:
        metadata_path: path of the scene, relative to the list's folder, or absolute.
        ref_event: labels in the order of the slots; None: onset order.
    """

    metadata_path: str
    ref_event: list[str] | None = None

    @classmethod
    def from_dict(cls, data: Any, where: str) -> Entry:
        """Reads an entry's JSON object. Raises InputError naming ``where`` and the key."""
        known, others = pop_fields(data, where, {"metadata_path": (str,)})
        slots = others.get("ref_event")
        if slots is not None and not (isinstance(slots, list) and all(isinstance(label, str) for label in slots)):
            raise InputError(f"{where}.ref_event", repr(slots)[:80], "a list of labels")
        return cls(known["metadata_path"], slots)


class MetadataList:
    """Scenes of a list, each read on request.

    Args:
        folder: folder that the entries' paths start from.
        entries: entries of the list.

    Example:
        for scene in MetadataList.load("data/dev_set/metadata/valid.json"):
            rendered = render(scene)
    """

    def __init__(self, folder: str | Path, entries: Sequence[Entry]) -> None:
        self.folder, self.entries = Path(folder), list(entries)

    @classmethod
    def load(cls, path: str | Path) -> MetadataList:
        """Reads a list, but not its scenes. Raises InputError naming the file and the entry."""
        data = read_json(path, "a list of scenes")
        if not isinstance(data, list):
            raise InputError(path, f"a JSON {type(data).__name__}", 'a list of {"metadata_path": ...}')
        return cls(Path(path).parent, [Entry.from_dict(entry, f"{path}[{i}]") for i, entry in enumerate(data)])

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Scene:
        """Scene of an entry. Raises InputError for a bad file."""
        entry = self.entries[index]
        path = os.path.join(self.folder, entry.metadata_path)
        scene = Scene.load(path)
        return scene if entry.ref_event is None else scene.with_slots(entry.ref_event, f"{path}: ref_event")

    def __iter__(self) -> Iterator[Scene]:
        return (self[i] for i in range(len(self)))


def load_scenes(path: str | Path) -> MetadataList | list[Scene]:
    """Scenes of a file: a list of scenes or one scene, of either challenge. Raises InputError for any other file."""
    data = read_json(path, "a scene or a list of scenes")
    return MetadataList.load(path) if isinstance(data, list) else [Scene.from_dict(data, str(path))]
