"""Stage 2: makes a fixed set of scenes or a virtual training set."""

import logging

from s5.bin.command import Parser, add_shards, count, run
from s5.utils.errors import InputError
from s5.utils.parallel import start_server
from s5.utils.shards import Shards


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``python -m s5.bin.simulate``; run from the recipe folder."""
    parser = Parser("Draws or reads scenes, renders them and writes a data directory. Resumes after an interruption.")
    add = parser.add_argument
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument(
        "--config",
        metavar="YAML",
        help="sampler YAML that draws scenes, e.g. conf/scenes/valid.yaml, or has the key scenes, a list as below",
    )
    wanted.add_argument(
        "--scenes", metavar="FILE", help="metadata list (valid.json of a challenge) or the JSON file of a scene"
    )
    add("--out", required=True, metavar="DIR", help="data directory, e.g. data/valid, which names its mixtures")
    add("--num_scenes", type=count, help="number of scenes (default: all of a list, or as the YAML says)")
    add("--nj", type=count, default=1, help="processes; the files do not depend on it")
    add("--virtual", action="store_true", help="write only sampler.yaml; training draws the scenes")
    add("--simulator", default="native", metavar="NAME", help="simulator of the scenes: native, spatialscaper")
    add("--format", choices=("wav", "flac"), default="wav", help="format of the waveforms")
    add("--subtype", choices=("float", "16", "24"), help="bits of the samples (default: float for wav, 24 for flac)")
    add(
        "--on_bad_audio",
        choices=("stop", "skip", "keep"),
        default="stop",
        help="files without samples or sound, of NaN or wrong channels, rooms with responses of zeros or NaN (all are "
        "listed in OUT/bad_audio.tsv): stop (default), do without them, or keep those without sound as silent events",
    )
    add(
        "--rest",
        choices=("none", "residual", "noise"),
        help="also write the dry interference and the rest of each mixture: its reference channel minus all dry "
        "sources (residual), or the backgrounds alone (noise); default: as the YAML says; no effect with --virtual",
    )
    add("--root", default=".", metavar="DIR", help="base folder of the paths in listed scenes")
    add_shards(parser)
    add("--prepare", action="store_true", help="check the audio and the folder before the parts")
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
        rest=args.rest,
    )


if __name__ == "__main__":
    run(main)
