"""Stage 13: packs a trained system into one file for S5System.from_pretrained and `separate --system`."""

from pathlib import Path

from s5.bin.command import Parser, add_system, run


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add_system(parser)
    add("--expdir", default="exp", metavar="DIR", help="folder of the experiments")
    add("--out", required=True, type=Path, metavar="FILE", help="archive to write, e.g. mini.s5")
    add("--scores", nargs="*", default=[], metavar="FILE", help="scores.json files whose totals to include")
    add("--results", type=Path, metavar="DIR", help="folder of results whose scores to include")
    add("--licence", metavar="FILE", help="licence of the weights (default: that of the repository)")
    add("--licence_name", default="apache-2.0", metavar="NAME", help="name of the licence on the hub")
    add("--note", default="", metavar="TEXT", help="text about the training for the archive's README")
    add("--half", action="store_true", help="16-bit weights: half the size, slightly different outputs")
    add("--upload", metavar="USER/NAME", help="Hugging Face repository to upload it to")
    add("--private", action="store_true", help="make that repository private")
    args = parser.parse_args(argv)

    from s5.system.archive import pack
    from s5.system.hub import upload

    options = (args.licence, args.licence_name, args.note, args.half)
    scores = [*args.scores, *(sorted(args.results.glob("*/scores.json")) if args.results else ())]
    out = pack(args.system, args.expdir, args.out, scores, *options)
    print(f"{out}  {out.stat().st_size / 1e6:.1f} MB")
    if args.upload:
        print(f"{args.upload}  commit {upload(out, args.upload, args.private)}")


if __name__ == "__main__":
    run(main)
