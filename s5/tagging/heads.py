"""Classifies an encoder's feature sequence, together with embeddings of auxiliary features.

The input of a head is the features [B, frames, feature_dim] and, with auxiliary features, their embeddings
[B, auxiliary_dim], which are averages over time. Track-based heads return logits [B, K, C + 1] (one softmax per track,
silence last), multi-hot heads [B, C] (one sigmoid per class).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """Base class of all heads.

    Args:
        feature_dim: width of the encoder's features.
        n_slots: number of tracks K; unused in multi-hot heads.
        n_classes: number of classes per track with silence, C + 1; multi-hot heads have no output for silence.
        auxiliary_dim: width of the auxiliary features' embeddings, which are appended to the average over time.
    """

    multi_hot = False
    """Whether the output is one sigmoid per class instead of one softmax per track."""
    official_names: dict[str, str] = {}
    """Prefixes of keys in official checkpoints, and those here."""

    def __init__(self, feature_dim: int, n_slots: int, n_classes: int, auxiliary_dim: int) -> None:
        super().__init__()
        self.feature_dim, self.n_slots, self.n_classes = feature_dim, n_slots, n_classes
        self.auxiliary_dim = auxiliary_dim


class _Tracks(Head):
    """Last layers of track-based heads: a shared projection of one vector per item, then one MLP per track."""

    def _add_tracks(self, dim: int, track_dim: int, hidden_dim: int) -> None:
        width = track_dim * self.n_slots
        self.linear = nn.Sequential(nn.Linear(dim, width), nn.LayerNorm(width), nn.ReLU())
        self.tracks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(track_dim, hidden_dim),
                nn.LayerNorm(hidden_dim),
                nn.ReLU(),
                nn.Linear(hidden_dim, self.n_classes),
            )
            for _ in range(self.n_slots)
        )

    def _classify(self, x: Tensor) -> Tensor:
        """[B, dim] -> logits [B, K, C + 1]."""
        parts = self.linear(x).unflatten(1, (self.n_slots, -1)).unbind(dim=1)
        return torch.stack([track(part) for track, part in zip(self.tracks, parts, strict=True)], dim=1)


class TrackHead(_Tracks):
    """Track-based head of the baseline: time average, BatchNorm without affine, shared projection, one MLP per track.

    Nguyen et al., section 3.1: several one-hot outputs instead of one multi-hot vector, so a label can repeat.

    Args:
        feature_dim, n_slots, n_classes, auxiliary_dim: as in :class:`Head`.
        track_dim: width of the projection per track.
        hidden_dim: width of each track's hidden layer.
        dropout: dropout before the projection in training.
    """

    def __init__(
        self,
        feature_dim: int,
        n_slots: int,
        n_classes: int,
        track_dim: int = 1024,
        hidden_dim: int = 512,
        dropout: float = 0.0,
        auxiliary_dim: int = 0,
    ) -> None:
        super().__init__(feature_dim, n_slots, n_classes, auxiliary_dim)
        self.m2d_out_norm = nn.BatchNorm1d(feature_dim + auxiliary_dim, affine=False)
        self.dropout = nn.Dropout(dropout)
        self._add_tracks(feature_dim + auxiliary_dim, track_dim, hidden_dim)

    def forward(self, features: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """[B, frames, feature_dim] (and [B, auxiliary_dim]) -> logits [B, K, C + 1]."""
        x = _append(features.mean(dim=1), auxiliary)
        return self._classify(self.dropout(self.m2d_out_norm(x)))


class BiGRUHead(_Tracks):
    """Track-based head with memory: BatchNorm without affine, a projection, a bidirectional GRU.

    The first M2D-AT variant of Deng et al. (section 2.1: "a BiGRU-based classification head"). The report has no sizes.
    Our reading: the GRU's outputs are averaged over time and classified as in the baseline's head.

    Args:
        feature_dim, n_slots, n_classes, auxiliary_dim: as in :class:`Head`.
        rnn_dim: width of the projection, and of the GRU in each direction.
        n_layers: number of layers of the GRU.
        track_dim: width of the projection per track.
        hidden_dim: width of each track's hidden layer.
        dropout: dropout before the projection and after the GRU in training.
    """

    def __init__(
        self,
        feature_dim: int,
        n_slots: int,
        n_classes: int,
        rnn_dim: int = 512,
        n_layers: int = 1,
        track_dim: int = 1024,
        hidden_dim: int = 512,
        dropout: float = 0.0,
        auxiliary_dim: int = 0,
    ) -> None:
        super().__init__(feature_dim, n_slots, n_classes, auxiliary_dim)
        self.norm = nn.BatchNorm1d(feature_dim, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Sequential(nn.Linear(feature_dim, rnn_dim), nn.LayerNorm(rnn_dim), nn.ReLU())
        self.rnn = nn.GRU(rnn_dim, rnn_dim, n_layers, batch_first=True, bidirectional=True)
        self._add_tracks(2 * rnn_dim + auxiliary_dim, track_dim, hidden_dim)

    def forward(self, features: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """[B, frames, feature_dim] (and [B, auxiliary_dim]) -> logits [B, K, C + 1]."""
        x = self.norm(features.mT).mT
        x = self.rnn(self.projection(self.dropout(x)))[0]
        return self._classify(_append(self.dropout(x.mean(dim=1)), auxiliary))


class MultiHotHead(Head):
    """Head of the 2025 baseline: time average, BatchNorm without affine, one linear layer; one sigmoid per class.

    Args:
        feature_dim, n_slots, n_classes, auxiliary_dim: as in :class:`Head`.
        dropout: dropout before the linear layer in training.
    """

    multi_hot = True
    official_names = {"head_norm.": "head.norm.", "head.": "head.linear."}

    def __init__(
        self, feature_dim: int, n_slots: int, n_classes: int, dropout: float = 0.0, auxiliary_dim: int = 0
    ) -> None:
        super().__init__(feature_dim, n_slots, n_classes, auxiliary_dim)
        self.norm = nn.BatchNorm1d(feature_dim + auxiliary_dim, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(feature_dim + auxiliary_dim, n_classes - 1)
        nn.init.trunc_normal_(self.linear.weight, std=2e-5)

    def forward(self, features: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """[B, frames, feature_dim] (and [B, auxiliary_dim]) -> logits [B, C]."""
        x = _append(features.mean(dim=1), auxiliary)
        return self.linear(self.dropout(self.norm(x)))


class DualPathHead(Head):
    """Head of Park et al. (section 4.1.1, Fig. 3): a two-layer MLP, auxiliary features and one linear classifier.

    Without auxiliary features it is the report's "Baseline_retrained".

    Args:
        feature_dim, n_slots, n_classes, auxiliary_dim: as in :class:`Head`.
        width: width of the MLP's two layers.
        output: ``multi_hot`` (C sigmoids, as in the report) or ``tracks`` (K x (C + 1), so a label can repeat).
        dropout: dropout before the classifier in training.
    """

    def __init__(
        self,
        feature_dim: int,
        n_slots: int,
        n_classes: int,
        width: int = 256,
        output: Literal["multi_hot", "tracks"] = "multi_hot",
        dropout: float = 0.0,
        auxiliary_dim: int = 0,
    ) -> None:
        super().__init__(feature_dim, n_slots, n_classes, auxiliary_dim)
        self.multi_hot = output == "multi_hot"
        self.norm = nn.BatchNorm1d(feature_dim, affine=False)
        self.mlp = nn.Sequential(nn.Linear(feature_dim, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        n_outputs = n_classes - 1 if self.multi_hot else n_slots * n_classes
        self.classifier = nn.Linear(width + auxiliary_dim, n_outputs)

    def forward(self, features: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        """[B, frames, feature_dim] (and [B, auxiliary_dim]) -> logits [B, C] or [B, K, C + 1]."""
        x = self.mlp(self.norm(features.mean(dim=1)))
        logits = self.classifier(self.dropout(_append(x, auxiliary)))
        return logits if self.multi_hot else logits.unflatten(1, (self.n_slots, self.n_classes))


HEADS: dict[str, type[Head]] = {
    "track": TrackHead,
    "bigru": BiGRUHead,
    "multihot": MultiHotHead,
    "dual_path": DualPathHead,
}
"""Heads by the ``kind`` in configurations."""


def _append(x: Tensor, auxiliary: Tensor | None) -> Tensor:
    return x if auxiliary is None else torch.cat((x, auxiliary.to(x.dtype)), dim=1)
