#!/usr/bin/env python3
"""Makes the room impulse responses of the mini data set: first-order Ambisonics, one SOFA file per room.

The early part comes from pyroomacoustics' image-source method with four directivities at one point, in ACN order W
(omnidirectional), Y, Z, X (figures of eight with a largest gain of 1, SN3D). The image sources of a limited order are
complete only up to some time. A diffuse tail follows: noise that decays with the room's RT60 from the energy of the
image sources just before, with a third of it in each figure of eight (the share of a diffuse field).
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from s5.bin.command import Parser, run
from s5.utils.config import load_yaml, parse
from s5.utils.errors import InputError
from s5.utils.files import leftovers, write_bytes, write_text
from s5.utils.parallel import run_jobs

FS = 16000
SPEED_OF_SOUND = 343.0
ORDER = 14
CROSSFADE = 0.015  # seconds


@dataclass(frozen=True)
class Room:
    """A shoebox room of rooms.yaml: size in metres, rt60 in seconds."""

    split: str
    name: str
    size: list[float]
    rt60: float
    positions: int
    seed: int


@dataclass(frozen=True)
class Rooms:
    """Content of rooms.yaml."""

    rooms: list[Room]


def place(room: Room) -> tuple[np.ndarray, np.ndarray]:
    """Listener [3] in room coordinates and source positions [positions, 3] relative to it, in metres.

    Azimuths are spread evenly over the circle, in an order that has nothing to do with distance or elevation; sources
    stay 0.3 m off the walls and at least 0.6 m from the listener.
    """
    rng = np.random.default_rng(room.seed)
    size = np.array(room.size)
    listener = size * [rng.uniform(0.42, 0.58), rng.uniform(0.42, 0.58), 0.0]
    listener[2] = rng.uniform(1.2, 1.5)
    n = room.positions
    azimuth = 2 * np.pi * (np.arange(n) + rng.uniform(0, 0.8, n)) / n
    elevation = np.deg2rad(rng.choice([-25.0, -10.0, 0.0, 0.0, 15.0, 30.0], n) + rng.uniform(-5, 5, n))
    direction = np.stack(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], axis=1
    )
    with np.errstate(divide="ignore"):
        to_wall = np.where(direction > 0, size - 0.3 - listener, 0.3 - listener) / direction
    farthest = np.minimum(to_wall.min(axis=1), 4.0)
    distance = np.maximum(farthest * rng.uniform(0.45, 1.0, n), 0.6)
    return listener, np.round(direction * distance[:, None], 4)


def image_sources(
    size: Sequence[float], absorption: float, order: int, listener: np.ndarray, sources: np.ndarray
) -> list[np.ndarray]:
    """FOA responses by the image-source method: a list of [4, samples], one a source (relative to the listener).

    Time zero is the emission: the direct sound arrives after distance / speed of sound.
    """
    import pyroomacoustics as pra
    from pyroomacoustics.directivities import DirectionVector, FigureEight, Omnidirectional

    pra.constants.set("c", SPEED_OF_SOUND)
    # A single thread in every library gives the same samples on any machine.
    pra.constants.set("num_threads", 1)
    shoebox = pra.ShoeBox(size, fs=FS, materials=pra.Material(absorption), max_order=order, air_absorption=False)
    axes = [(90, 90), (0, 0), (0, 90)]  # azimuth and colatitude of +Y, +Z, +X
    patterns = [Omnidirectional()] + [FigureEight(DirectionVector(a, c, degrees=True)) for a, c in axes]
    shoebox.add_microphone_array(np.tile(listener[:, None], (1, 4)), directivity=patterns)
    for source in sources:
        shoebox.add_source(listener + source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shoebox.compute_rir()
    delay = pra.constants.get("frac_delay_length") // 2
    out = []
    for s in range(len(sources)):
        length = max(len(shoebox.rir[m][s]) for m in range(4))
        response = np.zeros((4, length - delay))
        for m in range(4):
            rir = shoebox.rir[m][s][delay:]
            response[m, : len(rir)] = rir
        out.append(response)
    return out


def with_tail(early: np.ndarray, complete: float, rt60: float, rng: np.random.Generator) -> np.ndarray:
    """Joins image sources and a diffuse tail.

    Args:
        early: [4, samples], image sources.
        complete: seconds up to which the image sources are complete.
        rt60: reverberation time in seconds.
        rng: draws the tail.

    Returns:
        [4, samples], as long as the tail is above -60 dB of its start, and at least ``rt60``.
    """
    join, half = int(complete * FS), int(CROSSFADE * FS) // 2
    length = max(int((complete + rt60) * FS), join + half + 1)
    out = np.zeros((4, length))
    out[:, : min(length, early.shape[1])] = early[:, :length]
    # Energy of W around 30 ms before the join, carried to each moment of the tail by the decay.
    window = slice(max(0, join - int(0.04 * FS)), join)
    level = np.mean(out[0, window] ** 2)
    decay = np.log(1e6) / rt60  # of energy, 1/s
    middle = (window.start + join) / 2 / FS
    envelope = np.sqrt(level * np.exp(-decay * (np.arange(length) / FS - middle)))
    share = np.sqrt(np.array([1.0, 1 / 3, 1 / 3, 1 / 3]))[:, None]
    tail = rng.standard_normal((4, length)) * share * envelope
    angle = np.clip((np.arange(length) - (join - half)) / (2 * half), 0, 1) * np.pi / 2
    return out * np.cos(angle) + tail * np.sin(angle)


def impulse_responses(room: Room) -> tuple[np.ndarray, np.ndarray]:
    """(FOA responses [positions, 4, samples] float32 cut to about RT60, source positions [positions, 3] in metres)."""
    import pyroomacoustics as pra

    listener, sources = place(room)
    try:
        absorption, _ = pra.inverse_sabine(room.rt60, room.size, c=SPEED_OF_SOUND)
    except ValueError as e:
        size = " x ".join(map(str, room.size))
        raise InputError(f"room {room.name}: rt60", f"{room.rt60} s", f"more for a room of {size} m") from e
    early = image_sources(room.size, absorption, ORDER, listener, sources)
    # An image of order n + 1 lies at least n times the smallest size away.
    complete = min(0.9 * ORDER * min(room.size) / SPEED_OF_SOUND, 0.75 * room.rt60)
    rng = np.random.default_rng([room.seed, 1])
    responses = [with_tail(e, complete, room.rt60, rng) for e in early]
    length = int(1.05 * room.rt60 * FS)
    out = np.zeros((len(responses), 4, length), np.float32)
    for k, response in enumerate(responses):
        n = min(length, response.shape[1])
        out[k, :, :n] = response[:, :n]
    ramp = int(0.01 * FS)
    out[..., -ramp:] *= 0.5 + 0.5 * np.cos(np.pi * np.arange(1, ramp + 1, dtype=np.float32) / ramp)
    return out, sources


def write_sofa(path: Path, room: Room, responses: np.ndarray, positions: np.ndarray) -> None:
    """Writes a SOFA file (SingleRoomSRIR); positions are cartesian and relative to the listener, who is the origin."""
    import sofar

    sofa: Any = sofar.Sofa("SingleRoomSRIR")
    sofa.GLOBAL_Title = room.name
    sofa.GLOBAL_License = "CC0 1.0"
    sofa.GLOBAL_ApplicationName, sofa.GLOBAL_ApplicationVersion = "pyroomacoustics", ""
    sofa.GLOBAL_RoomDescription = f"shoebox {room.size} m, RT60 {room.rt60} s"
    sofa.GLOBAL_ReceiverDescription = "first-order Ambisonics, ACN order W Y Z X, SN3D"
    sofa.RoomCornerA, sofa.RoomCornerB = [0.0, 0.0, 0.0], room.size
    sofa.ListenerPosition = np.zeros((len(positions), 3))
    sofa.MeasurementDate = np.zeros(len(positions))
    # netCDF4 cannot write string variables from the newest numpy; both are optional.
    for name in ("ReceiverDescriptions", "EmitterDescriptions"):
        sofa.delete(name)
    sofa.ReceiverPosition = np.zeros((4, 3))
    sofa.ReceiverPosition_Type, sofa.ReceiverPosition_Units = "cartesian", "metre"
    sofa.ReceiverView, sofa.ReceiverUp = np.tile([1.0, 0, 0], (4, 1)), np.tile([0, 0, 1.0], (4, 1))
    sofa.SourcePosition = positions
    sofa.SourcePosition_Type, sofa.SourcePosition_Units = "cartesian", "metre"
    sofa.Data_IR = responses
    sofa.Data_SamplingRate = FS
    sofa.Data_Delay = np.zeros((1, 4))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Path(folder, path.name)
        sofar.write_sofa(str(made), sofa, compression=1)
        write_bytes(path, made.read_bytes())


def make(room: Room, out: str) -> str:
    """Makes one room's file below ``out``; returns its path."""
    path = Path(out) / room.split / f"{room.name}.sofa"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sofa(path, room, *impulse_responses(room))
    return str(path)


def main(argv: Sequence[str] | None = None) -> None:
    """Makes the missing rooms, or all rooms if this script or the configuration has changed."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("--config", default="conf/rooms.yaml", help="sizes, reverberation times and seeds")
    parser.add_argument("--out", default="data/raw/room_ir", help="folder of the SOFA files")
    parser.add_argument("--nj", type=int, default=2, help="processes")
    args = parser.parse_args(argv)
    rooms = parse(Rooms, load_yaml(args.config), args.config).rooms
    out, stamp = Path(args.out), Path(args.out) / ".made_by"
    version = hashlib.sha256(Path(__file__).read_bytes() + Path(args.config).read_bytes()).hexdigest()
    current = stamp.is_file() and stamp.read_text(encoding="utf-8") == version
    todo = [r for r in rooms if not (current and (out / r.split / f"{r.name}.sofa").is_file())]
    if not todo:
        print(f"{out}: {len(rooms)} rooms, complete")
        return
    stamp.unlink(missing_ok=True)
    for _ in run_jobs(partial(make, out=args.out), todo, args.nj, "make rooms"):
        pass
    print(f"{out}: {len(rooms)} rooms, {len(todo)} of them made")
    wanted = {out / room.split / f"{room.name}.sofa" for room in rooms}
    for old in [*out.glob("*/*.sofa"), *(path for folder in out.glob("*") for path in leftovers(folder))]:
        if old not in wanted:
            old.unlink()
    write_text(stamp, version)


if __name__ == "__main__":
    run(main)
