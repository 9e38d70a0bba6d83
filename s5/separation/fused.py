"""The steps that a pre-activated residual network spends its time on, each in as few passes over memory as possible.

Batch norm, the FiLM bias and LeakyReLU are one affine map a channel and a kink: :func:`affine_leaky` reads and writes
its input once. In training, :func:`norm_film_conv` keeps the input of that step alone and makes the convolution's input
again in the backward pass: half of the memory for two cheap passes. In inference, :func:`conv2d` takes a bias, a
LeakyReLU and a sum along in oneDNN's convolution where there is one.

Where autocast asks for bfloat16 on a CPU that is slow in it, convolutions calculate in float32: in training between
maps that are kept in bfloat16, in inference throughout, with :class:`EightBitConv` for the wide 3x3 convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s5.processor import cpu_is_slow_in_bfloat16, cpu_multiplies_eight_bit

SLOPE = 0.01
"""Of every LeakyReLU."""

_STRIP = 2**24
"""Bytes of the largest map of a strip of rows: small enough that the allocator gives the same memory again."""


_ZERO = 5
"""8-bit code of zero. What LeakyReLU leaves of negative numbers gets the codes below, a fiftieth of the range."""

_MIN_CHANNELS = 32
"""Narrower convolutions gain nothing from 8 bits."""


_eight_bit: WeakKeyDictionary[nn.Module, tuple[Any, tuple[Any, Tensor]]] = WeakKeyDictionary()


class Precision(NamedTuple):
    """What convolutions without gradient calculate with."""

    dtype: torch.dtype
    eight_bit: bool = False
    """Wide 3x3 convolutions with 8-bit integers."""


def inference_precision(device: torch.device) -> Precision:
    """The precision that autocast asks for on this device, or what stands in for it; see the module's docstring."""
    if not torch.is_autocast_enabled(device.type):
        return Precision(torch.float32)
    dtype = torch.get_autocast_dtype(device.type)
    if _slow_in(dtype, device):
        return Precision(torch.float32, cpu_multiplies_eight_bit())
    return Precision(dtype)


def _slow_in(dtype: torch.dtype, device: torch.device) -> bool:
    return device.type == "cpu" and dtype == torch.bfloat16 and cpu_is_slow_in_bfloat16()


class EightBitConv:
    """A 3x3 convolution of what a LeakyReLU gives, in 8-bit integers, without gradient.

    Weights have a scale for each output channel; inputs one for the whole map, found anew in every call.

    Args:
        conv: a convolution without bias. Its 8-bit weights are kept beside it, and made again when it has changed.
        bn: the batch norm after it, in evaluation, whose scale goes into the weights; or none.
        bias: [out] or none.
    """

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None = None, bias: Tensor | None = None) -> None:
        packed, scale = self._weights(conv, bn)
        zeros, ones = torch.zeros_like(scale, dtype=torch.int32), [1, 1]
        self.fixed: tuple[Any, ...] = (
            packed,
            scale,
            zeros,
            bias,
            ones,
            ones,
            ones,
            1,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )

    def __call__(self, x: Tensor) -> Tensor:
        """[B, in, H, W] float32, channels last -> [B, out, H, W] float32."""
        # Over memory as it lies: a maximum over channels-last strides is ten times slower.
        scale = max(x.permute(0, 2, 3, 1).amax().item(), 1e-20) / (255 - _ZERO)
        quantized = torch.quantize_per_tensor(x, scale, _ZERO, torch.quint8)
        codes = torch.empty(0, dtype=torch.uint8)  # the same memory, without int_repr's copy
        codes.set_(quantized.untyped_storage(), 0, quantized.size(), quantized.stride())
        return torch.ops.onednn.qconv2d_pointwise(codes, scale, _ZERO, *self.fixed)

    @staticmethod
    def _weights(conv: nn.Conv2d, bn: nn.BatchNorm2d | None) -> tuple[Any, Tensor]:
        """Weights as oneDNN wants them, and the scale of each output channel."""
        sources = [conv.weight, *([bn.weight, bn.running_var] if bn is not None else [])]
        version = tuple((t.data_ptr(), t._version) for t in sources if t is not None)
        known = _eight_bit.get(conv)
        if known is not None and known[0] == version:
            return known[1]
        weight = conv.weight.detach().float()
        if bn is not None:
            weight = weight * film_scale_shift(bn)[0].detach()[:, None, None, None]
        scale = weight.abs().amax((1, 2, 3)).clamp(min=torch.finfo(torch.float32).tiny) / 127
        codes = (weight / scale[:, None, None, None]).round().to(torch.int8)
        ones = [1, 1]
        packed = torch.ops.onednn.qconv_prepack(codes, scale, 1.0, _ZERO, ones, ones, ones, 1, None)
        _eight_bit[conv] = version, (packed, scale)
        return packed, scale

    @staticmethod
    def suits(conv: nn.Conv2d) -> bool:
        """Whether a convolution is wide enough to gain."""
        return conv.kernel_size == (3, 3) and min(conv.in_channels, conv.out_channels) >= _MIN_CHANNELS


def affine_leaky(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """LeakyReLU(scale x + shift), without gradient.

    Args:
        x: [B, C, H, W].
        scale: [C].
        shift: [1 or B, C].

    Returns:
        [B, C, H, W], as x in precision and memory format.
    """
    scale, shift = scale.to(x.dtype), shift.to(x.dtype)
    if len(shift) == 1 and _onednn(x):
        # A convolution of one tap a channel: oneDNN's is the one kernel here that does all three in one pass.
        tap, settings = scale.reshape(-1, 1, 1, 1), ([0, 0], [1, 1], [1, 1], x.shape[1])
        return torch.ops.mkldnn._convolution_pointwise(x, tap, shift[0], *settings, "leaky_relu", [SLOPE], "")
    return F.leaky_relu_(torch.addcmul(shift[:, :, None, None], x, scale[None, :, None, None]), SLOPE)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    leaky: bool = False,
    add: Tensor | None = None,
) -> Tensor:
    """A convolution of stride 1 that keeps the size, without gradient; then LeakyReLU, or the sum with ``add``.

    Args:
        x: [B, in, H, W].
        weight: [out, in, k, k], k odd.
        bias: [1 or B, out] or none.
        leaky: whether LeakyReLU follows.
        add: [B, out, H, W]; not together with ``leaky``.

    Returns:
        [B, out, H, W].
    """
    padding = weight.shape[-1] // 2
    one = bias is None or bias.shape[0] == 1
    flat = bias[0].to(x.dtype) if bias is not None and one else None
    if one and _onednn(x):
        sizes = [padding] * 2, [1, 1], [1, 1], 1
        if add is None:
            step = ("leaky_relu", [SLOPE], "") if leaky else ("none", [], "")
            return torch.ops.mkldnn._convolution_pointwise(x, weight, flat, *sizes, *step)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, add, weight, flat, *sizes, "add", 1.0, None, [], None)
    y = F.conv2d(x, weight, flat, padding=padding)
    if not one:
        assert bias is not None
        y += bias.to(y.dtype)[:, :, None, None]
    if leaky:
        return F.leaky_relu_(y, SLOPE)
    return y if add is None else y.add_(add)


class Strip(NamedTuple):
    """Rows of a map that are worked on at a time."""

    read: slice
    """Rows that are read: with two more on either side, as far as a pair of 3x3 convolutions sees."""
    inner: slice
    """Rows that are valid then, counted from the first one that was read."""
    write: slice
    """The same, counted in the map."""


def strips(x: Tensor, row: int, multiple: int) -> Iterator[Strip]:
    """Divides the rows of a map so that what is made of them stays small: in cache, and in memory that is used again.

    On a GPU, which does best with all at once, there is one strip.

    Args:
        x: [B, C, H, W].
        row: greatest number of elements of a row (a batch item) that the work on the strip makes.
        multiple: all boundaries are multiples of this; H has to be one.
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


def _onednn(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.numel() > 0 and torch.backends.mkldnn.is_available()


def film_scale_shift(bn: nn.BatchNorm2d, beta: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Batch norm in evaluation and the FiLM bias as one affine map: scale [C], shift [1 or B, C], float32."""
    assert bn.running_var is not None and bn.running_mean is not None
    scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
    shift = (bn.bias - bn.running_mean * scale)[None]
    return scale, shift if beta is None else shift + beta.flatten(1)


def norm_film_conv(x: Tensor, bn: nn.BatchNorm2d, beta: Tensor, conv: nn.Module) -> Tensor:
    """conv(LeakyReLU(bn(x) + beta)), with gradients.

    A batch norm in training keeps of all this its input alone, next to weights; its running statistics move unless
    :func:`frozen_statistics` says otherwise.

    Args:
        x: [B, C, H, W].
        bn: over C channels, with weight and bias.
        beta: FiLM bias [B, C, 1, 1].
        conv: Conv2d or ConvTranspose2d without bias.

    Returns:
        the convolution's output; in autocast, of autocast's precision (whatever it was calculated in).
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
    weight = conv.weight if _slow_in(dtype, x.device) else conv.weight.to(dtype)
    return _NormFilmConv.apply(x.to(dtype), beta, bn.weight, bn.bias, weight, statistics, bn.momentum, bn.eps, settings)


_frozen = False


@contextmanager
def frozen_statistics() -> Iterator[None]:
    """While this is entered, :func:`norm_film_conv` leaves running statistics alone: for recomputations."""
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
        y = _NormFilmConv._activated(x.to(weight.dtype), beta, bn_weight, bn_bias, mean, inverse)
        return torch.ops.aten.convolution(y, weight, None, *settings).to(x.dtype)

    @staticmethod
    def _activated(
        x: Tensor, beta: Tensor, bn_weight: Tensor, bn_bias: Tensor, mean: Tensor, inverse: Tensor
    ) -> Tensor:
        scale = bn_weight * inverse
        return affine_leaky(x, scale, (bn_bias - mean * scale) + beta.float().flatten(1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, beta, bn_weight, bn_bias, weight, mean, inverse = ctx.saved_tensors
        kept = x.dtype
        x, gradient = x.to(weight.dtype), gradient.to(weight.dtype)
        y = _NormFilmConv._activated(x, beta, bn_weight, bn_bias, mean, inverse)
        to_y, to_weight, _ = torch.ops.aten.convolution_backward(
            gradient, y, weight, None, *ctx.settings, [True, ctx.needs_input_grad[4], False]
        )
        # In place; y has the sign of what entered the LeakyReLU.
        to_z = torch.ops.aten.leaky_relu_backward.grad_input(to_y, y, SLOPE, True, grad_input=to_y)
        del y
        to_x, to_bn_weight, to_bn_bias = torch.ops.aten.native_batch_norm_backward(
            to_z, x, bn_weight, None, None, mean, inverse, True, ctx.eps, [True, True, True]
        )
        # The FiLM bias is a second bias of the norm, of one item each.
        to_beta = to_bn_bias[None] if len(x) == 1 else to_z.sum((2, 3), dtype=torch.float32)
        to_beta = to_beta.reshape(beta.shape).to(beta.dtype)
        return to_x.to(kept), to_beta, to_bn_weight, to_bn_bias, to_weight, None, None, None, None


def avg_pool2d(x: Tensor, pool: tuple[int, int]) -> Tensor:
    """Average pooling [B, C, H, W] -> [B, C, H / pool, W / pool], which keeps nothing for the backward pass."""
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
