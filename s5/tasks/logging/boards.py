"""Where a training shows itself to people: tensorboard, and W&B through ESPnet's options (``--use_wandb``)."""

from __future__ import annotations

import argparse
import importlib.util
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s5.tasks.preemption import REQUEUE
from s5.utils.errors import InputError
from s5.utils.files import write_json
from s5.utils.text import read_json

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EXAMPLES = "examples.json"
"""Beside tensorboard's files: what they hold of the examples that is not written again."""


class Board(ABC):
    """Takes audio, images and text under tags ``<mixture>/<what>``."""

    @abstractmethod
    def audio(self, tag: str, waveform: np.ndarray, fs: int, epoch: int, caption: str = "") -> None:
        """A waveform [T], from -1 to 1, at fs Hz."""

    @abstractmethod
    def image(self, tag: str, pixels: np.ndarray, epoch: int, caption: str = "") -> None:
        """RGB pixels [height, width, 3] uint8."""

    @abstractmethod
    def text(self, tag: str, text: str, epoch: int) -> None:
        """A line of text."""

    @abstractmethod
    def holds(self, facts: list[dict[str, Any]]) -> bool:
        """Whether it has been given what these examples write once; see :meth:`keep`."""

    @abstractmethod
    def keep(self, facts: list[dict[str, Any]]) -> None:
        """Remembers that it has been given what these examples write once."""


class Tensorboard(Board):
    """Tensorboard's files of the validation.

    Args:
        writer: of these files.
        folder: where they are.
    """

    def __init__(self, writer: SummaryWriter, folder: Path) -> None:
        self.writer, self.path = writer, folder / EXAMPLES

    def audio(self, tag: str, waveform: np.ndarray, fs: int, epoch: int, caption: str = "") -> None:
        """See :class:`Board`; tensorboard shows no caption."""
        self.writer.add_audio(tag, waveform, epoch, sample_rate=fs)

    def image(self, tag: str, pixels: np.ndarray, epoch: int, caption: str = "") -> None:
        """See :class:`Board`; tensorboard shows no caption."""
        self.writer.add_image(tag, pixels, epoch, dataformats="HWC")

    def text(self, tag: str, text: str, epoch: int) -> None:
        """See :class:`Board`."""
        self.writer.add_text(tag, text, epoch)

    def holds(self, facts: list[dict[str, Any]]) -> bool:
        """Whether the files of this or an earlier start of the training hold it."""
        try:
            return read_json(self.path, "what stays of the examples") == facts
        except InputError:
            return False

    def keep(self, facts: list[dict[str, Any]]) -> None:
        """Once all that was given is in the files."""
        self.writer.flush()
        write_json(self.path, facts, indent=2, ensure_ascii=False)


class WandB(Board):
    """The W&B run that ESPnet has opened. What it is given goes out with the figures of the epoch."""

    def __init__(self) -> None:
        self.facts: list[dict[str, Any]] | None = None

    def audio(self, tag: str, waveform: np.ndarray, fs: int, epoch: int, caption: str = "") -> None:
        """See :class:`Board`."""
        import wandb

        wandb.log({tag: wandb.Audio(waveform, sample_rate=fs, caption=caption or None)}, commit=False)

    def image(self, tag: str, pixels: np.ndarray, epoch: int, caption: str = "") -> None:
        """See :class:`Board`."""
        import wandb

        wandb.log({tag: wandb.Image(pixels, caption=caption or None)}, commit=False)

    def text(self, tag: str, text: str, epoch: int) -> None:
        """See :class:`Board`."""
        import wandb

        wandb.log({tag: wandb.Html(text)}, commit=False)

    def holds(self, facts: list[dict[str, Any]]) -> bool:
        """Whether this process has given it: the next one may open another run."""
        return self.facts == facts

    def keep(self, facts: list[dict[str, Any]]) -> None:
        """See :class:`Board`."""
        self.facts = facts

    def weights(self, path: Path, epoch: int) -> None:
        """Uploads the weights of an epoch as a version of the run's model, as ESPnet's own trainer does."""
        import wandb

        artifact = wandb.Artifact(f"model_{wandb.run.id}", type="model")
        artifact.add_file(str(path))
        wandb.log_artifact(artifact, aliases=[f"epoch-{epoch}"])

    def interrupted(self) -> None:
        """Closes the run as one that goes on: else it would count as finished, and the next start open another."""
        import wandb

        wandb.run.mark_preempting()
        wandb.finish(exit_code=REQUEUE)


def check_wandb(args: argparse.Namespace) -> None:
    """Raises InputError if W&B is asked for and not installed: ESPnet would say so later, with a traceback."""
    if args.use_wandb and importlib.util.find_spec("wandb") is None:
        raise InputError("--use_wandb", "no package wandb", "it (tools/installers/install_wandb.sh), or false")
