"""Result of a search as a table and as a system's YAML."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from s5.system.sizes import FULL, split_size
from s5.tuning.search import Outcome
from s5.utils.config import resolve
from s5.utils.files import write_text


def as_table(outcome: Outcome) -> str:
    """Table of the steps of a search: the setting, its value before and after, and the gain."""
    head = ("setting", "before", "after", "gain dB", "tried")
    rows = [
        (s.name, s.before, s.after if s.gain else "as before", f"{s.gain:+.3f}", str(s.tried)) for s in outcome.steps
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    ]
    total = f"CAPI-SDRi {outcome.first:.3f} -> {outcome.last:.3f} dB ({outcome.last - outcome.first:+.3f})"
    return "\n".join([*(line.rstrip() for line in lines), "", total])


def write_yaml(path: str | Path, outcome: Outcome, system: str | Path, data: str | Path) -> None:
    """Writes a system that inherits ``system`` and has the changed keys of the search."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    file, size = split_size(system)
    base = os.path.relpath(resolve(file), path.parent.resolve())
    comment = f"# Tuned on {data}: CAPI-SDRi {outcome.first:.3f} -> {outcome.last:.3f} dB.\n"
    if size != FULL:
        comment += f"# For --size {size}.\n"
    body = yaml.safe_dump({"inherit": Path(base).as_posix(), **outcome.changed}, sort_keys=False)
    write_text(path, comment + body)
