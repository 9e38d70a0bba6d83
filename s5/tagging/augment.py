"""Augments log-mel spectrograms on the training device, with one random draw per item."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LogMelAugment(nn.Module):
    """Changes colour and pitch of each item at random in training, because recordings of a class differ in both.

    All amounts are maxima; 0 switches a part off.

    Args:
        filter_db: smooth equaliser of six control points over the mel axis, in dB (FilterAugment, Nam et al., ICASSP
            2022).
        mel_shift: shift along the mel axis in bands, as another pitch would cause.
    """

    def __init__(self, filter_db: float = 0.0, mel_shift: int = 0) -> None:
        super().__init__()
        self.filter_db, self.mel_shift = filter_db, mel_shift

    def forward(self, mel: Tensor, std: Tensor | float) -> Tensor:
        """Augments a batch.

        Args:
            mel: [B, n_mels, frames], natural logarithm of power, divided by ``std``.
            std: one number.

        Returns:
            [B, n_mels, frames]; outside training the input itself.
        """
        if not self.training:
            return mel
        batch, n_mels, frames = mel.shape
        if self.mel_shift:
            shift = torch.randint(-self.mel_shift, self.mel_shift + 1, (batch, 1), device=mel.device)
            source = (torch.arange(n_mels, device=mel.device) - shift).clamp(0, n_mels - 1)
            mel = mel.gather(1, source[:, :, None].expand(-1, -1, frames))
        if self.filter_db:
            gain = (torch.rand(batch, 1, 6, device=mel.device) * 2 - 1) * self.filter_db
            curve = F.interpolate(gain, n_mels, mode="linear", align_corners=True)[:, 0, :, None]
            mel = mel + curve * (math.log(10) / 10) / std
        return mel
