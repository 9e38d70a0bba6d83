"""Taggers and separators as ESPnet models: loss, figures and weight of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.abs_espnet_model import AbsESPnetModel
from torch import Tensor, nn

from s5.tagging.losses import pit_cross_entropy

Loss = Callable[..., tuple[Tensor, Tensor]]


class _S5Model(AbsESPnetModel):
    """What both kinds share: the network, and bfloat16 by one option, in training and evaluation alike."""

    def __init__(self, network: nn.Module, bf16: bool) -> None:
        super().__init__()
        self.network, self.bf16 = network, bf16

    def run(self, *args: Tensor) -> Tensor:
        """The network's output as float32."""
        with torch.autocast(args[0].device.type, torch.bfloat16, enabled=self.bf16):
            return self.network(*args).float()

    def collect_feats(self, **kwargs: Tensor) -> dict[str, Tensor]:
        """Required by ESPnet; there is nothing to collect."""
        return {}


class SeparationModel(_S5Model):
    """A separator trained with oracle labels.

    Args:
        network: mixture [B, M, T], label_vector [B, K, C] -> [B, K, T].
        n_labels: C.
        loss: one of :mod:`s5.separation.losses`.
        bf16: run the network in bfloat16; the loss stays in float32.
    """

    def __init__(self, network: nn.Module, n_labels: int, loss: Loss, bf16: bool = False) -> None:
        super().__init__(network, bf16)
        self.n_labels, self.loss = n_labels, loss

    def forward(self, mixture: Tensor, dry: Tensor, label_index: Tensor, **kwargs: Any):  # type: ignore[no-untyped-def]
        """One batch: mixture [B, M, T], dry [B, K, T], label_index [B, K] (C is silence)."""
        label_vector = F.one_hot(label_index, self.n_labels + 1)[..., : self.n_labels].to(mixture.dtype)
        estimate = self.run(mixture, label_vector)
        loss, permutation = self.loss(estimate, dry, label_index, silence_index=self.n_labels)
        if self.training:
            return force_gatherable((loss.mean(), {"loss": loss.mean().detach()}, len(mixture)), mixture.device)
        # Validation leaves mixtures without a source out, as CAPI-SDRi does: their loss is 0, whatever the estimate.
        active = label_index != self.n_labels
        n_mixtures = active.any(-1).sum().clamp(min=1)
        stats = {
            "loss": loss.sum() / n_mixtures,
            "sdri": _sdri(estimate, dry, mixture[:, 0], permutation, active).sum() / n_mixtures,
        }
        return force_gatherable((loss.sum() / n_mixtures, stats, active.any(-1).sum()), mixture.device)


class TaggingModel(_S5Model):
    """A track-based tagger trained with permutation-invariant cross entropy.

    Args:
        network: mixture [B, M, T] -> logits [B, K, C + 1].
        n_labels: C.
        bf16: run the network in bfloat16; the loss stays in float32.
    """

    def __init__(self, network: nn.Module, n_labels: int, bf16: bool = False) -> None:
        super().__init__(network, bf16)
        self.n_labels = n_labels

    def forward(self, mixture: Tensor, label_index: Tensor, **kwargs: Any):  # type: ignore[no-untyped-def]
        """One batch: mixture [B, M, T], label_index [B, K] (C is silence)."""
        logits = self.run(mixture)
        loss = pit_cross_entropy(logits, label_index)[0].mean()
        accuracy, exact = _label_accuracies(logits.argmax(-1), label_index, self.n_labels)
        stats = {"loss": loss.detach(), "acc3": accuracy.mean(), "accuracy_mix": exact.mean()}
        return force_gatherable((loss, stats, len(mixture)), mixture.device)


def _sdri(estimate: Tensor, dry: Tensor, reference: Tensor, permutation: Tensor, active: Tensor) -> Tensor:
    """Mean SDR improvement in dB over the active slots of each mixture [B]; 0 for a mixture without."""
    eps = torch.finfo(torch.float32).eps
    estimate = estimate.gather(1, permutation[..., None].expand_as(estimate))

    def sdr(x: Tensor) -> Tensor:
        return 10 * torch.log10((dry.square().sum(-1) + eps) / ((dry - x).square().sum(-1) + eps))

    improvement = (sdr(estimate) - sdr(reference[:, None])) * active
    return improvement.sum(-1) / active.sum(-1).clamp(min=1)


def _label_accuracies(predicted: Tensor, label_index: Tensor, n_labels: int) -> tuple[Tensor, Tensor]:
    """TP / (TP + FN + FP) of each mixture over multi-sets of labels (1 if both are empty), and exact matches."""
    counts = F.one_hot(predicted, n_labels + 1).sum(1)[:, :n_labels]
    truth = F.one_hot(label_index, n_labels + 1).sum(1)[:, :n_labels]
    both = torch.minimum(counts, truth).sum(-1)
    either = torch.maximum(counts, truth).sum(-1)
    accuracy = torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(both, dtype=torch.float32))
    return accuracy, (counts == truth).all(-1).float()
