"""What is in the experiment folder: every scores.json that stage 11 left, newest first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s5.inference.results import Results
from s5.utils.errors import InputError

ORACLE = "_oracle"
"""Ending of a results folder whose separators were given the reference labels."""


@dataclass(frozen=True)
class Result:
    """One system on one data set, as scored by stage 11.

    Attributes:
        path: the results folder ``exp/<system>/<set>`` or ``exp/<system>/<set>_oracle``.
        oracle: the separators were given the reference labels instead of the tagged ones.
        scores: contents of ``scores.json``.
        time: when it was scored, in seconds since the epoch.
    """

    path: Path
    oracle: bool
    scores: dict[str, Any]
    time: float

    @property
    def system(self) -> str:
        """Name of the system: its folder in the experiment folder."""
        return self.path.parent.name

    @property
    def set(self) -> str:
        """Name of the data set, the same with tagged and with oracle labels."""
        return self.path.name.removesuffix(ORACLE) if self.oracle else self.path.name

    @property
    def labels(self) -> str:
        """Where the labels came from: ``tagged`` or ``oracle``."""
        return "oracle" if self.oracle else "tagged"

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Reads the ``scores.json`` of a results folder.

        Raises:
            InputError: the file is missing, or is not what stage 11 writes.
        """
        results = Results(path)
        scores = results.scores()
        oracle = scores.get("oracle_labels")
        oracle = Path(path).name.endswith(ORACLE) if oracle is None else bool(oracle)
        return cls(Path(path), oracle, scores, results.scores_file.stat().st_mtime)


def find_results(expdir: str | Path) -> list[Result]:
    """Every scored system and data set of an experiment folder, newest first.

    Raises:
        InputError: a ``scores.json`` is not what stage 11 writes.
    """
    found = [Result.load(file.parent) for file in sorted(Path(expdir).glob("*/*/scores.json"))]
    return sorted(found, key=lambda result: -result.time)


def by_set(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Data set -> its results: systems in the given order, each system's tagged row before its oracle row."""
    sets: dict[str, list[Result]] = {}
    for result in results:
        sets.setdefault(result.set, []).append(result)
    for rows in sets.values():
        order = list(dict.fromkeys(row.system for row in rows))
        rows.sort(key=lambda row: (order.index(row.system), row.oracle))
    return dict(sorted(sets.items()))


def of_system(results: Iterable[Result], system: str, expdir: str | Path) -> dict[str, list[Result]]:
    """Data set -> results of one system (tagged first).

    Raises:
        InputError: the system has no scores at all.
    """
    own = by_set(result for result in results if result.system == system)
    if not own:
        raise InputError(
            Path(expdir) / system, "no scored data set", f"{system}/<set>/scores.json, which stage 11 writes"
        )
    return own
