"""Stage 3 of published systems: downloads the baselines' checkpoints and converts them into experiment folders.

Existing models are not changed.
"""

from s5.bin.command import Parser, run


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--system", required=True, help="system of published models: a YAML, or its name in conf/systems")
    add("--expdir", default="exp", metavar="DIR", help="folder of the experiments")
    add("--downloads", default="data/downloads", metavar="DIR", help="folder of the published files")
    add("--file", metavar="ZIP", help="published file that you have already")
    add("--mirror", action="append", default=[], metavar="URL", help="address to try first; may be repeated")
    args = parser.parse_args(argv)

    from s5.challenge.baselines import download_models

    for folder in download_models(args.system, args.expdir, args.downloads, args.file, tuple(args.mirror)):
        print(folder)


if __name__ == "__main__":
    run(main)
