"""Computes bootstrap intervals of figures over mixtures, and of the difference between two systems.

Each resampled set has as many mixtures as the original, drawn with replacement, and yields a figure. The interval lies
between two percentiles of these figures (Efron's percentile bootstrap). Sources of one mixture stay together, because
they are not independent. Two systems are compared on the same draws, so the difficulty of a mixture cancels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from s5.metrics.terms import PartialSums

_DRAWS_AT_ONCE = 4_000_000

Interval = tuple[float, float]


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the intervals, and their computation.

    Attributes:
        resamples: number of resampled sets.
        level: level of the interval in percent.
        seed: seed of the draws; equal seeds make equal intervals.
    """

    resamples: int = 1000
    level: float = 95.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1 or not 0 < self.level < 100:
            raise ValueError(f"{self}: expected at least one resample and a level between 0 and 100 percent")

    def intervals(self, terms: PartialSums) -> dict[str, Interval | None]:
        """Interval of each figure; None if fewer than two mixtures count for it.

        Example:
            >>> terms = PartialSums(("mean",), np.array([[0.0], [1.0]] * 50), np.ones((100, 1)))
            >>> low, high = Bootstrap().intervals(terms)["mean"]
            >>> round(low, 1), round(high, 1)
            (0.4, 0.6)
        """
        return dict(zip(terms.names, self._percentiles(self._figures(terms), _enough(terms)), strict=True))

    def differences(self, first: PartialSums, second: PartialSums) -> dict[str, Difference]:
        """Differences of a second system to a first one on the same mixtures in the same order.

        Example:
            >>> first = PartialSums(("mean",), np.array([[0.0], [1.0]] * 50), np.ones((100, 1)))
            >>> second = PartialSums(("mean",), first.numerator + 0.2, first.denominator)
            >>> found = Bootstrap().differences(first, second)["mean"]
            >>> round(found.gained, 2), [round(end, 2) for end in found.interval]
            (0.2, [0.2, 0.2])

        Raises:
            ValueError: the figures or the number of mixtures differ.
        """
        if first.names != second.names or first.numerator.shape != second.numerator.shape:
            raise ValueError(f"{second.numerator.shape} terms, expected {first.numerator.shape} of the same figures")
        gained = self._figures(second) - self._figures(first)
        intervals = self._percentiles(gained, _enough(first) & _enough(second))
        values = zip(first.values().values(), second.values().values(), intervals, strict=True)
        return {name: Difference(a, b, interval) for name, (a, b, interval) in zip(first.names, values, strict=True)}

    def _figures(self, terms: PartialSums) -> np.ndarray:
        """Figures of each resampled set [resamples, m]; NaN without anything that counts."""
        parts = []
        with np.errstate(invalid="ignore", divide="ignore"):
            for weights in _weights(len(terms.numerator), self.resamples, self.seed):
                parts.append((weights @ terms.numerator) / (weights @ terms.denominator))
        return np.concatenate(parts)

    def _percentiles(self, figures: np.ndarray, enough: np.ndarray) -> list[Interval | None]:
        tail = (100.0 - self.level) / 2
        found: list[Interval | None] = []
        for column, known in zip(figures.T, enough, strict=True):
            column = column[np.isfinite(column)]  # a draw may have no mixture that counts
            if not known or not len(column):
                found.append(None)
                continue
            low, high = np.percentile(column, [tail, 100.0 - tail])
            found.append((float(low), float(high)))
        return found


@dataclass(frozen=True)
class Difference:
    """A figure of two systems, and the interval of the second one minus the first one.

    Attributes:
        first, second: the figures; None if nothing counts.
        interval: interval of the difference; None if fewer than two mixtures count.
    """

    first: float | None
    second: float | None
    interval: Interval | None

    @property
    def gained(self) -> float | None:
        """Second minus first."""
        return None if self.first is None or self.second is None else self.second - self.first

    @property
    def ahead(self) -> int:
        """1 if the second is better, -1 if the first is, 0 if the interval includes zero or is None."""
        if self.interval is None:
            return 0
        low, high = self.interval
        return int(low > 0) - int(high < 0)


def _enough(terms: PartialSums) -> np.ndarray:
    """Whether at least two mixtures count for each figure, [m] bool."""
    return (terms.denominator > 0).sum(axis=0) > 1


def _weights(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields the number of draws of each of n mixtures, [some resamples, n], until all resamples are done."""
    step = max(1, _DRAWS_AT_ONCE // max(n, 1))
    for begin in range(0, resamples, step):
        yield _drawn(n, min(step, resamples - begin), (seed, begin))


@lru_cache(maxsize=2)  # the breakdowns of a test set share their draws
def _drawn(n: int, count: int, seed: tuple[int, int]) -> np.ndarray:
    if not n:
        return np.zeros((count, 0))
    places = np.random.default_rng(seed).integers(n, size=(count, n)) + n * np.arange(count)[:, None]
    return np.bincount(places.ravel(), minlength=count * n).reshape(count, n).astype(np.float64)
