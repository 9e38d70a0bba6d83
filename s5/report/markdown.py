"""RESULTS.md: what the systems of an experiment folder reached, and what that depends on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from s5.report.results import Result, by_set
from s5.report.training import Training

_SUBSETS = ("DupSet", "NoDupSet")

_READING = (
    "CAPI-SDRi in dB, accuracies in %. Tagged: labels from the system's own taggers; oracle: labels of the references. "
    "Columns by number of sources and by subset: CAPI-SDRi / mixture accuracy. DupSet: mixtures with two or more "
    "sources of one class; NoDupSet: mixtures with sources of different classes only, at least one."
)

_BESIDE = (
    "Each row as it was published, and below it what the system of that name reached here. **Other data, and of *_mini "
    "other sizes: what compares is the change from row to row, not the level.**"
)

_PUBLISHED = (
    "Figures that others published for the data of the challenge (CAPI-SDRi in 2026, CA-SDRi in 2025, in dB, / mixture "
    "accuracy in %). They were measured on the challenge's own recordings, rooms and lengths: **not comparable with "
    "the tables of other data sets above**."
)


@dataclass(frozen=True)
class DataSet:
    """Size of a data set, for the table of data."""

    name: str
    lengths: tuple[float, ...]  # of every mixture, in seconds
    channels: int
    fs: int
    sources: int
    classes: int


def results_markdown(
    *,
    system: str,
    results: Sequence[Result],
    data: Sequence[DataSet],
    trainings: Sequence[Training],
    environment: Mapping[str, str],
    command: str,
    date: datetime,
    pages: Mapping[str, str],
) -> str:
    """The whole of RESULTS.md.

    Args:
        system: name of the system whose results are broken down by class.
        results: all results, newest first.
        data: the data sets.
        trainings: the trained models.
        environment: name -> value.
        command: the command that makes this file.
        date: when it was made.
        pages: data set -> the listening page, for the reader.
    """
    sets = by_set(results)
    parts = [
        f"# Results of {system}",
        f"Written by the command below; run it again rather than edit this file.\n\n    {command}",
        table(["", ""], [["date", date.strftime("%Y-%m-%d %H:%M UTC")], *map(list, environment.items())], left=2),
        _READING,
    ]
    for name, rows in sets.items():
        parts.append(f"## {name}")
        size = next((d for d in data if d.name == name), None)
        if size is not None:
            parts.append(_size(size))
        parts.append(_systems(rows))
        if others := _other_metrics(rows):
            parts += ["Further metrics:", others]
        own = [row for row in rows if row.system == system and row.scores.get("by_class")]
        for row in own:
            parts.append(f"### {name} by class: {system}, {row.labels} labels")
            parts.append(_classes(row))
        if name in pages:
            parts.append(f"To listen: `{pages[name]}` (open it in a browser).")
    if trainings:
        parts += ["## Training", _trainings(trainings)]
    parts += [
        *_beside_published(results),
        "## Published results, on other data",
        _PUBLISHED,
        _published(),
    ]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """A Markdown table; the first ``left`` columns are text, the others numbers at the right.

    Example:
        >>> print(table(["a", "b"], [["x|y", 1]]))
        | a | b |
        | :-- | --: |
        | x\\|y | 1 |
    """

    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    rule = line([":--"] * left + ["--:"] * (len(head) - left))
    return "\n".join([line(head), rule, *map(line, rows)])


def _size(d: DataSet) -> str:
    shortest, longest = min(d.lengths), max(d.lengths)
    seconds = f"{shortest:g}" if shortest == longest else f"{shortest:g} to {longest:g}"
    return (
        f"{len(d.lengths)} mixtures of {seconds} s ({sum(d.lengths) / 60:.1f} minutes), {d.channels} channels, "
        f"{d.fs / 1000:g} kHz; {d.sources} sources of {d.classes} classes."
    )


def _systems(rows: Sequence[Result]) -> str:
    counts = sorted({key for row in rows for key in row.scores.get("by_n_sources") or {}}, key=lambda k: (len(k), k))
    head = ["system", "labels", "CAPI-SDRi", "accuracy_mix", "accuracy_src"]
    head += [f"{k} source{'s' if k != '1' else ''}" for k in counts] + list(_SUBSETS)
    lines = []
    for row in rows:
        metrics = row.scores["metrics"]
        cells = [
            number(metrics.get("CAPI-SDRi"), 2),
            *(number(metrics.get(k)) for k in ("accuracy_mix", "accuracy_src")),
        ]
        cells += [_pair((row.scores.get("by_n_sources") or {}).get(k)) for k in counts]
        cells += [_pair((row.scores.get("by_subset") or {}).get(k)) for k in _SUBSETS]
        lines.append([row.system, row.labels, *cells])
    return table(head, lines, left=2)


def _other_metrics(rows: Sequence[Result]) -> str | None:
    """What stage 11 computes beyond the main table, as far as there is any."""
    shown = ("CAPI-SDRi", "accuracy_mix", "accuracy_src")
    known = dict.fromkeys(key for row in rows for key, value in row.scores["metrics"].items() if value is not None)
    keys = [key for key in known if key not in shown]
    lines = [
        [row.system, row.labels, *(number(row.scores["metrics"].get(k), _digits(k)) for k in keys)] for row in rows
    ]
    return table(["system", "labels", *keys], lines, left=2) if keys else None


def _pair(group: Mapping[str, Any] | None) -> str:
    """CAPI-SDRi / mixture accuracy of a group of mixtures."""
    group = group or {}
    return f"{number(group.get('CAPI-SDRi'), 2)} / {number(group.get('accuracy_mix'))}"


def _classes(row: Result) -> str:
    groups: Mapping[str, Mapping[str, Any]] = row.scores["by_class"]
    keys = list(dict.fromkeys(key for group in groups.values() for key in group if _is_number(group[key])))
    rows = [[label, *(number(group.get(k), _digits(k)) for k in keys)] for label, group in groups.items()]
    return table(["class", *keys], rows)


def _digits(metric: str) -> int:
    """Decimals of a metric: two for levels in dB, one for percentages."""
    return 2 if "SDR" in metric else 1


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _trainings(trainings: Sequence[Training]) -> str:
    head = [
        "model",
        "parameters",
        "trainable",
        "epochs",
        "batch",
        "seed",
        "criterion",
        "best epoch",
        "best value",
        "time",
    ]
    lines = []
    for t in trainings:
        epochs = f"{number(t.epochs)} of {number(t.max_epoch)}"
        best = number(t.best_value, 3)
        cells = [
            t.parameters or "–",
            t.trainable or "–",
            epochs,
            number(t.batch_size),
            number(t.seed),
            t.criterion or "–",
        ]
        lines.append([t.name, *cells, number(t.best_epoch), best, duration(t.time)])
    return table(head, lines)


def _published() -> str:
    lines = []
    for e in _published_figures()["challenge"]:
        figures = (f"{number(e[k][0])} / {number(e[k][1])}" for k in ("test", "eval"))
        lines.append([e["year"], e["system"], e["metric"], *figures])
    return table(["year", "system", "metric", "challenge test", "challenge eval"], lines, left=3)


def _beside_published(results: Sequence[Result]) -> list[str]:
    """A table a report with the rows of its table that we have results of: published, then ours, and on which data."""
    parts = []
    for report in _published_figures()["reports"]:
        metrics = list(dict.fromkeys(key for row in report["rows"] for key in row["metrics"]))
        lines = []
        for row in report["rows"]:
            ours = [r for r in results if not r.oracle and r.system in (row["name"], f"{row['name']}_mini")]
            if ours:
                lines.append([row["row"], "published", report["data"], *(row["metrics"].get(m, "–") for m in metrics)])
            for r in by_set(ours).values():
                cells = (_ours(r[0].scores["metrics"], m) for m in metrics)
                lines.append(["", r[0].system, f"this folder's `{r[0].set}`", *cells])
        if lines:
            parts += [f"## Beside {report['table']}", _BESIDE, table(["row", "", "data", *metrics], lines, left=3)]
            parts += [report["note"]] if "note" in report else []
    return parts


def _ours(scores: Mapping[str, Any], metric: str) -> str:
    """Our figure of a published metric; where labels repeat, CAPI-SDRi stands in for CA-SDRi, which it extends."""
    if metric == "CA-SDRi" and scores.get(metric) is None and scores.get("CAPI-SDRi") is not None:
        return f"CAPI-SDRi {number(scores['CAPI-SDRi'], 3)}"
    return number(scores.get(metric), 3 if metric.endswith("SDRi") else 1)


def _published_figures() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))


def number(value: Any, digits: int = 1) -> str:
    """A figure with so many decimals, an integer or text as it is, a dash for None.

    Example:
        >>> number(3.14159, 2), number(7), number(None)
        ('3.14', '7', '–')
    """
    if value is None:
        return "–"
    return str(value) if isinstance(value, int | str) else f"{value:.{digits}f}"


def duration(value: timedelta | None) -> str:
    """Hours, minutes and seconds in short.

    Example:
        >>> duration(timedelta(seconds=3725)), duration(timedelta(seconds=62)), duration(None)
        ('1 h 02 min', '1 min 02 s', '–')
    """
    if value is None:
        return "–"
    seconds = round(value.total_seconds())
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 60} min {seconds % 60:02d} s"
