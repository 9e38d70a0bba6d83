"""Stage 7: computes the posteriors of all taggers of a system on a data directory."""

from s5.bin.command import Parser, add_decoding, add_shards, add_system, decode_config, run


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add_system(parser, "system YAML, or a model archive")
    add("--expdir", default="exp", metavar="DIR", help="folder of the experiments")
    add("--data", required=True, metavar="DIR", help="data directory")
    add("--out", required=True, metavar="DIR", help="results folder, e.g. exp/mini/test")
    add_decoding(parser)
    add_shards(parser)
    args = parser.parse_args(argv)

    from s5 import S5System
    from s5.data import DataDir
    from s5.inference import stages
    from s5.utils.shards import Shards

    shards = Shards.parse(args.shard, args.join, args.parts)
    system = S5System.open(args.system, args.expdir, decode=decode_config(args))
    data = DataDir.load(args.data, system.labels, system.n_slots)
    stages.tag(system, data, args.out, nj=args.nj, shards=shards)


if __name__ == "__main__":
    run(main)
