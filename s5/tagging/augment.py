"""Augmentation of log-mel spectrograms on the training device, a draw an item."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LogMelAugment(nn.Module):
    """What differs between recordings of a class but does not make the class: colour, pitch, and gaps.

    Applied in training only. All amounts are maxima; 0 switches a part off.

    Args:
        filter_db: random smooth equaliser in dB (FilterAugment, Nam et al., ICASSP 2022).
        filter_points: control points of the equaliser over the mel axis.
        mel_shift: shift along the mel axis in bands, as another pitch would give.
        freq_mask: width of two frequency masks in bands (SpecAugment, Park et al., Interspeech 2019).
        time_mask: width of two time masks in frames (SpecAugment).
    """

    def __init__(
        self,
        filter_db: float = 0.0,
        filter_points: int = 6,
        mel_shift: int = 0,
        freq_mask: int = 0,
        time_mask: int = 0,
    ) -> None:
        super().__init__()
        self.filter_db, self.filter_points, self.mel_shift = filter_db, filter_points, mel_shift
        self.freq_mask, self.time_mask = freq_mask, time_mask

    def forward(self, mel: Tensor, std: Tensor | float) -> Tensor:
        """Augments.

        Args:
            mel: [B, n_mels, frames], natural logarithm of power, divided by ``std``.
            std: one number.

        Returns:
            The same shape; the input itself outside training.
        """
        if not self.training:
            return mel
        batch, n_mels, frames = mel.shape
        if self.mel_shift:
            shift = torch.randint(-self.mel_shift, self.mel_shift + 1, (batch, 1), device=mel.device)
            source = (torch.arange(n_mels, device=mel.device) - shift).clamp(0, n_mels - 1)
            mel = mel.gather(1, source[:, :, None].expand(-1, -1, frames))
        if self.filter_db:
            gain = (torch.rand(batch, 1, self.filter_points, device=mel.device) * 2 - 1) * self.filter_db
            curve = F.interpolate(gain, n_mels, mode="linear", align_corners=True)[:, 0, :, None]
            mel = mel + curve * (math.log(10) / 10) / std
        for axis, width in ((1, self.freq_mask), (2, self.time_mask)):
            for _ in range(2 if width else 0):
                mel = mel.masked_fill(_stripe(mel, axis, width), 0.0)
        return mel


def _stripe(mel: Tensor, axis: int, width: int) -> Tensor:
    """A random stripe of at most ``width`` along an axis, for each item: boolean, broadcastable to ``mel``."""
    size = mel.shape[axis]
    length = torch.randint(0, width + 1, (len(mel), 1), device=mel.device)
    start = (torch.rand(len(mel), 1, device=mel.device) * (size - length + 1)).floor()
    place = torch.arange(size, device=mel.device)
    inside = (place >= start) & (place < start + length)
    return inside[:, :, None] if axis == 1 else inside[:, None, :]
