"""Class-dependent fusion of separators' outputs (seed 000, section 2.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def fuse(
    outputs: Mapping[str, np.ndarray],
    labels: Sequence[str],
    default: Mapping[str, float],
    classes: Mapping[str, Mapping[str, float]] | None = None,
) -> np.ndarray:
    """Weighted sum of the separators' waveforms, with weights a class (Eq. (4), seed 000).

    Where a label stands in several slots, the separators' outputs of that label are first matched to those of the first
    separator (lowest summed squared distance), so that two sources of a class are not mixed into each other.

    Args:
        outputs: [K, samples] of each separator, by name.
        labels: labels of the active slots, at most K; slots behind are silent.
        default: weight of each separator for classes that have none of their own; one that is not named has weight 0.
        classes: weights by label.

    Returns:
        [K, samples] float32, zeros in silent slots.
    """
    first = next(iter(outputs.values()))
    result = np.zeros_like(first, dtype=np.float32)
    for label in dict.fromkeys(labels):
        slots = [k for k, name in enumerate(labels) if name == label]
        weights = (classes or {}).get(label, default)
        for name, output in outputs.items():
            weight = weights.get(name, 0.0)
            if weight:
                result[slots] += np.float32(weight) * output[slots][_match(output[slots], first[slots])]
    return result


def _match(sources: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Order of ``sources`` [n, samples] that brings them nearest to ``reference``."""
    if len(sources) == 1:
        return np.array([0])
    from scipy.optimize import linear_sum_assignment

    distance = np.square(reference[:, None].astype(np.float64) - sources[None]).sum(-1)
    return linear_sum_assignment(distance)[1]
