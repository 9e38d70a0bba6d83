"""Variations of a scene's recordings and room for training: a sampler's keys ``colour``, ``room_colour``, ``blend``.

* The colour of a source is that of its recording, e.g. of its microphone: the source passes a filter before it enters
  the room, so its wet signal and its dry target have it alike.
* The colour of a room is that of its walls: the reverberation passes a filter, the direct part does not, so dry targets
  have none of it.
* A blend is the sum of two recordings of one source.

The functions take NumPy's arrays and tensors, so that both renderers share them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import scipy.fft

from s5.scene.audio import Clip

BANDS = (125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0)
"""Frequencies in Hz at which a colour has its gains; the gain outside is that of the nearest one."""

SECONDS = 0.016
"""Length of a colour's filter in s: two periods of the lowest band."""

Samples = TypeVar("Samples", bound=Any)


@lru_cache(256)
def colour_filter(gains: tuple[float, ...], rate: int) -> np.ndarray:
    """Minimum-phase filter [taps] float32 at ``rate`` (Hz) with gains in dB at :data:`BANDS`, straight over octaves.

    A minimum phase moves no onset. It is made from the cepstrum of the gains (Oppenheim and Schafer, Discrete-Time
    Signal Processing, 3rd edition, section 13.5.1).
    """
    taps = max(1, round(SECONDS * rate))
    n = scipy.fft.next_fast_len(4 * taps, real=True)
    n += n % 2
    octaves = np.log2(np.maximum(scipy.fft.rfftfreq(n, 1 / rate), 1.0))
    cepstrum = scipy.fft.irfft(np.interp(octaves, np.log2(BANDS), gains) * (np.log(10) / 20), n)
    cepstrum[1 : n // 2] *= 2
    cepstrum[n // 2 + 1 :] = 0
    return scipy.fft.irfft(np.exp(scipy.fft.rfft(cepstrum)), n)[:taps].astype(np.float32)


def filtered(signal: Samples, taps: Samples, fft: ModuleType) -> Samples:
    """The first n samples of the convolution of ``signal`` [..., n] with a filter ``taps`` [k].

    ``fft`` is ``scipy.fft`` for arrays and ``torch.fft`` for tensors.
    """
    n = signal.shape[-1]
    n_fft = scipy.fft.next_fast_len(n + len(taps) - 1, real=True)
    return fft.irfft(fft.rfft(signal, n_fft) * fft.rfft(taps, n_fft), n_fft)[..., :n]


@dataclass(frozen=True)
class Blend:
    """A second recording of an event's source, added to the first.

    Attributes:
        clip: the recording.
        onset: first sample in the event.
        level: mean square in dB above that of the first recording, each over its own length.
    """

    clip: Clip
    onset: int
    level: float


def vary(
    source: Samples,
    blend: Blend | None,
    colour: Sequence[float],
    rate: int,
    read: Callable[[Any], Samples],
    convolve: Callable[[Samples, np.ndarray], Samples],
) -> Samples:
    """The source of an event with its blend and its colour: [n] float32, as long as ``source`` [n].

    Args:
        source: the event's recording.
        blend: the second recording; None: there is none.
        colour: gains in dB at :data:`BANDS`; empty: no filter.
        rate: sampling rate in Hz.
        read: reads the source [m] of the blend's clip.
        convolve: convolves a source [n] with a filter [k] and cuts the result to [n].
    """
    if blend is not None:
        second, start = _unit(read(blend.clip)), blend.onset
        n = min(len(second), len(source) - start)
        source = _unit(source)
        if n > 0:
            source[start : start + n] += second[:n] * 10 ** (blend.level / 20)
    if colour:
        source = convolve(source, colour_filter(tuple(colour), rate))
    return source


def colour_room(rir: Samples, direct: slice, taps: Samples, fft: ModuleType) -> Samples:
    """An impulse response [M, N] whose samples outside the direct part have passed a filter ``taps`` [k].

    ``fft`` is that of :func:`filtered`.
    """
    rest = rir + 0
    rest[:, direct] = 0
    return rir - rest + filtered(rest, taps, fft)


def _unit(signal: Samples) -> Samples:
    """Signal [n] with a mean square of 1; an all-zero one stays."""
    return signal / ((signal * signal).mean() + 1e-20) ** 0.5
