"""Stage 1 of the challenge recipes: downloads what the user does not have yet."""

import logging

from s5.bin.command import Parser, count, positive, run


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``python -m s5.bin.download``; run from the recipe folder."""
    parser = Parser("Downloads the archives of a data set: resumed, verified, several at once, from mirrors.")
    add = parser.add_argument
    add_places(parser)
    add(
        "--mirrors",
        metavar="URLS",
        help="other addresses, tried first: PART=URL,PART=URL (the folder of a part's files), or one URL",
    )
    add("--jobs", type=count, default=4, help="files that are downloaded at a time")
    add("--timeout", type=positive, default=60, help="seconds without a byte after which to connect anew")
    add("--retries", type=count, default=8, help="tries in a row that bring nothing, for each address")
    add("--recheck", action="store_true", help="compute checksums of files that are there, too")
    add("--list", action="store_true", help="only say what would be downloaded, and from where")
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
    """Adds the options that say which data set it is and where things lie."""
    parser.add_argument("--config", default="conf/data.yaml", metavar="YAML", help="description of the data set")
    parser.add_argument("--raw", default="data/raw", metavar="DIR", help="folder of what stage 1 makes")
    parser.add_argument("--archives", default="data/download", metavar="DIR", help="folder of downloads, PART/FILE")
    parser.add_argument(
        "--data_root", metavar="DIR", help="folder with parts that are there already; nothing is written to it"
    )
    parser.add_argument("--paths", help="folders of single parts, likewise: PART=FOLDER,PART=FOLDER")
    parser.add_argument("--parts", help="which parts, e.g. dev_set,eval_set; by default all")


def find_places(args):  # type: ignore[no-untyped-def]
    """The :class:`s5.challenge.corpus.paths.CorpusPaths` of the options."""
    from pathlib import Path

    from s5.challenge.corpus.config import Corpus
    from s5.challenge.corpus.paths import CorpusPaths, read_pairs

    given = {name: Path(path) for name, path in read_pairs(args.paths, "--paths").items()}
    root = Path(args.data_root) if args.data_root else None
    return CorpusPaths(Corpus.load(args.config), Path(args.raw), Path(args.archives), root, given)


if __name__ == "__main__":
    run(main)
