"""Draws figures of a system: results, learning curves, and a mixture with the features of the taggers."""

from pathlib import Path

from s5.bin.command import Parser, add_system, run

KINDS = ("results", "taggers", "learning", "features")


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``python -m s5.bin.figures``."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add_system(parser, "YAML of the system, or its name")
    add("--expdir", default="exp", metavar="DIR", help="experiment folder with models and results")
    add("--data_root", default="data", metavar="DIR", help="folder of the data directories")
    add("--out", metavar="DIR", help="folder of the figures (default: EXPDIR/SYSTEM/report/figures)")
    add("--only", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help="kinds to draw")
    add("--mixture", metavar="UTT", help="mixture of the features (default: one with two classes)")
    args = parser.parse_args(argv)

    from s5.report.all_plots import draw_all
    from s5.report.results import find_results, of_system
    from s5.system.config import system_name

    name, expdir = system_name(args.system), Path(args.expdir)
    results = find_results(expdir)
    of_system(results, name, expdir)  # refuses a system without scores
    figures = draw_all(name, results, expdir, args.data_root, args.out, args.only, args.mixture)
    for found in figures.values():
        for path in found.values():
            print(path)


if __name__ == "__main__":
    run(main)
