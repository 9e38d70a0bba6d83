"""What this machine can compute on, and what its processor is good at."""

from __future__ import annotations

from functools import cache

import torch

from s5.errors import InputError, one_of


@cache
def cpu_is_slow_in_bfloat16() -> bool:
    """Whether this is an x86 processor without AMX: it multiplies bfloat16 at about half the speed of float32."""
    has = torch.cpu.get_capabilities()
    return has.get("architecture") == "x86_64" and not has.get("amx_bf16", False)


@cache
def cpu_multiplies_eight_bit() -> bool:
    """Whether the processor multiplies 8-bit integers and sums them without overflow (AVX-512 VNNI)."""
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_vnni", False)) and "onednn" in torch.backends.quantized.supported_engines


def check_device(device: str) -> None:
    """Refuses a torch device that cannot compute here: an unknown one, or one that this machine lacks.

    Args:
        device: its name, e.g. ``cuda:1``.

    Raises:
        InputError: it cannot.
    """
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as e:  # torch has all of them for it
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        mps = ["mps"] if torch.backends.mps.is_available() else []
        names = ["cpu", *(["cuda"] if gpus else []), *gpus, *mps]
        raise InputError("device", f"{device}, on which torch cannot compute here", one_of(names)) from e
