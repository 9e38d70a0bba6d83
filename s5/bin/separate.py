"""Stage 9: separates a data directory by the voted labels; or one recording into a folder, tagging it first."""

from __future__ import annotations

from collections.abc import Sequence

from s5.bin.command import Parser, progress, run


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    parser.add_argument("--system", required=True, help="system YAML")
    parser.add_argument("--expdir", default="exp", help="folder of the experiments")
    parser.add_argument("--data", help="data directory")
    parser.add_argument("--out", help="with --data: results folder that holds the labels, e.g. exp/mini/test")
    parser.add_argument("recording", nargs="?", help="a wav or flac file, instead of --data")
    parser.add_argument("folder", nargs="?", help="with a recording: where its sources go")
    args = parser.parse_args(argv)
    if (
        bool(args.data) == bool(args.recording)
        or bool(args.data) != bool(args.out)
        or (args.recording and not args.folder)
    ):
        parser.error("give either --data and --out, or a recording and a folder")

    from s5 import S5System, decode
    from s5.data import DataDir

    system = S5System.from_yaml(args.system, args.expdir)
    if args.recording:
        for path, source in decode.separate_file(system, args.recording, args.folder):
            print(f"{path}  {source.label} {source.probability:.2f}")
        return
    data = DataDir.load(args.data)
    decode.separate(system, data, args.out, progress(data.utts, len(data.utts), "separate"))


if __name__ == "__main__":
    run(main)
