"""Official and third-party weights into our models."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s5.errors import InputError

log = logging.getLogger(__name__)

# Parts of official checkpoints that hold nothing to load: stored STFT and mel kernels, and layers that exist there
# without ever being used in a forward pass.
_NOT_LOADED = ("stft.", "to_spec.")
_UNUSED_SUFFIXES = ("head_norm.running_mean", "head_norm.running_var", "head_norm.num_batches_tracked")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of a checkpoint: safetensors, a plain state dict, ESPnet's or a Lightning file.

    Only tensors are read (``weights_only``): a crafted file cannot run code.

    Raises:
        InputError: the file is missing, damaged, or holds no tensors.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        data = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(path, "no such file", "a checkpoint") from None
    except Exception as e:
        raise InputError(
            path, f"an unreadable checkpoint ({type(e).__name__})", "tensors that load with weights_only"
        ) from e
    for key in ("state_dict", "model"):
        if isinstance(data, Mapping) and isinstance(data.get(key), Mapping):
            data = data[key]
    tensors = {k: v for k, v in data.items() if isinstance(v, Tensor)} if isinstance(data, Mapping) else {}
    if not tensors:
        raise InputError(path, "no tensors", "a state dict")
    return tensors


def load_official(model: nn.Module, source: str | Path | Mapping[str, Any]) -> None:
    """Loads the weights of an official baseline network into ours.

    The Lightning prefix ``model.`` is removed, stored STFT and mel kernels and never-used layers are dropped, any other
    key that we do not have is reported in the log; a missing key or another shape is refused.

    Args:
        model: :class:`s5.separation.ResUNetK` or :class:`s5.tagging.M2DTagger`.
        source: a checkpoint file or a state dict.

    Raises:
        InputError: a key of ours is missing, or a shape differs.
    """
    where = source if isinstance(source, str | Path) else "checkpoint"
    tensors = dict(read_tensors(source) if isinstance(source, str | Path) else source)
    renamed = getattr(model, "official_names", {})
    tensors = {_rename(key.removeprefix("model."), renamed): torch.as_tensor(value) for key, value in tensors.items()}
    own = model.state_dict()
    missing = sorted(set(own) - set(tensors))
    if missing:
        raise InputError(
            where, f"no key {missing[0]} ({len(missing)} missing in all)", f"the keys of {type(model).__name__}"
        )
    for key, value in own.items():
        if tensors[key].shape != value.shape:
            raise InputError(f"{where}: key {key}", list(tensors[key].shape), list(value.shape))
    unused = [k for k in tensors if k not in own and not _known_unused(k)]
    if unused:
        log.warning("%s: %d keys not used, the first is %s", where, len(unused), unused[0])
    model.load_state_dict({key: tensors[key] for key in own})


def _rename(key: str, prefixes: Mapping[str, str]) -> str:
    for theirs, ours in prefixes.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


def _known_unused(key: str) -> bool:
    if any(part in key for part in _NOT_LOADED) or key.endswith(_UNUSED_SUFFIXES):
        return True
    parts = key.replace("->", ".").split(".")
    # decoder_block<i>.bn2 and its FiLM output: created by the official code, used nowhere
    return any(p.startswith("decoder_block") and parts[i + 1] in ("bn2", "beta2") for i, p in enumerate(parts[:-1]))
