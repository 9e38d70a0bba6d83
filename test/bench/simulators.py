"""Scenes a second on one core with the simulator spatialscaper and with the native renderer, and how far they agree.

    python test/bench/simulators.py
    python test/bench/simulators.py --config egs/mini_s5/conf/scenes/test.yaml --root egs/mini_s5

Needs SpatialScaper (tools/installers/install_spatialscaper.sh). Its Scaper places every scene once with static and once
with moving events; then its spatialize and the native renderer make the same scenes sound. The material is made up in a
temporary folder (10 s, 32 kHz), unless --config names a sampler's. Times are CPU seconds of one core; wall-clock times
stand beside them.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402
from material import make_material, sampler_config  # noqa: E402

from s5.scene import Sampler, Scene, render  # noqa: E402
from s5.scene import spatialscaper as backend  # noqa: E402
from s5.scene.prepare import of_sampler, prepare  # noqa: E402
from s5.scene.rendering.cpu import Rendered  # noqa: E402


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--scenes", type=int, default=20, help="scenes with static events (default 20)")
    parser.add_argument("--moving_scenes", type=int, default=3, help="scenes with moving events (3)")
    parser.add_argument("--config", help="a sampler's YAML instead of made-up material")
    parser.add_argument("--root", default=".", help="folder that the configuration's paths start from")
    parser.add_argument("--rir_seconds", type=float, default=2.0, help="of the made-up rooms (2)")
    args = parser.parse_args()
    backend.check()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        if args.config:
            run(args, Sampler.from_yaml(args.config, args.root))
        else:
            make_material(Path(folder), rir_seconds=args.rir_seconds)
            run(args, Sampler(sampler_config(), folder))


def run(args: argparse.Namespace, sampler: Sampler) -> None:
    """Places, renders and compares the scenes; prints the table."""
    config = sampler.config
    print(
        f"{cpu_model()}, one core, Python {platform.python_version()}, numpy {np.__version__}\n"
        f"scenes of {config.duration:g} s, {config.sampling_rate} Hz; 'differs' is the largest difference between the "
        f"two, relative to the peak\n"
    )
    print(
        f"{'events':8}{'scenes':>7}{'a scene':>9}{'simulator':>16}{'scenes/s (CPU)':>16}{'(wall)':>9}{'ratio':>8}"
        f"{'differs: mixture':>18}{'dry':>9}{'wet':>9}"
    )
    importlib.import_module("s5.scene.rendering.cpu").spectra.resize(0)
    ready = prepare(of_sampler(sampler), config.sampling_rate, sampler.root)
    for kind, n, probability in (("static", args.scenes, 0.0), ("moving", args.moving_scenes, 1.0)):
        if not n:
            continue
        config.spatialscaper.moving_probability = probability
        scenes = [backend.draw_scene(sampler, item) for item in range(n)]
        theirs, their_speed = timed(scenes, lambda scene: backend.render_scene(scene, sampler.root, ready))
        ours, our_speed = timed(scenes, lambda scene: render(scene, sampler.root, ready=ready))
        worst = [
            max(distance(a, b, part) for a, b in zip(theirs, ours, strict=True)) for part in ("mixture", "dry", "wet")
        ]
        events = sum(len(scene.fg_events) + len(scene.int_events) for scene in scenes) / n
        for simulator, speed, parts in (("spatialscaper", their_speed, worst), ("native, cold", our_speed, [])):
            figures = f"{speed[0]:16.3f}{speed[1]:9.3f}{speed[0] / their_speed[0]:7.1f}x"
            differs = "".join(f"{value:{width}.1e}" for value, width in zip(parts, (18, 9, 9), strict=False))
            print(f"{kind:8}{n:7}{events:9.1f}{simulator:>16}{figures}{differs}", flush=True)


def timed(scenes: list[Scene], work: Callable[[Scene], Rendered]) -> tuple[list[Rendered], tuple[float, float]]:
    """What the scenes sound like, and scenes a second of CPU and of wall-clock time."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = [work(scene) for scene in scenes]
    n = len(scenes)
    return made, (n / (time.process_time() - cpu), n / (time.perf_counter() - wall))


def distance(a: Rendered, b: Rendered, part: str) -> float:
    """The largest difference of a part of two records, relative to the peak of the second."""
    x, y = getattr(a, part), getattr(b, part)
    return float(np.abs(x - y).max() / np.abs(y).max()) if y.any() else float(np.abs(x).max(initial=0))


def cpu_model() -> str:
    """The processor's name, as far as Linux tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
