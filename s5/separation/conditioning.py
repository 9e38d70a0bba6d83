"""Conditions separators on a query of labels: a label MLP and FiLM biases.

A query is the concatenation of all slots' label vectors (K x C values), one-hot or zero for silence. The MLP turns it
into one condition vector; FiLM turns that into one additive bias per channel for each named place.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def active_slots(label_vector: Tensor) -> Tensor:
    """Marks the slots of a query that ask for a source.

    Args:
        label_vector: [..., K, C], zero rows for silence.

    Returns:
        [..., K] of the same dtype: 1 for an active slot, 0 for silence.
    """
    return label_vector.ne(0).any(dim=-1).to(label_vector.dtype)


class LabelEmbedding(nn.Sequential):
    """Label MLP of two linear layers, each with LayerNorm and ReLU: [B, K * C] -> [B, dim]."""

    def __init__(self, query_dim: int, dim: int) -> None:
        super().__init__(
            nn.Linear(query_dim, dim), nn.LayerNorm(dim), nn.ReLU(), nn.Linear(dim, dim), nn.LayerNorm(dim), nn.ReLU()
        )


class FiLM(nn.Module):
    """Computes feature-wise biases from one condition vector.

    Args:
        sizes: number of channels of each conditioned place, by name. The names are those of the official network, with
            ``->`` between levels (``encoder_block1->conv_block1->beta1``), so its weights load by name.
        condition_dim: length of the condition vector.
    """

    def __init__(self, sizes: Mapping[str, int], condition_dim: int) -> None:
        super().__init__()
        self.sizes = dict(sizes)
        for name, size in self.sizes.items():
            layer = nn.Linear(condition_dim, size)
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
            self.add_module(name, layer)

    def forward(self, condition: Tensor) -> dict[str, Tensor]:
        """Condition [B, condition_dim] -> biases {name: [B, channels, 1, 1]}, as one matrix product."""
        layers = [self.get_submodule(name) for name in self.sizes]
        weight = torch.cat([layer.weight for layer in layers])  # type: ignore[misc]
        bias = torch.cat([layer.bias for layer in layers])  # type: ignore[misc]
        biases = nn.functional.linear(condition, weight, bias)[:, :, None, None]
        return dict(zip(self.sizes, biases.split(list(self.sizes.values()), dim=1), strict=True))
