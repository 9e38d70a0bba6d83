"""Runs the networks of an objects system as functions of arrays, for :func:`s5.fusion.objects.find_objects`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from s5.system.decode import Precision
from s5.system.model import TrainedModel
from s5.utils.errors import InputError


@dataclass
class ObjectNetworks:
    """Universal sound separation, source tagger and target sound extraction.

    Attributes:
        uss, source_tagger, tse: the trained models.
        tagger: tagger whose frame posteriors TSE receives; None: TSE has no ``time_film``.
        precision: precision of the networks.

    Raises:
        InputError: USS has not K foreground slots, or the source tagger needs object features, which TSE does not give.
    """

    uss: TrainedModel
    source_tagger: TrainedModel
    tse: TrainedModel
    tagger: TrainedModel | None = None
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        slots, n_slots = self.uss.network.foreground, self.uss.n_slots
        if slots != n_slots:
            raise InputError(f"{self.uss.name}: foreground", slots, f"{n_slots} in an objects system, K")
        if self.source_tagger.network.object_path is not None:
            expected = "none in an objects system: the outputs of TSE come without object features"
            raise InputError(f"{self.source_tagger.name}: object_dim", "a size", expected)

    @torch.inference_mode()
    def separate(self, mixtures: np.ndarray) -> tuple[np.ndarray, None]:
        """Foreground waveforms [B, K, n] of mixtures [B, M, n]."""
        found = self.uss.run(self.precision, self.uss.tensor(mixtures))
        return found.waveform[:, : self.uss.n_slots].float().cpu().numpy(), None

    @torch.inference_mode()
    def classify(self, waveforms: np.ndarray, features: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Logits [B, K, C] and logits of being active [B, K] of waveforms [B, K, n]."""
        batch, n_slots, n = waveforms.shape
        found = self.source_tagger.run(self.precision, self.source_tagger.tensor(waveforms.reshape(-1, n)))
        logits, active = found.logits.float().cpu().numpy(), found.active.float().cpu().numpy()
        return logits.reshape(batch, n_slots, -1), active.reshape(batch, n_slots)

    @torch.inference_mode()
    def extract(self, mixtures: np.ndarray, labels: np.ndarray, enrolments: np.ndarray) -> np.ndarray:
        """Waveforms [B, K, n] of mixtures [B, M, n] by one-hot labels [B, K, C] and enrolments [B, K, n]."""
        inputs = map(self.tse.tensor, (mixtures, labels, enrolments))
        more: dict[str, Any] = {}
        if self.tagger is not None:
            more["frames"] = self.tse.tensor(self.tagger.frame_posterior(mixtures, self.precision))
        found = self.tse.run(self.precision, *inputs, **more)
        return np.asarray(found.float().cpu().numpy())
