"""Stage 1 of the challenge recipes: downloads the missing archives of a data set."""

import logging

from s5.bin.command import Parser, count, positive, run


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``python -m s5.bin.download``; run from the recipe folder."""
    parser = Parser(
        "Downloads the missing archives of a data set: several at once, resumed, verified, also from mirrors."
    )
    add = parser.add_argument
    add_places(parser)
    add(
        "--mirrors",
        metavar="URLS",
        help="addresses to try first: PART=URL,PART=URL (folders with the files of a part), or one URL",
    )
    add("--jobs", type=count, default=4, help="number of files to download at a time")
    add("--timeout", type=positive, default=60, help="read timeout in seconds")
    add("--retries", type=count, default=8, help="consecutive failures of an address before it is given up")
    add("--recheck", action="store_true", help="verify the checksums of existing files as well")
    add("--list", action="store_true", help="only list the files and their addresses")
    args = parser.parse_args(argv)

    from s5.challenge.corpus.config import choose_parts
    from s5.challenge.corpus.download import Patience
    from s5.challenge.corpus.paths import describe, fetch, read_mirrors

    places = find_places(args)
    parts = choose_parts(places.corpus, args.parts)
    mirrors = read_mirrors(args.mirrors, places.corpus)
    if args.list:
        print(describe(places, parts, mirrors))
        return
    fetched = fetch(places, parts, mirrors, args.jobs, Patience(args.timeout, args.retries), args.recheck)
    logging.info("%s", f"downloaded: {', '.join(fetched)}" if fetched else "nothing to download")


def add_places(parser: Parser) -> None:
    """Adds the options of the data set and its folders."""
    parser.add_argument("--config", default="conf/data.yaml", metavar="YAML", help="description of the data set")
    parser.add_argument("--raw", default="data/raw", metavar="DIR", help="folder that stage 1 writes")
    parser.add_argument("--archives", default="data/download", metavar="DIR", help="folder of the downloads, PART/FILE")
    parser.add_argument("--data_root", metavar="DIR", help="folder with existing parts, which is not changed")
    parser.add_argument("--paths", help="folders of existing parts: PART=FOLDER,PART=FOLDER")
    parser.add_argument("--parts", help="parts to use, e.g. dev_set,eval_set (default: all)")


def find_places(args):  # type: ignore[no-untyped-def]
    """Makes the :class:`s5.challenge.corpus.paths.CorpusPaths` of the options."""
    from pathlib import Path

    from s5.challenge.corpus.config import Corpus
    from s5.challenge.corpus.paths import CorpusPaths, read_pairs

    given = {name: Path(path) for name, path in read_pairs(args.paths, "--paths").items()}
    root = Path(args.data_root) if args.data_root else None
    return CorpusPaths(Corpus.load(args.config), Path(args.raw), Path(args.archives), root, given)


if __name__ == "__main__":
    run(main)
