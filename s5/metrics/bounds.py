"""Floors and ceilings of the metrics: what four known estimates reach on a mixture with the true labels.

Figures in dB mean little alone: a silent estimate already improves on a loud mixture, and the best gain for the whole
mixture improves more. Neither separates anything. The ideal mask is computed from the references.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from s5.metrics.class_aware import Select
from s5.metrics.scorer import score_mixture
from s5.metrics.sdr import as_waveform, as_waveforms
from s5.metrics.terms import Row

BOUNDS = ("silence", "mixture", "best gain", "ideal mask")
"""Names of the estimates, from the lowest to the highest figure of most sets."""

HOP = 0.016
"""Hop of the ideal mask's STFT in seconds; its window is twice as long."""


def bound_estimates(ref: np.ndarray, mixture: np.ndarray, fs: int) -> dict[str, np.ndarray]:
    """The estimates of :data:`BOUNDS` for each reference of a mixture.

    * silence: zeros.
    * mixture: the mixture itself, from which SDRi is counted.
    * best gain: :func:`best_gain`.
    * ideal mask: :func:`ideal_mask`.

    Args:
        ref: references [n, samples].
        mixture: reference channel of the mixture [samples].
        fs: sampling rate in Hz.

    Returns:
        [n, samples] by name.

    Raises:
        ValueError: the lengths differ.

    Example:
        >>> found = bound_estimates(np.eye(2, 8), np.eye(2, 8).sum(axis=0), 16000)
        >>> list(found), found["best gain"][0].round(1).tolist()
        (['silence', 'mixture', 'best gain', 'ideal mask'], [0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    """
    ref, mixture = as_waveforms(ref, "ref"), as_waveform(mixture, "mixture")
    if not len(ref):
        ref = np.zeros((0, len(mixture)), ref.dtype)
    if ref.shape[1] != len(mixture):
        raise ValueError(f"ref: {ref.shape[1]} samples, expected the mixture's {len(mixture)}")
    estimates = (
        np.zeros_like(ref),
        np.repeat(mixture[None], len(ref), axis=0),
        best_gain(ref, mixture),
        ideal_mask(ref, mixture, fs),
    )
    return dict(zip(BOUNDS, estimates, strict=True))


def score_bounds(
    utt: str,
    ref_labels: Sequence[str],
    ref: np.ndarray,
    mixture: np.ndarray,
    fs: int,
    select: Select = "sdr",
    penalty_fn: float = 0.0,
    penalty_fp: float = 0.0,
    scene: Mapping[str, Any] | None = None,
) -> dict[str, Row]:
    """Scores the estimates of :data:`BOUNDS` with the true labels.

    Args:
        fs: sampling rate in Hz.
        utt, ref_labels, ref, mixture, select, penalty_fn, penalty_fp, scene: as in :func:`s5.metrics.score_mixture`.

    Returns:
        A row of :func:`s5.metrics.score_mixture` by name.

    Example:
        >>> source = np.random.default_rng(0).standard_normal((1, 16000))
        >>> rows = score_bounds("a", ["Cough"], source, 2 * source[0], 16000)
        >>> [round(rows[name]["CAPI-SDRi"], 2) for name in ("silence", "mixture")]
        [0.0, 0.0]
    """
    options: dict[str, Any] = {"select": select, "penalty_fn": penalty_fn, "penalty_fp": penalty_fp, "scene": scene}
    return {
        name: score_mixture(utt, ref_labels, est, ref_labels, ref, mixture, **options)
        for name, est in bound_estimates(ref, mixture, fs).items()
    }


def best_gain(ref: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """The mixture times the gain that maximises the SDR, for each reference.

        g = <x, s> / |x|^2,    e = g x

    Args:
        ref: references s [n, samples].
        mixture: reference channel of the mixture x [samples].

    Returns:
        [n, samples].

    Example:
        >>> best_gain(np.array([[1.0, 0.0], [0.0, 3.0]]), np.array([1.0, 1.0])).tolist()
        [[0.5, 0.5], [1.5, 1.5]]
    """
    x = mixture.astype(np.float64)
    energy = float(x @ x)
    gains = ref.astype(np.float64) @ x / energy if energy else np.zeros(len(ref))
    return np.asarray(gains[:, None] * x, dtype=ref.dtype)


def ideal_mask(ref: np.ndarray, mixture: np.ndarray, fs: int) -> np.ndarray:
    """The mixture's spectrum times the ideal ratio mask of each reference. The phase is the mixture's.

        M_k = |S_k|^2 / (sum_j |S_j|^2 + |X - sum_j S_j|^2)

    S_k and X are the STFTs of reference k and of the mixture with a Hann window of 32 ms and half of it as hop, 512 and
    256 samples at 16 kHz. The last term is all that is no reference: background, interference and reverberation.

    Args:
        ref: references [n, samples].
        mixture: reference channel of the mixture [samples].
        fs: sampling rate in Hz.

    Returns:
        [n, samples].

    Example:
        >>> mixture = np.random.default_rng(0).standard_normal(4000)
        >>> halves = ideal_mask(np.stack([mixture, 0 * mixture]), mixture, 16000)
        >>> bool(np.allclose(halves[0], mixture)), bool((halves[1] == 0).all())
        (True, True)
    """
    hop = max(1, round(HOP * fs))
    s, x = _stft(ref, hop), _stft(mixture[None], hop)
    own, rest = _power(s), _power(x - s.sum(axis=0))
    whole = own.sum(axis=0) + rest
    return _istft(x * (own / np.maximum(whole, np.finfo(own.dtype).tiny)), hop, len(mixture))


def _power(spectrum: np.ndarray) -> np.ndarray:
    return np.asarray(spectrum.real**2 + spectrum.imag**2)


def _stft(waveforms: np.ndarray, hop: int) -> np.ndarray:
    """[n, samples] -> [n, frames, bins]: frames of two hops, the first one centred on the first sample."""
    n, length = waveforms.shape
    n_blocks = -(-length // hop) + 2  # a frame is two neighbouring blocks
    padded = np.zeros((n, n_blocks * hop), waveforms.dtype)
    padded[:, hop : hop + length] = waveforms
    blocks = padded.reshape(n, n_blocks, hop)
    frames = np.concatenate([blocks[:, :-1], blocks[:, 1:]], axis=2)
    return np.asarray(np.fft.rfft(frames * _window(hop).astype(waveforms.dtype)))


def _istft(spectrum: np.ndarray, hop: int, length: int) -> np.ndarray:
    """Inverse of :func:`_stft` with the least squared error: [n, frames, bins] -> [n, length]."""
    window = _window(hop)
    frames = np.fft.irfft(spectrum, 2 * hop) * window.astype(spectrum.real.dtype)
    blocks = np.zeros((len(frames), frames.shape[1] + 1, hop), frames.dtype)
    blocks[:, :-1] += frames[..., :hop]
    blocks[:, 1:] += frames[..., hop:]
    blocks /= (window[:hop] ** 2 + window[hop:] ** 2).astype(frames.dtype)
    return blocks.reshape(len(blocks), blocks.shape[1] * hop)[:, hop : hop + length]


def _window(hop: int) -> np.ndarray:
    """Periodic Hann window of two hops."""
    return np.hanning(2 * hop + 1)[:-1]
