"""What every encoder of a tagger is: channels of a mixture to one sequence of features."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from s5.utils.errors import InputError


class Encoder(nn.Module, ABC):
    """A network that turns waveforms into features, each channel by itself.

    The channels go through the network as a batch; their features are concatenated, so that one frame has
    ``n_channels * feature_dim`` values, channel after channel (the official 4-channel baseline).

    Args:
        sampling_rate: of the mixture in Hz. An encoder with another rate of its own resamples inside.
        n_channels: channels that are encoded, the first ones of the mixture (1: the reference channel).
        feature_dim: features of one frame of one channel.
        weights: file or folder of pretrained weights; see :meth:`load_weights`.
    """

    def __init__(
        self,
        sampling_rate: int,
        n_channels: int,
        feature_dim: int,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if n_channels < 1:
            raise InputError("encoder: n_channels", n_channels, "1 or more")
        self.sampling_rate, self.n_channels, self.feature_dim = sampling_rate, n_channels, feature_dim
        self.weights = weights

    @property
    def dim(self) -> int:
        """Features of one frame: all channels."""
        return self.n_channels * self.feature_dim

    @property
    @abstractmethod
    def n_layers(self) -> int:
        """Number of layers that :meth:`top_layers` can give."""

    @abstractmethod
    def top_layers(self, n: int) -> list[nn.Module]:
        """Modules that a fine-tuning of the last ``n`` layers trains: these layers and all that follows them.

        Raises:
            InputError: ``n`` is not within 0 .. ``n_layers``.
        """

    @abstractmethod
    def encode(self, waveform: Tensor) -> Tensor:
        """Single-channel waveforms [N, T] -> [N, frames, feature_dim]."""

    @abstractmethod
    def load_weights(self) -> None:
        """Loads ``weights`` if there are any. For the start of a training: a trained model brings its own.

        Raises:
            InputError: not readable, or of another model (the keys that differ are named).
        """

    def forward(self, mixture: Tensor) -> Tensor:
        """Encodes.

        Args:
            mixture: [B, M, T] waveforms with at least ``n_channels`` channels; [B, T]: one channel, encoded by itself.

        Returns:
            [B, frames, dim]; [B, frames, feature_dim] for [B, T].

        Raises:
            InputError: too few channels, samples that are not finite, or less audio than one frame.
        """
        if mixture.shape[-2] < self.n_channels and mixture.dim() == 3:
            raise InputError("mixture", f"{mixture.shape[-2]} channels", f"at least {self.n_channels} for this encoder")
        if mixture.dim() == 3:
            mixture = mixture[:, : self.n_channels]
        # One pass: a sum is finite only if its terms are (float32 samples do not overflow it).
        if not torch.isfinite(mixture.detach().sum()):
            raise InputError("mixture", "NaN or infinite samples", "finite ones")
        features = self.encode(mixture.flatten(0, -2))
        if mixture.dim() == 2 or self.n_channels == 1:
            return features
        return features.unflatten(0, (-1, self.n_channels)).transpose(1, 2).flatten(2)

    def _check_layers(self, n: int) -> None:
        if not 0 <= n <= self.n_layers:
            raise InputError("encoder: layers to train", n, f"0 .. {self.n_layers}")


class Resampler(nn.Module):
    """Waveforms [N, T] at one sampling rate to float32 at another one (windowed sinc).

    Args:
        rate: of the waveforms in Hz.
        new_rate: of the output in Hz.
    """

    def __init__(self, rate: int, new_rate: int) -> None:
        super().__init__()
        self.transform: nn.Module = nn.Identity()
        if rate != new_rate:
            from torchaudio.transforms import Resample

            with torch.device("cpu"):  # also where a model is built on the meta device to check its configuration
                transform = Resample(rate, new_rate)
                kernel = transform.kernel
            del transform.kernel
            transform.register_buffer("kernel", kernel, persistent=False)  # follows from the rates
            self.transform = transform

    def forward(self, waveform: Tensor) -> Tensor:
        """[N, T] -> [N, T * new_rate / rate]."""
        with torch.autocast(waveform.device.type, enabled=False):
            return self.transform(waveform.float())
