"""Fuses the steps of a pre-activated residual network, to save passes over memory.

Batch norm, FiLM bias and LeakyReLU are one affine map per channel and a kink: :func:`affine_leaky` reads and writes its
input once. In training, :func:`norm_film_conv` keeps only the input of that step and recomputes the convolution's input
in the backward pass, which halves the memory for two cheap passes. In inference, :func:`conv2d` includes a bias, a
LeakyReLU or a sum in oneDNN's convolution. That operator of torch is private; without it, the steps run one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.01
"""Slope of every LeakyReLU."""

_STRIP = 2**24
"""Greatest size in bytes of the maps of a strip: small enough for the allocator to reuse memory."""


def inference_dtype(device: torch.device) -> torch.dtype:
    """Precision of autocast on this device; float32 without autocast."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32


def affine_leaky(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """LeakyReLU(scale x + shift), without gradient.

    Args:
        x: [B, C, H, W].
        scale: [C].
        shift: [1 or B, C].

    Returns:
        [B, C, H, W] with the precision and memory format of x.
    """
    scale, shift = scale.to(x.dtype), shift.to(x.dtype)
    if len(shift) == 1 and (pointwise := _onednn(x)):
        # A convolution with one tap per channel: only oneDNN's kernel does all three steps in one pass.
        tap, settings = scale.reshape(-1, 1, 1, 1), ([0, 0], [1, 1], [1, 1], x.shape[1])
        return pointwise(x, tap, shift[0], *settings, "leaky_relu", [SLOPE], "")
    return F.leaky_relu_(torch.addcmul(shift[:, :, None, None], x, scale[None, :, None, None]), SLOPE)


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, leaky: bool = False, add: Tensor | None = None
) -> Tensor:
    """A convolution of stride 1 that keeps the size, without gradient; then LeakyReLU, or the sum with ``add``.

    Args:
        x: [B, in, H, W].
        weight: [out, in, k, k], k odd.
        bias: [1 or B, out] or none.
        leaky: whether to apply LeakyReLU.
        add: [B, out, H, W]; not together with ``leaky``.

    Returns:
        [B, out, H, W].
    """
    padding = weight.shape[-1] // 2
    one = bias is None or bias.shape[0] == 1
    flat = bias[0].to(x.dtype) if bias is not None and one else None
    if one and (pointwise := _onednn(x)):
        sizes = [padding] * 2, [1, 1], [1, 1], 1
        if add is None:
            step = ("leaky_relu", [SLOPE], "") if leaky else ("none", [], "")
            return pointwise(x, weight, flat, *sizes, *step)
        return pointwise.binary(x, add, weight, flat, *sizes, "add", 1.0, None, [], None)
    y = F.conv2d(x, weight, flat, padding=padding)
    if not one:
        assert bias is not None
        y += bias.to(y.dtype)[:, :, None, None]
    if leaky:
        return F.leaky_relu_(y, SLOPE)
    return y if add is None else y.add_(add)


class Strip(NamedTuple):
    """Rows of a map that are processed at once."""

    read: slice
    """Rows to read: two more on either side, the reach of a pair of 3x3 convolutions."""
    inner: slice
    """Valid rows of the result, counted from the first row that was read."""
    write: slice
    """Valid rows, counted in the map."""


def strips(x: Tensor, row: int, multiple: int) -> Iterator[Strip]:
    """Divides the rows of a map into strips whose results stay in cache and reuse memory.

    On a GPU, which is fastest with large inputs, there is one strip.

    Args:
        x: [B, C, H, W].
        row: greatest number of elements per row and batch item in the results.
        multiple: all boundaries, and H, are multiples of this number.
    """
    height = x.shape[2]
    step = height
    if x.device.type == "cpu":
        step = max(1, _STRIP // (row * x.element_size() * len(x) * multiple)) * multiple
    for start in range(0, height, step):
        stop = min(start + step, height)
        first = max(0, start - 2) // multiple * multiple
        last = min(height, -(-(stop + 2) // multiple) * multiple)
        yield Strip(slice(first, last), slice(start - first, stop - first), slice(start, stop))


def _onednn(x: Tensor) -> Any:
    """Fused convolution of oneDNN for a map on the CPU; None if there is none."""
    if x.device.type != "cpu" or not x.numel() or not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_convolution_pointwise", None)


def film_scale_shift(bn: nn.BatchNorm2d, beta: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Affine map of batch norm in evaluation and FiLM bias: scale [C], shift [1 or B, C], float32."""
    assert bn.running_var is not None and bn.running_mean is not None
    scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
    shift = (bn.bias - bn.running_mean * scale)[None]
    return scale, shift if beta is None else shift + beta.flatten(1)


def norm_film_conv(x: Tensor, bn: nn.BatchNorm2d, beta: Tensor, conv: nn.Module) -> Tensor:
    """conv(LeakyReLU(bn(x) + beta)), with gradients.

    In training only x and the weights are kept for the backward pass. Running statistics are updated except inside
    :func:`frozen_statistics`.

    Args:
        x: [B, C, H, W].
        bn: over C channels, with weight and bias.
        beta: FiLM bias [B, C, 1, 1].
        conv: Conv2d or ConvTranspose2d without bias.

    Returns:
        Output of the convolution; under autocast in its precision.
    """
    assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
    if not bn.training or type(bn) is not nn.BatchNorm2d:  # frozen, or synchronised over processes
        return conv(F.leaky_relu(bn(x) + beta, SLOPE))
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    statistics = (bn.running_mean, bn.running_var)
    assert statistics[0] is not None and statistics[1] is not None and bn.num_batches_tracked is not None
    if _frozen:
        statistics = (statistics[0].clone(), statistics[1].clone())
    else:
        bn.num_batches_tracked.add_(1)
    settings = (conv.stride, conv.padding, conv.dilation, isinstance(conv, nn.ConvTranspose2d), (0, 0), conv.groups)
    weight = conv.weight.to(dtype)
    return _NormFilmConv.apply(x.to(dtype), beta, bn.weight, bn.bias, weight, statistics, bn.momentum, bn.eps, settings)


_frozen = False


@contextmanager
def frozen_statistics() -> Iterator[None]:
    """Inside this context :func:`norm_film_conv` does not update running statistics: for recomputations."""
    global _frozen
    _frozen, before = True, _frozen
    try:
        yield
    finally:
        _frozen = before


class _NormFilmConv(torch.autograd.Function):
    """Batch norm in training, FiLM bias, LeakyReLU and a convolution."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        beta: Tensor,
        bn_weight: Tensor,
        bn_bias: Tensor,
        weight: Tensor,
        statistics: tuple[Tensor, Tensor],
        momentum: float,
        eps: float,
        settings: tuple[Any, ...],
    ) -> Tensor:
        mean, variance = torch.batch_norm_update_stats(x, *statistics, momentum)
        inverse = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, beta, bn_weight, bn_bias, weight, mean, inverse)
        ctx.eps, ctx.settings = eps, settings
        y = _NormFilmConv._activated(x, beta, bn_weight, bn_bias, mean, inverse)
        return torch.ops.aten.convolution(y, weight, None, *settings)

    @staticmethod
    def _activated(
        x: Tensor, beta: Tensor, bn_weight: Tensor, bn_bias: Tensor, mean: Tensor, inverse: Tensor
    ) -> Tensor:
        scale = bn_weight * inverse
        return affine_leaky(x, scale, (bn_bias - mean * scale) + beta.float().flatten(1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, beta, bn_weight, bn_bias, weight, mean, inverse = ctx.saved_tensors
        y = _NormFilmConv._activated(x, beta, bn_weight, bn_bias, mean, inverse)
        to_y, to_weight, _ = torch.ops.aten.convolution_backward(
            gradient, y, weight, None, *ctx.settings, [True, ctx.needs_input_grad[4], False]
        )
        # In place; y has the sign of the LeakyReLU's input.
        to_z = torch.ops.aten.leaky_relu_backward.grad_input(to_y, y, SLOPE, True, grad_input=to_y)
        del y
        to_x, to_bn_weight, to_bn_bias = torch.ops.aten.native_batch_norm_backward(
            to_z, x, bn_weight, None, None, mean, inverse, True, ctx.eps, [True, True, True]
        )
        # The FiLM bias is a second bias of the norm, one per item.
        to_beta = to_bn_bias[None] if len(x) == 1 else to_z.sum((2, 3), dtype=torch.float32)
        to_beta = to_beta.reshape(beta.shape).to(beta.dtype)
        return to_x, to_beta, to_bn_weight, to_bn_bias, to_weight, None, None, None, None


def avg_pool2d(x: Tensor, pool: tuple[int, int]) -> Tensor:
    """Average pooling [B, C, H, W] -> [B, C, H / pool, W / pool]; the backward pass needs no saved tensor."""
    return _AvgPool.apply(x, pool)


class _AvgPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pool: tuple[int, int]) -> Tensor:
        ctx.pool = pool
        return F.avg_pool2d(x, pool)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        height, width = ctx.pool
        return F.interpolate(gradient / (height * width), scale_factor=ctx.pool, mode="nearest"), None
