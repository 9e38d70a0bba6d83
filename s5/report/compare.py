"""Compares two systems on the same mixtures: differences of their figures with confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s5.data.names import shortened
from s5.inference.results import Results, read_scores
from s5.metrics import Bootstrap, Difference, class_terms, mixture_terms
from s5.metrics.class_aware import repeats
from s5.metrics.labels import active
from s5.utils.errors import InputError, one_of

Rows = list[dict[str, Any]]

BY = ("subset", "n_sources", "class", "room")
"""Ways to divide the mixtures of a comparison."""

_ROW_KEYS = ("tp", "fp", "fn", "CAPI-SDRi", "PI-SDRi")


def compare(
    first: str | Path, second: str | Path, bootstrap: Bootstrap, by: str | None = None
) -> dict[str, dict[str, Difference]]:
    """Differences of all figures, second minus first.

    Args:
        first: a ``scores.json``, or the results folder that holds it.
        second: the same of the other system.
        bootstrap: computes the intervals.
        by: also divide the mixtures, by one of :data:`BY`.

    Returns:
        Difference by part (``all``, and e.g. ``DupSet``) and figure.

    Raises:
        InputError: a file is no scores.json, or mixtures, references or options of the metric differ.
    """
    files = [Results(path).scores_file if Path(path).is_dir() else Path(path) for path in (first, second)]
    scores = [read_scores(file) for file in files]
    rows = paired_rows(scores[0], scores[1], files)
    found = {"all": bootstrap.differences(*map(mixture_terms, rows))}
    if by is None:
        return found
    if by not in BY:
        raise InputError("by", by, one_of(BY, by))
    if by == "class":
        penalties = [(scores[0].get("options") or {}).get(key, 0.0) for key in ("penalty_fn", "penalty_fp")]
        for label in sorted({label for row in rows[0] for label in active(row["ref_labels"])}):
            found[label] = bootstrap.differences(*(class_terms(part, label, *penalties) for part in rows))
        return found
    keys = [_key(row, by) for row in rows[0]]
    if by == "room" and not any(keys):
        raise InputError(files[0], "no room of any mixture", "scores of a set with known scenes")
    for key in sorted({key for key in keys if key is not None}):
        parts = ([row for row, own in zip(part, keys, strict=True) if own == key] for part in rows)
        found[key] = bootstrap.differences(*map(mixture_terms, parts))
    return found


def paired_rows(
    first: Mapping[str, Any], second: Mapping[str, Any], where: Sequence[object] = ("first", "second")
) -> tuple[Rows, Rows]:
    """Mixtures of two ``scores.json`` in one order. Raises InputError if mixtures, references or options differ."""
    if (found := second.get("options")) != (expected := first.get("options")):
        raise InputError(f"{where[1]}: key options", found, f"{expected}, as {where[0]} has")
    tables = [{row["utt"]: row for row in scores["mixtures"]} for scores in (first, second)]
    for here, there, i in ((0, 1, 1), (1, 0, 0)):
        if missing := [utt for utt in tables[here] if utt not in tables[there]]:
            raise InputError(where[i], f"no mixture {shortened(missing)}", f"the mixtures of {where[1 - i]}")
    for utt, row in tables[0].items():
        other = tables[1][utt]
        if row["ref_labels"] != other["ref_labels"]:
            found, expected = " ".join(other["ref_labels"]), " ".join(row["ref_labels"])
            raise InputError(f"{where[1]}: mixture {utt}", f"references [{found}]", f"[{expected}] as {where[0]} has")
        for i, one in enumerate((row, other)):
            if missing := [key for key in _ROW_KEYS if key not in one]:
                expected = "scores of stage 11 (score again)"
                raise InputError(f"{where[i]}: mixture {utt}", f"no key {missing[0]}", expected)
    return list(tables[0].values()), [tables[1][utt] for utt in tables[0]]


def as_text(found: Mapping[str, Mapping[str, Difference]], names: tuple[str, str], level: float) -> str:
    """Text of a comparison for the terminal.

    Args:
        found: result of :func:`compare`.
        names: names of both systems.
        level: confidence level of the intervals in percent.
    """
    lines = [f"A: {names[0]}", f"B: {names[1]}"]
    for part, figures in found.items():
        lines += ["", f"{part:<18}{'A':>9}{'B':>9}{'B - A':>9}   {f'{level:g} % interval':<18}"]
        for name, difference in figures.items():
            if difference.gained is None or name == "Acc1":  # Acc1 is accuracy_mix
                continue
            values = (difference.first, difference.second)
            cells = "".join(f"{value:9.2f}" for value in values) + f"{difference.gained:+9.2f}"
            verdict = {1: "B ahead", -1: "A ahead"}.get(difference.ahead, "")
            lines.append(f"{name:<18}{cells}   {interval_text(difference):<18}{verdict}".rstrip())
    return "\n".join(lines)


def interval_text(difference: Difference) -> str:
    """The interval as text, e.g. ``-0.12 to +0.40``, or a dash if there is none."""
    return "–" if difference.interval is None else f"{difference.interval[0]:+.2f} to {difference.interval[1]:+.2f}"


def as_json(found: Mapping[str, Mapping[str, Difference]]) -> dict[str, Any]:
    """The comparison as plain numbers: ``a``, ``b``, ``difference`` and ``interval`` by part and figure."""
    return {
        part: {
            name: {"a": d.first, "b": d.second, "difference": d.gained, "interval": d.interval and list(d.interval)}
            for name, d in figures.items()
        }
        for part, figures in found.items()
    }


def _key(row: Mapping[str, Any], by: str) -> str | None:
    """Part of the mixtures that a mixture belongs to."""
    labels = active(row["ref_labels"])
    if by == "n_sources":
        return f"{len(labels)} source{'s' if len(labels) != 1 else ''}"
    if by == "room":
        return (row.get("scene") or {}).get("room")
    return "DupSet" if repeats(labels) else "NoDupSet" if labels else None
