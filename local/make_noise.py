#!/usr/bin/env python3
"""Makes diffuse background noise of the mini data set: first-order Ambisonics from mono recordings of ambiences.

Each file is a sum of plane waves from directions spread evenly over the sphere. Every wave is another part of the same
recording through a random all-pass filter, so that the waves are uncorrelated and the field is diffuse: Y, Z and X (ACN
order W, Y, Z, X; SN3D) have a third of W's energy each and are uncorrelated with it.

There are few ambiences, and a model would learn their colour: that everything unlike a
furnace is an event. The takes of the training split, all but the first, are therefore turned by a random smooth
equaliser.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf

from s5.bin.command import Parser, run
from s5.data import read_audio
from s5.utils.errors import InputError
from s5.utils.files import atomic_write, leftovers, write_text
from s5.utils.parallel import run_jobs

FS = 16000
WAVES = 32
LEVEL_DB = -34.0  # mean square of all channels, dB of full scale


def directions(n: int) -> np.ndarray:
    """Unit vectors [n, 3] (x, y, z) spread evenly over the sphere: a Fibonacci spiral."""
    k = np.arange(n) + 0.5
    z, azimuth = 1 - 2 * k / n, np.pi * (1 + np.sqrt(5)) * k
    return np.stack([np.cos(azimuth) * np.sqrt(1 - z**2), np.sin(azimuth) * np.sqrt(1 - z**2), z], axis=1)


def looped(wav: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """``length`` samples of a recording from a random start, looped with a cross-fade of half a second."""
    over = min(FS // 2, len(wav) // 4)
    ramp = np.sin(np.linspace(0, np.pi / 2, over))
    ring = wav[: len(wav) - over].copy()
    ring[:over] = ring[:over] * ramp + wav[len(wav) - over :] * ramp[::-1]
    start = int(rng.integers(len(ring)))
    return np.take(ring, np.arange(start, start + length), mode="wrap")


def diffuse(wav: np.ndarray, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """FOA noise [4, samples] from a mono ambience [samples] at 16 kHz, at LEVEL_DB, channels W, Y, Z, X."""
    from scipy.signal import oaconvolve

    length, taps = int(seconds * FS), 1024
    out = np.zeros((4, length))
    for x, y, z in directions(WAVES):
        phase = rng.uniform(0, 2 * np.pi, taps // 2 - 1)
        spectrum = np.concatenate([[1.0], np.exp(1j * phase), [1.0]])
        wave = oaconvolve(looped(wav, length + taps - 1, rng), np.fft.irfft(spectrum), mode="valid")
        out += np.array([1.0, y, z, x])[:, None] * wave
    return out * 10 ** (LEVEL_DB / 20) / np.sqrt(np.mean(out**2))


def colour(noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[4, samples] through a random equaliser: up to 6 dB up or down an octave, and rising by up to 6 dB an octave.

    Ambiences fall towards high frequencies; the rise takes some of them as far as white noise. The level stays.
    """
    from scipy.signal import firwin2, oaconvolve

    octave = np.log2(np.linspace(1, FS / 2, 257))
    points = np.arange(6, 14)
    gain = np.interp(octave, points, rng.uniform(-6, 6, len(points))) + rng.uniform(0, 6) * np.clip(octave - 7, 0, None)
    gain = 10 ** (gain / 20)
    gain[-1] = 0.0
    filtered = oaconvolve(noise, firwin2(511, np.linspace(0, 1, 257), gain)[None], mode="same", axes=1)
    return filtered * np.sqrt(np.mean(noise**2) / np.mean(filtered**2))


def make(ambience: str, path: str, seconds: float) -> str:
    """Makes one FLAC file of 16 bits from a mono ambience; returns its path."""
    channels, fs = read_audio(ambience)
    if fs != FS or len(channels) != 1:
        raise InputError(ambience, f"{fs} Hz, {len(channels)} channels", f"mono at {FS} Hz")
    wav = channels[0].astype(np.float64)
    out = Path(path)
    rng = np.random.default_rng(zlib.crc32(f"{out.parent.name}/{out.name}".encode()))
    noise = diffuse(wav, seconds, rng)
    if out.parent.name == "train" and not out.stem.endswith("_0"):
        noise = colour(noise, rng)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as file:
        sf.write(file, np.clip(noise, -1, 1).T, FS, subtype="PCM_16", format="FLAC")
    return path


def _make(job: tuple[str, str], seconds: float) -> str:
    return make(*job, seconds)


def main(argv: Sequence[str] | None = None) -> None:
    """Makes the missing files, or all files if this script or an ambience has changed."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("--ambience", default="data/raw/ambience", help="mono recordings, a folder a split")
    parser.add_argument("--out", default="data/raw/noise", help="folder of the 4-channel noise")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a file")
    parser.add_argument("--takes", type=int, default=2, help="number of files for each ambience")
    parser.add_argument("--train_takes", type=int, default=4, help="the same for the training split")
    parser.add_argument("--nj", type=int, default=2, help="processes")
    args = parser.parse_args(argv)
    ambiences = sorted(Path(args.ambience).glob("*/*.*"))
    if not ambiences:
        raise InputError(args.ambience, "no file", "recorded ambiences, a folder a split")
    out, stamp = Path(args.out), Path(args.out) / ".made_by"
    content = b"".join(p.read_bytes() for p in [Path(__file__), *ambiences])
    version = hashlib.sha256(content + f"{args.seconds}".encode()).hexdigest()
    current = stamp.is_file() and stamp.read_text(encoding="utf-8") == version
    takes = {a: range(args.train_takes if a.parent.name == "train" else args.takes) for a in ambiences}
    jobs = [(str(a), str(out / a.parent.name / f"{a.stem}_{k}.flac")) for a in ambiences for k in takes[a]]
    todo = [job for job in jobs if not (current and Path(job[1]).is_file())]
    if not todo:
        print(f"{out}: {len(jobs)} files, complete")
        return
    stamp.unlink(missing_ok=True)
    for _ in run_jobs(partial(_make, seconds=args.seconds), todo, args.nj, "make noise"):
        pass
    print(f"{out}: {len(jobs)} files, {len(todo)} of them made")
    wanted = {path for _, path in jobs}
    for old in [*out.glob("*/*.flac"), *(path for folder in out.glob("*") for path in leftovers(folder))]:
        if str(old) not in wanted:
            old.unlink()
    write_text(stamp, version)


if __name__ == "__main__":
    run(main)
