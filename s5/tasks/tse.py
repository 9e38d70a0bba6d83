"""ESPnet task and model that train target sound extraction with labels and enrolments; ``s5.bin.train`` runs them."""

from __future__ import annotations

import argparse
import logging
import random
from dataclasses import dataclass
from typing import Any, cast

import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import str2bool
from torch import Tensor

from s5.separation import memory_format
from s5.separation.losses import ca_pi_sdr
from s5.separation.tse import TSE, TSE_NETWORKS
from s5.separation.uss import USS
from s5.system.model import TrainedModel
from s5.tasks.base import S5Task
from s5.tasks.estimates import add_estimators, enrolments, load_for
from s5.tasks.models import WaveformModel, one_hot, sdr_improvement
from s5.utils.config import parse
from s5.utils.errors import InputError


@dataclass(frozen=True)
class ClueConfig:
    """Variation of the clues of a slot in training. Shares are of active slots; the numbers are our choice."""

    dry: float = 0.1
    """Enrolments that are the dry source plus the rest of the mixture, at an SNR of 0 to 20 dB."""
    zero: float = 0.15
    """Enrolments that are left out: the label alone tells what to extract."""
    label_zero: float = 0.15
    """Labels that are left out where there is an enrolment."""
    label_wrong: float = 0.05
    """Labels that are of another class where there is an enrolment."""
    silent: float = 0.25
    """Silent slots whose enrolment is what a frozen model separated of no labelled source: the target is silence."""
    own: float = 0.0
    """Batches in which the network's own output, without gradient, is the enrolment."""
    passes: int = 3
    """Most passes of the network that make such an enrolment, of 1 upwards at random; validation runs as many."""

    def __post_init__(self) -> None:
        for key in ("dry", "zero", "label_zero", "label_wrong", "silent", "own"):
            if not 0 <= getattr(self, key) <= 1:
                raise InputError(f"key {key}", getattr(self, key), "a share from 0 to 1")
        for keys in (("dry", "zero"), ("label_zero", "label_wrong")):
            if sum(getattr(self, key) for key in keys) > 1:
                raise InputError(f"keys {' and '.join(keys)}", "more than 1 in all", "shares that exclude each other")
        if self.passes < 1:
            raise InputError("key passes", self.passes, "at least 1")


@dataclass(frozen=True)
class TSELoss:
    """Negative SDR of the slots and the level of slots whose target is silence."""

    limit: float = 30.0
    """Soft upper limit of each SDR in dB."""
    silence: float = 0.1
    """Weight of the level of slots whose target is silence, in dB below the mixture, at least -30."""

    def __call__(
        self, estimate: Tensor, dry: Tensor, label_index: Tensor, enrolled: Tensor, reference: Tensor, n_labels: int
    ) -> Tensor:
        """Loss [B]. Slots of one class may swap where they have no enrolment; the others keep their places.

        Args:
            estimate: [B, K, n].
            dry: [B, K, n], zeros in silent slots.
            label_index: [B, K], true classes, C for silence.
            enrolled: [B, K], slots with an enrolment.
            reference: [B, n], the mixture's reference channel.
            n_labels: C.
        """
        places = n_labels + 1 + torch.arange(label_index.shape[1], device=label_index.device)
        silent = label_index == n_labels
        group = torch.where(enrolled & ~silent, places, label_index)
        loss, _ = ca_pi_sdr(estimate, dry, group, n_labels, limit=self.limit)
        power = reference.square().sum(-1, keepdim=True) + torch.finfo(torch.float32).eps
        level = 10 * torch.log10(estimate.square().sum(-1) / power + 1e-3)
        asked = silent & enrolled
        return loss + self.silence * (level * asked).sum(-1) / label_index.shape[1]


class TSEModel(WaveformModel):
    """A TSE network that learns from the outputs of frozen models.

    Args:
        network: see :class:`s5.separation.tse.TSE`.
        estimators: frozen models whose outputs are the enrolments: USS, or separators, which get the true labels; one
            of them, by chance, for each batch. Without any, nothing is enrolled at first.
        clues: how clues are varied.
        loss: the loss.
        bf16: whether to run the networks in bfloat16; the loss stays in float32.
        ema_decay: decay of the average of the weights; 0: no average.
    """

    def __init__(
        self,
        network: TSE,
        estimators: list[TrainedModel],
        clues: ClueConfig,
        loss: TSELoss,
        bf16: bool = False,
        ema_decay: float = 0.0,
    ) -> None:
        super().__init__(network, bf16, ema_decay)
        self.estimators, self.clues, self.loss, self.n_labels = estimators, clues, loss, network.n_labels

    def forward(self, mixture: Tensor, dry: Tensor, label_index: Tensor, **kwargs: Any):  # type: ignore[no-untyped-def]
        """Loss, figures and weight of a batch: mixture [B, M, n], dry [B, K, n], label_index [B, K] (C is silence)."""
        enrolment, spare = self.enrol(mixture, dry, label_index)
        if not self.training:
            return self._validate(mixture, dry, label_index, enrolment)
        label_vector, enrolment = self.vary(mixture, dry, label_index, enrolment, spare)
        if random.random() < self.clues.own:
            enrolment = self.own(mixture, label_vector, enrolment, random.randint(1, self.clues.passes))
        estimate = self.run(mixture, label_vector, enrolment, **self.frames(mixture))
        enrolled = enrolment.ne(0).any(-1)
        loss = self.loss(estimate, dry, label_index, enrolled, mixture[:, 0], self.n_labels).mean()
        return force_gatherable((loss, {"loss": loss.detach()}, len(mixture)), mixture.device)

    @torch.no_grad()
    def enrol(self, mixture: Tensor, dry: Tensor, label_index: Tensor) -> tuple[Tensor, Tensor]:
        """First estimates of the sources [B, K, n], and for silent slots what was separated beside them [B, K, n]."""
        if not self.estimators:
            return torch.zeros_like(dry), torch.zeros_like(dry)
        chosen = random.choice(self.estimators) if self.training else self.estimators[0]
        with torch.autocast(mixture.device.type, torch.bfloat16, enabled=self.bf16):
            if not isinstance(chosen.network, USS):
                network = chosen.network.to(mixture.device)
                found = network(mixture, one_hot(label_index, self.n_labels)).float()
                order = ca_pi_sdr(found, dry, label_index, self.n_labels)[1]
                return found.gather(1, order[..., None].expand_as(dry)), torch.zeros_like(dry)
            paired, others = enrolments(chosen, mixture, dry)
        # A silent slot is paired with what is left of the foreground; interference takes the places of some of it.
        silent, spare = (label_index == self.n_labels)[..., None], paired.clone()
        if others.shape[1]:
            picked = torch.randint(others.shape[1] + 1, paired.shape[:2], device=paired.device)
            taken = others.gather(1, picked.clamp(max=others.shape[1] - 1)[..., None].expand_as(paired))
            spare = torch.where((picked < others.shape[1])[..., None], taken, spare)
        return torch.where(silent, 0.0, paired), torch.where(silent, spare, 0.0)

    @torch.no_grad()
    def vary(
        self, mixture: Tensor, dry: Tensor, label_index: Tensor, enrolment: Tensor, spare: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Clues of a step of training as :class:`ClueConfig` says: label_vector [B, K, C] and enrolment [B, K, n].

        An active slot keeps a label or an enrolment.
        """
        c, shape, device = self.clues, label_index.shape, label_index.device
        silent = label_index == self.n_labels
        draw = torch.rand(shape, device=device)
        noise = mixture[:, :1] - dry
        gain = (dry.square().sum(-1) / noise.square().sum(-1).clamp(min=1e-8)).sqrt()
        gain = gain * 10 ** (-torch.rand(shape, device=device))  # 0 to 20 dB below the source
        near = dry + noise * gain[..., None]
        enrolment = torch.where(((draw < c.dry) & ~silent)[..., None], near, enrolment)
        enrolment = torch.where(((draw >= c.dry) & (draw < c.dry + c.zero))[..., None], 0.0, enrolment)
        enrolment = torch.where((silent & (torch.rand(shape, device=device) < c.silent))[..., None], spare, enrolment)
        enrolled = enrolment.ne(0).any(-1)
        draw = torch.rand(shape, device=device)
        other = torch.randint(max(self.n_labels - 1, 1), shape, device=device)
        other = (label_index + 1 + other) % self.n_labels
        index = torch.where(enrolled & ~silent & (draw < c.label_wrong), other, label_index)
        left_out = enrolled & (draw >= c.label_wrong) & (draw < c.label_wrong + c.label_zero)
        return one_hot(torch.where(left_out, self.n_labels, index), self.n_labels), enrolment

    @torch.no_grad()
    def own(self, mixture: Tensor, label_vector: Tensor, enrolment: Tensor, passes: int) -> Tensor:
        """Enrolments after ``passes`` passes of the network itself, as it is decoded with."""
        training = self.training
        self.eval()
        frames = self.frames(mixture)
        for _ in range(passes):
            enrolment = self.run(mixture, label_vector, enrolment, **frames)
        self.train(training)
        return enrolment

    def estimate(self, mixture: Tensor, dry: Tensor, label_index: Tensor) -> Tensor:
        """See :meth:`WaveformModel.estimate`."""
        return self._pass(mixture, dry, label_index, self.enrol(mixture, dry, label_index)[0])

    def _pass(self, mixture: Tensor, dry: Tensor, label_index: Tensor, enrolment: Tensor) -> Tensor:
        estimate = self.run(mixture, one_hot(label_index, self.n_labels), enrolment, **self.frames(mixture))
        order = ca_pi_sdr(estimate, dry, label_index, self.n_labels)[1]
        return estimate.gather(1, order[..., None].expand_as(estimate))

    def _validate(self, mixture: Tensor, dry: Tensor, label_index: Tensor, enrolment: Tensor):  # type: ignore[no-untyped-def]
        """Loss and SDRi of enrolments and of each pass, with true labels, over mixtures that have a source."""
        active = label_index != self.n_labels
        n_mixtures = active.any(-1).sum().clamp(min=1)

        def sdri(estimate: Tensor) -> Tensor:
            return sdr_improvement(estimate, dry, mixture[:, 0], active).sum() / n_mixtures

        stats = {"enrolment_sdri": sdri(enrolment)} if self.estimators else {}
        enrolled = enrolment.ne(0).any(-1)
        passes = self.clues.passes if self.clues.own else 1
        for i in range(1, passes + 1):
            enrolment = self._pass(mixture, dry, label_index, enrolment)
            if i == 1:
                losses = self.loss(enrolment, dry, label_index, enrolled, mixture[:, 0], self.n_labels)
                stats["loss"] = losses.sum() / n_mixtures
            stats |= {f"sdri_{i}": sdri(enrolment)} if passes > 1 else {}
        stats["sdri"] = sdri(enrolment)
        return force_gatherable((stats["loss"], stats, active.any(-1).sum()), mixture.device)


class TSETask(S5Task):
    """Trains target sound extraction."""

    networks = dict(TSE_NETWORKS)
    with_sources = True
    valid_figures = ("loss", "sdri")

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Adds the options of TSE."""
        super().add_task_arguments(parser)
        group = parser.add_argument_group("S5 TSE")
        add_estimators(group)
        add = group.add_argument
        add("--clues", action=NestedDictAction, default={}, help="Shares of labels and enrolments that are varied")
        add("--loss_conf", action=NestedDictAction, default={}, help="limit and silence of the loss")
        add("--init_from_estimator", type=str2bool, default=False, help="Start from weights that fit of an estimator")

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> TSEModel:
        """Builds the network that the arguments describe; loads its estimators, but not on the meta device."""
        clues: ClueConfig = parse(ClueConfig, args.clues, "clues")
        loss: TSELoss = parse(TSELoss, args.loss_conf, "loss_conf")
        network = cast(TSE, memory_format(cls.build_network(args)))
        tagger, estimators = load_for(network, args)
        if args.init_from_estimator and estimators and not args.init_param:
            init_from(network, estimators[0])
        model = TSEModel(network, estimators, clues, loss, args.bf16, args.ema_decay)
        model.tagger = tagger
        model.freeze(args.freeze_param)
        return model


def init_from(network: torch.nn.Module, source: TrainedModel) -> None:
    """Copies the weights of a trained model whose names and shapes are those of the network."""
    own, found = network.state_dict(), source.network.state_dict()
    same = {key: value for key, value in found.items() if key in own and own[key].shape == value.shape}
    network.load_state_dict({**own, **same})
    logging.info("%d of %d tensors start from %s", len(same), len(own), source.name)
