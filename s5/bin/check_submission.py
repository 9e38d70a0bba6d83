"""Checks a submission's zip of any system by the challenge's rules and prints a line for each violation.

The exit status is 0 for a valid submission and 1 otherwise.
"""

import sys
from pathlib import Path

from s5.bin.command import Parser, count, positive, run
from s5.labels import DCASE_LABELS, LabelSet


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("zip", type=Path, help="<Author>_<Affiliation>_task4_<n>_out.zip")
    add_rules(parser)
    add("--most", type=count, default=20, help="largest number of violations to show")
    args = parser.parse_args(argv)

    from s5.challenge.rules import check_submission

    violations = check_submission(args.zip, rules_of(args))
    for line in violations[: args.most]:
        print(line)
    if len(violations) > args.most:
        print(f"and {len(violations) - args.most} more (--most {len(violations)} shows all)")
    if violations:
        sys.exit(f"error: {args.zip}: found {len(violations)} violations, expected none")
    print(f"{args.zip}: a valid submission")


def add_rules(parser: Parser) -> None:
    """Adds the options that describe the expected submission."""
    parser.add_argument(
        "--soundscapes",
        type=Path,
        metavar="DIR",
        help="folder of wav files or data directory of the evaluation set (default: the file names of 2026)",
    )
    parser.add_argument(
        "--test_soundscapes", type=Path, metavar="DIR", help="the same for the development set's test part"
    )
    parser.add_argument("--year", type=int, choices=(2025, 2026), default=2026, help="challenge whose rules apply")
    parser.add_argument("--label_set", type=Path, metavar="FILE", help="one label a line (default: the 18 of DCASE)")
    parser.add_argument(
        "--n_slots", type=count, default=3, metavar="K", help="largest number of sources of a soundscape"
    )
    parser.add_argument("--sampling_rate", type=count, default=32000, metavar="HZ", help="rate of the estimates")
    parser.add_argument(
        "--duration", type=positive, default=10.0, metavar="S", help="length in s, if --soundscapes is not given"
    )


def rules_of(args):  # type: ignore[no-untyped-def]
    """Makes the :class:`s5.challenge.rules.Rules` of the options."""
    from s5.challenge.rules import Rules, evaluation_names, soundscapes
    from s5.utils.errors import InputError

    if args.soundscapes is None and args.year != 2026:
        raise InputError("--soundscapes", "nothing", f"the evaluation set of {args.year}")
    return Rules(
        soundscapes(args.soundscapes) if args.soundscapes else evaluation_names(),
        set(soundscapes(args.test_soundscapes)) if args.test_soundscapes else None,
        args.year,
        LabelSet.load(args.label_set) if args.label_set else LabelSet(DCASE_LABELS),
        args.n_slots,
        args.sampling_rate,
        args.duration,
    )


if __name__ == "__main__":
    run(main)
