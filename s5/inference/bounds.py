"""Reads and writes the floors and ceilings of a data set, ``exp/bounds/<set>`` (:mod:`s5.metrics.bounds`).

    silence.json, mixture.json, best_gain.json, ideal_mask.json

Each file has the keys of a ``scores.json``, so ``compare`` takes it as a system. They belong to the data set, not to a
system: the first scoring of the set computes them. Each row of ``mixtures`` also has the ``checksum`` of what it was
computed from. Later scorings compute only the mixtures whose checksum has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from s5.inference.results import read_scores
from s5.metrics import BOUNDS, Bootstrap, Scorer
from s5.metrics.terms import Row
from s5.utils.files import write_json

FOLDER = "bounds"
"""Folder of an experiment folder that holds the floors and ceilings of its data sets."""

VERSION = 1
"""Part of every checksum. A new number makes all mixtures be computed again."""

_KEYS = {"metrics", "counts", "by_n_sources", "by_subset"}

Rows = Mapping[str, Row]
"""Rows of one mixture by the name of the bound."""


class BoundsFolder:
    """Floors and ceilings of one data set.

    Args:
        path: the folder; None: they are kept nowhere.

    Raises:
        InputError: a file of the folder is damaged.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.scores = {} if path is None else read_bounds(path)
        tables = [{row["utt"]: row for row in self.scores.get(name, {}).get("mixtures", [])} for name in BOUNDS]
        self._rows: dict[str, Rows] = {}
        for utt in tables[0]:
            rows = {name: table[utt] for name, table in zip(BOUNDS, tables, strict=True) if utt in table}
            if len(rows) == len(BOUNDS) and len({row.get("checksum") for row in rows.values()}) == 1:
                self._rows[utt] = rows

    def checksums(self) -> dict[str, str | None]:
        """Checksum of each known mixture."""
        return {utt: rows[BOUNDS[0]].get("checksum") for utt, rows in self._rows.items()}

    def rows(self, utt: str) -> Rows:
        """Rows of a known mixture."""
        return self._rows[utt]

    def update(
        self, mixtures: Sequence[Rows], name: str, options: Mapping[str, Any], bootstrap: Bootstrap | None
    ) -> dict[str, dict[str, Any]]:
        """Scores of the whole data set by the name of the bound; files that have changed are written.

        Args:
            mixtures: rows of all mixtures.
            name: name of the data set.
            options: options of :class:`s5.metrics.Scorer`.
            bootstrap: settings of the intervals; None: no intervals.
        """
        settings = None if bootstrap is None else asdict(bootstrap)
        for bound in BOUNDS:
            rows = [mixture[bound] for mixture in mixtures]
            head = {"set": name, "system": bound, "oracle_labels": True, "options": dict(options)}
            known = self.scores.get(bound, {})
            intervals = known.get("intervals")
            same = settings == (intervals and {key: intervals.get(key) for key in settings or {}})
            if same and {**head, "mixtures": rows}.items() <= known.items() and known.keys() >= _KEYS:
                continue
            scorer = Scorer(**options, bootstrap=bootstrap)
            scorer.rows.extend(rows)
            self.scores[bound] = {**head, **scorer.compute()}
            if self.path is not None:
                self.path.mkdir(parents=True, exist_ok=True)
                write_json(file_of(self.path, bound), self.scores[bound], indent=1, allow_nan=False)
        return self.scores


def file_of(folder: Path, bound: str) -> Path:
    """File of a bound in the folder of a data set."""
    return folder / f"{bound.replace(' ', '_')}.json"


def read_bounds(folder: Path) -> dict[str, dict[str, Any]]:
    """Scores of those bounds that a folder has, by name. Raises InputError for a damaged file."""
    files = {name: file_of(folder, name) for name in BOUNDS}
    return {name: read_scores(file) for name, file in files.items() if file.is_file()}


def checksum(
    ref_labels: Sequence[str],
    ref: np.ndarray,
    mixture: np.ndarray,
    fs: int,
    scene: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> str:
    """Checksum of all that the bounds of a mixture depend on.

    Args:
        ref_labels, ref, mixture, fs, scene: as in :func:`s5.metrics.score_bounds`.
        options: options of the metric.
    """
    facts = [VERSION, fs, list(ref_labels), list(ref.shape), str(ref.dtype), str(mixture.dtype), scene, dict(options)]
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8)
    for samples in (ref, mixture):
        digest.update(np.ascontiguousarray(samples).data)
    return digest.hexdigest()
