"""CAPI-SDRi of weighted sums of waveforms from their inner products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from s5.metrics.class_aware import Levels, pair
from s5.metrics.sdr import EPS


def improvement(
    products: np.ndarray, mix: np.ndarray, labels: Sequence[str], ref_labels: Sequence[str]
) -> float | None:
    """CAPI-SDRi in dB of a mixture; None without references and estimates.

    Args:
        products: inner products [signals, signals]; the last signals are the references, then the mixture's reference
            channel.
        mix: weight of each signal in each estimate [n, signals].
        labels: labels of the estimates.
        ref_labels: labels of the references.
    """
    refs = slice(len(products) - 1 - len(ref_labels), len(products) - 1)
    energies = np.einsum("ks,st,kt->k", mix, products, mix)
    # |s - e|^2 of every estimate, and of the mixture in the last column.
    own = np.diag(products)[refs]
    cross = np.concatenate([products[refs] @ mix.T, products[refs, -1:]], axis=1)
    error = own[:, None] - 2 * cross + np.append(energies, products[-1, -1])[None]
    sdr = 10 * np.log10((own[:, None] + EPS) / (np.maximum(error, 0) + EPS))
    found = Levels(sdr[:, :-1].reshape(len(ref_labels), len(labels)), sdr[:, -1])
    return pair(list(labels), list(ref_labels), found).value()
