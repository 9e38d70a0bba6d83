"""Rooms: first-order Ambisonics (or any multi-channel) impulse responses in SOFA files.

Only what a scene needs is read: the source positions once, then single impulse responses by slice (of a compressed
file, by chunk, which is kept for the next). Open files are kept in a small table a process; a forked or unpickled copy
opens its own handle.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from s5.errors import InputError
from s5.scene.cache import ByteCache

MAX_OPEN = 32
"""Rooms that a process keeps open."""

_chunks: ByteCache[np.ndarray] = ByteCache(128 << 20, lambda x: x.nbytes)
"""Decompressed impulse responses, float32."""


class SofaRoom:
    """A SOFA file with FIR data: ``Data.IR`` [M positions, R channels, N samples].

    Attributes:
        path: the file.
        sampling_rate: Hz.
        n_positions, n_channels, rir_length: M, R and N.
        positions: [M, 3] float64, source positions, cartesian, metres.
        stamp: time of the file's last change (ns) and its size, to notice that it was replaced.

    Raises:
        InputError: the file cannot be read, or is not such a SOFA file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._file: Any = None
        self._pid = -1
        data = self._open()
        stat = os.stat(self.path)
        self.stamp = (stat.st_mtime_ns, stat.st_size)
        try:
            shape, chunks = data["Data.IR"].shape, data["Data.IR"].chunks
            self.sampling_rate = float(np.ravel(data["Data.SamplingRate"][()])[0])
            source = data["SourcePosition"]
            raw = np.asarray(source[()], dtype=np.float64)
            kind, units = _text(source.attrs.get("Type", b"cartesian")), _text(source.attrs.get("Units", b""))
        except (KeyError, OSError, IndexError, ValueError) as e:
            raise InputError(self.path, f"no readable {_field(e)}", "a SOFA file with FIR data") from e
        if len(shape) != 3 or 0 in shape:
            raise InputError(f"{self.path}: Data.IR", f"shape {list(shape)}", "[positions, channels, samples]")
        if not self.sampling_rate > 0:
            raise InputError(f"{self.path}: Data.SamplingRate", self.sampling_rate, "a positive number of Hz")
        self.n_positions, self.n_channels, self.rir_length = (int(n) for n in shape)
        self._chunk_rows = min(chunks[0], self.n_positions) if chunks else 1
        if raw.shape != (self.n_positions, 3):
            raise InputError(f"{self.path}: SourcePosition", f"shape {list(raw.shape)}", f"[{self.n_positions}, 3]")
        if kind not in ("cartesian", "spherical"):
            raise InputError(f"{self.path}: SourcePosition", f"type {kind}", "cartesian or spherical")
        self.positions = raw if kind == "cartesian" else _to_cartesian(raw, radian="radian" in units)
        if not np.isfinite(self.positions).all():
            raise InputError(f"{self.path}: SourcePosition", "a number that is not finite", "coordinates in metres")

    def index(self, position: Sequence[float] | np.ndarray) -> int:
        """Index of the impulse response at a cartesian position (absolute 1e-6 plus relative 1e-5 near).

        Raises:
            InputError: there is none; the nearest distance is named.
        """
        point = np.asarray(position, dtype=np.float64)
        close = np.isclose(self.positions, point, atol=1e-6, rtol=1e-5).all(axis=1)
        if close.any():
            return int(np.argmax(close))
        nearest = float(np.linalg.norm(self.positions - point, axis=1).min())
        found = f"no position {np.round(point, 4).tolist()}"
        raise InputError(self.path, found, f"one of its {self.n_positions} (the nearest is {nearest:.3g} m away)")

    def rir(self, index: int) -> np.ndarray:
        """Impulse response [R, N] float64 of a position's index, as it is in the file.

        Raises:
            InputError: the data cannot be read or hold a number that is not finite.
        """
        rows = self._chunk_rows
        if rows == 1 or rows * self.n_channels * self.rir_length * 4 > _chunks.budget:
            rir = self._read(slice(index, index + 1))[0]
        else:
            # Of a compressed file, one response costs as much as all in its chunk.
            start = index // rows * rows
            stop = min(start + rows, self.n_positions)
            key = (self.path, self.stamp, start)
            rir = _chunks.get(key, lambda: self._read(slice(start, stop)).astype(np.float32))[index - start]
        rir = rir.astype(np.float64)
        if not np.isfinite(rir).all():
            raise InputError(f"{self.path}: Data.IR[{index}]", "a number that is not finite", "an impulse response")
        return rir

    def _read(self, rows: slice) -> np.ndarray:
        try:
            return np.asarray(self._open()["Data.IR"][rows])
        except (OSError, ValueError) as e:
            raise InputError(f"{self.path}: Data.IR", f"unreadable data at {rows.start}", "impulse responses") from e

    def close(self) -> None:
        """Closes the file handle of this process; the next access opens the file again."""
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file = None

    def _open(self) -> Any:
        # An HDF5 handle must not cross a fork: the child would share the parent's file offset.
        if self._file is None or self._pid != os.getpid():
            if not os.path.isfile(self.path):
                raise InputError(self.path, "no file", "a SOFA file")
            try:
                self._file = h5py.File(self.path, "r", locking=False)
            except OSError as e:
                raise InputError(self.path, "a file that HDF5 cannot read", "a SOFA file") from e
            self._pid = os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_pid": -1}


_rooms: OrderedDict[str, SofaRoom] = OrderedDict()


def open_room(path: str | Path) -> SofaRoom:
    """The room of a SOFA file; opened once a process as long as it is among the last ones used.

    Raises:
        InputError: as :class:`SofaRoom`.
    """
    key = str(path)
    try:
        stat = os.stat(key)
    except OSError as e:
        raise InputError(key, e.strerror or "no file", "a SOFA file") from e
    kept = _rooms.get(key)
    if kept is None or kept.stamp != (stat.st_mtime_ns, stat.st_size):
        if kept is not None:
            kept.close()  # HDF5 would hand out the old file again
        kept = _rooms[key] = SofaRoom(key)
    _rooms.move_to_end(key)
    while len(_rooms) > MAX_OPEN:
        _rooms.popitem(last=False)[1].close()
    return kept


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.ravel()[0]
    return (value.decode() if isinstance(value, bytes) else str(value)).strip().lower()


def _field(error: Exception) -> str:
    for name in ("Data.IR", "Data.SamplingRate", "SourcePosition"):
        if name in str(error):
            return name
    return "data"


def _to_cartesian(spherical: np.ndarray, radian: bool) -> np.ndarray:
    """[M, 3] azimuth, elevation, distance -> x (front), y (left), z (up)."""
    azimuth, elevation = spherical[:, 0], spherical[:, 1]
    if not radian:
        azimuth, elevation = np.deg2rad(azimuth), np.deg2rad(elevation)
    distance = spherical[:, 2]
    return np.stack(
        [
            distance * np.cos(elevation) * np.cos(azimuth),
            distance * np.cos(elevation) * np.sin(azimuth),
            distance * np.sin(elevation),
        ],
        axis=1,
    )
