"""Defines the interface of encoders, which turn the channels of a mixture into one sequence of features."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from s5.utils.errors import InputError


class Encoder(nn.Module, ABC):
    """Network that turns each channel of a waveform into features.

    The channels are a batch for the network. Their features are concatenated channel after channel, so one frame has
    ``n_channels * feature_dim`` values (the official 4-channel baseline).

    Args:
        sampling_rate: sampling rate of the mixture in Hz. An encoder with another rate resamples inside.
        n_channels: number of channels to encode, from the first of the mixture on (1: the reference channel).
        feature_dim: number of features per frame and channel.
        weights: file or folder of pretrained weights; see :meth:`load_weights`.
    """

    def __init__(self, sampling_rate: int, n_channels: int, feature_dim: int, weights: str | None = None) -> None:
        super().__init__()
        if n_channels < 1:
            raise InputError("encoder: n_channels", n_channels, "1 or more")
        self.sampling_rate, self.n_channels, self.feature_dim = sampling_rate, n_channels, feature_dim
        self.weights = weights

    @property
    def dim(self) -> int:
        """Number of features per frame, over all channels."""
        return self.n_channels * self.feature_dim

    @property
    @abstractmethod
    def n_layers(self) -> int:
        """Greatest number of layers for :meth:`top_layers`."""

    @abstractmethod
    def top_layers(self, n: int) -> list[nn.Module]:
        """Modules to train in a fine-tuning of the last ``n`` layers: these layers and all modules after them.

        Raises:
            InputError: ``n`` is not within 0 .. ``n_layers``.
        """

    @abstractmethod
    def encode(self, waveform: Tensor) -> Tensor:
        """Encodes single-channel waveforms: [N, T] -> [N, frames, feature_dim]."""

    @abstractmethod
    def load_weights(self) -> None:
        """Loads ``weights``, if there are any, at the start of a training. Trained models have weights of their own.

        Raises:
            InputError: the file is unreadable or belongs to another model; the message names keys that differ.
        """

    def forward(self, mixture: Tensor) -> Tensor:
        """Encodes mixtures.

        Args:
            mixture: [B, M, T] waveforms with at least ``n_channels`` channels, or [B, T], a single channel.

        Returns:
            [B, frames, dim]; [B, frames, feature_dim] for [B, T].

        Raises:
            InputError: there are too few channels, samples are not finite, or the audio is shorter than one frame.
        """
        if mixture.shape[-2] < self.n_channels and mixture.dim() == 3:
            raise InputError("mixture", f"{mixture.shape[-2]} channels", f"at least {self.n_channels} for this encoder")
        if mixture.dim() == 3:
            mixture = mixture[:, : self.n_channels]
        # One pass suffices: a sum is finite only if its terms are (float32 samples do not overflow it).
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
