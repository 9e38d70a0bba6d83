"""Tags and separates one recording; or separates a data directory with its voted labels (stage 9).

An objects system finds the labels of a data directory itself.

Usage: `separate --system YAML recording.wav folder`, and `separate --system YAML --data DIR --out DIR`.
"""

from s5.bin.command import Parser, add_decoding, add_shards, add_system, decode_config, positive, run


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    add_system(parser, "system YAML, model archive, or one on the hub")
    parser.add_argument("--expdir", default="exp", metavar="DIR", help="folder of the experiments")
    add_decoding(parser)
    one = parser.add_argument_group("one recording")
    one.add_argument("recording", nargs="?", help="wav, flac or ogg, of any sampling rate and length")
    one.add_argument(
        "folder", nargs="?", help="folder for NAME_SLOT_LABEL.wav, 16 bit; old files of the recording are removed"
    )
    one.add_argument("--window", type=positive, metavar="S", help="length of the windows for longer recordings")
    one.add_argument("--overlap", type=positive, metavar="S", help="overlap of the windows in seconds")
    one.add_argument(
        "--labels",
        metavar="LABELS",
        type=str.split,
        help='labels of the sources, e.g. "Speech Cough", in all windows (default: each window is tagged)',
    )
    stage = parser.add_argument_group("stage 9")
    stage.add_argument("--data", metavar="DIR", help="data directory")
    stage.add_argument("--out", metavar="DIR", help="results folder with the labels, e.g. exp/mini/test")
    stage.add_argument(
        "--oracle_labels", action="store_true", help="the labels are correct: an objects system uses them"
    )
    add_shards(parser)
    args = parser.parse_args(argv)
    forms = [args.recording and args.folder, args.data and args.out]
    if sum(map(bool, forms)) != 1 or sum(map(bool, (args.recording, args.folder, args.data, args.out))) != 2:
        parser.error("give either a recording and a folder, or --data and --out")
    if args.labels and args.data:
        parser.error("--labels: stage 9 uses the labels of stage 8 in --out")

    from s5 import S5System
    from s5.data import DataDir
    from s5.inference import stages
    from s5.utils.shards import Shards

    shards = Shards.parse(args.shard, args.join, args.parts)
    system = S5System.open(args.system, args.expdir, decode=decode_config(args))
    if args.recording:
        written = stages.separate_file(system, args.recording, args.folder, args.labels)
        for path, label, probability in written:
            print(f"{path}  {label} {probability:.2f}")
        if not written:
            print("no source found")
        return
    stages.separate(system, DataDir.load(args.data), args.out, nj=args.nj, shards=shards, oracle=args.oracle_labels)


if __name__ == "__main__":
    run(main)
