"""Magnitude masks and phase rotations onto the channels of a mixture, in pieces that stay in a core's cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CHUNK = 2**21
"""Elements of the masks of one piece."""


def apply_masks(
    spectrum: Tensor, masks: Tensor, weight: Tensor, bias: Tensor, n_slots: int, to_bins: Tensor | None = None
) -> Tensor:
    """Masks and rotates every channel and sums the channels into one source a slot.

    A source's spectrum is sum_m w_m sigmoid(g_m) x_m z_m / |z_m| + bias (1 + j), with z_m = tanh(r_m) + j tanh(i_m).
    The backward pass makes all of it again from the masks, piece by piece, and keeps no dozen maps of their size.
    There is no gradient to the mixture.

    Args:
        spectrum: of the mixture, real and imaginary parts [2, B, M or more, frames, bins] float32.
        masks: [B * R, K * M * 3, at least frames, bins - 1 or bands], slot by slot, channel by channel: gain g, real r
            and imaginary part i of the rotation, before their non-linearities. R queries of an item follow each other.
        weight: [M] of the sum over channels.
        bias: scalar, added to real and imaginary parts.
        n_slots: K.
        to_bins: [bands, bins - 1] where masks are of bands.

    Returns:
        complex spectrum [B * R, K, frames, bins]; the last bin, which has no mask, holds the bias alone.
    """
    if torch.is_grad_enabled() and (masks.requires_grad or weight.requires_grad):
        parts = _ApplyMasks.apply(spectrum, masks, weight, bias, n_slots, to_bins)
    else:
        parts = _forward(spectrum, masks, weight, bias, n_slots, to_bins)
    return torch.view_as_complex(parts)


class _ApplyMasks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, spectrum: Tensor, masks: Tensor, weight: Tensor, bias: Tensor, n_slots: int, to_bins: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(spectrum, masks, weight, bias, to_bins)
        ctx.n_slots = n_slots
        return _forward(spectrum, masks, weight, bias, n_slots, to_bins)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        spectrum, masks, weight, bias, to_bins = ctx.saved_tensors
        to_masks = torch.zeros_like(masks)
        to_weight, to_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        for item, frames in _pieces(spectrum, masks):
            x = spectrum[:, item * spectrum.shape[1] // len(masks), :, frames]
            piece = masks[item, :, frames].detach().requires_grad_()
            w, b = weight.detach().requires_grad_(), bias.detach().requires_grad_()
            with torch.enable_grad():
                real, imag = _sources(x, piece, w, b, n_slots=ctx.n_slots, to_bins=to_bins)
            g = gradient[item, :, frames]
            outer = (g[..., 0], g[..., 1])
            to_piece, to_w, to_b = torch.autograd.grad((real, imag), (piece, w, b), outer)
            to_masks[item, :, frames] = to_piece
            to_weight += to_w
            to_bias += to_b
        return None, to_masks, to_weight, to_bias, None, None


def _forward(
    spectrum: Tensor, masks: Tensor, weight: Tensor, bias: Tensor, n_slots: int, to_bins: Tensor | None
) -> Tensor:
    """Real and imaginary parts [B * R, K, frames, bins, 2] of the sources."""
    out = spectrum.new_empty(len(masks), n_slots, *spectrum.shape[3:], 2)
    with torch.no_grad():
        for item, frames in _pieces(spectrum, masks):
            x = spectrum[:, item * spectrum.shape[1] // len(masks), :, frames]
            real, imag = _sources(x, masks[item, :, frames], weight, bias, n_slots, to_bins)
            out[item, :, frames, :, 0] = real
            out[item, :, frames, :, 1] = imag
    return out


def _pieces(spectrum: Tensor, masks: Tensor) -> list[tuple[int, slice]]:
    """Item and frames of every piece."""
    n_frames = spectrum.shape[3]
    step = n_frames
    if masks.device.type == "cpu":
        step = max(1, _CHUNK // (masks.shape[1] * spectrum.shape[4]))
    return [
        (item, slice(start, min(start + step, n_frames)))
        for item in range(len(masks))
        for start in range(0, n_frames, step)
    ]


def _sources(
    x: Tensor, masks: Tensor, weight: Tensor, bias: Tensor, n_slots: int, to_bins: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One piece: x [2, M or more, t, bins], masks [K * M * 3, t, bins - 1 or bands] -> real, imaginary [K, t, bins]."""
    # Planes: what follows works plane by plane, which the channels-last memory of a network's output would make slow.
    masks = masks.float().contiguous()
    if to_bins is not None:
        masks = masks @ to_bins
    n_channels = len(weight)
    gain, real, imag = masks.unflatten(0, (n_slots, n_channels, 3)).unbind(2)
    real, imag = torch.tanh(real), torch.tanh(imag)
    gain = torch.sigmoid(gain) * torch.rsqrt((real * real + imag * imag).clamp(min=1e-20)) * weight[:, None, None]
    x_real, x_imag = x[:, :n_channels, :, :-1]
    out_real = (gain * (x_real * real - x_imag * imag)).sum(1)
    out_imag = (gain * (x_real * imag + x_imag * real)).sum(1)
    # The last bin has no mask and comes back as zero; the bias of the sum over channels reaches it all the same.
    pad = torch.nn.functional.pad
    return pad(out_real, (0, 1)) + bias, pad(out_imag, (0, 1)) + bias
