"""Check of the torch device that a user names."""

from __future__ import annotations

import torch

from s5.utils.errors import InputError, one_of


def check_device(device: str) -> None:
    """Raises InputError if torch cannot compute on a device, e.g. ``cuda:1``, on this machine."""
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as e:  # torch raises any of them
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        mps = ["mps"] if torch.backends.mps.is_available() else []
        names = ["cpu", *(["cuda"] if gpus else []), *gpus, *mps]
        raise InputError("device", f"{device}, on which torch cannot compute here", one_of(names)) from e
