"""Stage 3 of published systems: fetches the baselines' checkpoints, verifies and converts them into experiment folders.

What is there already is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from s5.bin.command import Parser, run


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--system", required=True, help="system of published models: a YAML, or its name in conf/systems"
    )
    parser.add_argument("--expdir", default="exp", metavar="DIR", help="folder of the experiments")
    parser.add_argument("--downloads", default="data/downloads", metavar="DIR", help="where the published files go")
    parser.add_argument("--file", metavar="ZIP", help="the published file, where it is here already")
    parser.add_argument(
        "--mirror", action="append", default=[], metavar="URL", help="address to try first; may be given again"
    )
    args = parser.parse_args(argv)

    from s5.challenge.baselines import download_models

    for folder in download_models(args.system, args.expdir, args.downloads, args.file, tuple(args.mirror)):
        print(folder)


if __name__ == "__main__":
    run(main)
