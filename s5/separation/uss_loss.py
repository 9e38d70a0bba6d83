"""Loss of universal sound separation: SA-SDR of groups of slots, classes, presence, and levels of silent slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from s5.separation.losses import sa_sdr, sdr
from s5.separation.uss import Objects
from s5.utils.errors import InputError

EACH_LIMIT = 30.0
"""Soft upper limit in dB of the SDR of each source in the loss."""


class USSTargets(NamedTuple):
    """Targets of the slots of a mixture. Silent rows are zeros."""

    foreground: Tensor
    """[B, N, n], a row a foreground slot; the labels are of the first ones."""
    label_index: Tensor
    """[B, N], C for silence."""
    interference: Tensor | None = None
    """[B, I, n], a row an interference slot; None: they are not known, and nothing is asked of the slots."""
    rest: Tensor | None = None
    """[B, 1, n]; None: as for interference."""


@dataclass(frozen=True)
class USSLoss:
    """Weighted sum of the losses of an item's groups of slots, to which those of its foreground slots are added.

    The weights are our choice. Each target belongs to the slot that the best permutation of its group gives it.
    """

    interference: float = 0.3
    """Weight of the SA-SDR of interference slots; that of the foreground has a weight of 1."""
    rest: float = 0.3
    """Weight of the SDR of the rest."""
    each: float = 0.0
    """Weight of the negative SDR of each source, a mean over active foreground slots, at least -30 dB. Loud sources
    decide on SA-SDR; PI-SDRi counts all sources alike."""
    label: float = 0.1
    """Weight of the classes' cross entropy, a mean over active foreground slots."""
    active: float = 0.1
    """Weight of the binary cross entropy of presence."""
    silence: float = 0.1
    """Weight of the level of silent foreground and interference slots, in dB below the mixture."""
    tie: float = 0.1
    """Weight of the cross entropy in the choice of the permutation, against dB of SA-SDR."""
    tau: float = 1e-3
    """Share of the mixture's energy that limits each term: 1e-3 is -30 dB."""

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if value < 0 or (key == "tau" and value == 0):
                raise InputError(f"key {key}", value, "a positive number" if key == "tau" else "at least 0")

    def __call__(self, output: Objects, target: USSTargets, reference: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Loss of each item, in float32.

        Args:
            output: of the network.
            target: see there.
            reference: [B, n], the reference channel of the mixture.

        Returns:
            terms by name [B], not weighted, and their weighted sum ``loss`` [B]; permutation [B, N]: foreground slot
            ``permutation[b, k]`` holds target ``k``.
        """
        with torch.autocast(reference.device.type, enabled=False):
            waveform, class_logits = output.waveform.float(), output.class_logits.float()
            power = reference.float().square().sum(-1) + torch.finfo(torch.float32).eps
            slots, n_labels = class_logits.shape[1:]
            foreground = waveform[:, :slots]
            active = target.label_index < n_labels
            # Cross entropy of each pair of target and slot.
            column = target.label_index.clamp(max=n_labels - 1)[:, :, None].expand(-1, -1, slots)
            entropy = -class_logits.log_softmax(-1).mT.gather(1, column) * active[..., None]
            tie = self.tie * entropy.detach()
            value, permutation = sa_sdr(foreground, target.foreground, power, self.tau, tie)
            terms = {"foreground": value}
            paired = _ordered(foreground, permutation)
            terms["each"] = -(sdr(paired, target.foreground, EACH_LIMIT) * active).sum(-1) / active.sum(-1).clamp(min=1)
            quiet = [(paired, ~active)]
            if target.interference is not None:
                others = waveform[:, slots : slots + target.interference.shape[1]]
                terms["interference"], order = sa_sdr(others, target.interference, power, self.tau)
                quiet.append((_ordered(others, order), ~target.interference.ne(0).any(-1)))
            if target.rest is not None:
                terms["rest"] = sa_sdr(waveform[:, -1:], target.rest, power, self.tau)[0]
            chosen = entropy.gather(2, permutation[..., None]).squeeze(-1)
            terms["label"] = chosen.sum(-1) / active.sum(-1).clamp(min=1)
            presence = active.float().scatter(1, permutation, active.float())
            logit = output.active_logit.float()
            terms["active"] = F.binary_cross_entropy_with_logits(logit, presence, reduction="none").mean(-1)
            terms["silence"] = _level(quiet, power, self.tau)
            weighted = [getattr(self, name, 1.0) * term for name, term in terms.items()]  # the foreground's is 1
            return {"loss": torch.stack(weighted).sum(0), **terms}, permutation


def _ordered(waveform: Tensor, permutation: Tensor) -> Tensor:
    """Slots [B, N, n] in the order of the targets."""
    return waveform.gather(1, permutation[..., None].expand_as(waveform))


def _level(quiet: list[tuple[Tensor, Tensor]], power: Tensor, tau: float) -> Tensor:
    """Mean level in dB of an item's silent slots [B], limited from below by ``tau``; 0 where no slot is silent.

    Args:
        quiet: waveforms [B, N, n] of groups, and which of them shall be silent [B, N].
        power: energy of the mixture [B].
        tau: share of it.
    """
    energy = torch.cat([waveform.square().sum(-1) for waveform, _ in quiet], dim=1)
    silent = torch.cat([mask for _, mask in quiet], dim=1)
    level = 10 * torch.log10(energy / power[:, None] + tau)
    return (level * silent).sum(-1) / silent.sum(-1).clamp(min=1)
