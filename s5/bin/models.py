"""Prints the plan of a system, an entry a line: its name, its files, its trainings in order; run.sh walks it.

The fields of a line are NAME=VALUE, parted by tabs; what=system, file, training or ready comes first. A model from
elsewhere, which is not trained, is ready. A model archive has no trainings.
"""

from s5.bin.command import Parser, add_system, run
from s5.system.plan import plan


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    add_system(parser, "system YAML, or a model archive")
    for entry in plan(parser.parse_args(argv).system):
        print("\t".join(f"{key}={value}" for key, value in entry.items()))


if __name__ == "__main__":
    run(main)
