"""The devices that this machine can compute on."""

from __future__ import annotations

import torch

from s5.utils.errors import InputError, one_of


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
