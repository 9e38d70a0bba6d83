"""Finds the results in an experiment folder: every scores.json of stage 11, newest first; floors and ceilings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s5.inference.bounds import FOLDER, file_of, read_bounds
from s5.inference.results import Results
from s5.utils.errors import InputError

ORACLE = "_oracle"
"""Suffix of a results folder whose separators were given the reference labels."""


@dataclass(frozen=True)
class Result:
    """Scores of one system on one data set.

    Attributes:
        path: the results folder ``exp/<system>/<set>`` or ``exp/<system>/<set>_oracle``.
        oracle: whether the separators were given the reference labels instead of the tagged ones.
        scores: content of ``scores.json``.
        time: time of scoring in seconds since the epoch.
    """

    path: Path
    oracle: bool
    scores: dict[str, Any]
    time: float

    @property
    def system(self) -> str:
        """Name of the system, which is its folder's name."""
        return self.path.parent.name

    @property
    def set(self) -> str:
        """Name of the data set, the same with tagged and with oracle labels."""
        return self.path.name.removesuffix(ORACLE) if self.oracle else self.path.name

    @property
    def labels(self) -> str:
        """Origin of the labels: ``tagged`` or ``oracle``."""
        return "oracle" if self.oracle else "tagged"

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Reads the ``scores.json`` of a results folder. Raises InputError if stage 11 did not write it."""
        results = Results(path)
        scores = results.scores()
        oracle = scores.get("oracle_labels")
        oracle = Path(path).name.endswith(ORACLE) if oracle is None else bool(oracle)
        return cls(Path(path), oracle, scores, results.scores_file.stat().st_mtime)


class Bound(Result):
    """Scores of a floor or ceiling of a data set (:mod:`s5.metrics.bounds`), ``<expdir>/bounds/<set>/<name>.json``."""

    @property
    def system(self) -> str:
        """Name of the bound."""
        return str(self.scores["system"])

    @property
    def set(self) -> str:
        """Name of the data set, which is its folder's name."""
        return self.path.parent.name


def find_bounds(expdir: str | Path, set_name: str) -> list[Bound]:
    """Floors and ceilings of a data set, lowest first; none if stage 11 has not computed them."""
    folder = Path(expdir) / FOLDER / set_name
    return [Bound(file_of(folder, name), True, scores, 0.0) for name, scores in read_bounds(folder).items()]


def find_results(expdir: str | Path) -> list[Result]:
    """All results of an experiment folder, newest first. Raises InputError for a wrong ``scores.json``."""
    found = [Result.load(file.parent) for file in sorted(Path(expdir).glob("*/*/scores.json"))]
    return sorted(found, key=lambda result: -result.time)


def by_set(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by data set: systems in the given order, each with tagged before oracle labels."""
    sets: dict[str, list[Result]] = {}
    for result in results:
        sets.setdefault(result.set, []).append(result)
    for rows in sets.values():
        order = list(dict.fromkeys(row.system for row in rows))
        rows.sort(key=lambda row: (order.index(row.system), row.oracle))
    return dict(sorted(sets.items()))


def of_system(results: Iterable[Result], system: str, expdir: str | Path) -> dict[str, list[Result]]:
    """Results of one system by data set. Raises InputError if it has none."""
    own = by_set(result for result in results if result.system == system)
    if not own:
        expected = f"{system}/<set>/scores.json, which stage 11 writes"
        raise InputError(Path(expdir) / system, "no scored data set", expected)
    return own
