"""Stages 3 to 6: trains one model of a system as an ESPnet2 task; goes on where an interrupted training stopped."""

from __future__ import annotations

from collections.abc import Sequence

from s5.bin.command import Parser, run


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    parser.add_argument("--system", required=True, help="system YAML that names the model")
    parser.add_argument("--model", required=True, help="name of the tagger or separator")
    parser.add_argument("--phase", default="train", help="train, finetune, finetune2, ...")
    parser.add_argument("--train", default="data/train", help="data directory, usually a virtual one")
    parser.add_argument("--valid", default="data/valid", help="data directory")
    parser.add_argument("--expdir", default="exp", help="folder of the experiments")
    parser.add_argument("--ngpu", type=int, default=-1, help="GPUs; -1: all that there are")
    parser.add_argument("espnet", nargs="*", help="further ESPnet options, after --")
    args = parser.parse_args(argv)

    from s5.tasks.launch import train_model

    train_model(args.system, args.model, args.phase, args.train, args.valid, args.expdir, args.ngpu, args.espnet)


if __name__ == "__main__":
    run(main)
