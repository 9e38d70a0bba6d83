#!/usr/bin/env python3
"""Speed perturbation: other speeds of the training split's recordings, beside them.

A class has a handful of sources here, and what is trained on them learns these sources by heart. Played faster and
slower, pitch included (Ko et al., Interspeech 2015), a source stands for more of them. Validation and test stay as they
are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from s5.bin.command import Parser, run
from s5.errors import InputError

MARK = "_sp"


def other_speed(path: Path, speed: float) -> Path:
    """Name of a recording's copy at another speed: ``00.ogg`` -> ``00_sp0.92.flac``."""
    return path.with_name(f"{path.stem}{MARK}{speed:g}.flac")


def perturb(path: Path, speeds: Sequence[float]) -> None:
    """Writes the copies of one recording that are missing. Raises InputError for an unreadable one."""
    todo = [speed for speed in speeds if not other_speed(path, speed).exists()]
    if not todo:
        return
    try:
        wav, fs = sf.read(path, dtype="float32")
    except (OSError, sf.LibsndfileError) as e:
        raise InputError(path, "no readable audio", "a recording") from e
    for speed in todo:
        new = soxr.resample(wav, fs, fs / speed)
        out = other_speed(path, speed)
        partial = out.with_name(f".{out.stem}.partial.flac")
        sf.write(partial, new / max(1.0, float(np.abs(new).max())), fs, subtype="PCM_16")
        os.replace(partial, out)


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
    parser.add_argument("--nj", type=int, default=2, help="processes")
    args = parser.parse_args(argv)
    if any(not 0.5 <= speed <= 2 or speed == 1 for speed in args.speeds):
        raise InputError("--speeds", args.speeds, "numbers from 0.5 to 2 other than 1")
    files = [p for folder in args.folders for p in sorted(Path(folder).rglob("*.*")) if MARK not in p.stem]
    if not files:
        raise InputError(" ".join(args.folders), "no file", "recordings (local/unpack.py)")
    with ProcessPoolExecutor(args.nj) as pool:
        list(pool.map(perturb, files, [args.speeds] * len(files), chunksize=16))
    print(f"{' '.join(args.folders)}: {len(files)} recordings, {len(args.speeds)} more speeds of each")


if __name__ == "__main__":
    run(main)
