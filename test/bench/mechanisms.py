"""What each mechanism of a system adds: a table of systems that differ by one thing each, on one test set.

Run it in a recipe folder whose models are trained (./run.sh --system ... --stop_stage 6 for each):

    python ../../test/bench/mechanisms.py --expdir exp --data data/test --nj 2

Each system is decoded from the recordings on, by the recipe's own stages 7 to 11; times are of those stages.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from functools import partial
from pathlib import Path
from typing import Any

from s5 import S5System, decode
from s5.config import ROOT, resolve
from s5.data import DataDir
from s5.errors import InputError
from s5.fusion import Counts
from s5.metrics import Scorer
from s5.report.markdown import number, table
from s5.scoring import find_sources, open_references, score_all, score_one
from s5.system import system_name

SERIES = {
    "track-based taggers (rows of deng2026)": [
        "deng2026/baseline_mini",
        "deng2026/vote_mini",
        "deng2026/verification_mini",
        "deng2026/silence_gate_mini",
        "deng2026/clap_gate_mini",
        "deng2026/finetuned_mini",
        "deng2026/tfgridnet_mini",
        "deng2026/final_mini",
        "refine_mini",
    ],
    "multi-hot taggers (rows of park2025)": [
        "park2025/baseline_mini",
        "park2025/retrained_tagger_mini",
        "park2025/retrained_mini",
        "park2025/rolloff_mini",
        "park2025/chroma_mini",
        "park2025/rolloff_chroma_mini",
        "park2025/ensemble_mini",
        "park2025/ensemble_agent_mini",
    ],
    "losses and channels (nguyen2026)": [
        "nguyen2026/1c_mini",
        "nguyen2026/4c_mini",
        "nguyen2026/ca_sdr_mini",
        "nguyen2026/pi_sdr_mini",
    ],
}
HEAD = ["system", "CAPI-SDRi", "change", "accuracy_mix", "accuracy_src", "Acc2", "removed", "restored", "s / mixture"]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--systems", nargs="+", help="YAMLs instead of the default series; changes are from one to the next"
    )
    parser.add_argument("--expdir", default="exp", help="folder of the experiments")
    parser.add_argument("--data", default="data/test", help="data directory with references")
    parser.add_argument("--out", help="folder of the results (default: EXPDIR/mechanisms)")
    parser.add_argument("--num", type=int, help="the first mixtures of the set alone")
    parser.add_argument("--nj", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--device", help="torch device")
    args = parser.parse_args()
    data = DataDir.load(args.data)
    utts = data.utts[: args.num]
    out = Path(args.out or Path(args.expdir, "mechanisms"))
    series = {"": args.systems} if args.systems else _ready()
    print(f"{len(utts)} mixtures of {args.data}, {args.nj} processes, {_machine()}")
    for title, systems in series.items():
        rows: list[list[Any]] = []
        before = None
        for path in systems:
            try:
                metrics, counts, seconds = measure(path, args, data, utts, out / system_name(path))
            except InputError as e:
                rows.append([system_name(path), f"not run: {e}", *["–"] * (len(HEAD) - 2)])
                continue
            value = metrics["CAPI-SDRi"]
            change = "–" if before is None or value is None else f"{value - before:+.3f}"
            before = value if value is not None else before
            cells = [number(metrics[key]) for key in ("accuracy_mix", "accuracy_src", "Acc2")]
            moved = [number(counts.removed), number(counts.restored)] if counts else ["–", "–"]
            rows.append([system_name(path), number(value, 3), change, *cells, *moved, f"{seconds / len(utts):.3f}"])
        print(f"\n{title}\n\n{table(HEAD, rows)}", flush=True)


def measure(
    path: str | Path, args: argparse.Namespace, data: DataDir, utts: list[str], out: Path
) -> tuple[dict[str, Any], Counts | None, float]:
    """Decodes and scores one system: metrics, counts of its refinement, seconds of stages 7 to 10."""
    system = S5System.from_yaml(path, args.expdir, args.device)
    for models in (system.taggers, system.separators):  # loaded before the clock starts; other processes load their own
        assert models
    begun = time.perf_counter()
    decode.tag(system, data, out, utts, args.nj)
    decode.vote(system, out)
    decode.separate(system, data, out, utts, args.nj)
    counts = decode.fuse(system, data, out, utts, args.nj)
    seconds = time.perf_counter() - begun
    references = open_references(data.path, system.labels)
    estimates = find_sources(out / "estimates", utts, system.labels)
    options = {"select": "sdr", "penalty_fn": 0.0, "penalty_fp": 0.0}
    scorer = Scorer()
    scorer.rows.extend(score_all(partial(score_one, references, estimates, None, options), utts, args.nj))
    return scorer.compute()["metrics"], counts, seconds


def _ready() -> dict[str, list[str]]:
    """The default series, as paths."""
    folder = ROOT / "conf/systems"
    return {title: [str(resolve(folder / f"{name}.yaml")) for name in names] for title, names in SERIES.items()}


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
