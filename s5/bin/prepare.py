"""Stage 1 of the challenge recipes: unpacks the archives and writes data directories."""

from pathlib import Path

from s5.bin.command import Parser, count, run
from s5.bin.download import add_places, find_places


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``python -m s5.bin.prepare``; run from the recipe folder."""
    parser = Parser("Makes the data of a recipe from downloaded and existing parts. Finished steps are not repeated.")
    add = parser.add_argument
    add_places(parser)
    add(
        "--data",
        default="data",
        metavar="DIR",
        help="folder of the data directories and of the links dev_set, eval_set",
    )
    add("--refine", metavar="YAML", help="curation of the training events, e.g. conf/curation/park2025.yaml")
    add("--nj", type=count, default=1, help="processes; the files do not depend on it")
    add("--remove_archives", action="store_true", help="delete downloads after unpacking")
    args = parser.parse_args(argv)

    from s5.challenge.corpus.config import choose_parts
    from s5.challenge.corpus.curation import Curation
    from s5.challenge.corpus.prepare import prepare

    places = find_places(args)
    curation = Curation.load(args.refine) if args.refine else None
    parts = choose_parts(places.corpus, args.parts)
    prepare(places, parts, curation, args.nj, not args.remove_archives, Path(args.data))


if __name__ == "__main__":
    run(main)
