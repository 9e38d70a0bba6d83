"""Models that a training keeps: the weights of its epochs, links to the best ones, and their averages.

The names are ESPnet's: ``<n>epoch.pth``, ``latest.pth``, ``valid.<figure>.best.pth``,
``valid.<figure>.ave_<n>best.pth`` and ``valid.<figure>.ave.pth``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from espnet2.train.reporter import Reporter
from torch import Tensor

from s5.tasks.checkpoint import Damaged, read, save
from s5.utils.files import link

Criterion = Sequence[str]
"""Phase, figure, and ``min`` or ``max``."""


class EpochModels:
    """Models of an experiment folder.

    Args:
        folder: experiment folder.
        criteria: criteria that rank the epochs.
        keep: sizes of the n-best averages. The largest is the number of epochs to keep for each criterion.
    """

    def __init__(self, folder: Path, criteria: Sequence[Criterion], keep: int | Sequence[int]) -> None:
        self.folder, self.criteria = folder, criteria
        self.keep = sorted({n for n in ([keep] if isinstance(keep, int) else keep) if n > 0}) or [1]

    def path(self, epoch: int) -> Path:
        """File of an epoch."""
        return self.folder / f"{epoch}epoch.pth"

    def save(self, epoch: int, model: dict[str, Any]) -> None:
        """Saves the weights of an epoch. Raises OSError and keeps the old file if that fails."""
        save(model, self.path(epoch))

    def update_links(self, reporter: Reporter) -> None:
        """Links ``latest`` and ``best`` to their epochs."""
        epoch = reporter.get_epoch()
        link(self.folder / "latest.pth", self.path(epoch).name)
        improved = []
        for phase, figure, mode in self._reported(reporter):
            if reporter.get_best_epoch(phase, figure, mode) == epoch:
                link(self.folder / f"{phase}.{figure}.best.pth", self.path(epoch).name)
                improved.append(f"{phase}.{figure}")
        if improved:
            logging.info("best model updated: %s", ", ".join(improved))
        else:
            logging.info("no improvement in this epoch")

    def prune(self, reporter: Reporter, finished: bool = False) -> None:
        """Removes the epochs that are not among the best ones.

        Unless the training has finished, the best ones of the previous epoch are kept too: the previous checkpoint
        needs them.
        """
        latest = reporter.get_epoch()
        wanted = self._best(reporter, latest)
        if not finished:
            wanted |= self._best(reporter, latest - 1)
        removed = []
        for epoch in range(1, latest):
            if epoch not in wanted and self.path(epoch).exists():
                self.path(epoch).unlink()
                removed.append(self.path(epoch).name)
        if removed:
            logging.info("removed %s", ", ".join(removed))

    def average(self, reporter: Reporter, suffix: str = "") -> None:
        """Writes the n-best averages of every criterion.

        An average is the mean of floating-point tensors and the sum of integer ones. ``ave_1best`` is a link.

        Args:
            reporter: reporter with the figures of the epochs.
            suffix: suffix of the names, e.g. ``till5epoch``.
        """
        end = f"{suffix}.pth" if suffix else "pth"
        for phase, figure, mode in self._reported(reporter):
            ranked = reporter.sort_epochs(phase, figure, mode)
            sizes = [n for n in self.keep if n <= len(ranked)] or [1]
            for n in sizes:
                path = self.folder / f"{phase}.{figure}.ave_{n}best.{end}"
                if n == 1:
                    link(path, self.path(ranked[0]).name)
                else:
                    logging.info("averaging the %d best models by %s.%s: %s", n, phase, figure, path)
                    save(self._mean(ranked[:n]), path)
            link(self.folder / f"{phase}.{figure}.ave.{end}", f"{phase}.{figure}.ave_{sizes[-1]}best.{end}")

    def _mean(self, epochs: list[int]) -> dict[str, Tensor]:
        total: dict[str, Tensor] = {}
        n = 0
        for epoch in epochs:
            try:
                model = read(self.path(epoch))
            except (FileNotFoundError, Damaged) as e:
                logging.warning("%s is left out of the average: %s", self.path(epoch), e)
                continue
            n += 1
            total = {key: total[key] + value for key, value in model.items()} if total else model
        if not total:
            raise FileNotFoundError(2, "none of the epochs to average can be read", str(self.path(epochs[0])))
        return {key: value / n if torch.is_floating_point(value) else value for key, value in total.items()}

    def _best(self, reporter: Reporter, until: int) -> set[int]:
        """Best epochs up to ``until`` by any criterion."""
        best: set[int] = set()
        for criterion in self._reported(reporter):
            ranked = [epoch for epoch in reporter.sort_epochs(*criterion) if epoch <= until]
            best.update(ranked[: self.keep[-1]])
        return best

    def _reported(self, reporter: Reporter) -> list[Criterion]:
        return [criterion for criterion in self.criteria if reporter.has(criterion[0], criterion[1])]
