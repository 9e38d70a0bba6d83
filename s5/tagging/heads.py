"""Classification heads over an encoder's feature sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TrackHead(nn.Module):
    """The baseline's track-based head: time average, BatchNorm without affine, a shared projection, one MLP a track.

    Seed 001, section 3.1: several one-hot outputs instead of one multi-hot vector, so that a label can repeat.

    Args:
        feature_dim: width of the features.
        n_slots: tracks K.
        n_classes: classes a track, silence included (C + 1).
        track_dim: width of the projection a track.
        hidden_dim: width of each track's hidden layer.
        dropout: before the projection, in training.
    """

    def __init__(
        self,
        feature_dim: int,
        n_slots: int,
        n_classes: int,
        track_dim: int = 1024,
        hidden_dim: int = 512,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.n_slots = n_slots
        self.m2d_out_norm = nn.BatchNorm1d(feature_dim, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Sequential(
            nn.Linear(feature_dim, track_dim * n_slots), nn.LayerNorm(track_dim * n_slots), nn.ReLU()
        )
        self.tracks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(track_dim, hidden_dim), nn.LayerNorm(hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, n_classes)
            )
            for _ in range(n_slots)
        )

    def forward(self, features: Tensor) -> Tensor:
        """[B, steps, feature_dim] -> logits [B, K, C + 1]."""
        x = self.linear(self.dropout(self.m2d_out_norm(features.mean(dim=1))))
        parts = x.unflatten(1, (self.n_slots, -1)).unbind(dim=1)
        return torch.stack([track(part) for track, part in zip(self.tracks, parts, strict=True)], dim=1)
