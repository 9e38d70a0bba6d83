"""Tests whether random scenes of the recipe have the statistics of SpAudSyn's. Both draw from the same folders.

    PYTHONPATH=. python local/studies/scene_statistics.py --spaudsyn ../SpAudSyn \
        --baseline ../dcase2026_task4_baseline \
        --root egs/mini_s5/data/raw --split train --duration 4 --max_event_duration 2

SpAudSyn draws as in training, through the data set of the DCASE 2026 Task 4 baseline, which needs torch, librosa and
python-sofa. Chi-square tests compare counts, and two-sample Kolmogorov-Smirnov tests compare continuous quantities. The
exit status is 1 if a p-value times the number of tests is below 0.01. Files that SpAudSyn cannot read (not WAV) are
converted in a temporary folder.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import soundfile

KINDS = ("sound_event", "interference", "noise", "room_ir")
ANGLE = 60.0
LEVEL = 0.01
"""Chance of a false alarm, all tests together."""

Measured = tuple[dict[str, Counter], dict[str, list[float]]]


def measure(scenes: Iterable[dict[str, Any]], min_angle: float = ANGLE) -> Measured:
    """Counts and continuous quantities of scenes, given as SpAudSyn's metadata.

    Angles between events of a label count only above ``min_angle``: of positions at exactly that angle SpAudSyn lets in
    those that rounding puts above it, we none.
    """
    counts: dict[str, Counter] = {}
    values: dict[str, list[float]] = {}

    def count(name: str, what: object) -> None:
        counts.setdefault(name, Counter())[str(what)] += 1

    for scene in scenes:
        labels = Counter(event["label"] for event in scene["fg_events"])
        n = sum(labels.values())
        count("events", n)
        count(f"label repeats of {n} events", "+".join(map(str, sorted(labels.values()))))
        count("interferers", len(scene["int_events"]))
        count("room", os.path.basename(scene["room"]["args"]["metadata"]["sofa_path"]))
        for role, events in (("event", scene["fg_events"]), ("interferer", scene["int_events"])):
            for event in events:
                count(f"{role}'s label", event["label"])
                count(f"{role}'s file", os.path.splitext(event["source_file"])[0])
                for key in ("snr", "event_time", "event_duration"):
                    values.setdefault(f"{role}'s {key}", []).append(event[key])
                if event["source_time"] > 0:
                    values.setdefault(f"{role}'s source_time", []).append(event["source_time"])
                x, y, _ = event["event_position"][0]
                values.setdefault(f"{role}'s azimuth", []).append(float(np.degrees(np.arctan2(y, x)).round(6)))
        for angle in _angles(scene["fg_events"]):
            if angle > min_angle + 1e-4:
                values.setdefault("angle of a label's events", []).append(angle)
            else:
                count("angle at the limit", "pair")
        for event in scene["bg_events"]:
            start = event["source_time"]
            count("background", f"{os.path.splitext(event['source_file'])[0]} {start if start is None else int(start)}")
    return counts, values


def _angles(events: list[dict[str, Any]]) -> Iterator[float]:
    """Degrees between the directions of events of one label."""
    for i, first in enumerate(events):
        for second in events[i + 1 :]:
            if first["label"] == second["label"]:
                a, b = (np.array(event["event_position"][0]) for event in (first, second))
                cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                yield float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).round(6))


def chi_square(first: Counter, second: Counter) -> float:
    """p-value that two counts come from one distribution; categories seen less than 10 times are pooled."""
    keys = sorted({*first, *second})
    table = np.array([[counter[key] for key in keys] for counter in (first, second)])
    rare = table.sum(axis=0) < 10
    if rare.any():
        table = np.concatenate([table[:, ~rare], table[:, rare].sum(axis=1, keepdims=True)], axis=1)
    table = table[:, table.sum(axis=0) > 0]
    return 1.0 if table.shape[1] < 2 else float(scipy.stats.chi2_contingency(table).pvalue)


def histograms(
    values: dict[str, list[float]], edges: dict[str, list[float]] | None = None
) -> dict[str, dict[str, list]]:
    """Counts of continuous quantities between edges: those given, or 20 equal bins from the least to the largest."""
    edges = edges or {name: np.linspace(min(x), max(x), 21).tolist() for name, x in values.items()}
    return {
        name: {"edges": ends, "counts": np.histogram(np.clip(values[name], ends[0], ends[-1]), ends)[0].tolist()}
        for name, ends in edges.items()
    }


def compare(ours: Measured, theirs: Measured) -> list[tuple[str, str, int, int, float]]:
    """(quantity, test, our number, their number, p-value) for each quantity."""
    rows = []
    for name in sorted({*ours[0], *theirs[0]} - {"angle at the limit"}):
        a, b = (counts.get(name, Counter()) for counts in (ours[0], theirs[0]))
        rows.append((name, "chi-square", a.total(), b.total(), chi_square(a, b)))
    for name in sorted({*ours[1], *theirs[1]}):
        x, y = (values.get(name, []) for values in (ours[1], theirs[1]))
        p = float(scipy.stats.ks_2samp(x, y).pvalue) if x and y else 0.0
        rows.append((name, "Kolmogorov-Smirnov", len(x), len(y), p))
    return rows


def wav_tree(root: Path, split: str, out: Path) -> Path:
    """A folder with sound_event, interference, noise (as WAV) and room_ir; ``root`` itself where it is that already."""
    folders = {kind: root / kind / split for kind in KINDS}
    audio = [path for kind in KINDS[:3] for path in sorted(folders[kind].rglob("*")) if path.is_file()]
    if not split and all(path.suffix == ".wav" for path in audio):
        return root
    for kind in KINDS[:3]:
        for path in (p for p in audio if folders[kind] in p.parents):
            target = (out / kind / path.relative_to(folders[kind])).with_suffix(".wav")
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".wav":
                target.symlink_to(path.resolve())
            elif path.suffix in (".flac", ".ogg"):
                samples, rate = soundfile.read(path)
                soundfile.write(target, samples, rate, subtype="PCM_16")
    shutil.copytree(folders["room_ir"], out / "room_ir")
    return out


def draw_ours(root: Path, n: int, settings: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Scenes of our sampler."""
    from s5.scene import Sampler

    labels = sorted(path.name for path in (root / "sound_event").iterdir() if path.is_dir())
    config = {
        "labels": labels,
        "sampling_rate": 32000,
        "seed": seed,
        "dirs": {kind: str(root / kind) for kind in KINDS},
    }
    sampler = Sampler(config | settings)
    return [sampler.scene(0, item).to_dict() for item in range(n)]


def draw_theirs(
    spaudsyn: Path, baseline: Path, root: Path, n: int, settings: dict[str, Any], seed: int
) -> tuple[list[dict[str, Any]], int]:
    """Scenes of SpAudSyn, drawn by the baseline's data set, and how often that failed on the way."""
    data_set = _official_data_set(spaudsyn, baseline)
    config = {
        "mode": "generate",
        "spatial_sound_scene": {
            "duration": settings["duration"],
            "sr": 32000,
            "max_event_overlap": settings["max_event_overlap"],
            "max_event_dur": settings["max_event_duration"],
            "ref_db": -55,
            **{
                f"{name}_dir": str(root / kind)
                for name, kind in zip(("foreground", "interference", "background"), KINDS[:3], strict=True)
            },
            "room_config": {
                "module": "src.modules.spatial_audio_synthesizer.room",
                "main": "SofaRoom",
                "args": {"path": str(root / "room_ir"), "direct_range_ms": [6, 50]},
            },
        },
        "dupse_rate": settings["same_class_probability"],
        "dupse_min_angle": ANGLE,
        "max_n_dupse": 2,
        "dupse_exclusion_folder_depth": 1,
        "snr_range": [5, 20],
        "nevent_range": settings["n_events"],
        "ninterference_range": settings["interference"],
        "inteference_snr_range": [0, 15],
        "dataset_length": n,
        "shuffle_label": True,
        "fg_return": {"metadata": True},
    }

    class Metadata(data_set):  # type: ignore[misc,valid-type]
        def _generate(self, scene: Any) -> dict[str, Any]:
            return json.loads(json.dumps(scene.generate_metadata()))

    with contextlib.redirect_stdout(None):  # it prints its labels
        drawn = Metadata(config, n_sources=3, label_set="dcase2026t4", return_source=False)
    random.seed(seed)
    np.random.seed(seed)
    scenes: list[dict[str, Any]] = []
    failed = 0
    while len(scenes) < n:
        try:
            scenes.append(drawn._get_item_generate(0))
        except (AssertionError, IndexError):  # an event that it could not place, a position that there is not
            failed += 1
    return scenes, failed


def _official_data_set(spaudsyn: Path, baseline: Path) -> Any:
    """The baseline's class, with SpAudSyn where its installation guide puts it."""
    sys.path.insert(0, str(baseline))
    name = "src.modules.spatial_audio_synthesizer"
    spec = importlib.util.spec_from_loader(name, None, is_package=True)
    assert spec is not None
    package = importlib.util.module_from_spec(spec)
    package.__path__ = [str(spaudsyn / "src")]
    sys.modules[name] = package
    try:
        return importlib.import_module("src.datamodules.dataset").DatasetS3
    except ImportError as e:
        sys.exit(
            f"scene_statistics.py: {e.name}: found no module, expected the baseline's requirements (python-sofa ...)"
        )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaudsyn", type=Path, required=True, help="a checkout of nttcslab/SpAudSyn")
    parser.add_argument("--baseline", type=Path, required=True, help="a checkout of nttcslab/dcase2026_task4_baseline")
    parser.add_argument("--root", type=Path, required=True, help=f"folder with {', '.join(KINDS)}")
    parser.add_argument("--split", default="", help="subfolder of each of these, e.g. train")
    parser.add_argument("--num_scenes", type=int, default=5000, help="scenes of each (default: %(default)s)")
    parser.add_argument("--duration", type=float, default=10.0, help="of a scene, s (default: %(default)s)")
    parser.add_argument("--max_event_duration", type=float, default=10.0, help="s (default: %(default)s)")
    parser.add_argument("--max_event_overlap", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--n_events", type=int, nargs=2, default=[0, 3], help="least and most (default: 0 3)")
    parser.add_argument("--interference", type=int, nargs=2, default=[0, 2], help="least and most (default: 0 2)")
    parser.add_argument("--same_class_probability", type=float, default=0.5, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--store", type=Path, help="JSON file for SpAudSyn's counts and histograms (test/golden)")
    args = parser.parse_args()
    names = (
        "duration",
        "max_event_duration",
        "max_event_overlap",
        "n_events",
        "interference",
        "same_class_probability",
    )
    settings = {name: getattr(args, name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        root = wav_tree(args.root, args.split, Path(folder)).resolve()
        start = time.perf_counter()
        ours = draw_ours(root, args.num_scenes, settings, args.seed)
        between = time.perf_counter()
        checkouts = args.spaudsyn.resolve(), args.baseline.resolve()
        theirs, failed = draw_theirs(*checkouts, root, args.num_scenes, settings, args.seed)
        end = time.perf_counter()
    measured = measure(ours), measure(theirs)
    if args.store:
        counts, values = measured[1]
        stored = {
            "num_scenes": args.num_scenes,
            "settings": settings,
            "counts": counts,
            "histograms": histograms(values),
        }
        args.store.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
    rows = compare(*measured)
    print(f"{args.num_scenes} scenes each; drawn in {between - start:.1f} s by us, {end - between:.1f} s by SpAudSyn")
    at_limit = [counts["angle at the limit"].total() if "angle at the limit" in counts else 0 for counts, _ in measured]
    print(f"SpAudSyn failed {failed} times; pairs at exactly {ANGLE:g} degrees: {at_limit[0]} and {at_limit[1]}")
    print(f"\n{'quantity':32} {'test':20} {'ours':>7} {'theirs':>7} {'p':>8}")
    for name, test, n_ours, n_theirs, p in rows:
        print(f"{name:32} {test:20} {n_ours:7} {n_theirs:7} {p:8.4f}{'  differs' if p * len(rows) < LEVEL else ''}")
    worst = min(p for *_, p in rows)
    print(f"\nsmallest p-value: {worst:.4f} of {len(rows)} tests (differs below {LEVEL / len(rows):.5f})")
    sys.exit(worst * len(rows) < LEVEL)


if __name__ == "__main__":
    main()
