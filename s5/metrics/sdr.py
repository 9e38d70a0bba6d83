"""Computes the signal-to-distortion ratio and its improvement over the mixture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EPS = float(np.finfo(np.float32).eps)
"""Constant added to numerator and denominator, as in torchmetrics' signal_noise_ratio in float32."""

PIECE = 8192
"""Number of samples that are processed at once."""


def sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """SDR of one waveform in dB; the mean is not removed (Eq. (4), CA-PI-SDR).

        SDR(e, s) = 10 log10((|s|^2 + eps) / (|s - e|^2 + eps))

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
    """Improvement of the SDR in dB over the mixture as the estimate (Eq. (11), CA-PI-SDR).

        SDRi(e, s, x) = SDR(e, s) - SDR(x, s)

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
    """SDR (:func:`sdr`) of every estimate against every reference.

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
    if len(estimate) and len(reference) and estimate.shape[1] != reference.shape[1]:
        found = f"estimate has {estimate.shape[1]} samples, reference {reference.shape[1]}"
        raise ValueError(f"{found}: expected the same")
    matrix = pairwise_levels(list(estimate), list(reference))
    if not np.isfinite(matrix).all():
        check_finite(estimate, "estimate")
        check_finite(reference, "reference")
    return matrix


def pairwise_levels(estimates: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> np.ndarray:
    """SDR in dB of every estimate against every reference, [references, estimates], without checks.

    Args:
        estimates: floating-point arrays [samples].
        references: floating-point arrays [samples] of the same length.
    """
    if not estimates or not references:
        return np.empty((len(references), len(estimates)))
    # With one precision on both sides, the SDR of a silent estimate is exactly 0 dB against any reference.
    dtype = np.result_type(*estimates, *references)
    signal = np.zeros((len(references), 1))
    noise = np.zeros((len(references), len(estimates)))
    length = len(references[0])
    # A piece of all waveforms and of all differences fits the processor's cache, so each waveform is read from memory
    # only once.
    e, r = np.empty((len(estimates), PIECE), dtype), np.empty((len(references), PIECE), dtype)
    difference = np.empty((len(references), len(estimates), PIECE), dtype)
    for begin in range(0, length, PIECE):
        n = min(PIECE, length - begin)
        for buffer, waveforms in ((e, estimates), (r, references)):
            for row, waveform in zip(buffer, waveforms, strict=True):
                row[:n] = waveform[begin : begin + n]
        # The difference comes before the square, because |s|^2 - 2<s, e> + |e|^2 cancels for good estimates.
        np.subtract(r[:, None, :n], e[None, :, :n], out=difference[:, :, :n])
        signal[:, 0] += _energy(r[:, :n])
        noise += _energy(difference[:, :, :n])
    return 10 * np.log10((signal + EPS) / (noise + EPS))


def is_silent(waveform: np.ndarray) -> bool:
    """Whether a waveform [samples] has less energy than ``EPS``, so that ``EPS`` dominates its SDR.

    Example:
        >>> is_silent(np.full(100, 1e-6)), is_silent(np.full(100, 1e-4))
        (True, False)
    """
    waveform = _as_float(np.asarray(waveform))
    return float(np.vdot(waveform, waveform)) < EPS


def as_waveform(waveform: np.ndarray, name: str) -> np.ndarray:
    """Converts a waveform to floating point [samples]. Raises ValueError for another shape."""
    waveform = np.asarray(waveform)
    if waveform.ndim != 1:
        raise ValueError(f"{name}: shape {waveform.shape}, expected [samples]")
    return _as_float(waveform)


def as_waveforms(waveforms: np.ndarray, name: str) -> np.ndarray:
    """Converts waveforms to floating point [n, samples]; an empty list becomes [0, 0]. Raises ValueError."""
    waveforms = np.asarray(waveforms)
    if waveforms.shape == (0,):
        waveforms = waveforms.reshape(0, 0)
    if waveforms.ndim != 2:
        raise ValueError(f"{name}: shape {waveforms.shape}, expected [n, samples]")
    return _as_float(waveforms)


def check_finite(array: np.ndarray, name: str) -> None:
    """Raises ValueError if a value of the array is not finite."""
    # The energy is a quick test: it is not finite if any value is not.
    if not np.isfinite(np.vdot(array, array)) and not np.isfinite(array).all():
        raise ValueError(f"{name}: values that are not finite")


def _as_float(array: np.ndarray) -> np.ndarray:
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _energy(waveforms: np.ndarray) -> np.ndarray:
    """Sum of squares over the last axis, as float64."""
    return np.vecdot(waveforms, waveforms).astype(np.float64)
