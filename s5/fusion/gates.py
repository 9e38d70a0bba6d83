"""Silences slots that the vote called active (Deng et al., Table 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s5.utils.errors import InputError

FLOOR = 1e-12
"""Least mean square of a level: quieter signals have the level of this value (-120 dB)."""


@dataclass
class GateConfig:
    """The key ``gate`` of a system. The report (Deng et al.) names the gates without a formula; this is our reading."""

    silence: float | None = None
    """A slot is silenced if its mean silence posterior over the taggers is above this value; None: never."""
    margin: float | None = None
    """A slot is silenced if its source is more than this many dB below the mixture; None: never."""
    taggers: list[str] | None = None
    """Taggers whose posteriors count; by default all. CLAP alone makes the CLAP-oriented gate."""

    def __post_init__(self) -> None:
        if self.silence is not None and not 0 <= self.silence <= 1:
            raise InputError("gate: key silence", self.silence, "a probability from 0 to 1")
        if self.margin is not None and not np.isfinite(self.margin):
            raise InputError("gate: key margin", self.margin, "a finite number of dB")
        if self.taggers == []:
            raise InputError("gate: key taggers", "an empty list", "names of taggers")


def gate(
    config: GateConfig, silence: np.ndarray | None, levels: np.ndarray, mixture_level: float, where: object = "gate"
) -> np.ndarray:
    """Decides which slots stay active.

    Args:
        config: the thresholds.
        silence: [taggers, n] silence posteriors in the active slots; None for multi-hot taggers.
        levels: [n] levels of the separated sources in dB, see :func:`level`.
        mixture_level: level of the mixture's reference channel in dB.
        where: place that error messages name.

    Returns:
        [n] bool, true for slots that stay.

    Raises:
        InputError: a threshold on the silence posterior of taggers that have none.
    """
    keep = np.ones(len(levels), dtype=bool)
    if config.silence is not None:
        if silence is None:
            raise InputError(
                f"{where}: key silence", "multi-hot taggers, which have no silence posterior", "track-based ones"
            )
        keep &= silence.mean(axis=0) <= config.silence
    if config.margin is not None:
        keep &= levels >= mixture_level - config.margin
    return keep


def level(waveform: np.ndarray) -> np.ndarray:
    """Level of waveforms [..., samples] in dB relative to full scale: 10 log10 of the mean square, at least -120.

    Example:
        >>> level(np.array([[1.0, -1.0], [0.0, 0.0]])).tolist()
        [0.0, -120.0]
    """
    mean_square = np.square(waveform, dtype=np.float64).mean(axis=-1)
    return 10 * np.log10(np.maximum(mean_square, FLOOR))
