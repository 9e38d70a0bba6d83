"""Makes data directories of ready-made mixtures: test sets with dry sources, and evaluation sets without."""

from __future__ import annotations

import re
from pathlib import Path

from s5.data import Row
from s5.data.names import audio_files, find_source_files
from s5.labels import LabelSet
from s5.utils.errors import InputError


def mixture_rows(mixtures: str | Path, sources: str | Path | None, labels: LabelSet, n_slots: int = 3) -> list[Row]:
    """Rows of a data directory, sorted by name.

    Args:
        mixtures: folder of ``<mixture>.wav``.
        sources: folder of ``<mixture>_<slot>_<Label>.wav`` (2026), in the order of the slots, or of
            ``<mixture>_<Label>.wav`` (2025), in the order of the names; None for mixtures without known sources.
        labels: allowed labels.
        n_slots: largest number of sources of a mixture.

    Raises:
        InputError: there is no mixture, or a source has no mixture, an unknown label or another source's slot, or a
            mixture has too many sources.
    """
    files = audio_files(mixtures)
    if not files:
        raise InputError(mixtures, "no .wav file", "mixtures")
    for name, file in files.items():
        if re.search(r"\s", name):
            raise InputError(mixtures, repr(file.name), "names without space")
    if sources is None:
        return [Row(name, str(file)) for name, file in files.items()]
    found = find_source_files(sources, files)
    rows = []
    for name, file in files.items():
        of_mixture = found[name].values()
        for source in of_mixture:
            labels.index(source.label, source.path)
        if len(of_mixture) > n_slots:
            raise InputError(sources, f"{len(of_mixture)} sources of {name}", f"at most {n_slots}")
        paths = tuple(str(source.path) for source in of_mixture)
        rows.append(Row(name, str(file), tuple(source.label for source in of_mixture), paths))
    return rows
