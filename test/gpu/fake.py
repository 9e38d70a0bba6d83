"""torch's fake tensors on a GPU that need not be there: shapes, types and devices of every step, and no values.

A tensor that was left on the CPU, or a type that does not fit, ends a step as it does on a GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

FINITE = {"__bool__": True, "__int__": 0, "__index__": 0}
"""What a fake tensor answers where the code asks for its value: samples are finite, the first is asked for."""


AUTOCAST = "AutocastPrivateUse1"
HALF = (
    *("conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "prelu", "addmm", "matmul", "einsum", "mm", "linear"),
    *("mv", "addmv", "bmm", "baddbmm", "addbmm", "lstm_cell", "gru_cell", "scaled_dot_product_attention"),
)
"""Operators that torch's autocast runs in bfloat16 on a GPU, as far as networks here have them."""
SINGLE = (
    *("exp", "expm1", "log", "log10", "log1p", "log2", "reciprocal", "rsqrt", "pow", "softplus", "layer_norm", "norm"),
    *("group_norm", "softmax", "log_softmax", "sum", "prod", "cumsum", "cumprod", "nll_loss", "binary_cross_entropy"),
    *("binary_cross_entropy_with_logits", "cosine_similarity", "mse_loss", "l1_loss", "smooth_l1_loss"),
)
"""Those that it runs in float32."""
_KEPT: list[torch.library.Library] = []


COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
ONE_TYPE = {"mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "convolution", "index_put", "scatter"}
"""Operators that take no mixture of types on a GPU; on fake tensors they do."""


class _Types(TorchDispatchMode):
    """Refuses what a GPU refuses: two types in one product, convolution or assignment."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function.namespace == "aten" and function.has_kernel_for_dispatch_key(COMPOSITE):
            with self:
                made = function.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        if function.overloadpacket.__name__.rstrip("_") in ONE_TYPE:
            tensors = [x for x in args if isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())]
            if len({x.dtype for x in tensors}) > 1:
                raise RuntimeError(f"{function}: {', '.join(str(x.dtype) for x in tensors)}, expected one type")
        return function(*args, **kwargs)


class _Answers(TorchFunctionMode):
    """Answers what asks for values, which fake tensors do not have."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if args and isinstance(args[0], Tensor):
            if name in FINITE:
                return FINITE[name]
            if name == "item":
                return 1 if not args[0].is_floating_point() else 1.0
            if name == "numpy":
                assert args[0].device.type == "cpu", "numpy() of a tensor on the GPU"
                return np.zeros(args[0].shape, np.dtype(str(args[0].dtype).removeprefix("torch.")))
            if name == "nonzero":  # every value counts
                rows, columns = args[0].numel(), args[0].dim()
                return torch.zeros(rows, columns, dtype=torch.long, device=args[0].device)
        kwargs = dict(kwargs or {})
        if function is torch.istft:
            return _istft(*args, **kwargs)
        if name in ("gru", "lstm"):
            return _recurrent(name, *args)
        if function is torch.tensor and kwargs.get("device") is not None:  # numbers, which begin on the CPU
            device = kwargs.pop("device")
            made = function(*args, **kwargs)
            return torch.empty(made.shape, dtype=made.dtype, device=device)
        return function(*args, **kwargs)


def _istft(spectrum: Tensor, n_fft: int, hop_length: int, window: Tensor, length: int) -> Tensor:
    """As torch.istft in types and shapes; that looks at the window's values."""
    frames = torch.fft.irfft(spectrum.transpose(1, 2), n_fft) * window
    return frames.flatten(1)[:, :1].expand(-1, length).contiguous()


class _Module(_DummyBackendModule):
    """What torch asks of a backend for autocast."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


@functools.cache
def device() -> str:
    """The GPU's name. Not cuda: without a driver, autograd ends the process at the first tensor on it."""
    _setup_privateuseone_for_python_backend("fakegpu", _Module())
    every = torch.library.Library("_", "IMPL", AUTOCAST)
    every.fallback(torch.library.fallthrough_kernel)
    aten = torch.library.Library("aten", "IMPL", AUTOCAST)
    for names, dtype in ((HALF, None), (SINGLE, torch.float32)):
        for name in names:
            for overload in getattr(torch.ops.aten, name).overloads():
                if "out" not in overload:
                    operator = getattr(getattr(torch.ops.aten, name), overload)
                    aten.impl(operator.name(), functools.partial(_cast_and_call, operator, dtype))
    meta = torch.library.Library("aten", "IMPL", "Meta")
    meta.impl("batch_norm_update_stats", lambda x, *_: (x.new_empty(x.shape[1]), x.new_empty(x.shape[1])))
    _KEPT.extend((every, aten, meta))
    return "fakegpu"


def _cast_and_call(operator, dtype, *args, **kwargs):
    """An operator under autocast: its floating-point arguments in the type that it runs in."""
    dtype = dtype or torch.get_autocast_dtype(device())

    def cast(x):
        return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x

    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C._dispatch_key_parse(AUTOCAST))):
        return operator(*tree_map(cast, args), **tree_map(cast, kwargs))


def _recurrent(name, x, hidden, parameters, has_biases, n_layers, dropout, train, bidirectional, batch_first):
    """As torch.gru and torch.lstm in types and shapes: fake tensors have no cells."""
    dtype = torch.get_autocast_dtype(device()) if torch.is_autocast_enabled(device()) else x.dtype
    state = torch.stack(hidden) if name == "lstm" else hidden[None]
    if torch.is_autocast_enabled(device()):
        x, state, parameters = x.to(dtype), state.to(dtype), [p.to(dtype) for p in parameters]
    if {x.dtype, state.dtype} != {dtype} or {p.dtype for p in parameters} != {dtype}:
        raise RuntimeError("the input's, the state's and the weights' types differ")
    width = state.shape[-1] * (1 + bidirectional)
    seen = x.sum(-1, keepdim=True) + state.sum() + torch.stack([p.sum() for p in parameters]).sum()
    states = state + seen.sum()
    return (seen.expand(*seen.shape[:-1], width).contiguous(), *states)


@contextmanager
def gpu() -> Iterator[str]:
    """Every tensor is a fake one; yields the name of the GPU."""
    name = device()
    with FakeTensorMode(allow_non_fake_inputs=False), _Types(), _Answers():
        yield name


def move(module: nn.Module, device: str) -> None:
    """What ``module.to(device)`` moves, parameters and buffers, as fake tensors on the device; nothing else."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = nn.Parameter(_like(value, device), value.requires_grad)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = _like(value, device)


def _like(value: Tensor, device: str) -> Tensor:
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)


def array(*shape: int) -> np.ndarray:
    """A mixture in numpy: silence."""
    return np.zeros(shape, np.float32)
