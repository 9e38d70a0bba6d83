"""Stage 13: writes the challenge's submission from a system's results and checks it by the challenge's rules."""

import logging

from s5.bin.check_submission import add_rules, rules_of
from s5.bin.command import Parser, add_system, run


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--authors", required=True, metavar="YAML", help="details of the authors, see conf/submission.yaml")
    add_system(parser)
    add("--expdir", default="exp", metavar="DIR", help="folder of the experiments")
    add("--eval_data", required=True, metavar="DIR", help="data directory of the evaluation set")
    add("--eval_results", required=True, metavar="DIR", help="results of the evaluation set, e.g. exp/mini/eval")
    add("--scores", required=True, metavar="FILE", help="scores.json of the development set's test part")
    add("--out", required=True, metavar="DIR", help="folder for the zip, the meta file and the addresses")
    add_rules(parser)
    args = parser.parse_args(argv)

    from pathlib import Path

    from s5.challenge.rules import check_submission
    from s5.challenge.submission import Details, count_parameters, make_submission
    from s5.utils.errors import InputError

    details = Details.load(args.authors)
    if args.soundscapes is None:
        args.soundscapes = Path(args.eval_data)
    rules = rules_of(args)
    path = make_submission(
        details,
        args.system,
        args.eval_data,
        args.eval_results,
        args.scores,
        count_parameters(args.system, args.expdir),
        args.out,
        rules.labels,
        rules.n_slots,
    )
    violations = check_submission(path, rules)
    for line in violations:
        logging.error("%s", line)
    if violations:
        path.unlink()
        raise InputError(path, f"{len(violations)} violations of the rules, the first {violations[0]}", "none")
    print(path)


if __name__ == "__main__":
    run(main)
