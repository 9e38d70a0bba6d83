"""Scenes a second on one core: our renderer, by part, and SpAudSyn's on the same scenes.

    python test/bench/render.py --spaudsyn CHECKOUT --spaudsyn_python VENV/bin/python
    python test/bench/render.py --device cuda --batch 32

Makes its own material (rooms, sources, backgrounds) in a temporary folder. Times are CPU seconds of one core, so that
other work on the machine does not count; wall-clock times stand beside them. Timed are: preparing the material, once;
scenes from it, with no spectra kept from scene to scene (as with very many positions) and with all of them (the same
scenes again); and the device renderer on batches. The peer always reads everything again.
"""

from __future__ import annotations

import argparse
import cProfile
import importlib
import json
import os
import platform
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402
from material import make_material, sampler_config  # noqa: E402

from s5.scene import Sampler, Scene, render  # noqa: E402
from s5.scene.prepare import of_sampler, prepare  # noqa: E402
from s5.scene.ready import folder_of  # noqa: E402

spectra = importlib.import_module("s5.scene.rendering.cpu").spectra
"""What a process keeps of impulse responses."""

PARTS = {
    "transforms (FFT)": ("_duccfft", "pocketfft", "scipy/fft"),
    "spectra multiplied": ("_convolve",),
    "audio read": ("soundfile", "scene/audio.py", "ascontiguousarray", "sf_"),
    "impulse responses read": ("h5py", "room.py", "load_response", "ready.py", "fromfile"),
    "levels and sums": ("render.py", "einsum", "numpy.zeros", "reduce"),
    "files and headers looked up": ("posix", "scene/plan.py", "posixpath"),
}
"""Functions by the part of the work that their own time counts for; the first that fits."""


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--spaudsyn", help="checkout of github.com/nttcslab/SpAudSyn; by default only ours is timed")
    parser.add_argument("--spaudsyn_python", default=sys.executable, help="Python that has what SpAudSyn requires")
    parser.add_argument("--scenes", type=int, default=60, help="scenes rendered (default 60)")
    parser.add_argument("--peer_scenes", type=int, default=20, help="the first of them that SpAudSyn renders (20)")
    parser.add_argument("--compared", type=int, default=8, help="scenes compared sample by sample (8)")
    parser.add_argument("--rir_seconds", type=float, default=2.0, help="length of the impulse responses (2)")
    parser.add_argument("--rooms", type=int, default=3, help="rooms of 108 positions (3)")
    parser.add_argument("--uncompressed", action="store_true", help="SOFA files without compression")
    parser.add_argument("--flac", action="store_true", help="sources and backgrounds as FLAC (SpAudSyn wants WAV)")
    parser.add_argument("--folder", type=Path, help="keep the material here; by default a temporary folder")
    parser.add_argument("--device", help="time the device renderer there too: cpu, cuda")
    parser.add_argument("--device_cache_mb", type=int, default=2048, help="its cache on the device (2048)")
    parser.add_argument("--batch", type=int, default=16, help="scenes of its batch (16)")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as temporary:
        run(args, args.folder or Path(temporary))


def run(args: argparse.Namespace, folder: Path) -> None:
    """Makes the material, times everything, prints the table."""
    folder.mkdir(parents=True, exist_ok=True)
    suffix = ".flac" if args.flac else ".wav"
    make_material(
        folder, n_rooms=args.rooms, rir_seconds=args.rir_seconds, suffix=suffix, compressed=not args.uncompressed
    )
    sampler = Sampler(sampler_config(), folder)
    scenes = [sampler.scene(0, item) for item in range(args.scenes)]
    n_events = sum(len(scene.fg_events) + len(scene.int_events) for scene in scenes) / len(scenes)
    print(
        f"{cpu_model()}, one core, Python {platform.python_version()}, numpy {np.__version__}\n"
        f"{len(scenes)} scenes of 10 s, 32 kHz, 4 channels, {n_events:.1f} events and interferers a scene, "
        f"impulse responses of {args.rir_seconds:g} s, {args.rooms} SOFA files of 108 positions"
        f"{'' if args.uncompressed else ', compressed'}, {suffix[1:]} files\n"
    )
    rows: list[tuple[str, float, float]] = []
    if args.spaudsyn:
        rows.append(time_peer(args, folder, scenes))
    wall, cpu = time.perf_counter(), time.process_time()
    ready = prepare(of_sampler(sampler), sampler.config.sampling_rate, folder)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    size = sum(file.stat().st_size for file in Path(ready).iterdir()) / 1e6
    print(f"preparing the material, once: {cpu:.1f} s of CPU time, {wall:.1f} s, {size:.0f} MB\n")
    for kept, what in ((0, "no spectra kept"), (4 << 30, "spectra kept")):
        spectra.resize(kept)
        for scene in scenes:
            render(scene, folder, ready=ready)
        for sources, of in ((True, ""), (False, ", mixture only")):
            work = partial(render, root=folder, sources=sources, ready=ready)
            rows.append(timed(f"ours, {what}{of}", scenes, work))
        profile(scenes, folder, what)
    if args.device:
        rows += time_device(args, folder, scenes)
    print(f"{'':38}{'scenes/s (CPU)':>16}{'(wall)':>10}" + ("     ratio" if args.spaudsyn else ""))
    for what, per_cpu, per_wall in rows:
        ratio = f"{per_cpu / rows[0][1]:9.1f}x" if args.spaudsyn else ""
        print(f"{what:38}{per_cpu:16.2f}{per_wall:10.2f}{ratio}")


def timed(what: str, scenes: list[Scene], work: Callable[[Scene], object]) -> tuple[str, float, float]:
    """Scenes a second of CPU and of wall-clock time."""
    wall, cpu = time.perf_counter(), time.process_time()
    for scene in scenes:
        work(scene)
    return what, len(scenes) / (time.process_time() - cpu), len(scenes) / (time.perf_counter() - wall)


def time_peer(args: argparse.Namespace, folder: Path, scenes: list[Scene]) -> tuple[str, float, float]:
    """SpAudSyn's scenes a second; compares its samples with ours."""
    some = scenes[: args.peer_scenes]
    listed, out = folder / "peer.json", folder / "peer.npz"
    listed.write_text(json.dumps([scene.to_dict() for scene in some]))
    worker = Path(__file__).with_name("spaudsyn_worker.py").resolve()
    command = [args.spaudsyn_python, worker, Path(args.spaudsyn).resolve(), listed.name, out.name, str(args.compared)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    worst = 0.0
    with np.load(out) as theirs:
        for i, scene in enumerate(some[: args.compared]):
            ours = render(scene, folder, ready=folder_of(folder, scene.config.sr))
            peak = np.abs(theirs[f"mixture{i}"]).max()
            worst = max(worst, np.abs(ours.mixture - theirs[f"mixture{i}"]).max() / peak)
            if len(ours.dry):
                worst = max(worst, np.abs(ours.dry - theirs[f"dry{i}"]).max() / peak)
    print(f"largest deviation from SpAudSyn over {len(some[: args.compared])} scenes: {worst:.1e} of the peak\n")
    if worst > 1e-5:
        sys.exit("error: the renderers do not agree")
    return "SpAudSyn", figures["scenes"] / figures["cpu"], figures["scenes"] / figures["wall"]


def time_device(args: argparse.Namespace, folder: Path, scenes: list[Scene]) -> list[tuple[str, float, float]]:
    """The device renderer's scenes a second in batches, with its caches cold and warm; plans are made outside."""
    import torch

    from s5.scene.rendering.gpu import DeviceRenderer
    from s5.scene.rendering.plan import plan

    torch.set_num_threads(1)
    renderer = DeviceRenderer(args.device, cache_mb=args.device_cache_mb)
    ready = folder_of(folder, scenes[0].config.sr)
    plans = [plan(scene, folder, ready) for scene in scenes]
    batches = [plans[i : i + args.batch] for i in range(0, len(plans), args.batch)]
    rows = []
    for what in ("first pass", "warm"):
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in batches:
            made = renderer.render(batch)
        if made.mixture.is_cuda:
            torch.cuda.synchronize()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        rows.append((f"device renderer on {args.device}, {what}", len(scenes) / cpu, len(scenes) / wall))
    return rows


def profile(scenes: list[Scene], folder: Path, what: str) -> None:
    """Prints how the time of rendering divides over its parts."""
    ready = folder_of(folder, scenes[0].config.sr)
    profiler = cProfile.Profile(time.process_time)
    profiler.enable()
    for scene in scenes:
        render(scene, folder, ready=ready)
    profiler.disable()
    parts: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    parts["rest"] = 0.0
    rest: dict[str, float] = {}
    for (file, _, function), (_, _, own, _, _) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        name = f"{file}:{function}"
        part = next((part for part, words in PARTS.items() if any(word in name for word in words)), "rest")
        parts[part] += own
        if part == "rest":
            rest[name] = own
    total = sum(parts.values())
    print(f"{what}: {1000 * total / len(scenes):.1f} ms a scene (under the profiler)")
    for part, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"  {part:28}{1000 * seconds / len(scenes):8.2f} ms{100 * seconds / total:6.1f} %")
    largest = sorted(rest.items(), key=lambda item: -item[1])[:3]
    print("  of the rest: " + ", ".join(f"{Path(n).name} {1000 * s / len(scenes):.2f} ms" for n, s in largest) + "\n")


def cpu_model() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
