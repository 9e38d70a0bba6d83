"""Tags one source: a dry event, or what a separator has made of it.

The angular head and the decision on silence follow ArcFace (Deng et al., CVPR 2019) and the S5 systems of Kwon et al.
(DCASE 2025) and Choi et al. (DCASE 2026), which name separated sources with a single-label classifier.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s5.tagging.tagger import OnEncoder
from s5.utils.errors import InputError


class SourceTags(NamedTuple):
    """Output of a source tagger."""

    logits: Tensor
    """[B, C]: cosines between embedding and class vectors, times the scale."""
    active: Tensor
    """[B]: logit of the probability that the waveform holds a source."""
    embedding: Tensor
    """[B, E]."""

    def posterior(self) -> Tensor:
        """Probability of each class and of silence [B, C + 1], whose sum is 1: p(c) = p(active) p(c | active)."""
        active = self.active.sigmoid()[:, None]
        return torch.cat((active * self.logits.softmax(-1), 1 - active), dim=-1)


class AttentiveStatistics(nn.Module):
    """Mean and standard deviation with learned weights (Okabe et al., Interspeech 2018): [B, N, dim] -> [B, 2 dim].

    Args:
        dim: width of the features.
        hidden_dim: width of the layer that the weights come from.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.weight = nn.Sequential(nn.Linear(dim, hidden_dim), nn.Tanh(), nn.Linear(hidden_dim, 1))

    def forward(self, features: Tensor) -> Tensor:
        """[B, N, dim] -> [B, 2 dim]."""
        weight = self.weight(features).softmax(dim=1)
        mean = (weight * features).sum(dim=1)
        variance = (weight * (features - mean[:, None]).square()).sum(dim=1)
        return torch.cat((mean, variance.clamp(min=1e-6).sqrt()), dim=-1)


class _Path(nn.Sequential):
    """Statistics of features, batch norm without affine, dropout and a linear layer: [B, N, dim] -> [B, width]."""

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__(
            AttentiveStatistics(dim, width),
            nn.BatchNorm1d(2 * dim, affine=False),
            nn.Dropout(dropout),
            nn.Linear(2 * dim, width),
        )


PEAK = 0.5
"""Peak of what the encoder hears: dry sources and estimates are far softer than the recordings it was trained on."""

SOFTEST = 1e-5
"""Least peak that is amplified to :data:`PEAK`, and the level of digital silence (RMS)."""


class SourceTagger(OnEncoder):
    """Tagger of one source, with a class and a decision on silence.

    The encoder hears the waveform at a fixed peak. The decision on silence also depends on the level in dB, since what
    a separator leaves for an absent source is soft.

    Args:
        encoder: a kind of :data:`s5.tagging.tagger.ENCODERS` and its arguments; it hears one channel.
        n_labels: number of labels C.
        n_slots: K of the system; a source has one label.
        embedding_dim: width of the embedding of the encoder's features.
        object_dim: D of a separator's object features; by default there is no path for them.
        object_embedding_dim: width of the embedding of the object features.
        scale: scale of the cosines.
        dropout: dropout of the statistics in training.
        trainable: see :class:`s5.tagging.tagger.Tagger`; ``head`` is all that is not the encoder.

    Raises:
        InputError: an unknown kind or argument, an encoder of several channels, or a waveform that does not fit it.
    """

    n_channels = 1

    def __init__(
        self,
        encoder: dict[str, Any],
        n_labels: int = 18,
        n_slots: int = 3,
        embedding_dim: int = 512,
        object_dim: int | None = None,
        object_embedding_dim: int = 256,
        scale: float = 30.0,
        dropout: float = 0.0,
        trainable: str = "head",
    ) -> None:
        super().__init__(encoder, trainable)
        if self.encoder.n_channels != 1:
            raise InputError("encoder: n_channels", self.encoder.n_channels, "1: a source has one channel")
        self.scale = scale
        self.waveform_path = _Path(self.encoder.dim, embedding_dim, dropout)
        self.object_path = None if object_dim is None else _Path(object_dim, object_embedding_dim, dropout)
        self.embedding_dim = embedding_dim + (0 if object_dim is None else object_embedding_dim)
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_labels, self.embedding_dim)))
        self.level_norm = nn.BatchNorm1d(1, affine=False)
        self.active = nn.Linear(self.embedding_dim + 1, 1)

    def forward(self, waveform: Tensor, objects: Tensor | None = None) -> SourceTags:
        """Tags waveforms [B, n], with object features [B, D, T, Q] if the network has a path for them."""
        peak = waveform.abs().amax(-1, keepdim=True)
        features = self.encode(waveform * (PEAK / peak.clamp(min=SOFTEST)))
        level = 20 * (waveform.square().mean(-1, keepdim=True).sqrt() + SOFTEST).log10()
        return self.classify(features, level, objects)

    def classify(self, features: Tensor, level: Tensor, objects: Tensor | None = None) -> SourceTags:
        """Tags from the encoder's features [B, frames, dim], the level in dB [B, 1] and the object features."""
        embedding = self.waveform_path(features)
        if self.object_path is not None:
            if objects is None:
                raise InputError("objects", "none", "object features [B, D, T, Q], as the network has a path for them")
            embedding = torch.cat((embedding, self.object_path(objects.flatten(2).mT)), dim=-1)
        logits = self.scale * F.linear(F.normalize(embedding), F.normalize(self.weight))
        active = self.active(torch.cat((embedding, self.level_norm(level)), dim=-1))[:, 0]
        return SourceTags(logits, active, embedding)


SOURCE_TAGGERS = {"source_tagger": SourceTagger}
"""Source taggers by the name under ``network``."""
