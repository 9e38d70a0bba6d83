"""Weights of the impulse responses of a moving event over time.

A moving event has several positions and passes them at equal intervals of its duration. Between two positions their
impulse responses fade into each other, by the time at which the sound leaves the source: the source is split into one
part per position, each part is convolved with its position's impulse response, and all are added. The weights are those
of SpatialScaper's ``spatialize`` (frames of 512 samples under a squared sine, half overlapped, with linear weights from
frame to frame), so both give the same samples.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from s5.utils.errors import InputError

HOP = 256
"""Hop from frame to frame in samples."""


def fade_frames(n_samples: int, n_positions: int, where: object = "event_position") -> np.ndarray:
    """Numbers [K] of the frames in which a source of ``n_samples`` is at its positions.

    Raises InputError, naming ``where``, if there are more positions than frames.
    """
    # The library numbers the frame of time zero 1, so halves round to even one frame later.
    frames = np.round(np.linspace(0, n_samples, n_positions) / HOP + 1) - 1
    if (np.diff(frames) < 1).any():
        found = f"{n_positions} positions in {n_samples} samples"
        raise InputError(where, found, f"at most one in {HOP} samples")
    return frames


def fade_weights(n_samples: int, n_positions: int, where: object = "event_position") -> np.ndarray:
    """Weights [K, n] float64 of a source of ``n_samples`` at each of K positions; they add up to 1 at every sample.

    Raises InputError, naming ``where``, if there are more positions than frames.

    Example:
        >>> fade_weights(1025, 3)[:, ::256].round(2).tolist()
        [[1.0, 0.5, 0.0, 0.0, 0.0], [0.0, 0.5, 1.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.5, 1.0]]
    """
    if n_positions == 1:
        return np.ones((1, n_samples))
    nodes = fade_frames(n_samples, n_positions, where)
    frames = np.arange(n_samples // HOP + 2)
    at_frames = np.stack([np.interp(frames, nodes, unit) for unit in np.eye(n_positions)])
    frame, phase = np.divmod(np.arange(n_samples), HOP)
    rise = np.sin(np.pi / 2 * phase / HOP) ** 2
    return at_frames[:, frame] * (1 - rise) + at_frames[:, frame + 1] * rise


def fade_parts(n_samples: int, n_positions: int, where: object) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields position, first sample and weights [n] float32 of each stretch that sounds from one position.

    Arguments and errors are those of :func:`fade_weights`.
    """
    for position, weights in enumerate(fade_weights(n_samples, n_positions, where)):
        sounding = np.flatnonzero(weights)
        if len(sounding):
            first, last = int(sounding[0]), int(sounding[-1]) + 1
            yield position, first, weights[first:last].astype(np.float32)
