"""Trained models out of their experiment folders, ready to run. Needs no ESPnet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from s5.checkpoints import read_tensors
from s5.config import check_arguments
from s5.errors import InputError, one_of
from s5.labels import LabelSet
from s5.trained import best_checkpoint, read_config


class Experiment:
    """A trained network with what it was trained for.

    Args:
        network: in evaluation mode.
        labels: its label set.
        n_slots: K.
        sampling_rate: in Hz.
        name: what complaints name.
    """

    def __init__(self, network: torch.nn.Module, labels: LabelSet, n_slots: int, sampling_rate: int, name: str) -> None:
        self.network, self.labels, self.n_slots, self.sampling_rate = network, labels, n_slots, sampling_rate
        self.name = name

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        return next(self.network.parameters()).device

    @property
    def n_channels(self) -> int:
        """Channels that a mixture needs to have for this model: a tagger takes the first ones."""
        part = self.network if hasattr(self.network, "n_channels") else getattr(self.network, "encoder", None)
        return int(getattr(part, "n_channels", 1))

    @torch.inference_mode()
    def posterior(self, mixture: np.ndarray, bf16: bool = False) -> np.ndarray:
        """Of a tagger: [M, samples] -> posteriors float32: [K, C + 1], rows sum to 1; of a multi-hot one [1, C].

        Several mixtures of one length, [B, M, samples], give [B, K, C + 1] or [B, 1, C].
        """
        batch = self._tensor(mixture if mixture.ndim == 3 else mixture[None])
        logits = self._run(bf16, batch).float()
        multi_hot = getattr(self.network, "multi_hot", False)
        posterior = (logits.sigmoid()[:, None] if multi_hot else torch.softmax(logits, dim=-1)).cpu().numpy()
        return posterior if mixture.ndim == 3 else posterior[0]

    @torch.inference_mode()
    def separate(self, mixture: np.ndarray, labels: Sequence[Any], bf16: bool = False) -> np.ndarray:
        """Of a separator: [M, samples] and at most K labels -> sources [K, samples] float32.

        Several mixtures of one length, [B, M, samples], with a list of labels each, give [B, K, samples].
        """
        several = mixture.ndim == 3
        queries = [self.labels.query(row, self.n_slots, self.name) for row in (labels if several else [labels])]
        batch = self._tensor(mixture if several else mixture[None])
        sources = self._run(bf16, batch, self._tensor(np.stack(queries))).float().cpu().numpy()
        return sources if several else sources[0]

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        # A copy in torch's own memory: aligned alike in every process, so that the same kernels run.
        return torch.tensor(array, dtype=torch.float32, device=self.device)

    def _run(self, bf16: bool, *inputs: torch.Tensor) -> torch.Tensor:
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                return self.network(*inputs)
        except InputError as e:
            raise InputError.at(self.name, e) from None


def load_experiment(folder: str | Path, checkpoint: str | None, kind: str, device: str = "cpu") -> Experiment:
    """Loads a trained model.

    Args:
        folder: ``exp/<name>`` with config.yaml and checkpoints.
        checkpoint: file in it; None: :func:`s5.trained.best_checkpoint`.
        kind: ``tagger`` or ``separator``.
        device: torch device.

    Raises:
        InputError: no such experiment, or weights that do not fit its configuration.
    """
    from s5.separation import SEPARATORS, memory_format
    from s5.tagging import TAGGERS

    folder = Path(folder)
    config = read_config(folder)
    tables: dict[str, dict[str, Any]] = {"tagger": dict(TAGGERS), "separator": dict(SEPARATORS)}
    table = tables[kind]
    if config.get("network") not in table:
        raise InputError(f"{folder}/config.yaml: key network", config.get("network"), one_of(table))
    network_class = table[config["network"]]
    conf = {"n_slots": config["n_slots"], **config["network_conf"]}
    check_arguments(network_class, conf, f"{folder}/config.yaml: network_conf", given=("n_labels",))
    network = network_class(n_labels=len(config["labels"]), **conf)
    path = best_checkpoint(folder, checkpoint)
    tensors = {k.removeprefix("network."): v for k, v in read_tensors(path).items()}
    own = network.state_dict()
    for key, value in own.items():
        found = list(tensors[key].shape) if key in tensors else "nothing"
        if found != list(value.shape):
            raise InputError(f"{path}: key {key}", found, list(value.shape))
    network.load_state_dict({key: tensors[key] for key in own})
    network = memory_format(network).to(device).eval()
    labels = LabelSet(tuple(config["labels"]))
    return Experiment(network, labels, config["n_slots"], config["sampling_rate"], str(folder))
