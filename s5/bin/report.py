"""Stage 12: RESULTS.md and the listening page."""

from pathlib import Path

from s5.bin.command import Parser, add_system, count_or_zero, run


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``python -m s5.bin.report``."""
    parser = Parser("Writes RESULTS.md from all scores in the experiment folder, and a listening page for the system.")
    add = parser.add_argument
    add_system(parser, "YAML of the system whose page and figures by class are made")
    add("--expdir", default="exp", metavar="DIR", help="experiment folder with models and results")
    add("--out", metavar="FILE", help="file to write; by default RESULTS.md in the experiment folder")
    add("--data_root", default="data", metavar="DIR", help="folder of the data directories")
    add("--n_mixtures", type=count_or_zero, default=12, help="mixtures on the listening page at most")
    add("--compare", metavar="NAME", help="name of another system in the experiment folder, for A/B on the page")
    add("--no_figures", action="store_true", help="without figures, which take a few seconds")
    args = parser.parse_args(argv)

    from s5.report.stage import write_report

    out = args.out or Path(args.expdir, "RESULTS.md")
    write_report(args.system, args.expdir, out, args.data_root, args.n_mixtures, not args.no_figures, args.compare)


if __name__ == "__main__":
    run(main)
