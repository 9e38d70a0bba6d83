"""Data directories of ready-made mixtures: the test sets (with dry sources) and the evaluation sets (without)."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from s5.data import Row
from s5.errors import InputError
from s5.labels import LabelSet


def mixture_rows(mixtures: str | Path, sources: str | Path | None, labels: LabelSet, n_slots: int = 3) -> list[Row]:
    """Rows of a data directory, sorted.

    Args:
        mixtures: folder of ``<mixture>.wav``.
        sources: folder of ``<mixture>_<slot>_<Label>.wav`` (2026) or ``<mixture>_<Label>.wav`` (2025), in the order of
            their names; None: nothing is known about the mixtures.
        labels: that may occur.
        n_slots: most sources of a mixture.

    Raises:
        InputError: no mixture, a source of no mixture, an unknown label, too many sources, two of one slot.
    """
    names = [name.removesuffix(".wav") for name in _wavs(mixtures)]
    if not names:
        raise InputError(mixtures, "no .wav file", "mixtures")
    for name in names:
        if re.search(r"\s", name):
            raise InputError(mixtures, f"{name!r}.wav", "names without space")
    if sources is None:
        return [Row(name, f"{mixtures}/{name}.wav") for name in names]
    known = set(names)
    found: dict[str, list[tuple[int | None, str, str]]] = defaultdict(list)
    for file in _wavs(sources):
        mixture, slot, label = parse_source(file.removesuffix(".wav"), known, f"{sources}/{file}")
        labels.index(label, f"{sources}/{file}")
        if slot is not None and any(other == slot for other, _, _ in found[mixture]):
            raise InputError(f"{sources}/{file}", f"slot {slot} twice", "one source a slot")
        found[mixture].append((slot, label, f"{sources}/{file}"))
    rows = []
    for name in names:
        of_mixture = found[name]  # in the order of their names, as the baselines take them
        if len(of_mixture) > n_slots:
            raise InputError(sources, f"{len(of_mixture)} sources of {name}", f"at most {n_slots}")
        rows.append(
            Row(name, f"{mixtures}/{name}.wav", tuple(x[1] for x in of_mixture), tuple(x[2] for x in of_mixture))
        )
    return rows


def parse_source(stem: str, mixtures: Collection[str], where: object) -> tuple[str, int | None, str]:
    """Mixture, slot (None in the naming of 2025) and label of a source's file name without suffix.

    Raises:
        InputError: it begins with no mixture's name, or with two of them.

    Example:
        >>> parse_source("soundscape_0001_2_Speech", {"soundscape_0001"}, "")
        ('soundscape_0001', 2, 'Speech')
        >>> parse_source("soundscape_0001_Speech", {"soundscape_0001"}, "")
        ('soundscape_0001', None, 'Speech')
    """
    rest, _, label = stem.rpartition("_")
    base, _, slot = rest.rpartition("_")
    with_slot = slot.isdigit() and base in mixtures
    if with_slot and rest in mixtures:
        raise InputError(where, f"a source of {base} or of {rest}", "a name of one mixture")
    if with_slot:
        return base, int(slot), label
    if rest in mixtures:
        return rest, None, label
    raise InputError(where, "a source of no mixture", "<mixture>_<slot>_<Label>.wav or <mixture>_<Label>.wav")


def _wavs(folder: str | Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(".wav") and not name.startswith("."))
    except OSError as e:
        raise InputError(folder, e.strerror or "no folder", "a folder of .wav files") from e
