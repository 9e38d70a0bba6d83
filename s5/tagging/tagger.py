"""Taggers: an encoder and a head; what is frozen stays frozen."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from s5.config import check_arguments
from s5.errors import InputError
from s5.tagging.heads import TrackHead
from s5.tagging.m2d import M2DEncoder


class M2DTagger(nn.Module):
    """Track-based tagger on M2D (seed 001, section 3.1, and the official baselines).

    Args:
        n_labels: number of labels C (without silence).
        n_slots: K, tracks.
        n_channels: channels that enter the encoder: 1 takes the mixture's reference channel (channel 0), more take that
            many channels as a batch and concatenate their features.
        encoder: arguments of :class:`s5.tagging.m2d.M2DEncoder`.
        head: arguments of :class:`s5.tagging.heads.TrackHead`.
        trainable: ``head``, ``<n>_blocks`` (the encoder's last n blocks and all after them), or ``all``. What is not
            trained gets no gradient, and its dropout and batch statistics stay as in evaluation.

    Raises:
        InputError: an unknown argument, or a mixture with too few channels or a NaN.
    """

    official_names = {"m2d.backbone.": "encoder.", "backbone.": "encoder."}
    """Prefixes of the official checkpoints, and ours."""

    def __init__(
        self,
        n_labels: int = 18,
        n_slots: int = 3,
        n_channels: int = 4,
        encoder: dict[str, Any] | None = None,
        head: dict[str, Any] | None = None,
        trainable: str = "all",
    ) -> None:
        super().__init__()
        check_arguments(M2DEncoder, encoder or {}, "encoder")
        check_arguments(TrackHead, head or {}, "head", given=("feature_dim", "n_slots", "n_classes"))
        self.n_labels, self.n_slots, self.n_channels = n_labels, n_slots, n_channels
        self.encoder = M2DEncoder(**(encoder or {}))
        self.head = TrackHead(n_channels * self.encoder.feature_dim, n_slots, n_labels + 1, **(head or {}))
        self.frozen = self._freeze(trainable)

    def forward(self, mixture: Tensor) -> Tensor:
        """Tags.

        Args:
            mixture: [B, M, T] waveforms, M at least ``n_channels``.

        Returns:
            logits [B, K, C + 1]; class C is silence.
        """
        if mixture.shape[1] < self.n_channels:
            raise InputError("mixture", f"{mixture.shape[1]} channels", f"at least {self.n_channels} for this tagger")
        channels = mixture[:, : self.n_channels]
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.encoder not in self.frozen):
            features = self.encoder(channels.flatten(0, 1))
        features = features.unflatten(0, (-1, self.n_channels)).transpose(1, 2).flatten(2)
        return self.head(features)

    def train(self, mode: bool = True) -> M2DTagger:
        """Switches to training or evaluation; frozen parts stay in evaluation."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def _freeze(self, trainable: str) -> list[nn.Module]:
        """Clears requires_grad below what is trained; returns the outermost frozen modules."""
        encoder = self.encoder
        blocks = re.fullmatch(r"(\d+)_blocks", trainable)
        if trainable == "all":
            return []
        if trainable == "head":
            frozen: list[nn.Module] = [encoder]
        elif blocks and int(blocks[1]) <= len(encoder.blocks):
            frozen = [encoder.patch_embed, *encoder.blocks[: len(encoder.blocks) - int(blocks[1])]]
            encoder.cls_token.requires_grad_(False)
            encoder.pos_embed.requires_grad_(False)
        else:
            raise InputError("trainable", trainable, f"head, 0_blocks .. {len(encoder.blocks)}_blocks or all")
        for module in frozen:
            module.requires_grad_(False)
        return frozen
