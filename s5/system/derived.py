"""Derives sizes of networks from the sampling rate and the duration of the scenes where a training's YAML has none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s5.system.sizes import Keys, from_file
from s5.utils.config import load_yaml

WINDOW = 0.032
"""Least length of a separator's STFT window in seconds."""

FRAME_RATE = 100
"""Frames of M2D's log-mel spectrogram in a second."""

DEFAULT_RATE = 32000
"""Default sampling rate of encoders in Hz."""

MOST = 10**6
"""Greatest sampling rate and duration to derive sizes from; other values are refused where they are checked."""

_WITH_STFT = ("resunetk", "tfgridnet", "espnet")


def with_derived(keys: Keys, train_data: str | Path) -> Keys:
    """Adds the sizes that follow from the training data's ``sampler.yaml``; without that file nothing is added."""
    sampler = Path(train_data, "sampler.yaml")
    scenes = load_yaml(sampler) if sampler.is_file() else {}
    own = keys.values.get("scene_conf")
    scenes |= own if isinstance(own, dict) else {}
    sampling_rate, duration = scenes.get("sampling_rate"), scenes.get("duration")
    if not isinstance(sampling_rate, int) or not isinstance(duration, int | float):
        return keys
    if not (0 < sampling_rate < MOST and 0 < duration < MOST):
        return keys
    sizes = derived_sizes(keys.values, sampling_rate, duration)
    return keys.under(sizes, from_file(sizes, sampler))


def derived_sizes(keys: Mapping[str, Any], sampling_rate: int, duration: float) -> dict[str, Any]:
    """Sizes of a network that the keys of its training leave out.

    * ``n_fft`` of a separator: the smallest power of two of 32 ms or more, at least 256; ``hop_length``: half of it.
    * ``sampling_rate`` of an encoder: that of the scenes. Encoders other than M2D have a default of 32 kHz.
    * ``input_size`` of M2D: 80 mel bands, and the frames of a scene (100 a second, and one more).

    M2D with ``weights`` takes its sizes from the name of the release.

    Args:
        keys: keys of the training.
        sampling_rate: sampling rate of the scenes in Hz.
        duration: duration of a scene in seconds.

    Returns:
        The missing keys, nested as in the YAML.

    Example:
        >>> derived_sizes({"network": "resunetk", "network_conf": {"widths": [16, 32]}}, 16000, 4.0)
        {'network_conf': {'n_fft': 512, 'hop_length': 256}}
        >>> derived_sizes({"network": "m2d", "network_conf": {"encoder": {"input_size": [64, 401]}}}, 16000, 4.0)
        {'network_conf': {'encoder': {'sampling_rate': 16000}}}
    """
    network, conf = keys.get("network"), keys.get("network_conf", {})
    if not isinstance(conf, Mapping):
        return {}
    sizes: dict[str, Any] = {}
    if network in _WITH_STFT and "n_fft" not in conf:
        n_fft = max(256, 2 ** math.ceil(math.log2(WINDOW * sampling_rate)))
        sizes = {key: size for key, size in (("n_fft", n_fft), ("hop_length", n_fft // 2)) if key not in conf}
    encoder = conf.get("encoder", {} if network == "m2d" else None)
    if isinstance(encoder, Mapping):
        m2d = network == "m2d" or encoder.get("kind") == "m2d"
        found: dict[str, Any] = {}
        if m2d and not encoder.get("weights"):
            found = {"sampling_rate": sampling_rate, "input_size": [80, int(FRAME_RATE * duration + 1e-6) + 1]}
        elif not m2d and sampling_rate != DEFAULT_RATE:
            found = {"sampling_rate": sampling_rate}
        sizes["encoder"] = {key: size for key, size in found.items() if key not in encoder}
    sizes = {key: size for key, size in sizes.items() if size}
    return {"network_conf": sizes} if sizes else {}
