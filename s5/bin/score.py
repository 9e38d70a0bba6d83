"""Stage 11: scores a folder of estimates against references."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from s5.bin.command import Parser, add_shards, count, count_or_zero, number, percentage, run
from s5.data.names import FORM, shortened
from s5.inference import scoring
from s5.inference.bounds import BoundsFolder
from s5.labels import DCASE_LABELS, LabelSet
from s5.metrics import Bootstrap, Scorer
from s5.utils.files import write_json
from s5.utils.progress import progress
from s5.utils.shards import Shards, results

LABELS = Path("conf/labels.txt")


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(
        "Scores estimates named as in the challenge against references; prints a table, writes scores.json."
    )
    add = parser.add_argument
    add("--estimates", type=Path, required=True, metavar="DIR", help=f"folder of {FORM} (or .flac)")
    add("--references", type=Path, required=True, metavar="DIR", help="data directory, or soundscape/ + oracle_target/")
    add("--out", type=Path, metavar="FILE", help="scores.json to write")
    add(
        "--bounds",
        type=Path,
        metavar="DIR",
        help="folder that keeps the set's floors and ceilings, which are computed once: exp/bounds/SET",
    )
    add("--labels", type=Path, metavar="FILE", help="one label a line (default: conf/labels.txt, or the 18 of DCASE)")
    add("--probabilities", type=Path, metavar="FILE", help="confidence of each estimate: lines of <utt> <p> ...")
    add("--system", metavar="NAME", help="name of the system, for the results")
    add("--set", metavar="NAME", help="name of the test set (default: the references' folder)")
    add("--oracle_labels", action="store_true", help="note in the scores that the labels are correct")
    add(
        "--select",
        choices=("sdr", "sdri"),
        default="sdr",
        help="what pairs estimates and references of a class: SDR, as the official scorer has it, or SDRi, as Eq. (10) "
        "of Nguyen et al. is written",
    )
    add("--penalty_fn", type=number, default=0.0, metavar="DB", help="value of a missed source in dB")
    add("--penalty_fp", type=number, default=0.0, metavar="DB", help="value of a false source in dB")
    add(
        "--metadata",
        type=Path,
        metavar="FILE",
        help="list of the scenes (valid.json), for figures by SNR, angle and room",
    )
    add("--resamples", type=count_or_zero, default=1000, help="bootstrap resamples for the intervals; 0: no intervals")
    add("--level", type=percentage, default=95.0, metavar="PERCENT", help="confidence level of the intervals")
    add("--seed", type=count_or_zero, default=0, help="seed of the bootstrap")
    add("--nj", type=count, default=1, help="processes; the figures do not depend on it")
    add_shards(parser)
    args = parser.parse_args(argv)

    labels = _label_set(args.labels)
    references = scoring.open_references(args.references, labels, args.metadata)
    estimates = scoring.find_sources(args.estimates, references.utts, labels)
    if not any(estimates.values()):
        logging.warning("%s holds no estimate: every mixture is scored as silence", args.estimates)
    elif empty := scoring.without_estimate(references, estimates):
        share = f"{len(empty)} of {len(references.utts)} mixtures"
        logging.info("%s: no file for %s with sources, scored as silence: %s", args.estimates, share, shortened(empty))
    probabilities = scoring.read_probabilities(args.probabilities, estimates) if args.probabilities else None
    options = {"select": args.select, "penalty_fn": args.penalty_fn, "penalty_fp": args.penalty_fp}
    bootstrap = Bootstrap(args.resamples, args.level, args.seed) if args.resamples else None
    bounds = BoundsFolder(args.bounds)

    def score(utts: Sequence[str]) -> Iterable[scoring.Scored]:
        n_jobs = min(args.nj, max(len(utts), 1))
        found = scoring.score_set(references, estimates, probabilities, options, bounds, utts, n_jobs)
        return progress(found, len(utts), "score")

    scored = results(Shards.parse(args.shard, args.join, args.parts), references.utts, score)
    if scored is None:
        return
    mixtures = list(scored)
    scorer = Scorer(**options, bootstrap=bootstrap)
    scorer.rows.extend(mixture["row"] for mixture in mixtures)
    name = args.set or args.references.resolve().name
    scores = {
        "set": name,
        "system": args.system or "",
        "oracle_labels": args.oracle_labels,
        "options": options,
        **scorer.compute(),
    }
    if doubtful := scores["warnings"]:
        found = f"{len(doubtful)} references are silent, which the means hold as the official scorer has it"
        logging.warning("%s: %s", found, shortened(doubtful))
    print(f"{scores['system'] or args.estimates} on {scores['set']}\n{scoring.table(scores)}")
    floors = bounds.update([one["bounds"] for one in mixtures], name, options, bootstrap if args.bounds else None)
    print(f"\n{scoring.bounds_table(floors)}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.out, scores, indent=1, allow_nan=False)
        logging.info("wrote %s", args.out)


def _label_set(path: Path | None) -> LabelSet:
    if path is not None:
        return LabelSet.load(path)
    return LabelSet.load(LABELS) if LABELS.is_file() else LabelSet(DCASE_LABELS)


if __name__ == "__main__":
    run(main)
