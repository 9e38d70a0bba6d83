"""Makes a fixed set of scenes, or a virtual training set, from a sampler's configuration."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from s5.bin.command import Parser, run
from s5.errors import InputError


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``python -m s5.bin.simulate``; run from the recipe folder."""
    parser = Parser("Draws scenes from a sampler's configuration, renders them and writes a data directory.")
    parser.add_argument("--config", required=True, help="sampler YAML, e.g. conf/scenes/valid.yaml")
    parser.add_argument("--out", required=True, help="data directory, e.g. data/valid; its name starts the utterances'")
    parser.add_argument("--num_scenes", type=int, help="instead of the configuration's num_scenes")
    parser.add_argument("--nj", type=int, default=1, help="processes; the files do not depend on it")
    parser.add_argument("--virtual", action="store_true", help="write only sampler.yaml: scenes are drawn in training")
    args = parser.parse_args(argv)
    from s5.scene.sampler import Sampler
    from s5.scene.simulate import make_virtual, simulate, summary

    for name in ("num_scenes", "nj"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name}", value, "at least 1")
    sampler = Sampler.from_yaml(args.config)
    if args.num_scenes is not None:
        sampler.config.num_scenes = args.num_scenes
    if args.virtual:
        logging.info("%s written", make_virtual(sampler, args.out))
    else:
        rows = simulate(sampler, args.out, nj=args.nj)
        logging.info("%s: %s", args.out, summary(rows))


if __name__ == "__main__":
    run(main)
