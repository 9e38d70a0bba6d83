"""Stage 12: writes RESULTS.md and the listening page."""

from pathlib import Path

from s5.bin.command import Parser, add_system, count_or_zero, run


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``python -m s5.bin.report``."""
    parser = Parser("Writes RESULTS.md from all scores in the experiment folder, and a listening page for the system.")
    add = parser.add_argument
    add_system(parser, "YAML of the system for the page and the figures by class")
    add("--expdir", default="exp", metavar="DIR", help="experiment folder with models and results")
    add("--out", metavar="FILE", help="file to write (default: EXPDIR/RESULTS.md)")
    add("--data_root", default="data", metavar="DIR", help="folder of the data directories")
    add("--n_mixtures", type=count_or_zero, default=12, help="largest number of mixtures on the listening page")
    add("--compare", metavar="NAME", help="another system in the experiment folder for comparison on the page")
    add("--no_figures", action="store_true", help="draw no figures, which saves a few seconds")
    args = parser.parse_args(argv)

    from s5.report.stage import write_report

    out = args.out or Path(args.expdir, "RESULTS.md")
    write_report(args.system, args.expdir, out, args.data_root, args.n_mixtures, not args.no_figures, args.compare)


if __name__ == "__main__":
    run(main)
