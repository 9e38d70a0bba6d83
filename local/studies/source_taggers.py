"""Compares the source taggers of a system: dry sources, separated sources, and what wrong queries leave.

Run it in the recipe folder. The system's first separator is asked for the true labels of each mixture, then once with
one of them replaced by an absent label. Intervals are of the difference to the system's first source tagger, over
mixtures (95 %, paired bootstrap).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from s5.bin.command import Parser, add_decoding, add_system, decode_config, run
from s5.data import DataDir
from s5.inference.stages import spread
from s5.metrics.bootstrap import Bootstrap
from s5.metrics.terms import PartialSums
from s5.report.markdown import table
from s5.system.system import S5System
from s5.tasks.estimates import match
from s5.tasks.source_model import wrong_query

FIGURES = ("dry", "separated", "separated, or silence", "silence", "wrong label confirmed")
"""Percentages.

* dry: dry sources whose class is the most probable one.
* separated: the same of the outputs for the true labels.
* separated, or silence: the same if silence may be the most probable.
* silence: outputs of a wrong label, without a source, in which silence is the most probable.
* wrong label confirmed: outputs of a wrong label in which that label is the most probable.
"""


def measure(system: S5System, data: DataDir) -> dict[str, PartialSums]:
    """Figures of each source tagger by mixture."""
    separator = next(iter(system.separators.values()))
    silence, n_slots = len(system.labels), system.n_slots
    counts: dict[str, list[np.ndarray]] = {name: [] for name in system.source_taggers}
    for utt in data.utts:
        mixture, names = data.mixture(utt)[0], data.labels[utt]
        index = torch.from_numpy(system.labels.indices(names, n_slots))[None]
        slot, total = (index == silence).float().argmax(-1), index.sum(-1)
        wrong = wrong_query(index, slot, total, silence)
        asked = [system.labels.name(i) for i in wrong[0].tolist() if i != silence]
        place = asked.index(system.labels.name(int(wrong[0, slot])))
        dry, right = data.sources(utt)[: len(names)], separator.separate(mixture, names)[: len(names)]
        other = separator.separate(mixture, asked)[place : place + 1]
        target = match(*(torch.from_numpy(x)[None] for x in (other, data.sources(utt), mixture[0])))
        holds = int(target) < n_slots
        truth = index[0, : len(names)].numpy()
        for name, tagger in system.source_taggers.items():
            top = tagger.source_posterior(np.concatenate((dry, right, other)))
            classes, any_class = top[:, :-1].argmax(-1), top.argmax(-1)
            n = len(names)
            good = [(classes[:n] == truth).sum(), (classes[n:-1] == truth).sum(), (any_class[n:-1] == truth).sum()]
            good += [any_class[-1] == silence and not holds, any_class[-1] == wrong[0, slot].item()]
            counts[name].append(np.array([[100 * g for g in good], [n, n, n, not holds, 1]], float))
    return {name: PartialSums(FIGURES, *np.stack(rows, 1)) for name, rows in counts.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; see the module's docstring."""
    parser = Parser(__doc__)
    add_system(parser)
    parser.add_argument("--expdir", default="exp", metavar="DIR", help="folder of the experiments")
    parser.add_argument("--data", default="data/test", metavar="DIR", help="data directory")
    parser.add_argument("--num", type=int, help="mixtures, spread over the set (default: all)")
    add_decoding(parser)
    args = parser.parse_args(argv)
    system = S5System.open(args.system, args.expdir, decode=decode_config(args))
    data = spread(DataDir.load(args.data, system.labels, system.n_slots), args.num)
    found = measure(system, data)
    first = next(iter(found))
    rows = []
    for name, terms in found.items():
        cells = [name]
        for difference in Bootstrap().differences(found[first], terms).values():
            low, high = difference.interval or (0.0, 0.0)
            shown = "-" if difference.second is None else f"{difference.second:.1f}"
            cells.append(shown if name == first else f"{shown} ({low:+.1f} .. {high:+.1f})")
        rows.append(cells)
    print(f"{len(data.utts)} mixtures of {args.data}, percentages:\n")
    print(table(["source tagger", *FIGURES], rows))


if __name__ == "__main__":
    run(main)
