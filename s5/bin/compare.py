"""Compares two scored systems on the same mixtures, with bootstrap intervals of the differences."""

from pathlib import Path

from s5.bin.command import Parser, count, count_or_zero, percentage, run


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``python -m s5.bin.compare``."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("first", metavar="A", help="scores.json of stage 11, or the results folder that holds it")
    add("second", metavar="B", help="the same for the second system; positive differences: B is better")
    add("--by", choices=("subset", "n_sources", "class", "room"), help="group of mixtures to compare as well")
    add("--out", type=Path, metavar="FILE", help="JSON file to write")
    add("--resamples", type=count, default=10000, help="bootstrap resamples for the intervals")
    add("--level", type=percentage, default=95.0, metavar="PERCENT", help="confidence level of the intervals")
    add("--seed", type=count_or_zero, default=0, help="seed of the bootstrap")
    args = parser.parse_args(argv)

    from s5.metrics import Bootstrap
    from s5.report.compare import as_json, as_text, compare
    from s5.utils.files import write_json

    bootstrap = Bootstrap(args.resamples, args.level, args.seed)
    found = compare(args.first, args.second, bootstrap, args.by)
    print(as_text(found, (args.first, args.second), args.level))
    if args.out:
        names = {"a": args.first, "b": args.second, "level": args.level, "resamples": args.resamples}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.out, {**names, "differences": as_json(found)}, indent=1, allow_nan=False)


if __name__ == "__main__":
    run(main)
