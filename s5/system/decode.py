"""Reads conf/decode.yaml: device, precision, batches and windows of decoding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from s5.utils.config import load_yaml, parse, resolve
from s5.utils.errors import InputError

Precision = Literal["fp32", "bf16"]
"""Precision of networks: float32, or bfloat16 where torch's autocast uses it."""

GPU_BATCH = 16
"""Default batch size on a GPU."""


@dataclass(frozen=True)
class DecodeConfig:
    """The keys of conf/decode.yaml."""

    batch_size: int | None = None
    """Mixtures or windows of one length in a batch; by default 1 on a CPU, where larger batches are no faster, and 16
    on a GPU. It changes results by rounding only."""
    window: float = 10.0
    """Window length in seconds; longer recordings are separated window by window."""
    overlap: float = 2.0
    """Overlap of windows in seconds, at most half a window."""
    precision: Precision | None = None
    """``fp32`` or ``bf16``; by default the system's."""
    device: str | None = None
    """Torch device; by default the GPU if there is one."""

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError("batch_size", self.batch_size, "1 or more")
        if not 0 < self.overlap <= self.window / 2 < float("inf"):
            found = f"{self.overlap:g} s of windows of {self.window:g} s"
            raise InputError("overlap", found, "more than 0, at most half a window")

    @classmethod
    def load(cls, path: str | Path, **options: Any) -> DecodeConfig:
        """Reads a YAML file; options that are not None override it.

        Raises:
            InputError: an unknown key, or a value that does not fit.
        """
        given = {name: value for name, value in options.items() if value is not None}
        config: DecodeConfig = parse(cls, {**load_yaml(path), **given}, resolve(path))
        return config
