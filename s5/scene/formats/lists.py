"""Lists of scenes: the ``valid.json`` of both challenges' development sets.

A list is a JSON array; an entry names a scene's file relative to the list's folder (or in full). In 2025, in its second
version, it says the order of the slots too:

    [{"metadata_path": "valid/0000.json"}, {"metadata_path": "valid/0001.json", "ref_event": ["Cough", "Speech"]}]
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s5.scene.spec import Scene, pop_fields, save_json
from s5.utils.errors import InputError
from s5.utils.text import read_json


@dataclass
class Entry:
    """One entry of a list.

    Attributes:
        metadata_path: of the scene, relative to the list's folder, or absolute.
        ref_event: labels in the order of the slots; None: onset order.
        extra: keys that we do not know.
    """

    metadata_path: str
    ref_event: list[str] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Any, where: str) -> Entry:
        """Reads an entry's JSON object. Raises InputError naming ``where`` and the key."""
        known, extra = pop_fields(data, where, {"metadata_path": (str,)})
        slots = extra.pop("ref_event", None)
        if slots is not None and not (isinstance(slots, list) and all(isinstance(label, str) for label in slots)):
            raise InputError(f"{where}.ref_event", repr(slots)[:80], "a list of labels")
        return cls(known["metadata_path"], slots, extra)

    def to_dict(self) -> dict[str, Any]:
        """The entry's JSON object."""
        slots = {} if self.ref_event is None else {"ref_event": self.ref_event}
        return {"metadata_path": self.metadata_path} | slots | self.extra


class MetadataList:
    """The scenes of a list, each read when it is asked for.

    Args:
        folder: that the entries' paths start from.
        entries: of the list.

    Example:
        scenes = MetadataList.load("data/dev_set/metadata/valid.json")
        for name, scene in zip(scenes.names, scenes):
            rendered = render(scene)
    """

    def __init__(self, folder: str | Path, entries: Sequence[Entry]) -> None:
        self.folder, self.entries = Path(folder), list(entries)

    @classmethod
    def load(cls, path: str | Path) -> MetadataList:
        """Reads a list (not yet its scenes). Raises InputError naming the file and the entry."""
        data = read_json(path, "a list of scenes")
        if not isinstance(data, list):
            raise InputError(path, f"a JSON {type(data).__name__}", 'a list of {"metadata_path": ...}')
        return cls(Path(path).parent, [Entry.from_dict(entry, f"{path}[{i}]") for i, entry in enumerate(data)])

    def save(self, path: str | Path) -> None:
        """Writes the list (not its scenes). Paths that are relative have to be so to the folder of ``path``."""
        save_json([entry.to_dict() for entry in self.entries], path)

    @property
    def names(self) -> list[str]:
        """Names that the baselines give the scenes: ``soundscape_0000`` ..., by place in the list."""
        return [f"soundscape_{i:04d}" for i in range(len(self))]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Scene:
        """The scene of an entry. Raises InputError for a bad file."""
        entry = self.entries[index]
        path = os.path.join(self.folder, entry.metadata_path)
        scene = Scene.load(path)
        return scene if entry.ref_event is None else scene.with_slots(entry.ref_event, f"{path}: ref_event")

    def __iter__(self) -> Iterator[Scene]:
        return (self[i] for i in range(len(self)))


def load_scenes(path: str | Path) -> MetadataList | list[Scene]:
    """The scenes of a file, which may be a list of scenes or one scene, of either challenge.

    Raises:
        InputError: neither.
    """
    data = read_json(path, "a scene or a list of scenes")
    return MetadataList.load(path) if isinstance(data, list) else [Scene.from_dict(data, str(path))]
