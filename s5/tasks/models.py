"""ESPnet models around taggers and separators: they compute the loss, the figures and the weight of a batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.abs_espnet_model import AbsESPnetModel
from torch import Tensor, nn

from s5.separation.losses import ca_pi_sdr, pi_sdr, sdr
from s5.system.model import TrainedModel
from s5.tagging.decision import MultiHotDecision, decide_multihot
from s5.tagging.losses import multi_hot_bce, pit_cross_entropy
from s5.tagging.tagger import Tagger
from s5.tasks.valid_metrics import batch_counts, figures
from s5.utils.errors import InputError, one_of

Loss = Callable[..., tuple[Tensor, Tensor]]


class S5Model(AbsESPnetModel):
    """Base class of the models: runs the network, in bfloat16 if wanted, and keeps an average of its weights.

    Evaluation uses the average, and checkpoints hold it as ``network.*``. The weights in training are ``raw.*``.

    Args:
        network: network to train.
        bf16: whether to run it in bfloat16, in training and evaluation.
        ema_decay: decay of the exponential moving average of the weights; 0: no average. The decay is at most
            (1 + n) / (10 + n) after n steps, so that the first weights do not dominate a short training.
    """

    def __init__(self, network: nn.Module, bf16: bool, ema_decay: float = 0.0) -> None:
        super().__init__()
        if not 0 <= ema_decay < 1:
            raise InputError("key ema_decay", ema_decay, "at least 0 and below 1")
        self.network, self.bf16, self.ema_decay = network, bf16, ema_decay
        self._average: dict[str, Tensor] = {}
        self._n_averaged = 0
        self.frozen: list[nn.Module] = []

    def run(self, *args: Tensor | None, **kwargs: Tensor | None) -> Any:
        """The network's output as float32: a tensor or a named tuple of tensors."""
        assert args[0] is not None
        with torch.autocast(args[0].device.type, torch.bfloat16, enabled=self.bf16):
            if self._average and not self.training:
                output = torch.func.functional_call(self.network, self._average, args, kwargs)
            else:
                output = self.network(*args, **kwargs)
        return output.float() if isinstance(output, Tensor) else type(output)(*(part.float() for part in output))

    def freeze(self, names: Sequence[str]) -> None:
        """Freezes modules and parameters by name (``--freeze_param``). Frozen modules stay in evaluation mode.

        Raises:
            InputError: nothing has this name.
        """
        modules, parameters = dict(self.named_modules()), dict(self.named_parameters())
        for name in names:
            if name in modules:
                modules[name].requires_grad_(False)
                self.frozen.append(modules[name])
            elif name in parameters:
                parameters[name].requires_grad_(False)
            else:
                raise InputError("--freeze_param", name, one_of([*modules, *parameters][1:], name, 5))

    def train(self, mode: bool = True) -> Self:
        """Switches to training or evaluation mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    @torch.no_grad()
    def update_average(self) -> None:
        """Moves the average towards the weights. The task calls it after each step of the optimizer."""
        if not self.ema_decay:
            return
        decay = min(self.ema_decay, (1 + self._n_averaged) / (10 + self._n_averaged))
        for key, value in self.network.state_dict().items():
            if key not in self._average:
                self._average[key] = value.clone()
            elif value.is_floating_point():  # also the running statistics of batch norms
                self._average[key].lerp_(value, 1 - decay)
            else:
                self._average[key].copy_(value)
        self._n_averaged += 1

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """State for ESPnet's checkpoint. With an average, it is ``network.*`` and the weights are ``raw.*``."""
        state = super().state_dict(*args, **kwargs)
        if not self._average:
            return state
        for key, value in self._average.items():
            state[f"raw.{key}"] = state[f"network.{key}"]
            state[f"network.{key}"] = value
        state["raw_n_averaged"] = torch.tensor(self._n_averaged)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Loads weights and average from a checkpoint. A model without an average takes the average as its weights."""
        state = {key: value for key, value in state_dict.items() if not key.startswith("raw")}
        if self.ema_decay and "raw_n_averaged" in state_dict:
            own = self.network.state_dict()
            for key in own:
                self._average[key] = state[f"network.{key}"].to(own[key].device, copy=True)
                state[f"network.{key}"] = state_dict[f"raw.{key}"]
            self._n_averaged = int(state_dict["raw_n_averaged"])
        return super().load_state_dict(state, *args, **kwargs)

    def collect_feats(self, **kwargs: Tensor) -> dict[str, Tensor]:
        """Returns nothing: ESPnet requires the method, but the models have no features to collect."""
        return {}


class WaveformModel(S5Model):
    """Base class of the models of networks that separate."""

    tagger: TrainedModel | None = None
    """Frozen tagger whose frame posteriors a network with ``time_film`` receives."""

    @torch.no_grad()
    def frames(self, mixture: Tensor) -> dict[str, Tensor]:
        """The network's argument ``frames`` [B, T', C] for mixtures [B, M, T]; none without a tagger."""
        if self.tagger is None:
            return {}
        network = cast(Tagger, self.tagger.network.to(mixture.device))
        with torch.autocast(mixture.device.type, torch.bfloat16, enabled=self.bf16):
            return {"frames": network.frame_posterior(mixture)}

    @abstractmethod
    def estimate(self, mixture: Tensor, dry: Tensor, label_index: Tensor) -> Tensor:
        """Estimates [B, K, T] in the order of the sources.

        Args:
            mixture: [B, M, T].
            dry: [B, K, T], by which estimates of one class are put in order.
            label_index: [B, K], C for silence.
        """


class SeparationModel(WaveformModel):
    """A separator trained with oracle labels.

    Args:
        network: mixture [B, M, T], label_vector [B, K, C] -> [B, K, T].
        n_labels: C.
        loss: one of :mod:`s5.separation.losses`.
        bf16: whether to run the network in bfloat16; the loss stays in float32.
        ema_decay: decay of the average of the weights; 0: no average.
        one_query: whether to train with one random active source of each mixture as a query of one slot. The network
            must then accept label vectors [B, 1, C]. Validation queries all K.
    """

    def __init__(
        self,
        network: nn.Module,
        n_labels: int,
        loss: Loss,
        bf16: bool = False,
        ema_decay: float = 0.0,
        one_query: bool = False,
    ) -> None:
        super().__init__(network, bf16, ema_decay)
        self.n_labels, self.loss, self.one_query = n_labels, loss, one_query

    def forward(self, mixture: Tensor, dry: Tensor, label_index: Tensor, **kwargs: Any):  # type: ignore[no-untyped-def]
        """Loss, figures and weight of a batch: mixture [B, M, T], dry [B, K, T], label_index [B, K] (C is silence)."""
        if self.training and self.one_query:
            slot = _random_active(label_index != self.n_labels)
            label_index = label_index.gather(1, slot)
            dry = dry.gather(1, slot[..., None].expand(-1, -1, dry.shape[-1]))
        estimate = self.run(mixture, one_hot(label_index, self.n_labels), **self.frames(mixture))
        loss, _ = self.loss(estimate, dry, label_index, silence_index=self.n_labels)
        if self.training:
            return force_gatherable((loss.mean(), {"loss": loss.mean().detach()}, len(mixture)), mixture.device)
        # Like CAPI-SDRi, validation leaves out mixtures without a source: their loss is 0 for any estimate.
        active = label_index != self.n_labels
        n_mixtures = active.any(-1).sum().clamp(min=1)
        # The same permutations for every loss, so that the figures of models with different losses compare.
        rules: dict[str, Loss] = {"sdri": ca_pi_sdr, "pi_sdri": pi_sdr}
        stats = {"loss": loss.sum() / n_mixtures}
        for name, rule in rules.items():
            permutation = rule(estimate, dry, label_index, silence_index=self.n_labels)[1]
            ordered = estimate.gather(1, permutation[..., None].expand_as(estimate))
            stats[name] = sdr_improvement(ordered, dry, mixture[:, 0], active).sum() / n_mixtures
        return force_gatherable((stats["loss"], stats, active.any(-1).sum()), mixture.device)

    def estimate(self, mixture: Tensor, dry: Tensor, label_index: Tensor) -> Tensor:
        """See :meth:`WaveformModel.estimate`."""
        estimate = self.run(mixture, one_hot(label_index, self.n_labels), **self.frames(mixture))
        permutation = ca_pi_sdr(estimate, dry, label_index, silence_index=self.n_labels)[1]
        return estimate.gather(1, permutation[..., None].expand_as(estimate))


class TaggingModel(S5Model):
    """A tagger and its training loss.

    Args:
        network: mixture [B, M, T] -> logits [B, K, C + 1], or [B, C] if its attribute ``multi_hot`` is true.
        n_labels: C.
        bf16: whether to run the network in bfloat16; the loss stays in float32.
        ema_decay: decay of the average of the weights; 0: no average.
        class_weight: weight of each class in the loss of a track-based tagger [C + 1].
        decision: rule by which validation takes labels from the probabilities of a multi-hot tagger.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        n_labels: int,
        bf16: bool = False,
        ema_decay: float = 0.0,
        class_weight: Tensor | None = None,
        decision: MultiHotDecision | None = None,
    ) -> None:
        super().__init__(network, bf16, ema_decay)
        self.n_labels, self.decision = n_labels, decision or MultiHotDecision()
        self.multi_hot: bool = getattr(network, "multi_hot", False)
        self.register_buffer("class_weight", class_weight, persistent=False)

    def forward(self, mixture: Tensor, label_index: Tensor, **kwargs: Any):  # type: ignore[no-untyped-def]
        """Loss, figures and weight of a batch: mixture [B, M, T], label_index [B, K] (C is silence)."""
        logits = self.run(mixture)
        if self.multi_hot:
            loss = multi_hot_bce(logits, label_index).mean()
        else:
            loss = pit_cross_entropy(logits, label_index, self.class_weight)[0].mean()
        stats = batch_counts(self.predict(logits.detach()), label_index, self.n_labels)
        if self.training:
            stats = {"acc3": stats["ratio"], "accuracy_mix": stats["right"]}
        return force_gatherable((loss, {"loss": loss.detach(), **stats}, len(mixture)), mixture.device)

    def predict(self, logits: Tensor) -> Tensor:
        """Class indices [B, n] from the network's output, C for silence. n is K, or ``n_max`` of a multi-hot tagger."""
        if not self.multi_hot:
            return logits.argmax(-1)
        decision = (self.decision.threshold, self.decision.n_min, self.decision.n_max)
        index = np.full((len(logits), self.decision.n_max), self.n_labels)
        for row, posterior in zip(index, logits.sigmoid().cpu().numpy(), strict=True):
            found = decide_multihot(posterior, *decision)[0]
            row[: len(found)] = found
        return torch.from_numpy(index).to(logits.device)

    def figures(self, averages: dict[str, float]) -> dict[str, float]:
        """Figures that validation reports: the loss and :data:`s5.tasks.valid_metrics.FIGURES`."""
        return {"loss": averages["loss"], **figures(averages)}


def one_hot(label_index: Tensor, n_labels: int) -> Tensor:
    """Label vectors [B, K, C] from class indices [B, K], zeros for silence, which is C."""
    return F.one_hot(label_index, n_labels + 1)[..., :n_labels].float()


def sdr_improvement(estimate: Tensor, dry: Tensor, reference: Tensor, active: Tensor) -> Tensor:
    """Mean SDR improvement in dB over the active slots of each mixture [B]; 0 for a mixture without sources.

    Args:
        estimate: [B, K, T] in the order of the sources.
        dry: [B, K, T].
        reference: [B, T], the mixture's reference channel.
        active: [B, K] bool.
    """
    improvement = (sdr(estimate, dry) - sdr(reference[:, None], dry)) * active
    return improvement.sum(-1) / active.sum(-1).clamp(min=1)


def _random_active(active: Tensor) -> Tensor:
    """Index of a random active slot of each mixture [B, 1]; any slot of a mixture without sources.

    Args:
        active: [B, K] bool.
    """
    weight = active.float()
    return torch.multinomial(torch.where(active.any(-1, keepdim=True), weight, torch.ones_like(weight)), 1)
