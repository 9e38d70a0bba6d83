"""Computes the auxiliary features of Park et al., spectral roll-off and chroma, on the network's device.

The frames equal those of ``librosa.feature.spectral_rolloff`` and of ``librosa.feature.chroma_stft`` with ``tuning=0``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from s5.utils.errors import InputError


class AuxiliaryFeature(nn.Module):
    """Frame-wise feature of the reference channel, and a small network that embeds it.

    Args:
        sampling_rate: sampling rate of the mixture in Hz.
        n_fft: window of the STFT in samples (Hann, centred, zero-padded at the ends); by default 25 ms (the report).
        hop_length: its hop in samples; by default 10 ms.
        width: width of the embedding.
    """

    window: Tensor

    def __init__(self, sampling_rate: int, n_fft: int | None, hop_length: int | None, width: int) -> None:
        super().__init__()
        n_fft = round(0.025 * sampling_rate) if n_fft is None else n_fft
        hop_length = round(0.01 * sampling_rate) if hop_length is None else hop_length
        if not 0 < hop_length <= n_fft:
            raise InputError("hop_length", hop_length, f"1 .. n_fft ({n_fft})")
        self.sampling_rate, self.n_fft, self.hop_length, self.width = sampling_rate, n_fft, hop_length, width
        with torch.device("cpu"):  # even if the model is built on the meta device to check its configuration
            self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def power(self, waveform: Tensor) -> Tensor:
        """Power spectrum of waveforms: [B, T] -> [B, n_fft / 2 + 1, frames] float32."""
        # librosa's padding; a reflection would need more than half a window of audio
        spectrum = torch.stft(
            waveform.float(),
            self.n_fft,
            self.hop_length,
            window=self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        return torch.view_as_real(spectrum).square().sum(-1)

    def extract(self, waveform: Tensor) -> Tensor:
        """Computes the feature of waveforms [B, T] frame by frame."""
        raise NotImplementedError

    def embed(self, frames: Tensor) -> Tensor:
        """Embeds the output of :meth:`extract`: an average over time [B, width]."""
        raise NotImplementedError

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveforms [B, T] -> embedding [B, width]."""
        with torch.no_grad(), torch.autocast(waveform.device.type, enabled=False):
            frames = self.extract(waveform)
        return self.embed(frames)


class SpectralRolloff(AuxiliaryFeature):
    """Frequency below which a share of a frame's spectrum lies (Park et al., section 3.1), and an MLP.

    Args:
        sampling_rate, n_fft, hop_length: as in :class:`AuxiliaryFeature`.
        roll_percent: the share, between 0 and 1.
        power: exponent of the magnitudes in the sum: 1 as in librosa, 2 for energy.
        width: width of the embedding (section 4.1.1: two layers to 256 dimensions).
    """

    def __init__(
        self,
        sampling_rate: int,
        n_fft: int | None = None,
        hop_length: int | None = None,
        roll_percent: float = 0.85,
        power: float = 1.0,
        width: int = 256,
    ) -> None:
        super().__init__(sampling_rate, n_fft, hop_length, width)
        if not 0 < roll_percent < 1:
            raise InputError("roll_percent", roll_percent, "a share between 0 and 1")
        self.roll_percent, self.exponent = roll_percent, power / 2
        self.mlp = nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())

    def extract(self, waveform: Tensor) -> Tensor:
        """Waveforms [B, T] -> roll-off in Hz [B, frames]; 0 for digital silence."""
        cumulated = self.power(waveform).pow(self.exponent).cumsum(dim=1)
        below = cumulated < self.roll_percent * cumulated[:, -1:]
        return below.sum(dim=1) * (self.sampling_rate / self.n_fft)

    def embed(self, frames: Tensor) -> Tensor:
        """Roll-off [B, frames] in Hz -> [B, width]."""
        return self.mlp(frames[..., None] / (self.sampling_rate / 2)).mean(dim=1)


class Chroma(AuxiliaryFeature):
    """Energy of the twelve pitch classes (Park et al., section 3.2), and two 3x3 convolutions.

    Args:
        sampling_rate, n_fft, hop_length: as in :class:`AuxiliaryFeature`.
        n_chroma: number of pitch classes per octave.
        channels: channels of the first convolution; the second has ``width``.
        width: width of the embedding, an average over pitch classes and time.
    """

    filters: Tensor

    def __init__(
        self,
        sampling_rate: int,
        n_fft: int | None = None,
        hop_length: int | None = None,
        n_chroma: int = 12,
        channels: int = 32,
        width: int = 256,
    ) -> None:
        super().__init__(sampling_rate, n_fft, hop_length, width)
        with torch.device("cpu"):
            filters = torch.from_numpy(chroma_filters(sampling_rate, self.n_fft, n_chroma)).float()
        self.register_buffer("filters", filters, persistent=False)
        self.cnn = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )

    def extract(self, waveform: Tensor) -> Tensor:
        """Waveforms [B, T] -> [B, n_chroma, frames] with a maximum of 1 in each frame; zeros for digital silence."""
        chroma = torch.matmul(self.filters, self.power(waveform))
        largest = chroma.amax(dim=1, keepdim=True)
        # librosa does not scale a frame whose largest value is subnormal
        return chroma / torch.where(largest < torch.finfo(torch.float32).tiny, 1.0, largest)

    def embed(self, frames: Tensor) -> Tensor:
        """Chroma [B, n_chroma, frames] -> [B, width]."""
        return self.cnn(frames[:, None]).mean(dim=(2, 3))


FEATURES: dict[str, type[AuxiliaryFeature]] = {"rolloff": SpectralRolloff, "chroma": Chroma}
"""Auxiliary features by the ``kind`` in configurations."""


def chroma_filters(sampling_rate: int, n_fft: int, n_chroma: int = 12) -> np.ndarray:
    """Weights of the STFT's bins in each pitch class, C first: [n_chroma, n_fft / 2 + 1], float64.

    Ellis's chroma mapping with librosa's defaults: a Gaussian as wide as the bin on the logarithmic axis (at least one
    pitch class) spreads the bin over the pitch classes. It is normalised to unit energy and weighted by a Gaussian of
    two octaves around the pitch five octaves above A0 (27.5 Hz).

    Example:
        >>> int(chroma_filters(32000, 800)[:, 11].argmax())  # 440 Hz: A, the tenth pitch class from C
        9
    """
    octave = np.log2(np.arange(1, n_fft) * (sampling_rate / n_fft) / (440.0 / 16))
    # The bin at 0 Hz has no logarithm; it is placed one and a half octaves below the first.
    octave = np.concatenate(([octave[0] - 1.5], octave))
    pitch = n_chroma * octave
    width = np.append(np.maximum(np.diff(pitch), 1.0), 1.0)
    half = round(n_chroma / 2)
    distance = (pitch - np.arange(n_chroma)[:, None] + half) % n_chroma - half
    weights = np.exp(-0.5 * (2 * distance / width) ** 2)
    weights /= np.linalg.norm(weights, axis=0)
    weights *= np.exp(-0.5 * ((octave - 5.0) / 2.0) ** 2)
    weights = np.roll(weights, -3 * (n_chroma // 12), axis=0)  # from A first to C first
    return np.ascontiguousarray(weights[:, : n_fft // 2 + 1])
