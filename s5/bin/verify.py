"""Lists the missing and the unexpected files of a data set."""

from pathlib import Path

from s5.bin.command import Parser, run
from s5.bin.download import add_places, find_places
from s5.utils.errors import InputError


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``python -m s5.bin.verify``; run from the recipe folder. Status 1 if anything is missing."""
    parser = Parser("Compares the data of a recipe with its description. Changes nothing.")
    add = parser.add_argument
    add_places(parser)
    add(
        "--data",
        default="data",
        metavar="DIR",
        help="folder of the data directories and of the links dev_set, eval_set",
    )
    add("--on_missing", choices=("stop", "warn"), default="stop", help="action if anything is missing")
    args = parser.parse_args(argv)

    from s5.challenge.corpus.config import choose_parts
    from s5.challenge.corpus.verify import REPORT, verify

    places = find_places(args)
    findings = verify(places, choose_parts(places.corpus, args.parts), Path(args.data))
    print(findings.text())
    report = places.raw / REPORT
    if places.raw.is_dir():
        findings.save(report)
    if findings.missing and args.on_missing == "stop":
        path, reason = findings.missing[0]
        more = f" and {len(findings.missing) - 1} more in {report}" if findings.missing[1:] else ""
        raise InputError(f"{path}{more}", reason, "the file (--on_missing warn continues without it)")


if __name__ == "__main__":
    run(main)
