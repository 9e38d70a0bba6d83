"""ESPnet model around a source tagger: it makes training items, and computes the loss and the figures of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from espnet2.spk.loss.aamsoftmax import AAMSoftmax
from espnet2.torch_utils.device_funcs import force_gatherable
from torch import Tensor

from s5.separation.uss import USS
from s5.system.model import TrainedModel
from s5.tagging.source import SourceTagger, SourceTags
from s5.tasks.estimates import estimates_of
from s5.tasks.models import S5Model
from s5.utils.errors import InputError

DRY, ESTIMATES, SILENT, INTERFERENCE = range(4)
"""Kinds of training items, in the order of :class:`Shares`."""

FIGURES = ("accuracy_dry", "accuracy_estimates", "accuracy_silence")
"""Validation figures, 0 to 1.

* accuracy_dry: share of dry sources whose class has the highest logit.
* accuracy_estimates: the same of the estimates that hold a source.
* accuracy_silence: mean of the shares of active items and of silent ones that ``active`` tells rightly.
"""


@dataclass
class Shares:
    """Shares of the training items; a kind that a batch lacks leaves its share to the others."""

    dry: float = 2.0
    """Dry sources."""
    estimates: float = 2.0
    """Estimates that hold a source, by its label."""
    silent: float = 1.0
    """Estimates that hold no source: of wrong queries, or leakage."""
    interference: float = 1.0
    """Dry interfering sources, as silence; with the key ``rest`` only."""

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 0 or not self.dry * self.silent:
            raise InputError("shares", ascii(vars(self)), "none below 0, some dry and some silent items")


@dataclass
class LossConfig:
    """The key ``loss_conf``: the angular margin of ArcFace, and weights beside its cross entropy."""

    margin: float = 0.3
    """In radians."""
    uniform: float = 1.0
    """Weight of the divergence from the uniform distribution on silent items."""
    active: float = 1.0
    """Weight of the binary cross entropy of ``active``."""
    energy: float = 0.0
    """Weight of the hinge on the energy E = -logsumexp(logits): (E - m_in)^2 of active items above ``m_in``, and
    (m_out - E)^2 of silent ones below ``m_out``."""
    m_in: float = -6.0
    m_out: float = -1.0


class SourceTaggingModel(S5Model):
    """A source tagger and its training loss.

    Args:
        network: the source tagger.
        estimators: frozen separators; one of them, drawn at random, makes the estimates of a batch.
        loss: weights of the loss.
        shares: shares of the training items.
        items: training items a mixture.
        bf16: whether to run the networks in bfloat16; the loss stays in float32.
        ema_decay: decay of the average of the weights; 0: no average.
    """

    def __init__(
        self,
        network: SourceTagger,
        estimators: list[TrainedModel],
        loss: LossConfig,
        shares: Shares,
        items: int,
        bf16: bool = False,
        ema_decay: float = 0.0,
    ) -> None:
        super().__init__(network, bf16, ema_decay)
        self.n_labels = len(network.weight)
        self.estimators, self.loss, self.items = estimators, loss, items
        self.shares = list(vars(shares).values())
        # In a tuple, because the weights are the network's.
        self._arcface = (AAMSoftmax(network.embedding_dim, self.n_labels, loss.margin, network.scale),)

    def forward(  # type: ignore[no-untyped-def]
        self, mixture: Tensor, dry: Tensor, label_index: Tensor, dry_interference: Tensor | None = None, **kwargs: Any
    ):
        """Loss, figures and weight of a batch.

        Args:
            mixture: [B, M, n].
            dry: [B, K, n], zeros in silent slots.
            label_index: [B, K], C for silence.
            dry_interference: [B, I, n].
            kwargs: further parts of the batch, unused.
        """
        batch = {"mixture": mixture, "dry": dry, "label_index": label_index}
        waveforms, labels, kinds = self._training_items(batch, dry_interference) if self.training else self._all(batch)
        tags = self.tag(waveforms)
        loss = self._loss(tags, labels)
        right, active = tags.logits.argmax(-1) == labels, labels < self.n_labels
        stats = {"loss": loss.detach()}
        if self.training:
            stats["accuracy"] = right[active].float().mean() if active.any() else loss.new_zeros(())
        else:
            told = (tags.active > 0) == active
            counted = {"active": (active, told), "inactive": (~active, told)}
            counted |= {"dry": (kinds == DRY, right), "estimates": (kinds == ESTIMATES, right)}
            for name, (which, good) in counted.items():
                stats |= {f"n_{name}": which.sum() / len(mixture), f"right_{name}": (good & which).sum() / len(mixture)}
        return force_gatherable((loss, stats, len(mixture)), mixture.device)

    def figures(self, averages: dict[str, float]) -> dict[str, float]:
        """Figures that validation reports: the loss and :data:`FIGURES`."""
        names = [name.removeprefix("n_") for name in averages if name.startswith("n_") and averages[name]]
        share = {name: averages[f"right_{name}"] / averages[f"n_{name}"] for name in names}
        # A separator none of whose estimates holds a source has nothing to name: its figure is 0.
        found = {"loss": averages["loss"]} | ({"accuracy_estimates": 0.0} if self.estimators else {})
        found |= {f"accuracy_{name}": share[name] for name in ("dry", "estimates") if name in share}
        if {"active", "inactive"} <= share.keys():
            found["accuracy_silence"] = (share["active"] + share["inactive"]) / 2
        return found

    def tag(self, waveforms: Tensor) -> SourceTags:
        """Tags of waveforms [N, n] in float32."""
        tags: SourceTags = self.run(waveforms)
        return tags

    def _loss(self, tags: SourceTags, labels: Tensor) -> Tensor:
        """Mean loss of items with labels [N], C for silence."""
        conf, active = self.loss, labels < self.n_labels
        loss = conf.active * F.binary_cross_entropy_with_logits(tags.active, active.float())
        silent = tags.logits[~active]
        uniform = -silent.log_softmax(-1).mean(-1) - torch.tensor(float(self.n_labels)).log()
        loss = loss + conf.uniform * uniform.sum() / len(labels)
        if active.any():
            if self.training:
                (arcface,) = self._arcface
                arcface.weight = self.network.weight
                classes = arcface(tags.embedding[active], labels[active])[0]
            else:
                classes = F.cross_entropy(tags.logits[active], labels[active])
            loss = loss + classes * active.float().mean()
        if conf.energy:
            energy = -tags.logits.logsumexp(-1)
            hinge = torch.where(active, energy - conf.m_in, conf.m_out - energy)
            loss = loss + conf.energy * hinge.relu().square().mean()
        return loss

    def _training_items(self, batch: dict[str, Tensor], interference: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Waveforms [N, n], labels [N] and kinds [N] of a random choice of items by their shares.

        Half of the queries ask for a label that the scene lacks, in one slot.
        """
        label_index, n = batch["label_index"], len(batch["label_index"])
        parts = [_dry(batch, self.n_labels)]
        if self.estimators:
            slot = torch.randint(label_index.shape[1], (n,), device=label_index.device)
            number = torch.randint(self.n_labels, (n,), device=label_index.device)
            wrong = wrong_query(label_index, slot, number, self.n_labels)
            half = torch.rand(n, 1, device=label_index.device) < 0.5
            estimator = self.estimators[int(torch.randint(len(self.estimators), ()))]
            parts.append(self._estimates(estimator, batch, torch.where(half, wrong, label_index)))
        if interference is not None:
            held = interference[interference.any(-1)]
            parts.append((held, *_all_of(len(held), label_index, self.n_labels, INTERFERENCE)))
        parts.append(_nothing(batch, self.n_labels))
        waveforms, labels, kinds = (torch.cat(column) for column in zip(*parts, strict=True))
        weight = torch.tensor(self.shares, device=kinds.device) / kinds.bincount(minlength=4).clamp(min=1)
        weight = weight[kinds]
        chosen = torch.multinomial(weight, min(self.items * n, int((weight > 0).sum())))
        if len(chosen) == 1:
            chosen = chosen.repeat(2)  # batch norms need two
        return waveforms[chosen], labels[chosen], kinds[chosen]

    def _all(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Waveforms, labels and kinds of all dry sources, all estimates of the true query, and one of a wrong query."""
        label_index = batch["label_index"]
        total = label_index.sum(-1)
        slot = (label_index == self.n_labels).float().argmax(-1)  # the first silent slot, if there is one
        wrong = wrong_query(label_index, slot, total, self.n_labels)
        parts = [_dry(batch, self.n_labels)]
        for estimator in self.estimators:
            parts.append(self._estimates(estimator, batch, label_index))
            if not isinstance(estimator.network, USS):  # which has no query
                parts.append(self._estimates(estimator, batch, wrong, wrong != label_index))
        if not sum(len(part[0]) for part in parts):
            parts = [_nothing(batch, self.n_labels)]
        waveforms, labels, kinds = (torch.cat(column) for column in zip(*parts, strict=True))
        return waveforms, labels, kinds

    def _estimates(
        self, estimator: TrainedModel, batch: dict[str, Tensor], query: Tensor, only: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Waveforms, labels and kinds of the estimates that are not zero; of the slots ``only`` [B, K] if given."""
        with torch.autocast(query.device.type, torch.bfloat16, enabled=self.bf16):
            uss = next((one for one in self.estimators if isinstance(one.network, USS)), None)
            waveforms, target = estimates_of(estimator, {**batch, "query": query}, uss)
        label_index = F.pad(batch["label_index"], (0, 1), value=self.n_labels)
        labels, there = label_index.gather(1, target), waveforms.any(-1)
        if only is not None:
            there &= only
        kinds = torch.where(labels < self.n_labels, ESTIMATES, SILENT)
        return waveforms[there], labels[there], kinds[there]


def wrong_query(label_index: Tensor, slot: Tensor, number: Tensor, n_labels: int) -> Tensor:
    """Queries whose label in one slot is replaced by one that the scene lacks.

    Args:
        label_index: [B, K], C for silence.
        slot: slot to change [B].
        number: choice among the absent labels [B], modulo their number.
        n_labels: C.

    Returns:
        [B, K]; unchanged for a scene that has all labels.
    """
    present = F.one_hot(label_index, n_labels + 1).sum(1)[:, :n_labels] > 0
    n_absent = (~present).sum(-1)
    absent_first = present.long().argsort(dim=-1, stable=True)
    label = absent_first.gather(1, (number % n_absent.clamp(min=1))[:, None])
    return torch.where(n_absent[:, None] > 0, label_index.scatter(1, slot[:, None], label), label_index)


def _dry(batch: dict[str, Tensor], n_labels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Waveforms, labels and kinds of the dry sources."""
    active = batch["label_index"] < n_labels
    labels = batch["label_index"][active]
    return batch["dry"][active], labels, torch.full_like(labels, DRY)


def _nothing(batch: dict[str, Tensor], n_labels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Waveform, label and kind of digital silence."""
    mixture = batch["mixture"]
    return mixture.new_zeros(1, mixture.shape[-1]), *_all_of(1, batch["label_index"], n_labels, SILENT)


def _all_of(number: int, like: Tensor, label: int, kind: int) -> tuple[Tensor, Tensor]:
    """The same label and kind for a number of items."""
    return like.new_full((number,), label), like.new_full((number,), kind)
