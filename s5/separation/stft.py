"""The STFT that separators and sharpening share: Hann window, centred frames, reflected ends."""

from __future__ import annotations

import torch
from torch import Tensor


def stft(x: Tensor, n_fft: int, hop_length: int, window: Tensor | None = None) -> Tensor:
    """[..., samples] -> complex spectrum [..., frames, bins], frames of ``n_fft`` samples every ``hop_length``.

    Args:
        x: waveforms of any precision; taken to float32, which is what the transform has on every device.
        n_fft: window in samples.
        hop_length: hop in samples.
        window: [n_fft]; None: Hann.
    """
    window = torch.hann_window(n_fft, device=x.device) if window is None else window
    flat = x.float().reshape(-1, x.shape[-1])
    # One reflection does not reach further than the signal is long; zeros do for the rest of a very short one.
    flat = torch.nn.functional.pad(flat, (0, max(0, n_fft // 2 + 1 - x.shape[-1])))
    spectrum = torch.stft(flat, n_fft, hop_length, window=window, pad_mode="reflect", return_complex=True).mT
    spectrum = spectrum[:, : x.shape[-1] // hop_length + 1]
    return spectrum.reshape(*x.shape[:-1], *spectrum.shape[-2:])


def istft(spectrum: Tensor, n_fft: int, hop_length: int, length: int, window: Tensor | None = None) -> Tensor:
    """Complex spectrum [..., frames, bins] -> waveforms [..., length] float32: the inverse of :func:`stft`."""
    window = torch.hann_window(n_fft, device=spectrum.device) if window is None else window
    flat = spectrum.reshape(-1, *spectrum.shape[-2:]).mT
    return torch.istft(flat, n_fft, hop_length, window=window, length=length).reshape(*spectrum.shape[:-2], length)
