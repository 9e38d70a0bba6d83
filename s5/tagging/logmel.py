"""Computes log-mel spectrograms for encoders and figures."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class LogMel(nn.Module):
    """Log-mel spectrogram: [B, T] -> [B, n_mels, frames] float32.

    Hann windows, centred on their frames (reflected edges); Slaney's mel scale, areas of one; power 2.

    Args:
        sampling_rate: sampling rate in Hz.
        n_mels: number of mel bands.
        n_fft: window and transform length in samples; None: 25 ms.
        hop_length: hop in samples; None: 10 ms.
        f_min: lower edge of the lowest band in Hz.
        f_max: upper edge of the highest band in Hz; None: half the sampling rate.
        filter_rate: sampling rate of the filters in Hz; None: that of the audio.
        decibel: return ``10 log10(max(power, 1e-10))`` instead of the natural logarithm of power + float32's epsilon.
        save_filters: keep the filters in the state dict, for models whose checkpoints have their own.
    """

    filters: Tensor
    """[n_fft / 2 + 1, n_mels]."""
    window: Tensor

    def __init__(
        self,
        sampling_rate: int,
        n_mels: int,
        n_fft: int | None = None,
        hop_length: int | None = None,
        f_min: float = 50.0,
        f_max: float | None = None,
        filter_rate: int | None = None,
        decibel: bool = False,
        save_filters: bool = False,
    ) -> None:
        super().__init__()
        from torchaudio.functional import melscale_fbanks

        self.n_fft = n_fft or round(0.025 * sampling_rate)
        self.hop_length = hop_length or round(0.01 * sampling_rate)
        self.decibel = decibel
        rate, f_max = filter_rate or sampling_rate, f_max or sampling_rate / 2
        with torch.device("cpu"):  # even if the model is built on the meta device to check its configuration
            filters = melscale_fbanks(
                self.n_fft // 2 + 1, f_min, f_max, n_mels, rate, norm="slaney", mel_scale="slaney"
            )
            self.register_buffer("filters", filters, persistent=save_filters)
            self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveforms [B, T] -> [B, n_mels, frames]."""
        with torch.autocast(waveform.device.type, enabled=False):  # the logarithm of small powers needs float32
            spectrum = torch.stft(
                waveform.float(),
                self.n_fft,
                self.hop_length,
                window=self.window,
                pad_mode="reflect",
                return_complex=True,
            )
            power = torch.matmul(self.filters.T, spectrum.real.square() + spectrum.imag.square())
            if self.decibel:
                return 10 * power.clamp(min=1e-10).log10()
            return (power + torch.finfo(torch.float32).eps).log()


class MagnitudeLogMel(nn.Module):
    """Log-mel spectrogram as TensorFlow's audio models hear it: [B, T] -> [B, n_mels, frames] float32.

    Periodic Hann windows; the first one begins with the waveform and the last one lies within it. Magnitudes, HTK's mel
    scale with triangles that are straight on it, and the natural logarithm of the sum and an offset.

    Args:
        sampling_rate: in Hz.
        n_mels: mel bands.
        n_fft: samples of the transform.
        window: samples of the window, at most ``n_fft``.
        hop_length: samples from frame to frame.
        f_min: lower edge of the lowest band in Hz.
        f_max: upper edge of the highest band.
        offset: added to the bands' magnitudes.
    """

    filters: Tensor
    """[n_fft / 2 + 1, n_mels]."""
    window: Tensor

    def __init__(
        self,
        sampling_rate: int,
        n_mels: int,
        n_fft: int,
        window: int,
        hop_length: int,
        f_min: float,
        f_max: float,
        offset: float,
    ) -> None:
        super().__init__()
        self.n_fft, self.hop_length, self.offset = n_fft, hop_length, offset
        with torch.device("cpu"):  # also where a model is built on the meta device to check its configuration
            filters = _htk_filters(sampling_rate, n_mels, n_fft, f_min, f_max)
            self.register_buffer("filters", filters, persistent=False)
            self.register_buffer("window", torch.hann_window(window), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveforms [B, T], T at least a window -> [B, n_mels, 1 + (T - window) // hop_length]."""
        with torch.autocast(waveform.device.type, enabled=False):
            # torch centres a window within the transform; its zeros lie before and behind the waveform.
            spare = self.n_fft - len(self.window)
            spectrum = torch.stft(
                functional.pad(waveform.float(), (spare // 2, spare - spare // 2)),
                self.n_fft,
                self.hop_length,
                len(self.window),
                self.window,
                center=False,
                return_complex=True,
            )
            return (torch.matmul(self.filters.T, spectrum.abs()) + self.offset).log()


def _htk_filters(sampling_rate: int, n_mels: int, n_fft: int, f_min: float, f_max: float) -> Tensor:
    """TensorFlow's ``linear_to_mel_weight_matrix``: [n_fft / 2 + 1, n_mels]; the bin of 0 Hz is in no band."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * (1 + hertz / 700.0).log()

    edges = torch.tensor([f_min, f_max], dtype=torch.float64)
    lowest, highest = mel(edges).tolist()
    low, centre, high = torch.linspace(lowest, highest, n_mels + 2, dtype=torch.float64).unfold(0, 3, 1).T
    bins = mel(torch.linspace(0, sampling_rate / 2, n_fft // 2 + 1, dtype=torch.float64))[:, None]
    filters = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp(min=0)
    filters[0] = 0
    return filters.float()


def mel_level(waveform: np.ndarray, fs: int, n_mels: int) -> tuple[np.ndarray, np.ndarray]:
    """Level of a waveform's mel bands, for figures.

    Args:
        waveform: [T].
        fs: sampling rate in Hz.
        n_mels: number of mel bands.

    Returns:
        Level in dB relative to the greatest [n_mels, frames], and the centre frequencies of the bands in Hz [n_mels].
    """
    log_mel = LogMel(fs, n_mels)
    level = 10 / math.log(10) * log_mel(torch.from_numpy(np.asarray(waveform, np.float32))[None])[0].numpy()
    weights = log_mel.filters.T
    centre = (weights * torch.linspace(0, fs / 2, weights.shape[1])).sum(1) / weights.sum(1)
    return level - level.max(), centre.numpy()
