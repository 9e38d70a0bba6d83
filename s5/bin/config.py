"""Prints a system and its trainings with all that their YAMLs inherit, each key with the file that it comes from.

With --model and --phase: what that training is made of, as exp/<model>/resolved.yaml keeps it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from s5.bin.command import Parser, add_system, run
from s5.system.config import SystemConfig
from s5.system.sizes import split_size, system_keys, system_origins, training_keys, training_origins
from s5.utils.config import ROOT
from s5.utils.errors import InputError

COLUMN = 60
"""Where the names of the files begin."""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__)
    add_system(parser)
    parser.add_argument("--model", metavar="NAME", help="a tagger or separator of it")
    parser.add_argument("--phase", default="train", help="train, finetune, finetune2, ...")
    parser.add_argument("--train", default="data/train", metavar="DIR", help="data directory that it trains with")
    parser.add_argument("--valid", default="data/valid", metavar="DIR", help="data directory that it is validated with")
    parser.add_argument("--expdir", default="exp", metavar="DIR", help="folder of the experiments")
    parser.add_argument(
        "--compare", action="store_true", help="refuse a training that is not that of the model in its folder"
    )
    parser.add_argument("espnet", nargs="*", help="ESPnet options of the training, after --")
    args = parser.parse_args(argv)

    if args.model is None:
        if args.compare or args.espnet:
            raise InputError("--model", "none", "one, with --compare or ESPnet options")
        print("\n".join(_commented(_lines(*_all(args.system)))))
        return
    from s5.tasks.resolved import as_text, check_same, phase_of, resolved, start_options

    phase = phase_of(args.system, args.model, args.phase)
    now = resolved(phase.config, args.train, args.valid, [*args.espnet, *start_options(phase, args.expdir)])
    if args.compare:
        check_same(Path(args.expdir, phase.folder), now, phase.config)
    print(as_text(now), end="")


def _all(system: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The system and below ``trainings``, by the folders, its trainings; and the files that all of it comes from."""
    config = SystemConfig.load(system)
    values, files = system_keys(system), system_origins(system)
    values["trainings"], files["trainings"] = {}, {}
    size = split_size(system)[1]
    for model in [*config.taggers, *config.separators]:
        for phase in model.phases():
            values["trainings"][model.folder(phase)] = training_keys(model.files(phase), size)
            files["trainings"][model.folder(phase)] = training_origins(model.files(phase), size)
    return values, files


def _lines(value: dict[str, Any], file: Any, indent: str = "") -> Iterator[tuple[str, Any]]:
    """The lines of a mapping in YAML, each with the file that its value comes from, or None."""
    for key, part in value.items():
        origin = file[key]
        if isinstance(part, dict) and part:
            yield f"{indent}{_plain(key)}:", None
            yield from _lines(part, origin, f"{indent}  ")
        elif isinstance(part, list) and part and all(isinstance(entry, dict) and entry for entry in part):
            yield f"{indent}{_plain(key)}:", None
            for i, entry in enumerate(part):
                own = origin[i] if isinstance(origin, list) else _everywhere(entry, origin)
                for n, (line, name) in enumerate(_lines(entry, own, f"{indent}  ")):
                    yield (line if n else f"{indent}- {line.removeprefix(f'{indent}  ')}"), name
        else:
            yield f"{indent}{_plain(key)}: {_plain(part)}", origin if isinstance(origin, Path) else None


def _everywhere(value: Any, file: Any) -> Any:
    return {key: _everywhere(part, file) for key, part in value.items()} if isinstance(value, dict) else file


def _commented(lines: Iterator[tuple[str, Any]]) -> Iterator[str]:
    for line, file in lines:
        yield line if file is None else f"{line:<{COLUMN}} # {_short(file)}"


def _short(file: Path) -> Path:
    """A file by its path below the repository, where it lies there."""
    path = Path(os.path.abspath(file))
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else file


def _plain(value: Any) -> str:
    """A value in one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("...\n").strip()


if __name__ == "__main__":
    run(main)
