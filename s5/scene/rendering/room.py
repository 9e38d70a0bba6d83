"""Reads rooms: multi-channel impulse responses, e.g. first-order Ambisonics, in SOFA files.

All conventions with FIR data are read: SingleRoomSRIR (also as SpatialScaper writes it), SingleRoomDRIR, GeneralFIR,
GeneralFIR-E, SingleRoomMIMOSRIR, SimpleFreeFieldHRIR and the like.

The positions are read once, then single impulse responses by slice. In a compressed file one response costs as much as
its whole chunk, so rooms are prepared once (:mod:`s5.scene.ready`). Each process keeps a few files open; a forked or
unpickled copy of a room opens its own handle.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from s5.data.header import RATES
from s5.scene.config import MAX_SAMPLES
from s5.scene.ready import stamp_of
from s5.utils.errors import InputError

MAX_OPEN = 64
"""Most rooms that a process keeps open."""

ZERO_CHANNEL = 1e-10
"""Largest energy of a channel that counts as zero, relative to the loudest channel of the impulse response."""

LARGEST_BLOCK = 1 << 25
"""Most samples read at a time when all impulse responses are read."""

HERTZ = {"": 1, "hertz": 1, "hz": 1, "kilohertz": 1000, "khz": 1000}
"""Units of a sampling rate, in lower case, and their value in Hz."""


class SofaRoom:
    """A SOFA file with FIR data: ``Data.IR`` [M measurements, R channels, N samples], with E emitters [M, R, N, E].

    A position is the place of a response's source, seen from the microphone. As in SpAudSyn and SpatialScaper, it is
    ``SourcePosition``, whatever position the listener has. If that does not distinguish the responses, emitters
    (``EmitterPosition``, in the source's axes) and then a listener that moves or turns (``ListenerPosition``,
    ``ListenerView``, ``ListenerUp``) are included. ``Data.Delay`` is not applied, as in SpAudSyn.

    Attributes:
        path: path of the file.
        sampling_rate: Hz.
        n_positions: M; with emitters M * E, the emitter running fastest.
        n_channels, rir_length: R and N.
        positions: [n_positions, 3] float64, cartesian, metres.
        own_positions: [n_positions, 3] float64, ``SourcePosition`` in the file's own coordinates, possibly spherical;
            the cartesian positions if it does not distinguish the responses.
        stamp: time of the file's last change (ns) and its size, to notice a replaced file.

    Raises:
        InputError: the file cannot be read, or is no such SOFA file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._file: Any = None
        self._pid = -1
        data = self._open()
        self.stamp = stamp_of(self.path, "a SOFA file")
        try:
            shape, chunks = data["Data.IR"].shape, data["Data.IR"].chunks
            self._axes = _axes(data["Data.IR"])
            rates = np.unique(np.asarray(data["Data.SamplingRate"][()], dtype=np.float64))
            units = _text(data["Data.SamplingRate"].attrs.get("Units", b""))
            raw = np.asarray(data["SourcePosition"][()], dtype=np.float64)
        except (KeyError, OSError, IndexError, ValueError, TypeError, AttributeError) as e:
            names = ("Data.IR", "Data.SamplingRate", "SourcePosition")
            unreadable = next((name for name in names if name in str(e)), "data")
            raise InputError(self.path, f"no readable {unreadable}", "a SOFA file with FIR data") from e
        if data["Data.IR"].dtype.kind not in "fiu":
            raise InputError(f"{self.path}: Data.IR", f"values of type {data['Data.IR'].dtype}", "numbers")
        if len(shape) not in (3, 4) or 0 in shape:
            expected = "[measurements, channels, samples] or these and [emitters]"
            raise InputError(f"{self.path}: Data.IR", f"shape {list(shape)}", expected)
        if units not in HERTZ:
            raise InputError(f"{self.path}: Data.SamplingRate", f"units {units}", "hertz or kilohertz")
        low, high = RATES
        if len(rates) != 1 or not low <= rates[0] * HERTZ[units] <= high:
            found, expected = f"{rates.tolist()} {units}", f"one number of hertz from {low} to {high}"
            raise InputError(f"{self.path}: Data.SamplingRate", found, expected)
        self.sampling_rate = float(rates[0]) * HERTZ[units]
        n_measurements, self.n_channels, self.rir_length = (int(shape[axis]) for axis in self._axes[:3])
        if self.n_channels * self.rir_length > MAX_SAMPLES:
            found = f"{self.n_channels} channels of {self.rir_length} samples"
            raise InputError(f"{self.path}: Data.IR", found, f"at most {MAX_SAMPLES} samples together")
        self._n_emitters = int(shape[self._axes[3]]) if len(shape) == 4 else 1
        self.n_positions = n_measurements * self._n_emitters
        self._chunk_rows = min(chunks[0], n_measurements) if len(shape) == 3 and chunks else 1
        if raw.shape not in ((n_measurements, 3), (1, 3)):
            raise InputError(f"{self.path}: SourcePosition", f"shape {list(raw.shape)}", f"[{n_measurements}, 3]")
        self.own_positions, self.positions = self._locate(data, raw, n_measurements)
        if not np.isfinite(self.positions).all():
            raise InputError(f"{self.path}: SourcePosition", "a number that is not finite", "coordinates in metres")

    def _locate(self, data: Any, raw: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions [n_positions, 3] in the file's own coordinates, and cartesian ones."""
        source = self._cartesian(data, "SourcePosition", raw)
        if self._n_emitters == 1 and len(raw) == n and (n == 1 or _distinct(source)):
            return raw, source
        positions = np.broadcast_to(source, (n, 3))
        if "EmitterPosition" in data:
            # [E, 3], [E, 3, 1] or [E, 3, M], in the axes of the source.
            emitters = self._vectors(data, "EmitterPosition", n, self._n_emitters)
            if self._n_emitters > 1 or not _alike(emitters):
                offsets = np.einsum("mij,mej->mei", self._orientation(data, "Source", n), emitters)
                positions = (positions[:, None] + offsets).reshape(-1, 3)
        if not _distinct(positions) and "ListenerPosition" in data:
            listener = np.repeat(self._vectors(data, "ListenerPosition", n)[:, 0], self._n_emitters, axis=0)
            axes = np.repeat(self._orientation(data, "Listener", n), self._n_emitters, axis=0)
            if not (_alike(listener) and _alike(axes)):
                positions = np.einsum("mij,mi->mj", axes, positions - listener)
        if len(positions) != self.n_positions or not (_distinct(positions) or len(raw) == n):
            found = f"{len(raw)} for {self.n_positions} impulse responses, and no listener or emitter that differs"
            raise InputError(f"{self.path}: SourcePosition", found, "a position for each")
        same = self._n_emitters == 1 and len(raw) == n and np.array_equal(positions, source)
        return (raw if same else positions), positions

    def _cartesian(self, data: Any, name: str, values: np.ndarray) -> np.ndarray:
        """Cartesian coordinates [..., 3] of a variable. An up vector without a type has the type of its view."""
        attributes = data[name].attrs
        if "Type" not in attributes and name.endswith("Up") and f"{name[:-2]}View" in data:
            attributes = data[f"{name[:-2]}View"].attrs
        kind = _text(attributes.get("Type", b"cartesian"))
        if kind not in ("cartesian", "spherical"):
            raise InputError(f"{self.path}: {name}", f"type {kind}", "cartesian or spherical")
        if kind == "cartesian":
            return values
        return _to_cartesian(values, radian="radian" in _text(attributes.get("Units", b"")))

    def _vectors(self, data: Any, name: str, n: int, count: int = 1) -> np.ndarray:
        """Cartesian coordinates [n, count, 3] of a variable for each measurement."""
        try:
            values = np.asarray(data[name][()], dtype=np.float64)
            if values.ndim == 3:  # [count, 3, 1 or n]
                values = np.moveaxis(values, 2, 0)
            elif count > 1 or values.shape[0] == 1:  # the same in every measurement
                values = values[None]
            else:  # [n, 3]
                values = values[:, None]
            return np.broadcast_to(self._cartesian(data, name, values), (n, count, 3))
        except (OSError, ValueError) as e:
            raise InputError(f"{self.path}: {name}", "a shape that does not fit Data.IR", "coordinates") from e

    def _orientation(self, data: Any, of: str, n: int) -> np.ndarray:
        """Axes [n, 3, 3] of the source or listener: front, left and up as columns; by default the room's axes."""
        front, up = np.broadcast_to([[1.0, 0, 0]], (n, 3)), np.broadcast_to([[0.0, 0, 1]], (n, 3))
        if f"{of}View" in data:
            front = self._vectors(data, f"{of}View", n)[:, 0]
        if f"{of}Up" in data:
            up = self._vectors(data, f"{of}Up", n)[:, 0]
        left = np.cross(up, front)
        axes = np.stack([front, left, np.cross(front, left)], axis=2)
        length = np.linalg.norm(axes, axis=1, keepdims=True)
        if not (length > 0).all():
            raise InputError(f"{self.path}: {of}View", "a direction of no length or along the up vector", "a direction")
        return axes / length

    def index(self, position: Sequence[float] | np.ndarray) -> int:
        """Index of the impulse response at a cartesian position (tolerance: 1e-6 absolute plus 1e-5 relative).

        Raises InputError, with the distance of the nearest position, if there is none.
        """
        point = np.asarray(position, dtype=np.float64)
        close = np.isclose(self.positions, point, atol=1e-6, rtol=1e-5).all(axis=1)
        if close.any():
            return int(np.argmax(close))
        nearest = float(np.linalg.norm(self.positions - point, axis=1).min())
        found = f"no position {np.round(point, 4).tolist()}"
        raise InputError(self.path, found, f"one of its {self.n_positions} (the nearest is {nearest:.3g} m away)")

    def nearest(self, position: Sequence[float] | np.ndarray) -> int:
        """Index of the impulse response nearest to a position in the file's own coordinates (rule of DCASE 2025)."""
        return int(np.linalg.norm(self.own_positions - np.asarray(position, dtype=np.float64), axis=1).argmin())

    def rir(self, index: int) -> np.ndarray:
        """Impulse response [R, N] float64 of a position's index, as it is in the file.

        Raises InputError if the data cannot be read or hold a number that is not finite.
        """
        return self._finite(index, self._read(index)[0])

    def responses(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields index and impulse response of all positions, chunk by chunk; see :meth:`rir`."""
        for start, block in self._blocks():
            for index, rir in enumerate(block, start):
                yield index, self._finite(index, rir)

    def energies(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields index and energies [R] of the channels of all impulse responses; not finite if a sample is not.

        Raises InputError if the data cannot be read.
        """
        for start, block in self._blocks():
            with np.errstate(over="ignore", invalid="ignore"):
                yield from enumerate(np.einsum("nrt,nrt->nr", block, block, dtype=np.float64), start)

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields first index and responses [n, R, N], block by block."""
        rows = max(1, min(self._chunk_rows, LARGEST_BLOCK // (self.n_channels * self.rir_length)))
        for start in range(0, self.n_positions, rows):
            yield start, self._read(start, min(rows, self.n_positions - start))

    def _finite(self, index: int, rir: np.ndarray) -> np.ndarray:
        rir = rir.astype(np.float64, copy=False)
        if not np.isfinite(rir).all():
            raise InputError(f"{self.path}: Data.IR[{index}]", "a number that is not finite", "an impulse response")
        return rir

    def _read(self, index: int, count: int = 1) -> np.ndarray:
        """Responses [count, R, N] from an index on: a hyperslab of ``Data.IR``. With emitters, ``count`` is 1."""
        measurement, emitter = divmod(index, self._n_emitters)
        chosen: list[Any] = [slice(None)] * len(self._axes)
        chosen[self._axes[0]] = slice(measurement, measurement + count)
        if len(self._axes) == 4:
            chosen[self._axes[3]] = emitter
        try:
            found = np.asarray(self._open()["Data.IR"][tuple(chosen)])
        except (OSError, ValueError) as e:
            raise InputError(f"{self.path}: Data.IR[{index}]", "unreadable data", "an impulse response") from e
        return found.transpose(np.argsort(np.argsort(self._axes[:3])))

    def close(self) -> None:
        """Closes the file handle of this process; the next access opens the file again."""
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file = None

    def _open(self) -> Any:
        # An HDF5 handle must not cross a fork, because the child would share the parent's file offset.
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
    """Room of a SOFA file; a process keeps the rooms that it used last open. Raises as :class:`SofaRoom`."""
    key = str(path)
    stamp, kept = stamp_of(key, "a SOFA file"), _rooms.get(key)
    if kept is None or kept.stamp != stamp:
        if kept is not None:
            kept.close()  # otherwise HDF5 returns the old file again
        kept = _rooms[key] = SofaRoom(key)
    _rooms.move_to_end(key)
    while len(_rooms) > MAX_OPEN:
        _rooms.popitem(last=False)[1].close()
    return kept


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.ravel()[0]
    found = value if isinstance(value, bytes) else str(value).encode(errors="surrogateescape")
    return found.decode(errors="replace").strip().lower()


def _axes(data: Any) -> tuple[int, ...]:
    """Numbers of the axes of ``Data.IR`` for measurements, channels, samples and, of four axes, emitters.

    AES69-2015 had the emitters before the samples, so the names of the dimensions decide.
    """
    if len(data.shape) == 4:
        names = []
        for dimension in data.dims:
            try:
                scale = dimension[0].name if len(dimension) else dimension.label
            except (RuntimeError, ValueError, KeyError):
                scale = ""
            names.append(str(scale).rsplit("/", 1)[-1])
        if sorted(names) == ["E", "M", "N", "R"]:
            return tuple(names.index(name) for name in "MRNE")
    return tuple(range(len(data.shape)))


def _distinct(positions: np.ndarray) -> bool:
    """Whether all positions [n, 3] differ."""
    return len(np.unique(positions, axis=0)) == len(positions)


def _alike(values: np.ndarray) -> bool:
    """Whether all entries along the first axis are the same."""
    return bool((values == values[:1]).all())


def _to_cartesian(spherical: np.ndarray, radian: bool) -> np.ndarray:
    """Converts [..., 3] azimuth, elevation and distance to x (front), y (left) and z (up)."""
    azimuth, elevation, distance = np.moveaxis(spherical, -1, 0)
    if not radian:
        azimuth, elevation = np.deg2rad(azimuth), np.deg2rad(elevation)
    level = distance * np.cos(elevation)
    return np.stack([level * np.cos(azimuth), level * np.sin(azimuth), distance * np.sin(elevation)], axis=-1)
