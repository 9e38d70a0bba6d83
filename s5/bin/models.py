"""Lists the trainings of a system, one a line, in order; run.sh reads it.

Fields, parted by tabs: tagger or separator; first or further; the model; the phase (train, finetune, finetune2, ...);
its experiment folder; the folder of the training that it goes on from, or -; last if the system decodes with it, or -.
A model from elsewhere, which is not trained, has one line with ready and -
for the phase. The last line has the system's own files: system, file, file, ... A model archive has that line alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from s5.bin.command import Parser, run
from s5.system.config import ARCHIVE_SUFFIX, ModelConfig, SystemConfig
from s5.utils.config import resolve, yaml_chain


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    parser.add_argument("--system", required=True, metavar="SYSTEM", help="system YAML, or a model archive")
    args = parser.parse_args(argv)

    if args.system.endswith(ARCHIVE_SUFFIX):
        print("system", resolve(args.system), sep="\t")
        return
    config = SystemConfig.load(args.system)
    rows = [row for kind in ("tagger", "separator") for model in config.models(kind) for row in _trainings(kind, model)]
    for row in dict.fromkeys(rows):  # two models of a system may be checkpoints of one training
        print(*row, sep="\t")
    print("system", *yaml_chain(args.system), sep="\t")


def _trainings(kind: str, model: ModelConfig) -> Iterator[tuple[str, ...]]:
    """The lines of one model."""
    if not model.phases():
        yield (kind, "ready", model.experiment or model.name, "-", model.folder(), "-", "last")
    for phase in model.phases():
        before = model.phase_before(phase)
        yield (
            kind,
            "further" if before else "first",
            model.experiment or model.name,
            phase,
            model.folder(phase),
            model.folder(before) if before else "-",
            "last" if model.folder(phase) == model.folder() else "-",
        )


if __name__ == "__main__":
    run(main)
