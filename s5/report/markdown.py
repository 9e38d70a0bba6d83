"""Writes RESULTS.md: scores of the systems in an experiment folder, and how they were made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from itertools import zip_longest
from typing import Any

from s5.data.names import shortened
from s5.metrics import Bootstrap, mixture_terms
from s5.report.compare import interval_text, paired_rows
from s5.report.results import Bound, Result, by_set
from s5.report.taggers import SUBSETS, TaggerAccuracy
from s5.report.template import render
from s5.report.training import Training
from s5.system.archive import Description
from s5.utils.config import ROOT, load_yaml
from s5.utils.errors import InputError

_SUBSETS = ("DupSet", "NoDupSet")
_MAIN = ("CAPI-SDRi", "accuracy_mix", "accuracy_src")


@dataclass(frozen=True)
class DataSet:
    """Size of a data set; ``lengths`` are those of its mixtures in seconds."""

    name: str
    lengths: tuple[float, ...]
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
    taggers: Sequence[TaggerAccuracy] = (),
    figures: Mapping[str, Mapping[str, str]] | None = None,
    recipe: str = "",
    archives: Mapping[str, Description] | None = None,
    bounds: Mapping[str, Sequence[Bound]] | None = None,
) -> str:
    """Text of RESULTS.md.

    Args:
        system: name of the system whose results are also listed by class.
        results: all results, newest first.
        data: the data sets.
        trainings: the trained models.
        environment: facts of :func:`s5.report.environment.describe`.
        command: the command that makes this file.
        date: time of the report.
        pages: path of the listening page by data set.
        taggers: accuracies of every tagger alone.
        figures: path of each figure by data set and title; under ``""`` the learning curves by model.
        recipe: name of the recipe folder; figures that were published for its data are added to its tables.
        archives: descriptions of model archives by file name.
        bounds: floors and ceilings by data set.
    """
    figures, archives, bounds = figures or {}, archives or {}, bounds or {}
    facts = [["date", date.strftime("%Y-%m-%d %H:%M UTC")], *map(list, environment.items())]
    sets = []
    for name, rows in by_set(results).items():
        own = [row for row in rows if row.system == system]
        limits = bounds.get(name, ())
        size = next((d for d in data if d.name == name), None)
        values = {
            "name": name,
            "size": size and _size(size),
            "systems": _systems([*limits, *rows], _published_for(recipe, name)),
            "bounds": bool(limits),
            "doubtful": _warnings(rows),
            "others": _other_metrics([*limits, *rows]),
            "differences": _differences(system, [*limits, *rows]),
            "taggers": _tagger_table([tagger for tagger in taggers if tagger.set == name]),
            "scenes": _scenes([*own, *limits] if own else []),
            "classes": {row.labels: _classes(row) for row in own if row.scores.get("by_class")},
            "page": pages.get(name),
            "figures": figures.get(name),
        }
        sets.append(values)
    return render(
        "results.md.j2",
        system=system,
        command=command,
        environment=table(["", ""], facts, left=2),
        sets=sets,
        level=Bootstrap().level,
        trainings=_trainings(trainings),
        curves=figures.get(""),
        archives=_archives(archives),
        notes={file: archive.note for file, archive in archives.items() if archive.note},
        reports=_beside_published(results, data),
        published=_published(),
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """A Markdown table. The first ``left`` columns are aligned left, the others right.

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


def _archives(archives: Mapping[str, Description]) -> str:
    """Table of model archives; empty if there are none."""
    lines = []
    for file, archive in archives.items():
        for set_name, entry in archive.figures.items():
            figures = [number(entry["metrics"].get(key), 2 if key == "CAPI-SDRi" else 1) for key in _MAIN]
            size, n_mixtures = f"{archive.size / 1e6:.1f}", entry["counts"].get("mixtures")
            lines.append([f"`{file}`", set_name, size, n_mixtures, *figures])
    return table(["archive", "test set", "MB", "mixtures", *_MAIN], lines, left=2) if archives else ""


def _size(d: DataSet) -> str:
    return (
        f"{_length(d)} ({sum(d.lengths) / 60:.1f} minutes), {d.channels} channels, "
        f"{d.fs / 1000:g} kHz; {d.sources} sources of {d.classes} classes."
    )


def _length(d: DataSet) -> str:
    shortest, longest = min(d.lengths), max(d.lengths)
    seconds = f"{shortest:g}" if shortest == longest else f"{shortest:g} to {longest:g}"
    return f"{len(d.lengths)} mixtures of {seconds} s"


def _systems(rows: Sequence[Result], published: Sequence[Mapping[str, Any]]) -> str:
    """Main table of a data set: bounds, our results, newest first, then published results on the same data."""
    counts = sorted({key for row in rows for key in row.scores.get("by_n_sources") or {}}, key=lambda k: (len(k), k))
    head = ["system", "labels", *_MAIN]
    head += [f"{k} source{'s' if k != '1' else ''}" for k in counts] + list(_SUBSETS)
    lines = []
    for row in rows:
        cells = [_with_interval(row, k, "metrics") for k in _MAIN]
        cells += [_pair((row.scores.get("by_n_sources") or {}).get(k)) for k in counts]
        cells += [_pair((row.scores.get("by_subset") or {}).get(k)) for k in _SUBSETS]
        lines.append([row.system, row.labels, *cells])
    for figures in published:
        cells = [number(figures[k]) for k in _MAIN]
        lines.append([figures["system"], "published", *cells, *["–"] * (len(head) - 5)])
    return table(head, lines, left=2)


def _published_for(recipe: str, set_name: str) -> list[dict[str, Any]]:
    """Published results on a challenge's own test or evaluation set; none for other data."""
    content = _published_figures()
    year = content.get("recipes", {}).get(recipe)
    found = [entry for entry in content["challenge"] if entry["year"] == year and set_name in ("test", "eval")]
    rows = [{"system": e["system"], **dict(zip_longest(_MAIN, e[set_name]))} for e in found]
    return [row for row in rows if row["CAPI-SDRi"] is not None]  # of 2025: CA-SDRi, the same where labels are distinct


def _other_metrics(rows: Sequence[Result]) -> str:
    """Table of the metrics that are not in the main table; empty if there are none."""
    known = dict.fromkeys(key for row in rows for key, value in row.scores["metrics"].items() if value is not None)
    keys = [key for key in known if key not in _MAIN]
    lines = [[row.system, row.labels, *(_with_interval(row, k, "metrics") for k in keys)] for row in rows]
    return table(["system", "labels", *keys], lines, left=2) if keys else ""


def _warnings(rows: Sequence[Result]) -> dict[str, Any] | None:
    """Warnings about a data set's references, from one of its systems, as all have the same references."""
    for row in rows:
        if lines := row.scores.get("warnings"):
            return {"n": len(lines), "system": f"{row.system}, {row.labels} labels", "lines": shortened(lines)}
    return None


def _differences(system: str, rows: Sequence[Result]) -> str:
    """Table of the other systems' differences to one system on the same mixtures; empty if there are none."""
    bootstrap = Bootstrap()
    lines = []
    for own in (row for row in rows if row.system == system):
        for other in (row for row in rows if row.system != system and row.oracle == own.oracle):
            try:
                pair = paired_rows(own.scores, other.scores)
            except InputError:  # scored on other mixtures or with other options
                continue
            found = bootstrap.differences(*map(mixture_terms, pair))
            cells = []
            for difference in (found["CAPI-SDRi"], found["accuracy_mix"]):
                gained = "–" if difference.gained is None else f"{difference.gained:+.2f}"
                cells.append(f"{gained} ({interval_text(difference)})")
            lines.append([other.system, own.labels, *cells])
    return table(["system", "labels", "CAPI-SDRi (dB)", "accuracy_mix (%)"], lines, left=2) if lines else ""


def _tagger_table(taggers: Sequence[TaggerAccuracy]) -> str:
    head = ["tagger", "channels", *(f"source, {s}" for s in SUBSETS), *(f"mixture, {s}" for s in SUBSETS)]
    lines = []
    for t in taggers:
        figures = [number(part[subset]) for part in (t.source, t.mixture) for subset in SUBSETS]
        lines.append([t.name, number(t.channels), *figures])
    return table(head, lines) if lines else ""


def _scenes(rows: Sequence[Result]) -> str:
    """Table of one system's results and the bounds by SNR, angle and room; empty if the scenes are not known."""
    rows = [row for row in rows if row.scores.get("by_snr")]
    if not rows:
        return ""
    kinds = (
        ("by_snr", "SDRi", "SNR {} dB", "sources"),
        ("by_angle", "CAPI-SDRi", "angle {}°", "mixtures"),
        ("by_room", "CAPI-SDRi", "room {}", "mixtures"),
    )
    lines = []
    for group, metric, words, unit in kinds:
        for key, part in (rows[0].scores.get(group) or {}).items():
            cells = [_with_interval(row, metric, group, key) for row in rows]
            lines.append([words.format(key.replace("..", " to ")), f"{part[unit]} {unit}", *cells])
    return table(["scene", "of", *(_column(row) for row in rows)], lines)


def _column(row: Result) -> str:
    return row.system if isinstance(row, Bound) else f"{row.labels} labels"


def _pair(group: Mapping[str, Any] | None) -> str:
    """CAPI-SDRi / mixture accuracy of a group of mixtures."""
    group = group or {}
    return f"{number(group.get('CAPI-SDRi'), 2)} / {number(group.get('accuracy_mix'))}"


def _classes(row: Result) -> str:
    groups: Mapping[str, Mapping[str, Any]] = row.scores["by_class"]
    keys = list(dict.fromkeys(key for group in groups.values() for key in group))
    rows = [[label, *(_with_interval(row, k, "by_class", label) for k in keys)] for label in groups]
    return table(["class", *keys], rows)


def _with_interval(row: Result, metric: str, group: str, key: str | None = None) -> str:
    """A figure and half the width of its interval, if stage 11 computed one: ``3.06 ± 0.36``."""
    scores, intervals = row.scores[group], row.scores.get("intervals", {}).get(group, {})
    if key is not None:
        scores, intervals = scores.get(key, {}), intervals.get(key, {})
    text, interval = number(scores.get(metric), _digits(metric)), intervals.get(metric)
    return text if interval is None else f"{text} ± {number((interval[1] - interval[0]) / 2, _digits(metric))}"


def _digits(metric: str) -> int:
    """Decimals of a metric: two for levels in dB, one for percentages."""
    return 2 if "SDR" in metric else 1


def _trainings(trainings: Sequence[Training]) -> str:
    head = ["model", "parameters", "trainable", "epochs", "batch", "seed"]
    head += ["criterion", "best epoch", "best value", "time"]
    lines = []
    for t in trainings:
        epochs = f"{number(t.epochs)} of {number(t.max_epoch)}"
        facts = (t.parameters, t.trainable, epochs, t.batch_size, t.seed, t.criterion, t.best_epoch)
        lines.append([t.name, *map(number, facts), number(t.best_value, 3), duration(t.time)])
    return table(head, lines) if lines else ""


def _published() -> str:
    lines = []
    for e in _published_figures()["challenge"]:
        figures = (f"{number(e[k][0])} / {number(e[k][1])}" for k in ("test", "eval"))
        lines.append([e["year"], e["system"], e["metric"], *figures])
    return table(["year", "system", "metric", "challenge test", "challenge eval"], lines, left=3)


def _beside_published(results: Sequence[Result], data: Sequence[DataSet] = ()) -> list[dict[str, str]]:
    """For each report, a table of the published rows that we have results of, each followed by our results."""
    parts = []
    for report in _published_figures()["reports"]:
        metrics = list(dict.fromkeys(key for row in report["rows"] for key in row["metrics"]))
        lines = []
        for row in report["rows"]:
            ours = [r for r in results if not r.oracle and r.system in (row["name"], f"{row['name']}_mini")]
            if ours:
                lines.append([row["row"], "published", report["data"], *(row["metrics"].get(m, "–") for m in metrics)])
            for r in (r for of_set in by_set(ours).values() for r in of_set):
                exact = row["metrics"] if report.get("same") else {}
                cells = (_ours(r.scores, m, exact.get(m)) for m in metrics)
                lines.append(["", r.system, _our_data(r.set, data), *cells])
        if lines:
            columns = table(["row", "", "data", *metrics], lines, left=3)
            parts.append({"title": report["table"], "table": columns, "note": report.get("note", "")})
    return parts


def _our_data(name: str, data: Sequence[DataSet]) -> str:
    """Short description of one of our data sets."""
    size = next((d for d in data if d.name == name), None)
    return f"this folder's `{name}`" + (f" ({_length(size)}, {size.fs / 1000:g} kHz)" if size else "")


def _ours(scores: Mapping[str, Any], metric: str, published: str | None = None) -> str:
    """Our figure of a published metric, with as many decimals as ``published``.

    If labels repeat, CA-SDRi is not defined; then CAPI-SDRi, which extends it, takes its place.
    """
    digits = 3 if metric.partition(" ")[0].endswith("SDRi") else 1
    if published is not None:
        digits = len(published.partition(".")[2])
    metric, _, subset = metric.partition(" ")
    found = _of_subset(scores.get("by_subset") or {}, subset) if subset else scores["metrics"]
    if metric == "CA-SDRi" and found.get(metric) is None and found.get("CAPI-SDRi") is not None:
        return f"CAPI-SDRi {number(found['CAPI-SDRi'], 3)}"
    return number(found.get(metric), digits)


def _of_subset(subsets: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """Metrics of a subset; for ``Total`` the accuracies of both subsets together, without mixtures of no source.

    Example:
        >>> counts = {"mixtures": 4, "correct": 1, "tp": 6, "fp": 1, "fn": 1}
        >>> _of_subset({"DupSet": counts, "NoDupSet": {**counts, "correct": 3}}, "Total")
        {'accuracy_mix': 50.0, 'accuracy_src': 75.0}
    """
    if name != "Total":
        return subsets.get(name, {})
    keys = ("mixtures", "correct", "tp", "fp", "fn")
    parts = [subsets.get(subset, {}) for subset in _SUBSETS]
    mixtures, correct, tp, fp, fn = (sum(part.get(key) or 0 for part in parts) for key in keys)
    ratios = {"accuracy_mix": (correct, mixtures), "accuracy_src": (tp, tp + fp + fn)}
    return {metric: 100 * some / all_ for metric, (some, all_) in ratios.items() if all_}


@cache
def _published_figures() -> dict[str, Any]:
    path = ROOT / "local/published.yaml"
    if not path.is_file():  # an installed package has no local folder
        return {"challenge": [], "reports": []}
    return load_yaml(path)


def number(value: Any, digits: int = 1) -> str:
    """A number with so many decimals; integers and text are unchanged, None becomes a dash.

    Example:
        >>> number(3.14159, 2), number(7), number(None)
        ('3.14', '7', '–')
    """
    if value is None:
        return "–"
    return str(value) if isinstance(value, int | str) else f"{value:.{digits}f}"


def duration(value: timedelta | None) -> str:
    """A duration as hours and minutes, or minutes and seconds.

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
