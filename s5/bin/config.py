"""Prints a system and its trainings with all inherited keys, and the file of each key.

The folders of experiments and results keep it as origins.yaml. With --model and --phase, the output is the description
of that training that exp/<model>/resolved.yaml keeps.
"""

from pathlib import Path

from s5.bin.command import Parser, add_system, run
from s5.system.derived import with_derived
from s5.system.origins import describe_system
from s5.system.sizes import Keys
from s5.utils.errors import InputError


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add_system(parser)
    add("--model", metavar="NAME", help="model of the system")
    add("--phase", default="train", help="train, finetune, finetune2, ...")
    add("--train", default="data/train", metavar="DIR", help="data directory for training")
    add("--valid", default="data/valid", metavar="DIR", help="data directory for validation")
    add("--expdir", default="exp", metavar="DIR", help="folder of the experiments")
    add("--compare", action="store_true", help="refuse a training that differs from the model in its folder")
    add("espnet", nargs="*", help="ESPnet options of the training, after --")
    args = parser.parse_args(argv)

    if args.model is None:
        if args.compare or args.espnet:
            raise InputError("--model", "none", "a name, because --compare and ESPnet options need one")
        print(describe_system(args.system, args.train), end="")
        return
    from s5.tasks.resolved import as_text, check_same, phase_of, resolved, start_options

    phase = phase_of(args.system, args.model, args.phase)
    keys = with_derived(Keys(phase.config, phase.origins), args.train).values
    now = resolved(keys, args.train, args.valid, [*args.espnet, *start_options(phase, args.expdir)])
    if args.compare:
        check_same(Path(args.expdir, phase.folder), now)
    print(as_text(now), end="")


if __name__ == "__main__":
    run(main)
