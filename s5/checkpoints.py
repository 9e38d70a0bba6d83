"""Reads checkpoints, and loads official and third-party weights into the models of this package."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s5.utils.errors import InputError
from s5.utils.zips import check_zip

log = logging.getLogger(__name__)

# Parts of official checkpoints that are not loaded: stored STFT and mel kernels, and layers that no forward pass uses.
_NOT_LOADED = ("stft.", "to_spec.")
_UNUSED_SUFFIXES = ("head_norm.running_mean", "head_norm.running_var", "head_norm.num_batches_tracked")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of a checkpoint: safetensors, a plain state dict, ESPnet's or a Lightning file.

    Only tensors and numbers are read (``weights_only``), so a crafted file cannot run code. The checksums of zip files,
    which torch ignores, are verified.

    Raises:
        InputError: the file is missing, damaged, or holds no tensors.
    """
    path = Path(path)
    if zipfile.is_zipfile(path):
        check_zip(path, "a checkpoint")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with allowing(plain_kinds()):
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
    for key, value in tensors.items():
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise InputError(f"{path}: key {key}", "a sparse, quantized or empty tensor", "an ordinary one")
    return tensors


def check_weights(found: Tensor | None, expected: Tensor, where: object) -> None:
    """Checks that a tensor can replace a network's own.

    Raises:
        InputError: the tensor is missing, has another shape, is complex instead of real, or has values that are not
            finite in the network's type.
    """
    if found is None or found.shape != expected.shape:
        raise InputError(where, "nothing" if found is None else list(found.shape), list(expected.shape))
    if found.is_complex() != expected.is_complex():
        raise InputError(where, str(found.dtype), str(expected.dtype))
    if expected.is_floating_point() and not found.is_meta and not torch.isfinite(found.to(expected.dtype)).all():
        raise InputError(where, "numbers that are not finite", "weights")


@contextmanager
def allowing(kinds: list[Any]) -> Iterator[None]:
    """Lets torch.load with ``weights_only`` read further types, and restores the earlier ones at the end.

    torch's own context would also remove types that a training needs to resume.
    """
    before = torch.serialization.get_safe_globals()
    try:
        with torch.serialization.safe_globals(kinds):
            yield
    finally:
        torch.serialization.add_safe_globals(before)


def plain_kinds() -> list[Any]:
    """Harmless types in checkpoints: numbers of numpy 1 and 2 (LAION's files, ESPnet's) and ESPnet's durations."""
    import numpy as np
    from numpy._core.multiarray import scalar

    kinds = [type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "bool")]
    scalars = [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    return [*scalars, np.dtype, *kinds, timedelta]


def load_official(model: nn.Module, source: str | Path | Mapping[str, Any]) -> None:
    """Loads the weights of an official baseline network.

    The Lightning prefix ``model.``, stored STFT and mel kernels and unused layers are dropped. The log names any other
    key that the model lacks.

    Args:
        model: :class:`s5.separation.ResUNetK` or :class:`s5.tagging.M2DTagger`.
        source: a checkpoint file or a state dict.

    Raises:
        InputError: a key of the model is missing, or a shape differs.
    """
    where = source if isinstance(source, str | Path) else "checkpoint"
    tensors = dict(read_tensors(source) if isinstance(source, str | Path) else source)
    renamed = getattr(model, "official_names", {})
    tensors = {_rename(key.removeprefix("model."), renamed): torch.as_tensor(value) for key, value in tensors.items()}
    own = model.state_dict().keys()
    load_tensors(model, {k: v for k, v in tensors.items() if k in own or not _known_unused(k)}, where)


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor], where: object) -> None:
    """Loads all parameters and buffers of a model. The log names keys that the model lacks.

    Args:
        model: any module.
        tensors: state dict with the model's names.
        where: file that error messages name.

    Raises:
        InputError: a key is missing, or a shape differs; the message names the keys.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in tensors]
    unused = [key for key in tensors if key not in own]
    if missing:
        found = f"no key {_some(missing)}" + (f" but {_some(unused)}" if unused else "")
        raise InputError(where, found, f"the keys of {type(model).__name__}")
    for key, value in own.items():
        check_weights(tensors[key], value, f"{where}: key {key}")
    if unused:
        log.warning("%s: %d keys not used: %s", where, len(unused), _some(unused))
    model.load_state_dict({key: tensors[key] for key in own})


def _some(keys: list[str], n: int = 3) -> str:
    """The first keys and the total number."""
    return ", ".join(keys[:n]) + (f" ({len(keys)} in all)" if len(keys) > n else "")


def _rename(key: str, prefixes: Mapping[str, str]) -> str:
    for theirs, ours in prefixes.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


def _known_unused(key: str) -> bool:
    if any(part in key for part in _NOT_LOADED) or key.endswith(_UNUSED_SUFFIXES):
        return True
    parts = key.replace("->", ".").split(".")
    # decoder_block<i>.bn2 and its FiLM output: the official code creates them and never uses them
    return any(p.startswith("decoder_block") and parts[i + 1] in ("bn2", "beta2") for i, p in enumerate(parts[:-1]))


_HTSAT_PREFIXES = ("audio_encoder.base.htsat.", "module.audio_branch.", "audio_branch.", "htsat.")
"""Prefixes of HTS-AT's keys in files of Microsoft CLAP and LAION CLAP."""
_HTSAT_NAMES = {
    ".attn.proj.": ".attention.output.dense.",
    ".attn.": ".attention.self.",
    ".norm1.": ".layernorm_before.",
    ".norm2.": ".layernorm_after.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
}
"""Names inside a Swin block in the original code, and in ``transformers``."""
_HTSAT_UNUSED = ("tscam_conv.", "head.", "spectrogram_extractor.", "logmel_extractor.")
_HTSAT_FILTERS = "logmel_extractor.melW"


def convert_htsat(
    tensors: Mapping[str, Tensor], where: object = "checkpoint"
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Renames HTS-AT's weights from the original code's names to those of ``transformers``' ClapAudioModel.

    Accepts files of Microsoft CLAP (``audio_encoder.base.htsat.*``), LAION CLAP (``audio_branch.*``) and HTS-AT itself.
    Their joint matrix of queries, keys and values is split into three. Text encoders, projections and the classifier's
    layers are dropped.

    Args:
        tensors: a released state dict.
        where: file that error messages name.

    Returns:
        The state dict of a ClapAudioModel, and the mel filters [bins, n_mels] if the file has them.

    Raises:
        InputError: the state dict holds no HTS-AT.
    """
    prefixes = [p for p in _HTSAT_PREFIXES if any(key.startswith(p) for key in tensors)]
    prefix = prefixes[0] if prefixes else ""
    if not any(key.startswith(f"{prefix}layers.0.blocks.0.") for key in tensors):
        raise InputError(
            where, f"keys {_some(list(tensors))}", f"HTS-AT's, e.g. {_HTSAT_PREFIXES[0]}layers.0.blocks.0.*"
        )
    converted: dict[str, Tensor] = {}
    for key, value in tensors.items():
        key = key.removeprefix(prefix) if key.startswith(prefix) else ""
        if not key or key.startswith(_HTSAT_UNUSED) or key.endswith((".attn_mask", ".relative_position_index")):
            continue
        if key.startswith("bn0."):
            key = f"batch_norm.{key.removeprefix('bn0.')}"
        if ".attn.qkv." in key:
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                converted[f"audio_encoder.{key.replace('.attn.qkv.', f'.attention.self.{name}.')}"] = part
            continue
        if ".blocks." in key:
            for theirs, ours in _HTSAT_NAMES.items():
                key = key.replace(theirs, ours)
        converted[f"audio_encoder.{key}"] = value
    return converted, tensors.get(prefix + _HTSAT_FILTERS)
