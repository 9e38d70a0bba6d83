"""Stage 8: votes on labels from the posteriors, or copies the reference labels (--oracle)."""

from s5.bin.command import Parser, add_system, run


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add_system(parser, "system YAML, or a model archive")
    add("--oracle", metavar="DIR", help="data directory whose labels to use instead of a vote")
    add("--out", required=True, metavar="DIR", help="results folder, e.g. exp/mini/test")
    args = parser.parse_args(argv)

    from s5 import S5System
    from s5.data import DataDir
    from s5.inference import stages

    if args.oracle:
        stages.copy_oracle_labels(DataDir.load(args.oracle), args.out)
    else:
        stages.vote(S5System.open(args.system), args.out)


if __name__ == "__main__":
    run(main)
