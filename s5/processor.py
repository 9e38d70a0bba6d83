"""What this machine's processor is good at."""

from __future__ import annotations

from functools import cache

import torch


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
