"""The places where a training shows itself: tensorboard, and W&B through ESPnet's options (``--use_wandb``)."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s5.tasks.preemption import REQUEUE
from s5.utils.errors import InputError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Tensorboard:
    """Tensorboard's files. Audio, images and text get tags ``<mixture>/<name>``; captions are not shown."""

    def __init__(self, writer: SummaryWriter) -> None:
        self.writer = writer

    def audio(self, tag: str, waveform: np.ndarray, fs: int, epoch: int, caption: str = "") -> None:
        """Shows a waveform [T], from -1 to 1, at fs Hz."""
        self.writer.add_audio(tag, waveform, epoch, sample_rate=fs)

    def image(self, tag: str, pixels: np.ndarray, epoch: int, caption: str = "") -> None:
        """Shows RGB pixels [height, width, 3] uint8."""
        self.writer.add_image(tag, pixels, epoch, dataformats="HWC")

    def text(self, tag: str, text: str, epoch: int) -> None:
        """Shows a line of text."""
        self.writer.add_text(tag, text, epoch)


class WandB:
    """The W&B run that ESPnet has opened. It sends the content with the figures of the epoch."""

    def __init__(self) -> None:
        self.wandb = importlib.import_module("wandb")

    def audio(self, tag: str, waveform: np.ndarray, fs: int, epoch: int, caption: str = "") -> None:
        """See :class:`Tensorboard`."""
        self.wandb.log({tag: self.wandb.Audio(waveform, sample_rate=fs, caption=caption or None)}, commit=False)

    def image(self, tag: str, pixels: np.ndarray, epoch: int, caption: str = "") -> None:
        """See :class:`Tensorboard`."""
        self.wandb.log({tag: self.wandb.Image(pixels, caption=caption or None)}, commit=False)

    def text(self, tag: str, text: str, epoch: int) -> None:
        """See :class:`Tensorboard`."""
        self.wandb.log({tag: self.wandb.Html(text)}, commit=False)

    def weights(self, path: Path, epoch: int) -> None:
        """Uploads the weights of an epoch as a version of the run's model, as ESPnet's own trainer does."""
        artifact = self.wandb.Artifact(f"model_{self.wandb.run.id}", type="model")
        artifact.add_file(str(path))
        self.wandb.log_artifact(artifact, aliases=[f"epoch-{epoch}"])

    def interrupted(self) -> None:
        """Closes the run as preempted, so that the next start continues it. A finished run would not be continued."""
        self.wandb.run.mark_preempting()
        self.wandb.finish(exit_code=REQUEUE)


Board = Tensorboard | WandB


def check_wandb(args: argparse.Namespace) -> None:
    """Raises InputError if W&B is asked for and not installed: ESPnet would say so later, with a traceback."""
    if args.use_wandb and importlib.util.find_spec("wandb") is None:
        raise InputError("--use_wandb", "no package wandb", "it (tools/installers/install_wandb.sh), or false")
