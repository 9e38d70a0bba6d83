"""Signal-to-distortion ratio and its improvement over the mixture."""

from __future__ import annotations

import math

import numpy as np

EPS = float(np.finfo(np.float32).eps)
"""Added to numerator and denominator, as torchmetrics' signal_noise_ratio does in float32."""


def sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """SDR of one waveform in dB: 10 log10(|s|^2 / |s - e|^2), no mean removed (Eq. (4), CA-PI-SDR).

    Args:
        estimate: [samples].
        reference: [samples].

    Raises:
        ValueError: the waveforms differ in length or hold values that are not finite.

    Example:
        >>> round(sdr(np.full(100, 0.9), np.ones(100)), 2)
        20.0
    """
    estimate, reference = as_waveform(estimate, "estimate"), as_waveform(reference, "reference")
    return float(pairwise_sdr(estimate[None], reference[None])[0, 0])


def sdri(estimate: np.ndarray, reference: np.ndarray, mixture: np.ndarray) -> float:
    """Improvement of the SDR in dB over taking the mixture itself as the estimate (Eq. (11), CA-PI-SDR).

    Args:
        estimate: [samples].
        reference: [samples].
        mixture: reference channel of the mixture [samples].

    Example:
        >>> round(sdri(np.full(100, 0.9), np.ones(100), np.full(100, 2.0)), 2)
        20.0
    """
    return sdr(estimate, reference) - sdr(mixture, reference)


def pairwise_sdr(estimate: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """SDR of every estimate against every reference.

    Args:
        estimate: [n, samples].
        reference: [m, samples].

    Returns:
        [m, n] float64 in dB.

    Example:
        >>> x = np.eye(2)
        >>> pairwise_sdr(0.9 * x, x).round(1).tolist()
        [[20.0, -2.6], [-2.6, 20.0]]
    """
    estimate, reference = as_waveforms(estimate, "estimate"), as_waveforms(reference, "reference")
    # One precision on both sides: the level of a silent estimate is then exactly 0 dB against any reference.
    dtype = np.result_type(estimate, reference)
    estimate, reference = estimate.astype(dtype, copy=False), reference.astype(dtype, copy=False)
    if len(estimate) and len(reference):
        _check_length(estimate[0], reference[0])
    # The difference is taken before squaring: |s|^2 - 2<s, e> + |e|^2 cancels for good estimates.
    matrix = np.empty((len(reference), len(estimate)))
    for i, source in enumerate(reference):
        energy = _energy(source)
        matrix[i] = [_level(energy, _energy(source - waveform)) for waveform in estimate]
    return matrix


def as_waveform(waveform: np.ndarray, name: str) -> np.ndarray:
    """The waveform as a floating-point array of one dimension; ValueError naming it where it is none."""
    waveform = np.asarray(waveform)
    if waveform.ndim != 1:
        raise ValueError(f"{name}: shape {waveform.shape}, expected [samples]")
    return _as_float(waveform, name)


def as_waveforms(waveforms: np.ndarray, name: str) -> np.ndarray:
    """The waveforms as a floating-point array [n, samples]; an empty list is [0, 0]."""
    waveforms = np.asarray(waveforms)
    if waveforms.shape == (0,):
        waveforms = waveforms.reshape(0, 0)
    if waveforms.ndim != 2:
        raise ValueError(f"{name}: shape {waveforms.shape}, expected [n, samples]")
    return _as_float(waveforms, name)


def _as_float(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    # One number tells whether any value is not finite: their sum is not either.
    if not np.isfinite(array.sum()) and not np.isfinite(array).all():
        raise ValueError(f"{name}: values that are not finite")
    return array


def _check_length(estimate: np.ndarray, reference: np.ndarray) -> None:
    if estimate.shape != reference.shape:
        raise ValueError(f"estimate has {len(estimate)} samples, reference {len(reference)}: expected the same")


def _energy(waveform: np.ndarray) -> float:
    return float(np.dot(waveform, waveform))


def _level(signal: float, noise: float) -> float:
    return 10 * math.log10((signal + EPS) / (noise + EPS))
