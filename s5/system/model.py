"""Loads trained models from their experiment folders and runs them. Needs no ESPnet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch

from s5.checkpoints import check_weights, read_tensors
from s5.labels import LabelSet
from s5.system.decode import Precision
from s5.system.kinds import networks
from s5.system.trained import best_checkpoint, read_config
from s5.utils.config import build
from s5.utils.errors import InputError, one_of

if TYPE_CHECKING:
    from s5.tagging.tagger import Tagger


@dataclass
class TrainedModel:
    """A trained network with its label set, number of slots and sampling rate.

    Attributes:
        network: the network in evaluation mode.
        labels: label set.
        n_slots: K.
        sampling_rate: sampling rate in Hz.
        name: experiment folder, which error messages name.
    """

    network: torch.nn.Module
    labels: LabelSet
    n_slots: int
    sampling_rate: int
    name: str

    @property
    def device(self) -> torch.device:
        """Device of the network's parameters."""
        return next(self.network.parameters()).device

    @property
    def n_channels(self) -> int:
        """Number of channels of a mixture that the network uses; a tagger uses the first ones."""
        part = self.network if hasattr(self.network, "n_channels") else getattr(self.network, "encoder", None)
        return int(getattr(part, "n_channels", 1))

    @torch.inference_mode()
    def posterior(self, mixture: np.ndarray, precision: Precision = "fp32") -> np.ndarray:
        """Tags [M, samples]: posteriors float32 [K, C + 1] whose rows sum to 1; of a multi-hot tagger [1, C].

        A batch [B, M, samples] returns [B, K, C + 1] or [B, 1, C].
        """
        batch = self.tensor(mixture if mixture.ndim == 3 else mixture[None])
        logits = self.run(precision, batch).float()
        multi_hot = getattr(self.network, "multi_hot", False)
        posterior = (logits.sigmoid()[:, None] if multi_hot else torch.softmax(logits, dim=-1)).cpu().numpy()
        return posterior if mixture.ndim == 3 else posterior[0]

    @torch.inference_mode()
    def frame_posterior(self, mixture: np.ndarray, precision: Precision = "fp32") -> np.ndarray:
        """Posteriors of each frame (:meth:`s5.tagging.tagger.Tagger.frame_posterior`).

        [M, samples] -> [frames, C] float32, a batch [B, M, samples] -> [B, frames, C].
        """
        batch = self.tensor(mixture if mixture.ndim == 3 else mixture[None])
        frames = self.run(precision, batch, function=cast("Tagger", self.network).frame_posterior).float().cpu().numpy()
        return frames if mixture.ndim == 3 else frames[0]

    @torch.inference_mode()
    def source_posterior(self, sources: np.ndarray, precision: Precision = "fp32") -> np.ndarray:
        """Tags sources [n, samples] with a source tagger: probabilities float32 [n, C + 1] of classes and silence."""
        tags: Any = self.run(precision, self.tensor(sources))
        return type(tags)(*(part.float() for part in tags)).posterior().cpu().numpy()

    @torch.inference_mode()
    def separate(
        self,
        mixture: np.ndarray,
        labels: Sequence[Any],
        precision: Precision = "fp32",
        frames: np.ndarray | None = None,
    ) -> np.ndarray:
        """Separates [M, samples] by at most K labels: sources [K, samples] float32.

        A batch [B, M, samples] with a list of labels for each mixture returns [B, K, samples]. A network with
        ``time_film`` needs frame posteriors of the mixture, or of each (:meth:`frame_posterior`).
        """
        several = mixture.ndim == 3
        queries = [self.labels.query(row, self.n_slots, self.name) for row in (labels if several else [labels])]
        batch = self.tensor(mixture if several else mixture[None])
        more: dict[str, Any] = {} if frames is None else {"frames": self.tensor(frames if several else frames[None])}
        sources = self.run(precision, batch, self.tensor(np.stack(queries)), **more).float().cpu().numpy()
        return sources if several else sources[0]

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """The array as float32 on the network's device."""
        # A copy in torch's own memory has the same alignment in every process, so the same kernels run.
        return torch.tensor(array, dtype=torch.float32, device=self.device)

    def run(
        self,
        precision: Precision,
        *inputs: torch.Tensor,
        function: Callable[..., Any] | None = None,
        **named: torch.Tensor,
    ) -> Any:
        """The network's output, a tensor or a tuple of tensors. Raises InputError for numbers that are not finite.

        Args:
            precision: precision of the network.
            inputs, named: inputs of the network.
            function: function of the network to call instead of its forward pass.
        """
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
                outputs = (function or self.network)(*inputs, **named)
            parts = outputs if isinstance(outputs, tuple) else (outputs,)
            if not all(torch.isfinite(part).all() for part in parts):
                raise InputError("outputs", "numbers that are not finite", "finite ones (are the weights damaged?)")
            return outputs
        except InputError as e:
            raise InputError.at(self.name, e) from None


N = TypeVar("N", bound=torch.nn.Module)

MOST_PARAMETERS = 20_000
"""Greatest number of weight tensors: an absurd number of layers must not fill the memory."""


def build_network(network: Callable[..., N], conf: Mapping[str, Any], where: object, n_labels: int, n_slots: int) -> N:
    """Builds a network with random weights.

    Args:
        network: class of the network.
        conf: configured arguments.
        where: file and key that error messages name.
        n_labels: C.
        n_slots: K, unless ``conf`` has it.

    Raises:
        InputError: arguments are unknown, of a wrong type, or do not fit together.
    """
    n = 0

    def count(*_: Any) -> None:
        nonlocal n
        n += 1
        if n > MOST_PARAMETERS:
            raise ValueError(f"more than {MOST_PARAMETERS} tensors of weights")

    counting = torch.nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        return build(network, {"n_slots": n_slots, **conf}, where, n_labels=n_labels)
    finally:
        counting.remove()


def load_model(folder: str | Path, checkpoint: str | None, kind: str | None, device: str = "cpu") -> TrainedModel:
    """Loads a trained model.

    Args:
        folder: ``exp/<name>`` with config.yaml and checkpoints.
        checkpoint: file in the folder; None: :func:`s5.system.trained.best_checkpoint`.
        kind: kind of :data:`s5.system.kinds.KINDS`; None: any.
        device: torch device.

    Raises:
        InputError: there is no such experiment, or its weights do not fit its configuration.
    """
    from s5.separation import memory_format

    folder = Path(folder)
    config = read_config(folder)
    table = networks(kind)
    if config.network not in table:
        raise InputError(f"{folder}/config.yaml: key network", config.network, one_of(table, config.network))
    arguments = (config.network_conf, f"{folder}/config.yaml: network_conf", len(config.labels), config.n_slots)
    path = best_checkpoint(folder, checkpoint)
    tensors = {k.removeprefix("network."): v for k, v in read_tensors(path).items()}
    with torch.device("meta"):  # needs no memory: sizes are compared with the file's first
        expected = build_network(table[config.network], *arguments).state_dict()
    for key, value in expected.items():
        check_weights(tensors.get(key), value, f"{path}: key {key}")
    network = build_network(table[config.network], *arguments)
    network.load_state_dict({key: tensors[key] for key in expected})
    network = memory_format(network).to(device).eval()
    return TrainedModel(network, LabelSet(tuple(config.labels)), config.n_slots, config.sampling_rate, str(folder))
