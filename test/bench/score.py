"""Our scorer and the official one in one run, on the same mixtures: figures, and time by kind of mixture.

    python test/bench/score.py --official CHECKOUT

CHECKOUT is a copy of github.com/nttcslab/dcase2026_task4_baseline; its metric needs torchmetrics. The mixtures are
noise of ten seconds at 32 kHz: sources, estimates (the source, damped, with noise and some of another source) and
labels of which some are wrong. Timed are the official CAPI-SDRi with its label counts, and ours: capi_sdri, and
score_mixture, a whole row of scores.json (PI-SDRi, pairs and confusions too). Times are means a mixture, the least of
several interleaved rounds. "same class": all references and estimates have one label.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from s5.labels import DCASE_LABELS
from s5.metrics import Scorer, capi_sdri, score_mixture
from s5.report.environment import cpu

KINDS = {
    "3 sources, same class": ("AAA", "AAA"),
    "3 sources, 2 of a class": ("AAB", "ABA"),
    "3 sources, distinct": ("ABC", "CAB"),
    "3 sources, 1 missed": ("AAB", "AB"),
    "2 sources, same class": ("AA", "AA"),
    "2 sources, 1 wrong": ("AB", "AC"),
    "1 source": ("A", "A"),
    "1 source, 2 estimates": ("A", "AA"),
    "no source, false alarm": ("", "A"),
    "silence": ("", ""),
}
"""Letters of the references and of the estimates; a mixture's classes are drawn for its letters."""


class Mixture(NamedTuple):
    """What both scorers get, in the official order."""

    est_labels: list[str]
    est: np.ndarray
    ref_labels: list[str]
    ref: np.ndarray
    mixture: np.ndarray


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--official", type=Path, required=True, help="checkout of the baseline")
    parser.add_argument("--mixtures", type=int, default=200, help="in all, of every kind as many (200)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a mixture (10)")
    parser.add_argument("--rate", type=int, default=32000, help="sampling rate in Hz (32000)")
    parser.add_argument("--rounds", type=int, default=3, help="each times every scorer once on all mixtures (3)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the official scorer (1)")
    parser.add_argument("--cpu_time", action="store_true", help="CPU seconds of the process; for a busy machine")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.cpu_time else time.perf_counter
    official = load_official(args.official)
    each, length = max(1, args.mixtures // len(KINDS)), round(args.seconds * args.rate)
    print(f"{cpu()}; {args.threads} thread(s); torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}")
    print(f"{each * len(KINDS)} mixtures of {args.seconds:g} s at {args.rate} Hz, padded to 3 slots with silence\n")
    head = ("kind", "official ms", "capi_sdri ms", "ratio", "row ms", "ratio", "largest dB")
    print(f"{head[0]:<26}" + "".join(f"{name:>14}" for name in head[1:]))
    scorer, official_rows, worst, slower = Scorer(), [], 0.0, []
    for number, (kind, letters) in enumerate(KINDS.items()):
        rng = np.random.default_rng(number)
        mixtures = [make(rng, *letters, length) for _ in range(each)]
        tensors = [Mixture(*(torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in m)) for m in mixtures]
        runs: dict[str, Callable[[int], Any]] = {
            "official": lambda i, t=tensors: official(t[i]),  # type: ignore[misc]
            "capi": lambda i, m=mixtures: capi_sdri(*m[i]),  # type: ignore[misc]
            "row": lambda i, m=mixtures: score_mixture("utt", *m[i]),  # type: ignore[misc]
        }
        times, results = measure(runs, each, args.rounds, clock)
        gap = compare(results)
        worst = max(worst, gap)
        official_rows += results["official"]
        scorer.rows += results["row"]
        ratios = [times["official"] / times[name] for name in ("capi", "row")]
        slower += [f"{kind} (by {times['row'] - times['official']:.2f} ms)"] if ratios[1] < 1 else []
        cells = (times["official"], times["capi"], ratios[0], times["row"], ratios[1])
        print(f"{kind:<26}" + "".join(f"{x:14.2f}" for x in cells) + f"{gap:14.1e}")
    metrics, expected = scorer.compute()["metrics"], aggregate(official_rows)
    for name, value in expected.items():
        print(f"\n{name}: official {value:.5f}, ours {metrics[name]:.5f}", end="")
        worst = max(worst, abs(value - metrics[name]))
    print(f"\nlargest difference: {worst:.1e} (1e-4 allowed)")
    print("slower than the official scorer: " + (", ".join(slower) or "no kind of mixture"))
    sys.exit(worst > 1e-4)


def make(rng: np.random.Generator, refs: str, ests: str, length: int) -> Mixture:
    """A mixture whose labels follow the letters."""
    classes = dict(zip("ABC", rng.choice(DCASE_LABELS, 3, replace=False), strict=True))
    ref = np.zeros((3, length), np.float32)
    est = np.zeros((3, length), np.float32)
    ref[: len(refs)] = 0.1 * rng.standard_normal((len(refs), length), dtype=np.float32)
    mixture = ref.sum(axis=0) + 0.05 * rng.standard_normal(length, dtype=np.float32)
    for slot in range(len(ests)):
        noise = 0.03 * rng.standard_normal(length, dtype=np.float32)
        target = ref[rng.integers(max(len(refs), 1))]
        est[slot] = 0.9 * target + 0.2 * mixture + noise
    names = ([str(classes[letter]) for letter in letters] for letters in (ests, refs))
    est_labels, ref_labels = (found + ["silence"] * (3 - len(found)) for found in names)
    return Mixture(est_labels, est, ref_labels, ref, mixture)


def load_official(checkout: Path) -> Callable[[Mixture], dict[str, Any]]:
    """The official metric and label counts of one mixture."""
    parts = []
    for file, name in (("s5capi_metric.py", "S5ClassAwareMetric"), ("label_metric.py", "LabelMetric")):
        path = checkout / "src/evaluation/metrics" / file
        spec = importlib.util.spec_from_file_location(f"official_{path.stem}", path)
        if not path.is_file() or spec is None or spec.loader is None:
            sys.exit(f"error: {path}: found no such file, expected a checkout of the baseline")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        parts.append(getattr(module, name)())

    def score(m: Mixture) -> dict[str, Any]:
        return {"CAPI-SDRi": parts[0].compute_sample(*m), **parts[1].compute_sample(m.est_labels, m.ref_labels)}

    return score


def measure(
    runs: dict[str, Callable[[int], Any]], n: int, rounds: int, clock: Callable[[], float]
) -> tuple[dict[str, float], dict[str, list[Any]]]:
    """Milliseconds a mixture and the results of every scorer."""
    times = {name: float("inf") for name in runs}
    results: dict[str, list[Any]] = {}
    for _ in range(rounds):
        for name, run in runs.items():
            begin = clock()
            results[name] = [run(i) for i in range(n)]
            times[name] = min(times[name], 1000 * (clock() - begin) / n)
    return times, results


def compare(results: dict[str, Sequence[Any]]) -> float:
    """Largest difference in dB of one mixture; labels have to be counted alike."""
    worst = 0.0
    for official, capi, row in zip(results["official"], results["capi"], results["row"], strict=True):
        for key in ("tp", "fp", "fn"):
            assert official[key] == row[key], (official, row)
        assert (official["CAPI-SDRi"] is None) == (capi is None) == (row["CAPI-SDRi"] is None)
        if capi is not None:
            worst = max(worst, *(abs(official["CAPI-SDRi"] - value) for value in (capi, row["CAPI-SDRi"])))
    return worst


def aggregate(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The official aggregate."""
    values = [row["CAPI-SDRi"] for row in rows if row["CAPI-SDRi"] is not None]
    tp, fp, fn = (sum(row[key] for row in rows) for key in ("tp", "fp", "fn"))
    return {
        "CAPI-SDRi": sum(values) / len(values),
        "accuracy_mix": 100 * sum(row["acc"] for row in rows) / len(rows),
        "accuracy_src": 100 * tp / (tp + fp + fn),
    }


if __name__ == "__main__":
    main()
