"""Reduced precision on CPUs: what bfloat16 means where the processor has no fast bfloat16.

x86 processors without AMX multiply bfloat16 at half the speed of float32, but 8-bit integers (AVX-512 VNNI) at four
times. Where autocast asks for bfloat16 on such a processor, encoders calculate in float32 instead, and their wide
linear layers in 8-bit integers if no gradient is wanted: in inference, and in a frozen encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from s5.processor import cpu_is_slow_in_bfloat16, cpu_multiplies_eight_bit

_MIN_WIDTH = 256
"""Narrower layers gain nothing from 8 bits."""

_instead: ContextVar[bool] = ContextVar("instead", default=False)
"""Whether we are inside :func:`cpu_precision` in place of bfloat16."""
_eight_bit: ContextVar[bool] = ContextVar("eight_bit", default=False)
_packed: WeakKeyDictionary[nn.Module, tuple[tuple[int, int], Any]] = WeakKeyDictionary()


@contextmanager
def cpu_precision(device: torch.device, eight_bit: bool = True) -> Iterator[bool]:
    """Inside, autocast to bfloat16 on a CPU that is slow in it means float32, and :class:`Linear` with 8 bits.

    Contexts nest: a tagger's keeps its head in float32, its encoder's inside allows 8 bits.

    Args:
        device: where the inputs are; nothing changes on another device than a CPU.
        eight_bit: False: float32 throughout.

    Yields:
        Whether linear layers calculate with 8 bits; then inputs of one call share a scale.
    """
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    if device.type != "cpu" or not (_instead.get() or (autocast and cpu_is_slow_in_bfloat16())):
        yield False
        return
    active = eight_bit and cpu_multiplies_eight_bit() and not torch.is_grad_enabled()
    tokens = _instead.set(True), _eight_bit.set(active)
    try:
        with torch.autocast("cpu", enabled=False):
            yield active
    finally:
        _instead.reset(tokens[0])
        _eight_bit.reset(tokens[1])


class Linear(nn.Linear):
    """A linear layer that calculates with 8-bit integers inside :func:`cpu_precision`, where no gradient is wanted.

    Weights have a scale for each output, inputs one for the whole tensor, found anew in every call. The parameters stay
    as they are: the 8-bit weights are kept beside them, and made again when they change.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        if not _eight_bit.get() or torch.is_grad_enabled() or min(self.weight.shape) < _MIN_WIDTH:
            return super().forward(x)
        return torch.ops.quantized.linear_dynamic(x, self._eight_bit_weights())

    def _eight_bit_weights(self) -> Any:
        version = (self.weight.data_ptr(), self.weight._version)
        known = _packed.get(self)
        if known is not None and known[0] == version:
            return known[1]
        weight = self.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        zero = torch.zeros_like(scale, dtype=torch.int64)
        quantized = torch.quantize_per_channel(weight, scale, zero, 0, torch.qint8)
        bias = None if self.bias is None else self.bias.detach().float()
        engine = torch.backends.quantized.engine
        torch.backends.quantized.engine = "onednn"  # the layer keeps it; a seventh faster than the default
        packed = torch.ops.quantized.linear_prepack(quantized, bias)
        torch.backends.quantized.engine = engine
        _packed[self] = (version, packed)
        return packed
