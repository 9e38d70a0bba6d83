"""Trains one separator with the three losses of Nguyen et al. and draws their Fig. 4: PI-SDRi on DupSet and NoDupSet.

Run it in a recipe folder whose stages 1 and 2 are done. A model that is trained already is not trained again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from s5.bin.command import Parser, run

CONFIGS = {
    "ca_pi_sdr": "conf/tuning/separator_resunetk_tiny.yaml",
    "ca_sdr": "conf/tuning/separator_resunetk_ca_sdr_tiny.yaml",
    "pi_sdr": "conf/tuning/separator_resunetk_pi_sdr_tiny.yaml",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--configs", nargs="+", default=list(CONFIGS.values()), metavar="YAML", help="training YAMLs, one a loss"
    )
    parser.add_argument("--train", default="data/train", metavar="DIR", help="data directory, usually a virtual one")
    parser.add_argument("--valid", default="data/valid", metavar="DIR", help="data directory")
    parser.add_argument(
        "--scenes", default="conf/scenes/test.yaml", metavar="YAML", help="YAML of the test set's sampler"
    )
    parser.add_argument("--num_scenes", type=int, default=100, help="mixtures of each number of sources in a subset")
    parser.add_argument(
        "--expdir", default="exp", metavar="DIR", help="folder of the models, named as their YAMLs without separator_"
    )
    parser.add_argument("--out", default="exp/loss_study", metavar="DIR", help="folder of table and figure")
    parser.add_argument("--ngpu", type=int, default=-1, help="GPUs; -1: all that there are")
    parser.add_argument("--title", default="", help="title of the figure; by default the recipe folder's name")
    parser.add_argument("espnet", nargs="*", help="further ESPnet options for every training, after --")
    args = parser.parse_args(argv)
    if args.num_scenes < 2:
        parser.error(f"--num_scenes: found {args.num_scenes}, expected at least 2")

    from s5.report.loss_study import evaluate, write_study
    from s5.tasks.loss_study import train_losses

    folders = train_losses(args.configs, args.train, args.valid, args.expdir, args.ngpu, args.espnet)
    from s5.system.model import load_model

    models = {loss: load_model(folder, None, "separator") for loss, folder in folders.items()}
    study = evaluate(models, args.scenes, args.num_scenes)
    print(write_study(study, args.out, args.title or Path.cwd().name))


if __name__ == "__main__":
    run(main)
