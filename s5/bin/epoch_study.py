"""Scores systems made of checkpoints of several epochs and draws the map of epochs of Nguyen et al. (Fig. 5).

Accuracy of the tagger against CAPI-SDRi of the separator with oracle labels; size and colour: CAPI-SDRi of both. Keep
the checkpoints with --train_args "--keep_nbest_models 20".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from s5.bin.command import Parser, add_decoding, add_system, count, run


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    add_system(parser)
    parser.add_argument("--expdir", default="exp", metavar="DIR", help="folder of the experiments")
    parser.add_argument("--data", default="data/test", metavar="DIR", help="data directory with references")
    parser.add_argument(
        "--tagger_epochs", type=count, nargs="+", metavar="N", help="its epochs; by default those that are kept"
    )
    parser.add_argument("--separator_epochs", type=count, nargs="+", metavar="N", help="likewise of the separator")
    parser.add_argument(
        "--most", type=count, default=6, metavar="N", help="epochs of each at most, where none are given"
    )
    parser.add_argument("--num", type=count, metavar="N", help="so many mixtures, spread over the set; by default all")
    parser.add_argument(
        "--accuracy", choices=("src", "mix"), default="src", help="the figure's accuracy: of sources or of mixtures"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder of table and figure (default: EXPDIR/SYSTEM/SET/epoch_study)"
    )
    parser.add_argument("--title", default="", help="title of the figure; by default system and set")
    add_decoding(parser)
    args = parser.parse_args(argv)

    from s5 import S5System
    from s5.data import DataDir
    from s5.inference import stages
    from s5.report.epoch_study import epochs_of, evaluate, write_study
    from s5.system.config import system_name

    system = S5System.from_yaml(args.system, args.expdir, args.device, args.bf16)
    data = stages.spread(DataDir.load(args.data), args.num)
    taggers = epochs_of(system, "tagger", args.tagger_epochs, args.most)
    separators = epochs_of(system, "separator", args.separator_epochs, args.most)
    points = evaluate(system, data, taggers, separators, args.nj)
    name = system_name(args.system)
    out = args.out or Path(args.expdir, name, data.path.resolve().name, "epoch_study")
    print(write_study(points, out, args.title or f"{name} on {data.path.resolve().name}", args.accuracy))


if __name__ == "__main__":
    run(main)
