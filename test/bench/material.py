"""Raw material of the benchmarks, made up: rooms, sources and backgrounds in the official layout and at its sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import soundfile

LABELS = ["AlarmClock", "Blender", "Cough", "Doorbell", "Pour", "Speech"]
KINDS = ["Rain", "Wind"]


def make_material(
    root: Path,
    rate: int = 32000,
    n_rooms: int = 3,
    n_positions: int = 108,
    rir_seconds: float = 2.0,
    files_of_label: int = 12,
    noise_seconds: float = 60.0,
    suffix: str = ".wav",
    compressed: bool = True,
) -> None:
    """Writes ``raw/{sound_event,interference,noise,room_ir}`` below ``root``, unless they are there.

    Sources last 0.5 to 10 s (log-uniform); they and the backgrounds are 16-bit files of noise that swells and fades.
    Impulse responses are four channels of decaying noise behind a direct sound, float64, compressed as the SOFA
    libraries do by default.
    """
    done = root / "material.json"
    wanted = {k: v for k, v in locals().items() if k not in ("root", "done")}
    if done.exists() and json.loads(done.read_text()) == wanted:
        return
    rng = np.random.default_rng(0)

    def sound(path: Path, seconds: float, channels: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        n = int(seconds * rate)
        noise = 0.1 * rng.standard_normal((n, channels), dtype=np.float32)
        noise *= np.float32(0.2) + np.abs(np.sin(np.arange(n, dtype=np.float32) / 5000))[:, None]
        soundfile.write(path, noise, rate, subtype="PCM_16")

    for label in LABELS:
        for i in range(files_of_label):
            seconds = float(np.exp(rng.uniform(np.log(0.5), np.log(10))))
            sound(root / f"raw/sound_event/{label}/source{i}/{i}{suffix}", seconds, 1)
    for label in KINDS:
        for i in range(files_of_label):
            seconds = float(np.exp(rng.uniform(np.log(0.5), np.log(10))))
            sound(root / f"raw/interference/{label}/{i}{suffix}", seconds, 1)
    for i in range(3):
        sound(root / f"raw/noise/{i}{suffix}", noise_seconds, 4)
    for i in range(n_rooms):
        write_room(root / f"raw/room_ir/room{i:02d}.sofa", rng, rate, n_positions, int(rir_seconds * rate), compressed)
    done.write_text(json.dumps(wanted))


def write_room(path: Path, rng: np.random.Generator, rate: int, n_positions: int, n: int, compressed: bool) -> None:
    """Writes a SOFA file (SingleRoomSRIR) of positions around the microphone: 36 azimuths at three elevations."""
    path.parent.mkdir(parents=True, exist_ok=True)
    decay = np.exp(-6.9 * np.arange(n, dtype=np.float32) / n) * np.float32(0.1)
    azimuth = np.arange(n_positions) % 36 * 10.0
    elevation = (np.arange(n_positions) // 36 - 1) * 20.0
    with h5py.File(path, "w") as file:
        for name, size in (("M", n_positions), ("R", 4), ("N", n), ("C", 3), ("I", 1), ("E", 1)):
            scale = file.create_dataset(name, shape=(size,), dtype="f4")
            scale.make_scale(name)
        file.attrs.update(
            {
                "Conventions": "SOFA",
                "SOFAConventions": "SingleRoomSRIR",
                "SOFAConventionsVersion": "1.0",
                "DataType": "FIR",
                "Version": "2.1",
            }
        )

        def variable(name: str, data: np.ndarray, dims: str, **attributes: str) -> None:
            found = file.create_dataset(name, data=data)
            for axis, dim in enumerate(dims):
                found.dims[axis].attach_scale(file[dim])
            found.attrs.update(attributes)

        positions = np.stack([azimuth, elevation, np.full(n_positions, 1.5)], axis=1)
        metres = {"Type": "cartesian", "Units": "metre"}
        variable("SourcePosition", positions, "MC", Type="spherical", Units="degree, degree, metre")
        variable("ListenerPosition", np.zeros((1, 3)), "IC", **metres)
        variable("ReceiverPosition", np.zeros((4, 3, 1)), "RCI", **metres)
        variable("EmitterPosition", np.zeros((1, 3, 1)), "ECI", **metres)
        variable("Data.SamplingRate", np.array([float(rate)]), "I", Units="hertz")
        variable("Data.Delay", np.zeros((1, 4)), "IR")
        # The chunks that netCDF chooses for 108 positions, 4 channels and 2 s.
        layout = {"chunks": (min(36, n_positions), 1, min(21334, n)), "compression": 4, "shuffle": True}
        rirs = file.create_dataset("Data.IR", shape=(n_positions, 4, n), dtype="f8", **(layout if compressed else {}))
        for axis, dim in enumerate("MRN"):
            rirs.dims[axis].attach_scale(file[dim])
        for first in range(0, n_positions, 36):  # a row of chunks at a time
            count = min(36, n_positions - first)
            block = rng.standard_normal((count, 4, n), dtype=np.float32) * decay
            block[:, :, : rate // 200] = 0
            block[:, :, rate // 200] = np.concatenate([np.ones((count, 1)), rng.uniform(-1, 1, (count, 3))], axis=1)
            rirs[first : first + count] = block


def sampler_config(rate: int = 32000, duration: float = 10.0, **changes: Any) -> dict[str, Any]:
    """The challenge's rules over the material."""
    return {
        "labels": LABELS,
        "sampling_rate": rate,
        "duration": duration,
        "max_event_duration": min(10.0, duration),
        "dirs": {name: f"raw/{name}" for name in ("sound_event", "interference", "noise", "room_ir")},
        **changes,
    }
