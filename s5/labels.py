"""Defines label sets: class indices, one-hot vectors and the conventions for silence.

The index of a label is its position in the set. Taggers use class C (one past the last label) for ``silence``; a
separator's query uses the zero vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s5.utils.errors import InputError, one_of
from s5.utils.text import read_text

SILENCE = "silence"

DCASE_LABELS = (
    "AlarmClock",
    "BicycleBell",
    "Blender",
    "Buzzer",
    "Clapping",
    "Cough",
    "CupboardOpenClose",
    "Dishes",
    "Doorbell",
    "FootSteps",
    "HairDryer",
    "MechanicalFans",
    "MusicalKeyboard",
    "Percussion",
    "Pour",
    "Speech",
    "Typing",
    "VacuumCleaner",
)
"""The 18 labels of DCASE 2025 and 2026 Task 4, in the order of their class index."""


@dataclass(frozen=True)
class LabelSet:
    """An ordered set of labels.

    Example:
        >>> labels = LabelSet(("Cough", "Speech"))
        >>> labels.index("Speech"), labels.index("silence"), len(labels)
        (1, 2, 2)
        >>> labels.query(["Speech", "silence"], 3).tolist()
        [[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    """

    names: tuple[str, ...] = DCASE_LABELS

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        for i, name in enumerate(self.names):
            bad = any(c.isspace() or c in "/_" for c in name) or not name.isprintable()
            if name == SILENCE or not name or bad:
                raise InputError("label set", repr(name), "a word without space, '/' or '_', other than 'silence'")
            if name in self.names[:i]:
                raise InputError("label set", f"{name} twice", "each label once")
        if not self.names:
            raise InputError("label set", "no label", "at least one")

    @classmethod
    def load(cls, path: str | Path) -> LabelSet:
        """Reads a text file with one label per line, in the order of the class index."""
        lines = read_text(path, "a text file with one label per line").split("\n")
        return cls(tuple(line.strip() for line in lines if line.strip()))

    def save(self, path: str | Path) -> None:
        """Writes a text file with one label per line."""
        Path(path).write_text("".join(f"{name}\n" for name in self.names), encoding="utf-8")

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    @property
    def silence_index(self) -> int:
        """Class index of ``silence``: C, the number of labels."""
        return len(self.names)

    def index(self, name: str, where: object = "label") -> int:
        """Class index of a label; C for ``silence``. Raises InputError naming ``where`` for an unknown label."""
        if name == SILENCE:
            return len(self.names)
        try:
            return self.names.index(name)
        except ValueError:
            raise InputError(where, f"label {name}", one_of(self.names, name)) from None

    def name(self, index: int) -> str:
        """Label of a class index; ``silence`` for C."""
        return SILENCE if index == len(self.names) else self.names[index]

    def indices(self, names: Sequence[str], n_slots: int, where: object = "label") -> np.ndarray:
        """Class indices [n_slots] int64, padded with silence (C)."""
        if len(names) > n_slots:
            raise InputError(where, f"{len(names)} labels", f"at most {n_slots}")
        padded = list(names) + [SILENCE] * (n_slots - len(names))
        return np.array([self.index(name, where) for name in padded], dtype=np.int64)

    def query(self, names: Iterable[str], n_slots: int, where: object = "label") -> np.ndarray:
        """Query of a separator [n_slots, C] float32: one-hot rows, zeros for silence."""
        index = self.indices(list(names), n_slots, where)
        return np.eye(len(self) + 1, dtype=np.float32)[index, : len(self)]
