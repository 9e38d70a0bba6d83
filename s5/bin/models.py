"""Lists the models of a system, one a line: its name, its training YAML and what that inherits, parted by tabs."""

from __future__ import annotations

from collections.abc import Sequence

from s5.bin.command import Parser, run
from s5.config import yaml_chain
from s5.system import SystemConfig


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    parser.add_argument("--system", required=True, help="system YAML")
    parser.add_argument("--kind", choices=("tagger", "separator"), required=True, help="which models")
    parser.add_argument("--phase", choices=("train", "finetune"), default="train", help="which training")
    args = parser.parse_args(argv)

    for model in SystemConfig.load(args.system).models(args.kind):
        if args.phase in model.phases():
            print(model.name, *yaml_chain(model.phases()[args.phase]), sep="\t")


if __name__ == "__main__":
    run(main)
