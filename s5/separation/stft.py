"""Computes the STFT of separators and of sharpening: Hann window, centred frames that cover every sample twice."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def stft(
    x: Tensor,
    n_fft: int,
    hop_length: int,
    window: Tensor | None = None,
    pad_mode: Literal["reflect", "constant"] = "reflect",
) -> Tensor:
    """[..., samples] -> complex spectrum [..., frames, bins], frames of ``n_fft`` samples every ``hop_length``.

    The first frame is centred on the first sample, the last frame on the last sample or after it. So no sample lies
    only at the end of a window, where the inverse divides by almost zero and a mask would make a click.

    Args:
        x: waveforms of any precision; converted to float32, which every device supports.
        n_fft: window in samples.
        hop_length: hop in samples, at most half of the window.
        window: [n_fft]; None: Hann.
        pad_mode: padding beyond the ends: reflection or zeros.
    """
    window = torch.hann_window(n_fft, device=x.device) if window is None else window
    length, before = x.shape[-1], n_fft // 2
    n_frames = -(-length // hop_length) + 1
    needed = (n_frames - 1) * hop_length + n_fft - before  # samples from the first one
    flat = x.float().reshape(-1, length)
    if pad_mode == "reflect":
        # A reflection is no longer than the signal, so zeros extend a very short one first.
        length = max(length, before + 1, needed // 2 + 1)
        flat = torch.nn.functional.pad(flat, (0, length - x.shape[-1]))
    flat = torch.nn.functional.pad(flat, (before, needed - length), mode=pad_mode)
    spectrum = torch.stft(flat, n_fft, hop_length, window=window, center=False, return_complex=True).mT
    return spectrum.reshape(*x.shape[:-1], *spectrum.shape[-2:])


def istft(spectrum: Tensor, n_fft: int, hop_length: int, length: int, window: Tensor | None = None) -> Tensor:
    """Inverse of :func:`stft`: complex spectrum [..., frames, bins] -> waveforms [..., length] float32."""
    window = torch.hann_window(n_fft, device=spectrum.device) if window is None else window
    flat = spectrum.reshape(-1, *spectrum.shape[-2:]).mT
    with torch.autocast(spectrum.device.type, enabled=False):
        waveform = torch.istft(flat, n_fft, hop_length, window=window, length=length)
    return waveform.reshape(*spectrum.shape[:-2], length)
