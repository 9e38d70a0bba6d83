"""ESPnet's trainer with validation figures that are no averages over batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from espnet2.train.reporter import SubReporter, WeightedAverage, aggregate
from espnet2.train.trainer import Trainer


class S5Trainer(Trainer):
    """A trainer that turns what the batches counted into figures at the end of a validation.

    A model that has a method ``figures(averages: dict[str, float]) -> dict[str, float]`` is given the averages of all
    that it reported; what it returns takes their place: in the log, in tensorboard, for ``best_model_criterion``.
    """

    @classmethod
    @torch.no_grad()
    def validate_one_epoch(cls, model: torch.nn.Module, reporter: SubReporter, **kwargs: Any) -> None:
        """One pass over the validation set; see ESPnet's trainer."""
        super().validate_one_epoch(model=model, reporter=reporter, **kwargs)
        figures = getattr(getattr(model, "module", model), "figures", None)
        if figures is None or not reporter.count:
            return
        averages = {name: float(aggregate(values)) for name, values in reporter.stats.items()}
        # One value of weight 1 among nothing: the reporter wants one entry a batch.
        nothing = [WeightedAverage(np.nan, 0)] * (reporter.count - 1)
        values = {name: [WeightedAverage(value, 1), *nothing] for name, value in figures(averages).items()}
        reporter.stats.clear()
        reporter.stats.update(values)
