"""ESPnet task and model that train universal sound separation; ``python -m s5.bin.train`` runs them."""

from __future__ import annotations

import argparse
from typing import Any, cast

import torch
import torch.nn.functional as F
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.utils.nested_dict_action import NestedDictAction
from torch import Tensor

from s5.separation import memory_format
from s5.separation.losses import best_sdr, sa_sdr, sdr
from s5.separation.uss import USS, USS_NETWORKS, Objects
from s5.separation.uss_loss import USSLoss, USSTargets
from s5.tasks.base import S5Task
from s5.tasks.models import WaveformModel
from s5.tasks.valid_metrics import SUBSETS, members
from s5.utils.config import parse
from s5.utils.errors import InputError

QUOTIENTS = {
    **{f"pi_sdri{subset}": (f"sdri{subset}", f"n_active{subset}") for subset in SUBSETS},
    "count_accuracy": ("counted", "n"),
    "class_accuracy": ("classified", "n_sources"),
    "leakage": ("level", "n_silent"),
}
"""Figures as quotients of means over mixtures (``s5.tasks.valid_metrics``).

* pi_sdri: PI-SDRi of the foreground slots in dB, a mean over the sources of a mixture and then over the mixtures that
  have one; of DupSet and NoDupSet; ``pi_sdri_<n>`` is that of the mixtures with n sources.
* count_accuracy: share of mixtures with the right number of slots that hold a source.
* class_accuracy: share of sources whose slot has their class.
* leakage: level of silent foreground slots below the mixture in dB, at least -80.
"""


class USSModel(WaveformModel):
    """A USS network and its loss.

    Args:
        network: mixture [B, M, n] -> :class:`s5.separation.uss.Objects`.
        loss: the loss and its weights.
        bf16: whether to run the network in bfloat16; the loss stays in float32.
        ema_decay: decay of the average of the weights; 0: no average.
    """

    def __init__(self, network: USS, loss: USSLoss, bf16: bool = False, ema_decay: float = 0.0) -> None:
        super().__init__(network, bf16, ema_decay)
        self.loss, self.n_labels = loss, network.n_labels
        self.sizes = (network.foreground, network.interference, network.rest)

    def forward(  # type: ignore[no-untyped-def]
        self,
        mixture: Tensor,
        dry: Tensor,
        label_index: Tensor,
        dry_interference: Tensor | None = None,
        rest: Tensor | None = None,
        **kwargs: Any,
    ):
        """Loss, figures and weight of a batch.

        Args:
            mixture: [B, M, n].
            dry: [B, K, n], labelled sources.
            label_index: [B, K], C for silence.
            dry_interference: [B, I, n].
            rest: [B, 1, n].
        """
        target = self.targets(dry, label_index, dry_interference, rest)
        output = cast(Objects, self.run(mixture))
        terms, permutation = self.loss(output, target, mixture[:, 0])
        loss = terms["loss"].mean()
        stats = {name: value.mean().detach() for name, value in terms.items()}
        if not self.training:
            stats |= self._counts(output, target, permutation, mixture[:, 0])
        return force_gatherable((loss, stats, len(mixture)), mixture.device)

    def estimate(self, mixture: Tensor, dry: Tensor, label_index: Tensor) -> Tensor:
        """Foreground slots [B, K, n] in the order of the sources."""
        foreground = cast(Objects, self.run(mixture)).waveform[:, : self.sizes[0]]
        padded = F.pad(dry, (0, 0, 0, foreground.shape[1] - dry.shape[1]))
        permutation = sa_sdr(foreground, padded)[1][:, : dry.shape[1]]
        return foreground.gather(1, permutation[..., None].expand_as(dry))

    def targets(
        self, dry: Tensor, label_index: Tensor, dry_interference: Tensor | None = None, rest: Tensor | None = None
    ) -> USSTargets:
        """Target of each slot. Without slots of interference, the slot of the rest has the interference, too.

        A validation set may lack the targets of both: its loss is then that of the foreground.

        Raises:
            InputError: more interferers than slots for them.
        """
        foreground, interference, n_rest = self.sizes
        missing = foreground - dry.shape[1]
        labelled = (F.pad(dry, (0, 0, 0, missing)), F.pad(label_index, (0, missing), value=self.n_labels))
        if dry_interference is None or rest is None:
            return USSTargets(*labelled)
        if not interference:
            rest, others = rest + dry_interference.sum(1, keepdim=True), None
        elif dry_interference.shape[1] > interference:
            found = f"{dry_interference.shape[1]} interferers"
            raise InputError("scenes", found, f"at most {interference}, the network's slots of interference")
        else:
            others = F.pad(dry_interference, (0, 0, 0, interference - dry_interference.shape[1]))
        return USSTargets(*labelled, others, rest if n_rest else None)

    @torch.no_grad()
    def _counts(self, output: Objects, target: USSTargets, permutation: Tensor, reference: Tensor) -> dict[str, Tensor]:
        """Means over a batch of the counts that :meth:`figures` needs."""
        waveform = output.waveform[:, : self.sizes[0]]
        active = target.label_index < self.n_labels
        number = active.sum(-1)
        before = sdr(reference[:, None], target.foreground) * active
        improvement = (best_sdr(waveform, target.foreground) - before.sum(-1)) / number.clamp(min=1)
        found = output.class_logits.argmax(-1).gather(1, permutation)
        energy = waveform.square().sum(-1).gather(1, permutation) / reference.square().sum(-1).clamp(min=1e-8)[:, None]
        level = 10 * torch.log10(energy + 1e-8)
        by_mixture = {
            "n": torch.ones_like(improvement),
            "counted": ((output.active_logit > 0).sum(-1) == number).float(),
            "n_sources": number.float(),
            "classified": ((found == target.label_index) & active).sum(-1).float(),
            "n_silent": (~active).sum(-1).float(),
            "level": (level * ~active).sum(-1),
        }
        has, groups = (number > 0).float(), members(target.label_index, self.n_labels)
        groups |= {f"_{n}": (number == n).float() for n in range(1, self.sizes[0] + 1)}
        for suffix, member in groups.items():
            by_mixture |= {f"sdri{suffix}": improvement * has * member, f"n_active{suffix}": has * member}
        return {name: value.mean() for name, value in by_mixture.items()}

    def figures(self, averages: dict[str, float]) -> dict[str, float]:
        """Figures that validation reports: the loss, its terms and :data:`QUOTIENTS`."""
        known = {f"pi_sdri_{n}": (f"sdri_{n}", f"n_active_{n}") for n in range(1, self.sizes[0] + 1)} | QUOTIENTS
        terms = ("loss", "foreground", "each", "interference", "rest", "label", "active", "silence")
        found = {name: averages[name] for name in terms if name in averages}
        return found | {name: averages[a] / averages[b] for name, (a, b) in known.items() if averages[b]}


class USSTask(S5Task):
    """Trains universal sound separation."""

    networks = dict(USS_NETWORKS)
    with_sources = True
    valid_figures = ("loss", *QUOTIENTS)

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Adds the options of USS."""
        super().add_task_arguments(parser)
        add = parser.add_argument_group("S5 USS").add_argument
        add("--loss_conf", action=NestedDictAction, default={}, help="Weights of the loss")

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> USSModel:
        """Builds the network that the arguments describe, and its loss. Raises InputError where targets are missing."""
        loss: USSLoss = parse(USSLoss, args.loss_conf, "loss_conf")
        network = cast(USS, memory_format(cls.build_network(args)))
        if args.rest == "none" and (network.interference or network.rest):
            raise InputError("key rest", "none", "residual or noise, with slots of interference or of a rest")
        if args.rest != "residual" and network.consistency != "none":
            raise InputError("key rest", args.rest, f"residual, with consistency {network.consistency}")
        model = USSModel(network, loss, args.bf16, args.ema_decay)
        model.freeze(args.freeze_param)
        return model
