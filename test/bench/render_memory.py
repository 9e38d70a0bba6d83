"""Memory of the workers that render training scenes: how much, what of it is shared, and whether it grows.

    python test/bench/render_memory.py                                    # the size: long impulse responses, many rooms
    python test/bench/render_memory.py --scenes 20000 --duration 1 --rir_seconds 0.3 --rooms 8    # the growth

Runs the training's own data loader (s5.tasks.data) over material that it makes up and prepares. MB of the processes:
RSS, all pages that are mapped; PSS, shared pages by their share; private, what ends with the process.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import yaml
from material import make_material, sampler_config

KINDS = ("Rss", "Pss", "Private_Dirty")


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--scenes", type=int, default=400, help="scenes rendered (400)")
    parser.add_argument("--duration", type=float, default=10.0, help="of a scene, s (10)")
    parser.add_argument("--rir_seconds", type=float, default=5.4, help="length of the impulse responses (5.4)")
    parser.add_argument("--rooms", type=int, default=24, help="rooms of 108 positions, links to two files (24)")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    parser.add_argument("--flac", action="store_true", help="compressed recordings")
    parser.add_argument("--folder", type=Path, help="keep the material here; by default a temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run(args, args.folder or Path(temporary))


def run(args: argparse.Namespace, folder: Path) -> None:
    """Makes the material and renders; prints a line for every tenth of the scenes."""
    folder.mkdir(parents=True, exist_ok=True)
    suffix = ".flac" if args.flac else ".wav"
    make_material(folder, n_rooms=2, rir_seconds=args.rir_seconds, suffix=suffix)
    rooms = folder / f"rooms{args.rooms}"
    rooms.mkdir(exist_ok=True)
    for i in range(args.rooms):
        link = rooms / f"room{i:02d}.sofa"
        if not link.is_symlink():
            link.symlink_to((folder / f"raw/room_ir/room{i % 2:02d}.sofa").resolve())
    config = sampler_config(duration=args.duration, num_scenes=args.scenes)
    config["dirs"] = {name: str(folder / path) for name, path in config["dirs"].items()} | {"room_ir": str(rooms)}
    (folder / "train").mkdir(exist_ok=True)
    (folder / "train/sampler.yaml").write_text(yaml.safe_dump(config))

    from s5.scene import Sampler
    from s5.scene.prepare import of_sampler, prepare
    from s5.tasks.data import SceneIterFactory, VirtualScenes

    began = time.perf_counter()
    prepare(of_sampler(Sampler(config)), config["sampling_rate"], folder)
    print(f"prepared in {time.perf_counter() - began:.0f} s")
    dataset = VirtualScenes(folder / "train", with_sources=True)
    factory = SceneIterFactory(dataset, 4, num_workers=args.workers)
    print(f"the loading process: {line(os.getpid())}\n")
    rows = []
    for i, _ in enumerate(factory.build_iter(1), 1):
        if i % max(1, len(factory) // 10) == 0 or i == len(factory):
            pids = [worker.pid for worker in factory.loader._iterator._workers]
            rows.append([memory(pid)["Rss"] for pid in pids])
            print(f"{4 * i:6d} scenes  " + "    ".join(line(pid) for pid in pids), flush=True)
    worst = max(max(row) for row in rows)
    later = rows[len(rows) // 5 :]
    growth = max(last - first for first, last in zip(later[0], later[-1], strict=True))
    print(f"\nlargest worker {worst:.0f} MB RSS; growth after the first fifth {growth:.0f} MB")


def memory(pid: int) -> dict[str, float]:
    """MB of a process by kind."""
    found = {}
    for entry in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, size, *_ = entry.split()
        found[name.rstrip(":")] = int(size) / 1024
    return found


def line(pid: int) -> str:
    """The figures of a process."""
    found = memory(pid)
    return f"RSS {found['Rss']:.0f}  PSS {found['Pss']:.0f}  private {found['Private_Dirty']:.0f} MB"


if __name__ == "__main__":
    main()
