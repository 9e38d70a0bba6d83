"""Makes a fixed set of scenes, or a virtual training set."""

import logging

from s5.bin.command import Parser, add_shards, count, run
from s5.utils.errors import InputError
from s5.utils.parallel import start_server
from s5.utils.shards import Shards


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``python -m s5.bin.simulate``; run from the recipe folder."""
    parser = Parser(
        "Draws or reads scenes, renders them and writes a data directory; goes on where an earlier run stopped."
    )
    add = parser.add_argument
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument(
        "--config",
        metavar="YAML",
        help="sampler YAML, e.g. conf/scenes/valid.yaml: scenes are drawn; or one with the key scenes, a list as below",
    )
    wanted.add_argument(
        "--scenes", metavar="FILE", help="metadata list (valid.json of either challenge) or one scene's JSON file"
    )
    add("--out", required=True, metavar="DIR", help="data directory, e.g. data/valid; its mixtures are named after it")
    add("--num_scenes", type=count, help="so many scenes, instead of the configuration's; of a list the first")
    add("--nj", type=count, default=1, help="processes; the files do not depend on it")
    add("--virtual", action="store_true", help="write only sampler.yaml: scenes are drawn in training")
    add("--simulator", default="native", metavar="NAME", help="what places and renders events: native, spatialscaper")
    add("--format", choices=("wav", "flac"), default="wav", help="format of the waveforms")
    add("--subtype", choices=("float", "16", "24"), help="bits of their samples; by default wav: float, flac: 24")
    add(
        "--on_bad_audio",
        choices=("stop", "skip", "keep"),
        default="stop",
        help="files without samples or sound, of NaN or wrong channels, rooms with responses of zeros or NaN (all are "
        "listed in OUT/bad_audio.tsv): stop (default), do without them, or keep those without sound as silent events",
    )
    add("--root", default=".", metavar="DIR", help="folder that the paths in listed scenes start from")
    add_shards(parser)
    add("--prepare", action="store_true", help="check the audio and the folder, for parts to come")
    args = parser.parse_args(argv)
    shards = Shards.parse(args.shard, args.join, args.parts, args.prepare)
    if args.nj > 1:
        start_server(["s5.scene.simulate"])  # it imports what this process imports next
    from s5.scene.simulate import AudioForm, make_virtual, simulate

    if args.virtual:
        if args.config is None or args.simulator != "native":
            raise InputError(
                "--virtual", "--scenes or --simulator", "--config: training scenes are the native renderer's"
            )
        written = make_virtual(args.config, args.out, args.num_scenes, args.nj, args.on_bad_audio)
        logging.info("%s written", written)
        return
    simulate(
        args.config,
        args.out,
        scenes=args.scenes,
        num_scenes=args.num_scenes,
        nj=args.nj,
        simulator_name=args.simulator,
        form=AudioForm.of(args.format, args.subtype),
        on_bad_audio=args.on_bad_audio,
        root=args.root,
        shards=shards,
    )


if __name__ == "__main__":
    run(main)
