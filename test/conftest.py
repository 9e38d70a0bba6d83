"""Shared by all suites."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"


def fill_official(name: str) -> dict[str, np.ndarray]:
    """The deterministic weights of test/golden/README.md for ``<name>_state.json``: each key seeds its own values."""
    weights = {}
    for key, shape in json.loads((GOLDEN / f"{name}_state.json").read_text()).items():
        if "stft." in key or "to_spec" in key:
            continue
        random = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF)
        if key.endswith("norm_stats"):
            value = np.array([-7.1, 4.2])
        elif key.endswith("num_batches_tracked"):
            value = np.zeros(shape)
        elif key.endswith("running_var"):
            value = 0.5 + random.rand(*shape)
        elif len(shape) >= 2:
            value = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        elif key.endswith("weight"):
            value = 1 + 0.1 * random.standard_normal(shape)
        else:
            value = 0.1 * random.standard_normal(shape)
        weights[key] = np.asarray(value, dtype=np.float32)
    return weights


@pytest.fixture
def golden() -> Path:
    """Folder of the golden values."""
    return GOLDEN


@pytest.fixture
def official_weights():
    """``official_weights("resunetk")``: the weights that the golden outputs were made with."""
    return fill_official
