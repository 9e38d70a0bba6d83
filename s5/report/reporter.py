"""What ESPnet's reporter keeps in a checkpoint to resume from, read without torch: figures of all epochs.

A checkpoint is a zip file: a pickle, which names the tensors, and their samples beside it. The figures stand in the
pickle. Only plain data is built from it; whatever else it names becomes an empty stand-in, and nothing of it runs.
"""

from __future__ import annotations

import _codecs
import datetime
import io
import logging
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import scalar

_PLAIN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("datetime", "timedelta"): datetime.timedelta,
    ("_codecs", "encode"): _codecs.encode,  # bytes, in the protocol that torch writes
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "scalar"): scalar,  # numpy 1
    ("numpy._core.multiarray", "scalar"): scalar,  # numpy 2
}


def read_reporter(file: Path) -> dict[int, dict[str, dict[str, Any]]] | None:
    """Epoch -> phase -> figure -> value of a checkpoint; None if the file is not there or not readable."""
    if not file.is_file():
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            states = _Unpickler(io.BytesIO(archive.read(name))).load()
        stats = states["reporter"]["stats"].items()
        found: dict[int, dict[str, dict[str, Any]]] = {
            int(epoch): {str(phase): dict(figures) for phase, figures in phases.items()} for epoch, phases in stats
        }
        return found or None
    except Exception as e:  # a damaged file must not take the report with it
        logging.warning("%s: epochs are taken from the log instead: %s", file, str(e).split("\n")[0])
        return None


class _StandIn:
    """Takes the place of a class, a function or an object: takes everything and holds nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _StandIn:
        return super().__new__(cls)

    def _take(self, *_: Any, **__: Any) -> _StandIn:
        return self

    __call__ = __setitem__ = __setstate__ = append = extend = add = _take


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _PLAIN.get((module, name), _StandIn)

    def persistent_load(self, pid: Any) -> Any:
        """A tensor's samples."""
        return _StandIn()
