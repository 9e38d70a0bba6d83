"""Turns multi-hot posteriors into labels by a threshold. Needs only NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s5.utils.errors import InputError


@dataclass(frozen=True)
class MultiHotDecision:
    """Rule that turns a multi-hot posterior into labels; the defaults are those of the DCASE 2025 baseline.

    Attributes:
        threshold: a class at or above this probability is present.
        n_min: least number of classes; the most probable ones below the threshold complete it.
        n_max: greatest number of classes.
    """

    threshold: float = 0.5
    n_min: int = 1
    n_max: int = 3

    def __post_init__(self) -> None:
        _check(self.n_min, self.n_max)


def decide_multihot(
    posterior: np.ndarray, threshold: float = 0.5, n_min: int = 1, n_max: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Selects the classes at or above a threshold, by falling probability, at least ``n_min`` and at most ``n_max``.

    Args:
        posterior: [C] or [1, C], one probability per class, without silence.
        threshold, n_min, n_max: as in :class:`MultiHotDecision`.

    Returns:
        Class indices [n] int64 and their probabilities [n] float64; of tied classes the lower index comes first.

    Example:
        >>> index, probability = decide_multihot(np.array([[0.1, 0.6, 0.2, 0.9]]))
        >>> index.tolist(), probability.tolist()
        ([3, 1], [0.9, 0.6])
        >>> [decide_multihot(np.array([0.1, 0.3]), n_min=n)[0].tolist() for n in (0, 1)]
        [[], [1]]
    """
    if posterior.ndim == 2 and len(posterior) == 1:
        posterior = posterior[0]
    if posterior.ndim != 1:
        raise ValueError(f"posterior of shape {posterior.shape}, expected [C] or [1, C]")
    _check(n_min, n_max)
    order = np.argsort(-posterior, kind="stable")
    present = int((posterior >= threshold).sum())
    index = order[: min(max(present, n_min), n_max)].astype(np.int64)
    return index, posterior[index].astype(np.float64)


def _check(n_min: int, n_max: int) -> None:
    if not 0 <= n_min <= n_max:
        raise InputError("decision", f"n_min {n_min}, n_max {n_max}", "0 <= n_min <= n_max")
