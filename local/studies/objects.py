"""Measures what each part of an objects system adds: variants on the same mixtures, with intervals of the differences.

Run it in a recipe folder whose models are trained (./run.sh --system ... --stop_stage 6 for each system):

    python ../../local/studies/objects.py --data data/test

Proofs: a queried dual-path separator against ResUNetK; b slots of USS; c training data of the source tagger; d clues of
TSE; e the loop against an ordinary system. Writes objects.md into --out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from s5 import S5System
from s5.bin.command import Parser, count, run
from s5.data import DataDir
from s5.fusion.objects import queries
from s5.fusion.waveforms import match
from s5.inference import stages
from s5.metrics import Bootstrap, capi_sdri, pairwise_sdr, pi_sdri
from s5.metrics.terms import PartialSums
from s5.report.compare import interval_text
from s5.report.markdown import table
from s5.utils.errors import InputError
from s5.utils.files import write_text

Quotient = tuple[float, float]
"""Numerator and denominator of a figure for one mixture."""


@dataclass
class Mixture:
    """One mixture with its references."""

    samples: np.ndarray
    labels: list[str]
    dry: np.ndarray

    def gain(self, labels: Sequence[str], sources: np.ndarray) -> Quotient:
        """CAPI-SDRi of labelled estimates."""
        value = capi_sdri(labels, sources, self.labels, self.dry, self.samples[0])
        return (0.0, 0.0) if value is None else (value, 1.0)


@dataclass
class Variant:
    """A row of a proof; the first row of each proof is the one that the others are compared with."""

    proof: str
    name: str
    figure: str
    measure: Callable[[Mixture], Quotient]


class Study:
    """Variants of a set of systems.

    Args:
        expdir: folder of the experiments.
        system: YAML of the objects system; beside it are those with ``_foreground`` and ``_dry`` in their names.
        against: YAML of the ordinary system to compare with.
        queried: YAML of an ordinary system whose separator that one's is compared with.
        device: torch device.
    """

    def __init__(self, expdir: str | Path, system: str, against: str, queried: str, device: str | None) -> None:
        self.expdir, self.own, self.ordinary, self.other, self.device = expdir, system, against, queried, device
        self.system = cache(self._system)

    def _system(self, path: str) -> S5System:
        return S5System.from_yaml(path, self.expdir, self.device)

    def variants(self) -> Iterator[Variant]:
        """All variants by proof."""
        own = self.own
        foreground, dry = (own.replace(".yaml", f"_{name}.yaml") for name in ("foreground", "dry"))
        for path in (self.other, self.ordinary):
            name = f"separator of {Path(path).stem}"
            yield Variant("a", name, "CAPI-SDRi, true labels", lambda x, path=path: self.queried(path, x))
        for name, path in (("foreground slots alone", foreground), ("interference and rest, too", own)):
            yield Variant("b", name, "PI-SDRi", lambda x, path=path: self.separated(path, x))
        for name, path in (("dry sources alone", dry), ("dry sources and estimates", own)):
            yield Variant("c", name, "accuracy on USS (%)", lambda x, path=path: self.named(path, x))
        for name, clues in {
            "label": (True, False, 1),
            "enrolment": (False, True, 1),
            "label and enrolment": (True, True, 1),
            "both, second pass": (True, True, 2),
        }.items():
            yield Variant("d", name, "CAPI-SDRi, true labels", lambda x, c=clues: self.extracted(own, x, *c))
        yield Variant("e", f"system {Path(self.ordinary).stem}", "CAPI-SDRi", lambda x: self.whole(self.ordinary, x))
        for loops in (0, 1, 2):
            yield Variant("e", f"{loops} loops", "CAPI-SDRi", lambda x, n=loops: self.whole(own, x, n))

    def queried(self, path: str, x: Mixture) -> Quotient:
        """The first separator with the true labels."""
        outputs = self.system(path).separate(x.samples, x.labels)
        return x.gain(x.labels, next(iter(outputs.values()))[: len(x.labels)])

    def separated(self, path: str, x: Mixture) -> Quotient:
        """The foreground slots of USS that fit the sources best."""
        if not x.labels:
            return 0.0, 0.0
        waveforms = self._slots(path, x)[0]
        value = pi_sdri(waveforms, x.dry, x.samples[0])
        assert value is not None
        return value, 1.0

    def named(self, path: str, x: Mixture) -> Quotient:
        """Right classes of the USS slots that fit the sources best."""
        if not x.labels:
            return 0.0, 0.0
        logits = self._slots(path, x)[1]
        known = self.system(path).labels
        found = [known.name(int(i)) for i in logits.argmax(-1)]
        return 100.0 * sum(a == b for a, b in zip(found, x.labels, strict=True)), float(len(x.labels))

    def extracted(self, path: str, x: Mixture, label: bool, enrolment: bool, passes: int) -> Quotient:
        """TSE with the clues of the true sources: their labels, and the USS slots that fit them best."""
        if not x.labels:
            return 0.0, 0.0
        system, n = self.system(path), len(x.labels)
        fitting = self._slots(path, x)[0]
        clue = np.zeros((1, system.n_slots, fitting.shape[1]), np.float32)
        clue[0, :n] = fitting if enrolment else 0
        silent = [len(system.labels)] * (system.n_slots - n)
        index = np.array([[*map(system.labels.index, x.labels), *silent]])
        asked = queries(index, len(system.labels)) * np.float32(label)
        for _ in range(passes):
            clue = system.networks.extract(x.samples[None], asked, clue)
        return x.gain(x.labels, clue[0, :n])

    def whole(self, path: str, x: Mixture, loops: int | None = None) -> Quotient:
        """The whole system with its own labels."""
        system = self.system(path)
        if loops is not None:
            system.config.objects.loops = loops
        sources = system(x.samples, system.sampling_rate)
        waveforms = np.array([s.waveform for s in sources]).reshape(len(sources), x.samples.shape[1])
        return x.gain([s.label for s in sources], waveforms)

    def _slots(self, path: str, x: Mixture) -> tuple[np.ndarray, np.ndarray]:
        """Waveforms [n, samples] and logits [n, C] of the USS slots that fit the sources best."""
        networks = self.system(path).networks
        waveforms, features = networks.separate(x.samples[None])
        rows = -pairwise_sdr(waveforms[0], x.dry)
        order = match(np.pad(rows, ((0, waveforms.shape[1] - len(rows)), (0, 0))))
        order = order[: len(x.dry)]
        return waveforms[0, order], networks.classify(waveforms, features)[0][0, order]


def measure(variants: Sequence[Variant], data: DataDir, mixtures: Sequence[Mixture]) -> str:
    """Table of the variants that are trained, in Markdown; the others are listed with the reason."""
    rows, missing, first = [], [], {}
    for variant in variants:
        try:
            values = np.array([variant.measure(x) for x in mixtures])
        except InputError as e:
            missing.append(f"* {variant.proof}, {variant.name}: {e}")
            continue
        terms = PartialSums((variant.figure,), values[:, :1], values[:, 1:])
        row = [variant.proof, variant.name, variant.figure, _number(terms.values()[variant.figure])]
        base = first.setdefault(variant.proof, terms)
        if base is terms:
            rows.append([*row, "", ""])
            continue
        gained = Bootstrap(10000).differences(base, terms)[variant.figure]
        rows.append([*row, _number(gained.gained, "+"), interval_text(gained)])
    head = ["proof", "variant", "figure", "value", "over the first", "95 % interval"]
    parts = [f"{len(mixtures)} mixtures of {data.path}.", table(head, rows)]
    return "\n\n".join([*parts, *(["Not trained:", "\n".join(missing)] if missing else [])]) + "\n"


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.2f}"


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--data", default="data/test", metavar="DIR", help="data directory with references")
    add("--expdir", default="exp", metavar="DIR", help="folder of the experiments")
    add(
        "--system",
        default="conf/systems/objects/mini.yaml",
        metavar="YAML",
        help="objects system; b and c: NAME_*.yaml",
    )
    add("--against", default="conf/systems/mini.yaml", metavar="YAML", help="ordinary system to compare with")
    add("--queried", default="conf/systems/mini_resunetk.yaml", metavar="YAML", help="system of the separator of a")
    add("--only", nargs="+", default=list("abcde"), choices=list("abcde"), help="proofs to run")
    add("--num", type=count, help="number of mixtures, spread over the set (default: all)")
    add("--out", default="exp/objects", metavar="DIR", help="folder of objects.md")
    add("--device", help="torch device, e.g. cpu or cuda:1")
    args = parser.parse_args(argv)

    data = stages.spread(DataDir.load(args.data), args.num)
    if not data.has_sources:
        raise InputError(args.data, "no labels with dry sources", "a set with references")
    mixtures = []
    for utt in data.utts:
        labels = list(data.labels[utt])
        mixtures.append(Mixture(data.mixture(utt)[0], labels, data.sources(utt)[: len(labels)]))
    Path(args.out).mkdir(parents=True, exist_ok=True)
    study = Study(args.expdir, args.system, args.against, args.queried, args.device)
    text = measure([v for v in study.variants() if v.proof in args.only], data, mixtures)
    write_text(Path(args.out, "objects.md"), text)
    print(text)


if __name__ == "__main__":
    run(main)
