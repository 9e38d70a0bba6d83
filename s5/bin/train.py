"""Stages 3 to 6: trains one model of a system as an ESPnet2 task, or resumes its training.

At SIGTERM or SIGUSR1 it saves and ends with exit status 75. The same command resumes.
"""

import os
import sys

from s5.bin.command import Parser, add_system, count, run


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add_system(parser, "system YAML that names the model")
    add("--model", required=True, metavar="NAME", help="name of the model")
    add("--phase", default="train", help="train, finetune, finetune2, ...")
    add("--train", default="data/train", metavar="DIR", help="data directory, usually a virtual one")
    add("--valid", default="data/valid", metavar="DIR", help="data directory")
    add("--expdir", default="exp", metavar="DIR", help="folder of the experiments")
    add("--ngpu", type=int, default=-1, help="number of GPUs; -1: all")
    add("--nproc", type=count, help="processes on each machine that share every batch (default: one a GPU, or one)")
    add("espnet", nargs="*", help="further ESPnet options, after --")
    args = parser.parse_args(argv)

    from s5.tasks.distributed import places_here, run_processes
    from s5.tasks.preemption import install_handlers

    install_handlers()  # before the imports, which take seconds
    ngpu = args.ngpu
    if ngpu < 0:
        import torch

        ngpu = torch.cuda.device_count()
    places = places_here(args.nproc or max(ngpu, 1))
    if len(places) > 1:
        words = sys.argv[1:] if argv is None else argv
        sys.exit(run_processes([sys.executable, "-m", "s5.bin.train", *words], places))
    if places[0].size > 1:
        os.environ.update(places[0].environment())

    from s5.tasks.launch import train_model

    train_model(args.system, args.model, args.phase, args.train, args.valid, args.expdir, min(ngpu, 1), args.espnet)


if __name__ == "__main__":
    run(main)
