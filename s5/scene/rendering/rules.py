"""Rendering rules: the differences between the synthesisers of the two challenges.

A scene carries its rules (:attr:`s5.scene.Scene.rules`), so the renderer knows no year. :mod:`s5.scene.rendering.cpu`
describes the common part.

                           DCASE 2026 (SpAudSyn)             DCASE 2025 (the baseline's subclass of SpatialScaper)
direct part of the         around the largest absolute       around the largest signed sample, without
impulse response           sample, both ends inclusive       the last sample
impulse response           that at the event's position      the nearest, in the SOFA file's own coordinates
background shorter than    the file is repeated              every sample is repeated
the scene
source of another          used as resampled                 cut to the event's duration before its
sampling rate                                                peak is taken
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from s5.utils.errors import InputError

if TYPE_CHECKING:
    from s5.scene.rendering.room import SofaRoom


@dataclass(frozen=True)
class RenderRules:
    """Rules of rendering a scene; :mod:`s5.scene.rendering.rules` lists them. Hashable, as part of a cache's key.

    Attributes:
        name: name of the rules, as in a sampler's key ``rules``; it also decides the format of a scene's file.
        direct_peak: the sample of the reference channel that the direct part surrounds: largest absolute or signed.
        direct_end: whether the direct part includes its last sample.
        position: ``equal``: an event's position must be one of the room's; ``nearest``: the nearest one is used.
        short_background: ``tile`` repeats the file, ``stretch`` every sample.
        cut_source: whether a resampled source is cut to ``int(event_duration * sampling rate)`` samples.
        reference_channel: the channel of the dry targets.
    """

    name: str = "dcase2026"
    direct_peak: Literal["absolute", "signed"] = "absolute"
    direct_end: bool = True
    position: Literal["equal", "nearest"] = "equal"
    short_background: Literal["tile", "stretch"] = "tile"
    cut_source: bool = False
    reference_channel: int = 0

    def direct_part(self, response: np.ndarray, rate: float, range_ms: Sequence[float]) -> slice:
        """Direct part of the reference channel's impulse response.

        Args:
            response: impulse response [N] at ``rate``.
            rate: sampling rate in Hz.
            range_ms: milliseconds before and after the peak.

        Example:
            >>> DCASE2026.direct_part(np.array([0, 0.5, -1, 0.2, 0]), 1000, (1, 2))
            slice(1, 5, None)
            >>> DCASE2025.direct_part(np.array([0, 0.5, -1, 0.2, 0]), 1000, (1, 2))
            slice(0, 3, None)
        """
        peak = int((np.abs(response) if self.direct_peak == "absolute" else response).argmax())
        before, after = (int(ms * rate / 1000) for ms in range_ms)
        return slice(max(0, peak - before), peak + after + self.direct_end)

    def find(self, room: SofaRoom, position: Sequence[float]) -> int:
        """Index of the room's impulse response for an event's position [3].

        Raises InputError if the room lacks the position (rule ``equal``) or the reference channel.
        """
        if self.reference_channel >= room.n_channels:
            raise InputError(room.path, f"{room.n_channels} channels", f"a reference channel {self.reference_channel}")
        return room.index(position) if self.position == "equal" else room.nearest(position)

    def fill(self, background: np.ndarray, n_samples: int) -> np.ndarray:
        """Extends a background [M, n] to the length of the scene: [M, n_samples].

        Example:
            >>> DCASE2026.fill(np.array([[1, 2]]), 5).tolist(), DCASE2025.fill(np.array([[1, 2]]), 5).tolist()
            ([[1, 2, 1, 2, 1]], [[1, 1, 1, 2, 2]])
        """
        times = -(-n_samples // background.shape[1])
        tile = self.short_background == "tile"
        return (np.tile(background, times) if tile else background.repeat(times, axis=1))[:, :n_samples]


DCASE2026 = RenderRules()
DCASE2025 = RenderRules("dcase2025", "signed", False, "nearest", "stretch", cut_source=True)
