#!/usr/bin/env python3
"""Writes copies of the training split's recordings at other speeds and through other equalisers.

A class has only a few sources here, and models would learn these sources by heart. A copy is faster or slower with
another pitch (Ko et al., Interspeech 2015) and sounds as if through another microphone. Validation and test are not
changed.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from scipy.signal import firwin2, oaconvolve

from s5.bin.command import Parser, run
from s5.data import read_audio
from s5.utils.errors import InputError
from s5.utils.files import atomic_write, write_text
from s5.utils.parallel import run_jobs

MARK = "_sp"


def other_speed(path: Path, speed: float) -> Path:
    """The name of a recording's copy at another speed: ``00.ogg`` -> ``00_sp0.92.flac``."""
    return path.with_name(f"{path.stem}{MARK}{speed:g}.flac")


def colour(wav: np.ndarray, fs: int, filter_db: float, rng: np.random.Generator) -> np.ndarray:
    """[samples] through a random smooth equaliser: up to ``filter_db`` up or down at each octave from 64 Hz."""
    frequency = np.linspace(0, fs / 2, 129)
    octaves = np.arange(6, np.log2(fs / 2) + 1)
    gain = np.interp(np.log2(np.maximum(frequency, 1)), octaves, rng.uniform(-filter_db, filter_db, len(octaves)))
    return oaconvolve(wav, firwin2(255, frequency, 10 ** (gain / 20), fs=fs), mode="same")


def perturb(path: Path, speeds: Sequence[float], filter_db: float = 0.0) -> None:
    """Writes the missing copies of a recording. Raises InputError if it cannot be read."""
    todo = [speed for speed in speeds if not other_speed(path, speed).exists()]
    if not todo:
        return
    channels, fs = read_audio(path)
    if len(channels) != 1:
        raise InputError(path, f"{len(channels)} channels", "one")
    wav = channels[0]
    for speed in todo:
        new = soxr.resample(wav, fs, fs / speed)
        if filter_db:
            seed = zlib.crc32("/".join([*path.parts[-3:], f"{speed:g}"]).encode())
            new = colour(new, fs, filter_db, np.random.default_rng(seed))
        out = other_speed(path, speed)
        with atomic_write(out) as file:
            sf.write(file, new / max(1.0, float(np.abs(new).max())), fs, subtype="PCM_16", format="FLAC")


def main(argv: Sequence[str] | None = None) -> None:
    """Perturbs every recording below the folders."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument(
        "folders",
        nargs="*",
        default=["data/raw/sound_event/train", "data/raw/interference/train"],
        help="folders of recordings",
    )
    parser.add_argument("--speeds", type=float, nargs="+", default=[0.84, 0.92, 1.09, 1.19], help="speeds to add")
    parser.add_argument("--filter_db", type=float, default=8.0, help="largest gain of a copy's equaliser; 0: none")
    parser.add_argument("--nj", type=int, default=2, help="processes")
    args = parser.parse_args(argv)
    if any(not 0.5 <= speed <= 2 or speed == 1 for speed in args.speeds):
        raise InputError("--speeds", args.speeds, "numbers from 0.5 to 2 other than 1")
    if not 0 <= args.filter_db <= 40:
        raise InputError("--filter_db", args.filter_db, "0 to 40 dB")
    version = hashlib.sha256(Path(__file__).read_bytes() + f"{args.speeds} {args.filter_db}".encode()).hexdigest()
    for folder in map(Path, args.folders):
        stamp = folder / ".perturbed"
        if folder.is_dir() and not (stamp.is_file() and stamp.read_text(encoding="utf-8") == version):
            for copy in folder.rglob(f"*{MARK}*.flac"):  # from other settings
                copy.unlink()
            write_text(stamp, version)
    found = [p for folder in args.folders for p in sorted(Path(folder).rglob("*.*"))]
    files = [p for p in found if MARK not in p.stem and not p.name.startswith(".")]
    if not files:
        raise InputError(" ".join(args.folders), "no file", "recordings (local/unpack.py)")
    job = partial(perturb, speeds=args.speeds, filter_db=args.filter_db)
    for _ in run_jobs(job, files, args.nj, "perturb"):
        pass
    print(f"{' '.join(args.folders)}: {len(files)} recordings, {len(args.speeds)} more speeds of each")


if __name__ == "__main__":
    run(main)
