"""Applies magnitude masks and phase rotations to the channels of a mixture, in pieces that fit a core's cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CHUNK = 2**21
"""Greatest number of mask elements in one piece."""


def apply_masks(
    spectrum: Tensor, masks: Tensor, weight: Tensor, bias: Tensor, n_slots: int, to_bins: Tensor | None = None
) -> Tensor:
    """Masks and rotates every channel and sums the channels into one source per slot.

    A source's spectrum is sum_m w_m sigmoid(g_m) x_m z_m / |z_m| + bias (1 + j), with z_m = tanh(r_m) + j tanh(i_m).
    The backward pass recomputes the intermediate maps from the masks, piece by piece, instead of keeping a dozen of
    them. There is no gradient to the mixture.

    Args:
        spectrum: real and imaginary parts of the mixture [2, B, M or more, frames, bins] float32.
        masks: [B * R, K * M * 3, at least frames, bins - 1 or bands], by slot and channel: gain g, real part r and
            imaginary part i of the rotation, before their non-linearities. The R queries of an item are adjacent.
        weight: weights of the sum over channels [M].
        bias: scalar added to real and imaginary parts.
        n_slots: K.
        to_bins: [bands, bins - 1] for masks of bands.

    Returns:
        Complex spectrum [B * R, K, frames, bins]; the last bin, which has no mask, holds only the bias.
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
        ctx.save_for_backward(spectrum, masks, weight, to_bins)
        ctx.n_slots = n_slots
        return _forward(spectrum, masks, weight, bias, n_slots, to_bins)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        spectrum, masks, weight, to_bins = ctx.saved_tensors
        to_masks, to_weight = torch.empty_like(masks), torch.zeros_like(weight)
        to_masks[:, :, spectrum.shape[3] :] = 0
        for item, frames in _pieces(spectrum, masks):
            x = spectrum[:, item * spectrum.shape[1] // len(masks), :, frames]
            outer = gradient[item, :, frames, :-1]
            to_piece, to_w = _gradients(x, masks[item, :, frames], weight, outer, ctx.n_slots, to_bins)
            to_masks[item, :, frames] = to_piece
            to_weight += to_w
        return None, to_masks, to_weight, gradient.sum().reshape(1), None, None


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
    """Sources of one piece: x [2, M or more, t, bins], masks [K * M * 3, t, ...] -> real, imaginary [K, t, bins]."""
    gain, real, imag, inverse = _planes(masks, n_slots, len(weight), to_bins)
    gain = gain.mul_(inverse).mul_(weight[:, None, None])
    x_real, x_imag = x[:, : len(weight), :, :-1]
    out_real = (x_real * real).addcmul_(x_imag, imag, value=-1).mul_(gain).sum(1)
    out_imag = (x_real * imag).addcmul_(x_imag, real).mul_(gain).sum(1)
    # The last bin has no mask: it holds zero plus the bias of the sum over channels.
    pad = torch.nn.functional.pad
    return pad(out_real, (0, 1)).add_(bias), pad(out_imag, (0, 1)).add_(bias)


def _gradients(
    x: Tensor, masks: Tensor, weight: Tensor, outer: Tensor, n_slots: int, to_bins: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gradients of one piece to its masks and to the weight [M], from those to the sources [K, t, bins - 1, 2].

    With u = z / |z| and d the gradient to a channel's u, the part of d along u belongs to gain and weight, the part
    across u to the rotation.
    """
    gain, real, imag, inverse = _planes(masks, n_slots, len(weight), to_bins)
    x_real, x_imag = x[:, : len(weight), :, :-1]
    outer_real, outer_imag = outer[:, None, ..., 0].contiguous(), outer[:, None, ..., 1].contiguous()
    d_real = (outer_real * x_real).addcmul_(outer_imag, x_imag)
    d_imag = (outer_imag * x_real).addcmul_(outer_real, x_imag, value=-1)
    unit_real, unit_imag = real * inverse, imag * inverse
    along = (d_real * unit_real).addcmul_(d_imag, unit_imag)
    to_weight = torch.einsum("kmtf,kmtf->m", along, gain)
    amplitude = gain * weight[:, None, None]
    inverse.mul_(amplitude)
    to_planes = (
        amplitude.mul_(along).mul_(1 - gain),
        d_real.addcmul_(along, unit_real, value=-1).mul_(inverse).mul_(1 - real.square_()),
        d_imag.addcmul_(along, unit_imag, value=-1).mul_(inverse).mul_(1 - imag.square_()),
    )
    to_masks = torch.stack(to_planes, dim=2).flatten(0, 2)
    return to_masks if to_bins is None else to_masks @ to_bins.T, to_weight


def _planes(masks: Tensor, n_slots: int, n_channels: int, to_bins: Tensor | None) -> tuple[Tensor, ...]:
    """Masks of one piece as sigmoid(g), tanh(r), tanh(i) and 1 / |tanh(r) + j tanh(i)|, each [K, M, t, bins - 1]."""
    # The steps below work plane by plane, which the channels-last memory of a network's output would slow down.
    planes = torch.empty_like(masks, dtype=torch.float32, memory_format=torch.contiguous_format).copy_(masks)
    if to_bins is not None:
        planes = planes @ to_bins
    gain, real, imag = planes.unflatten(0, (n_slots, n_channels, 3)).unbind(2)
    gain.sigmoid_(), real.tanh_(), imag.tanh_()
    return gain, real, imag, (real * real).addcmul_(imag, imag).clamp_(min=1e-20).rsqrt_()
