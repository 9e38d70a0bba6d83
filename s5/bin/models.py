"""Prints the plan of a system for run.sh: its name, its files and its trainings in order, one a line.

A line has fields NAME=VALUE separated by tabs. The first is what=system, file, training or ready. A training has the
stage of run.sh that runs it, and follows those whose weights it needs. A model that is not trained here is ready. A
model archive has no trainings.
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
