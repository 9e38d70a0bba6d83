"""Conditions separators on a query of labels: a label MLP and FiLM biases.

A query is the concatenation of all slots' label vectors (K x C values), one-hot or zero for silence. The MLP turns it
into one condition vector; FiLM turns that into one additive bias per channel for each named place.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from s5.utils.errors import InputError


def active_slots(label_vector: Tensor) -> Tensor:
    """Marks the slots of a query that ask for a source.

    Args:
        label_vector: [..., K, C], zero rows for silence.

    Returns:
        [..., K] of the same dtype: 1 for an active slot, 0 for silence.
    """
    return label_vector.ne(0).any(dim=-1).to(label_vector.dtype)


def clues_in_time(frames: Tensor | None, label_vector: Tensor, time_film: bool) -> Tensor | None:
    """Posteriors of each slot's class over time.

    Args:
        frames: [B, T', C], posteriors of all classes in frames that are spread evenly over the recording.
        label_vector: [B, K, C], one-hot a slot, zeros for silence.
        time_film: whether the network wants them.

    Returns:
        [B, K, T', C], zeros for other classes than the slot's; None without ``time_film``.

    Raises:
        InputError: there are none, unwanted ones, or those of other classes.
    """
    wanted = [len(label_vector), label_vector.shape[-1]]
    if frames is not None and time_film and frames.dim() == 3 and [*frames.shape[::2]] == wanted:
        return frames[:, None] * label_vector[:, :, None].to(frames.dtype)
    if frames is None and not time_film:
        return None
    found = "none" if frames is None else f"shape {list(frames.shape)}"
    expected = f"[{wanted[0]}, frames, {wanted[1]}], posteriors of a tagger" if time_film else "none, without time_film"
    raise InputError("frames", found, expected)


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
