"""USS: universal sound separation. A mixture is split into slots, each with its waveform, its features and its class.

It is the first stage of the chain of Kwon et al. (DCASE 2025, Task 4): nothing guides it, and its outputs are the clues
of what follows. The waveform of a slot and its class come from the same features, so that they belong together.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from s5.separation.locoformer.base import DualPathNetwork
from s5.separation.locoformer.blocks import AttentiveStatistics
from s5.utils.errors import InputError

Consistency = Literal["none", "rest", "energy"]


class Objects(NamedTuple):
    """Output of a :class:`USS`. Slots are foreground first, then interference, then the rest."""

    waveform: Tensor
    """[B, S, n] float32."""
    object: Tensor
    """Features of each slot [B, S, D, T, Q]: dim, tokens, bands."""
    class_logits: Tensor
    """[B, foreground, C]."""
    active_logit: Tensor
    """[B, foreground], positive where a slot holds a source."""


class USS(DualPathNetwork):
    """Separates a mixture into S = foreground + interference + rest slots, without a query.

    Args:
        n_labels: number of labels C (without silence).
        n_slots: K, labelled sources of a mixture.
        foreground: slots of labelled sources, at least K; by default K.
        interference: slots of sources that have no label.
        rest: 1: a slot of what is left of the mixture (or of its noise); 0: none.
        consistency: how the slots are made to sum to the mixture, if the training's rest is ``residual``. ``"rest"``:
            the rest is what the other slots leave; ``"energy"``: what is missing in each bin is shared by the slots'
            energies there (Wisdom et al., "Differentiable consistency constraints", ICASSP 2019); ``"none"``.
        network: the arguments of :class:`s5.separation.locoformer.base.DualPathNetwork`.

    Raises:
        InputError: sizes that do not go together, or a mixture of another number of channels.
    """

    def __init__(
        self,
        n_labels: int = 18,
        n_slots: int = 3,
        foreground: int | None = None,
        interference: int = 2,
        rest: int = 1,
        consistency: Consistency = "none",
        **network: Any,
    ) -> None:
        super().__init__(**network)
        foreground = n_slots if foreground is None else foreground
        if foreground < n_slots or interference < 0 or rest not in (0, 1):
            found, expected = f"{foreground}, {interference}, {rest}", f"at least {n_slots}, at least 0, and 0 or 1"
            raise InputError("USS: foreground, interference, rest", found, expected)
        if consistency != "none" and not rest:
            raise InputError("USS: consistency", consistency, "none, without a slot of the rest")
        self.n_labels, self.n_slots, self.consistency = n_labels, n_slots, consistency
        self.foreground, self.interference, self.rest = foreground, interference, rest
        self.add_backbone()
        group = [0] * foreground + [1] * interference + [2] * rest
        self.register_buffer("group", torch.tensor(group), persistent=False)
        self.split = nn.Linear(self.dim, len(group) * self.dim)
        self.group_embedding = nn.Embedding(3, self.dim)
        self.add_decoder()
        self.pooling = AttentiveStatistics(self.dim)
        self.classify = nn.Linear(2 * self.dim, n_labels)
        self.detect = nn.Linear(2 * self.dim, 1)

    group: Tensor

    def forward(self, mixture: Tensor) -> Objects:
        """Separates mixtures [B, M, n]."""
        level, spectrum, planes = self.analyse(mixture)
        batch, slots = len(mixture), len(self.group)
        x, _ = self.backbone(planes)
        x = self.split(x).unflatten(-1, (slots, -1)).permute(0, 3, 1, 2, 4)
        x = x + self.group_embedding(self.group)[:, None, None].to(x.dtype)
        x = self.process(x.flatten(0, 1))
        reference = spectrum[:, 0]
        sources = self.decode(x, reference.repeat_interleave(slots, 0)).unflatten(0, (batch, slots))
        sources = self._consistent(sources, reference)
        waveform = self.waveform(sources.flatten(0, 1), level.repeat_interleave(slots), mixture.shape[-1])
        x = x.unflatten(0, (batch, slots))
        statistics = self.pooling(x[:, : self.foreground].flatten(2, 3))
        return Objects(
            waveform.unflatten(0, (batch, slots)),
            x.permute(0, 1, 4, 2, 3),
            self.classify(statistics),
            self.detect(statistics).squeeze(-1),
        )

    def _consistent(self, sources: Tensor, reference: Tensor) -> Tensor:
        """Spectra [B, S, frames, bins] that sum to the reference channel's [B, frames, bins]."""
        if self.consistency == "none":
            return sources
        missing = (reference - sources.sum(1))[:, None]
        if self.consistency == "rest":
            return torch.cat((sources[:, :-1], sources[:, -1:] + missing), dim=1)
        power = torch.view_as_real(sources).square().sum(-1) + 1e-8
        return sources + missing * (power / power.sum(1, keepdim=True))


USS_NETWORKS = {"uss": USS}
"""Networks of this kind by the name that a configuration uses."""
