"""Chooses the mixtures of the listening page: a few of every kind."""

from __future__ import annotations

from typing import Any

from s5.metrics.class_aware import repeats
from s5.metrics.labels import active, label_counts

Mixture = dict[str, Any]
"""One entry of ``mixtures`` in scores.json."""


def same_class(mixture: Mixture) -> bool:
    """Whether two or more sources of the mixture share a label."""
    return repeats(mixture["ref_labels"])


def wrong_labels(mixture: Mixture) -> bool:
    """Whether the system's labels differ from the references' labels, as multi-sets."""
    return not label_counts(mixture["est_labels"], mixture["ref_labels"]).correct


def improvement(mixture: Mixture) -> float | None:
    """CAPI-SDRi of the mixture in dB; None if neither side has a source."""
    value = mixture.get("CAPI-SDRi")
    return None if value is None else float(value)


def choose(mixtures: list[Mixture], n: int) -> list[tuple[Mixture, list[str]]]:
    """Chooses at most ``n`` mixtures that span the set, each with words that describe it.

    First come the best, the worst, a typical same-class mixture and the one with the most wrong labels. Then mixtures
    of each number of sources, of same-class pairs and of wrong labels take turns, each group from its median outwards.
    The choice depends on the scores alone.

    Returns:
        Pairs (mixture, words), highest CAPI-SDRi first, mixtures without one last.
    """
    ordered = sorted(mixtures, key=_rank)
    scored = [m for m in ordered if improvement(m) is not None]
    chosen: dict[str, Mixture] = {}
    words: dict[str, list[str]] = {}

    def take(mixture: Mixture, *why: str) -> None:
        chosen[mixture["utt"]] = mixture
        words.setdefault(mixture["utt"], []).extend(why)

    if scored and n > 0:
        take(scored[0], "best")
    if len(scored) > 1 and n > 1:
        take(scored[-1], "worst")
    groups = [_from_median([m for m in ordered if same_class(m)]), _most_wrong(ordered)]
    counts = [*sorted({len(active(m["ref_labels"])) for m in ordered} - {0}), 0]
    groups += [_from_median([m for m in ordered if len(active(m["ref_labels"])) == count]) for count in counts]
    while len(chosen) < n and any(groups):
        for group in groups:
            while group and group[0]["utt"] in chosen:
                group.pop(0)
            if group and len(chosen) < n:
                take(group.pop(0))
    for utt, mixture in chosen.items():
        count = len(active(mixture["ref_labels"]))
        words.setdefault(utt, []).append(f"{count} source{'s' if count != 1 else ''}" if count else "no source")
        if same_class(mixture):
            words[utt].append("same class")
        if wrong_labels(mixture):
            words[utt].append("wrong labels")
    return [(m, words[m["utt"]]) for m in ordered if m["utt"] in chosen]


def _rank(mixture: Mixture) -> tuple[bool, float, str]:
    """Sorting key: highest CAPI-SDRi first, mixtures without one last, then by name."""
    value = improvement(mixture)
    return value is None, -(value or 0.0), mixture["utt"]


def _from_median(group: list[Mixture]) -> list[Mixture]:
    """The group reordered: median, quartiles, eighths and so on, so that the first few span the group."""
    order: list[int] = []
    parts = 2
    while len(order) < len(group):
        places = [len(group) * i // parts for i in range(1, parts, 2)] if parts <= 2 * len(group) else range(len(group))
        order += [place for place in dict.fromkeys(places) if place not in order]
        parts *= 2
    return [group[place] for place in order]


def _most_wrong(mixtures: list[Mixture]) -> list[Mixture]:
    """Mixtures with wrong labels, most wrong and missing labels first."""

    def errors(mixture: Mixture) -> int:
        counts = label_counts(mixture["est_labels"], mixture["ref_labels"])
        return counts.fp + counts.fn

    return sorted((m for m in mixtures if errors(m)), key=lambda m: (-errors(m), m["utt"]))
