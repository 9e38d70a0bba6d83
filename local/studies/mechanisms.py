"""Measures what each mechanism of a system adds: systems that differ in one thing each, on one test set.

Run it in a recipe folder whose models are trained (./run.sh --system ... --stop_stage 6 for each):

    python ../../local/studies/mechanisms.py --expdir exp --data data/test --valid data/valid --nj 2

Stages 7 to 10 of the recipe decode each system, and stage 11 scores it. Common results (posteriors, separated sources)
are made once, but the time of a row is that of all its stages with the start of the processes. Rows with thresholds or
weights from validation are tuned on --valid first, which does not count. Writes mechanisms.md into --out.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from s5 import S5System
from s5.data import DataDir
from s5.fusion import Counts
from s5.inference import stages
from s5.inference.scoring import find_sources, open_references, score_all, score_one
from s5.metrics import Scorer
from s5.report.markdown import number, table
from s5.system.config import ModelConfig
from s5.system.sizes import split_size, with_size
from s5.tuning import Space, collect, tune
from s5.tuning.result import write_yaml
from s5.utils.config import ROOT, parse, resolve
from s5.utils.errors import InputError
from s5.utils.files import write_text

ROWS = Path(__file__).with_suffix(".yaml")
HEAD = ["", "system", "CAPI-SDRi", "gain", "over", "accuracy_mix", "accuracy_src", "Acc2", "removed", "restored"]
HEAD += ["s / mixture"]


@dataclass
class Row:
    """A row of a table. The first lines of mechanisms.yaml explain its keys."""

    name: str
    system: str
    change: dict[str, Any] = field(default_factory=dict)
    tune: list[str] = field(default_factory=list)
    over: str | None = None


@dataclass
class Table:
    """A title and its rows."""

    title: str
    rows: list[Row]


def load(path: str | Path = ROWS) -> list[Table]:
    """The tables of a YAML. Raises InputError for unknown keys, names that stand twice, and unknown rows to compare."""
    tables: list[Table] = [
        parse(Table, entry, path) for entry in yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    ]
    seen: set[str] = set()
    for row in (row for each in tables for row in each.rows):
        if row.name in seen or (row.over is not None and row.over not in seen):
            raise InputError(f"{path}: {row.name}", f"over: {row.over}", "a name of its own, over a row before it")
        seen.add(row.name)
    return tables


class Bench:
    """Decodes systems one after the other; what two of them have in common is made once, and its time counts for both.

    Args:
        data: the test set.
        out: folder of what is written.
        expdir: folder of the experiments.
        nj: processes.
        device: torch device.
        valid: the set to tune on; None: rows that ask for it are not run.
        space: YAML of what is tried.
    """

    def __init__(
        self,
        data: DataDir,
        out: Path,
        expdir: str | Path,
        nj: int,
        device: str | None,
        valid: DataDir | None,
        space: str | Path = "conf/tune.yaml",
    ) -> None:
        self.data, self.out, self.expdir, self.nj, self.device = data, out, expdir, nj, device
        self.valid, self.space = valid, space
        self.seconds: dict[Any, float] = {}
        self.separated: dict[Path, Any] = {}

    def system_of(self, row: Row) -> str:
        """The system of a row: the ready one, or one whose YAML inherits it, at the row's size."""
        name, _, size = row.system.partition(":")
        path = resolve(name)
        path = path if path.is_file() else ROOT / "conf/systems" / f"{name}.yaml"
        if row.change:
            changed = self.out / "systems" / f"{_digest(row.name)}.yaml"
            changed.parent.mkdir(parents=True, exist_ok=True)
            base = os.path.relpath(path, changed.parent.resolve())
            write_text(changed, yaml.safe_dump({"inherit": base, **row.change}, sort_keys=False))
            path = changed
        system = with_size(str(path), size)
        return self._tuned(system, row) if row.tune else system

    def _tuned(self, path: str, row: Row) -> str:
        if self.valid is None:
            raise InputError("--valid", "nothing", "a validation set for thresholds and weights")
        system = self._load(path)
        space = Space.load(self.space).only(row.tune)
        cache = collect(system, self.valid, self.out / "valid" / _models(system.config.taggers), space, self.nj)
        outcome = tune(cache, system.config, space)
        tuned = self.out / "systems" / f"{_digest(row.name)}_tuned.yaml"
        write_yaml(tuned, outcome, path, self.valid.path)
        return with_size(str(tuned), split_size(path)[1])

    def run(self, row: Row) -> tuple[dict[str, Any], Counts | None, float]:
        """Runs stages 7 to 11 of a row: metrics, counts of the refinement, and seconds of stages 7 to 10."""
        system = self._load(self.system_of(row))
        data, utts, nj = self.data, self.data.utts, self.nj
        first, _ = data.mixture(utts[0], system.sampling_rate)  # a first run is slower: outside the clock
        system.tag(first)
        system.separate(first, [system.labels.name(0)])
        folder = self.out / "test" / _models(system.config.taggers)
        separators = _models(system.config.separators)
        seconds = self._once(folder, lambda: stages.tag(system, data, folder, nj))
        seconds += _clock(lambda: stages.vote(system, folder))
        query = (separators, (folder / "labels").read_bytes())
        if self.separated.get(folder) != query:
            self.seconds.pop((folder, query), None)
        seconds += self._once((folder, query), lambda: stages.separate(system, data, folder, nj))
        self.separated[folder] = query
        found: list[Counts | None] = []
        seconds += _clock(lambda: found.append(stages.fuse(system, data, folder, nj)))
        references = open_references(data.path, system.labels)
        estimates = find_sources(folder / "estimates", utts, system.labels)
        options = {"select": "sdr", "penalty_fn": 0.0, "penalty_fp": 0.0}
        scorer = Scorer()
        scorer.rows.extend(score_all(partial(score_one, references, estimates, None, options), utts, nj))
        return scorer.compute()["metrics"], found[0], seconds

    def _load(self, path: str) -> S5System:
        system = S5System.from_yaml(path, self.expdir, self.device)
        for models in (system.taggers, system.separators):  # before the clock starts; other processes load their own
            assert models
        return system

    def _once(self, key: Any, work: Callable[[], Any]) -> float:
        """Does a piece of work once and returns the seconds that it took."""
        if key not in self.seconds:
            self.seconds[key] = _clock(work)
        return self.seconds[key]


def _clock(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _models(models: list[ModelConfig]) -> str:
    """A folder name for models: their names in the system and their experiments."""
    return _digest(repr([(m.name, m.folder(), m.checkpoint) for m in models]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=ROWS, help="YAML of the tables (default: mechanisms.yaml beside this file)")
    parser.add_argument(
        "--systems", nargs="+", metavar="YAML", help="systems to compare with the previous one each, instead of tables"
    )
    parser.add_argument("--expdir", default="exp", help="folder of the experiments")
    parser.add_argument("--data", default="data/test", help="data directory with references")
    parser.add_argument(
        "--valid", help="data directory to tune thresholds and weights on (default: leave out such rows)"
    )
    parser.add_argument("--space", default="conf/tune.yaml", help="YAML of the settings to tune")
    parser.add_argument("--out", help="folder of the results (default: EXPDIR/mechanisms)")
    parser.add_argument("--num", type=int, help="number of mixtures, spread over the test set (default: all)")
    parser.add_argument("--num_valid", type=int, help="the same for the validation set")
    parser.add_argument("--nj", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--device", help="torch device")
    args = parser.parse_args()
    data = stages.spread(DataDir.load(args.data), args.num)
    valid = stages.spread(DataDir.load(args.valid), args.num_valid) if args.valid else None
    out = Path(args.out or Path(args.expdir, "mechanisms"))
    bench = Bench(data, out, args.expdir, args.nj, args.device, valid, args.space)
    tables = [Table("Systems", [Row(s, s) for s in args.systems])] if args.systems else load(args.rows)
    parts = [f"{len(data.utts)} mixtures of {args.data}, {args.nj} processes, {_machine()}"]
    if valid:
        parts[0] += f"; tuned on {len(valid.utts)} mixtures of {args.valid}"
    print(parts[0])
    values: dict[str, float | None] = {}
    for each in tables:
        parts.append(f"## {each.title}\n\n{_table(bench, each, values)}")
        print(f"\n{parts[-1]}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "mechanisms.md", "\n\n".join(["# Mechanisms", *parts]) + "\n")


def _table(bench: Bench, each: Table, values: dict[str, float | None]) -> str:
    """One table as Markdown; ``values`` takes up the CAPI-SDRi of each row."""
    lines: list[list[Any]] = []
    before: str | None = None
    for row in each.rows:
        over, before = row.over or before, row.name
        try:
            metrics, counts, seconds = bench.run(row)
        except InputError as e:
            values[row.name] = None
            lines.append([row.name, f"not run: {e}", *["–"] * (len(HEAD) - 2)])
            continue
        value = values[row.name] = metrics["CAPI-SDRi"]
        base = values.get(over) if over else None
        gain = "–" if base is None or value is None else f"{value - base:+.3f}"
        cells = [number(metrics[key]) for key in ("accuracy_mix", "accuracy_src", "Acc2")]
        moved = [number(counts.removed), number(counts.restored)] if counts else ["–", "–"]
        per_mixture = f"{seconds / len(bench.data.utts):.3f}"
        lines.append([row.name, row.system, number(value, 3), gain, over or "–", *cells, *moved, per_mixture])
    return table(HEAD, lines, left=2)


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
