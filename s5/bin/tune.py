"""Tunes a system's vote, gate, mask sharpening and fusion weights on a validation set, for CAPI-SDRi.

Of an objects system it tunes the number of loops, the weight of the taggers' prior and the thresholds of the slots.
The networks run once. Their outputs are kept in --out for later searches. The search leaves out a refinement. It prints
the gain of each step and writes a YAML that inherits that of the system.
"""

from pathlib import Path

from s5.bin.command import Parser, add_decoding, add_system, count, decode_config, run


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add_system(parser)
    add("--expdir", default="exp", metavar="DIR", help="folder of the experiments")
    add("--data", default="data/valid", metavar="DIR", help="data directory with references, not a test set")
    add("--out", metavar="DIR", help="folder of the kept outputs (default: EXPDIR/SYSTEM/SET/tuning)")
    add("--space", default="conf/tune.yaml", metavar="YAML", help="YAML of the settings to try")
    add("--only", nargs="+", metavar="PART", help="parts to search: vote, gate, sharpen, fusion, objects")
    add("--num", type=count, help="number of mixtures, spread over the set (default: all)")
    add("--write", metavar="YAML", help="tuned system to write (default: OUT/tuned.yaml)")
    add_decoding(parser)
    args = parser.parse_args(argv)

    from s5 import S5System
    from s5.data import DataDir
    from s5.inference import stages
    from s5.system.config import system_name
    from s5.tuning import Space, collect, tune
    from s5.tuning.result import as_table, write_yaml

    space = Space.load(args.space)
    if args.only is not None:
        space = space.only(args.only)
    system = S5System.from_yaml(args.system, args.expdir, decode=decode_config(args))
    data = stages.spread(DataDir.load(args.data), args.num)
    out = Path(args.out or Path(args.expdir, system_name(args.system), data.path.resolve().name, "tuning"))
    outcome = tune(collect(system, data, out, space, args.nj), system.config, space)
    print(as_table(outcome))
    path = Path(args.write or out / "tuned.yaml")
    write_yaml(path, outcome, args.system, args.data)
    print(f"\nwrote {path}")


if __name__ == "__main__":
    run(main)
