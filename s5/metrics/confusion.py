"""What is taken for what, where a label may repeat within a mixture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from s5.labels import SILENCE
from s5.metrics.class_aware import Levels, Matching, best_assignment
from s5.metrics.labels import active


def confused(est_labels: Sequence[str], ref_labels: Sequence[str], given: Levels, matching: Matching) -> list[Any]:
    """Estimates of a wrong label and the references that they sound like.

    Equal labels are matched first (``matching``: as many of a class as both sides have, paired as the metric pairs
    them), so that a right label is never a confusion, in whatever slot it stands. What remains on both sides has
    classes that differ; it is paired for the highest sum of SDRs. What remains then is a missed source or a false
    alarm.

    Args:
        est_labels: label of each estimate, ``silence`` for a silent slot.
        ref_labels: label of each reference, ``silence`` for a silent slot.
        given: levels of this mixture.
        matching: its pairs.

    Returns:
        Pairs (reference, estimate) of slots, references ascending.

    Example:
        >>> from s5.metrics.class_aware import levels, pair
        >>> ref = np.eye(2, 8)
        >>> labels = ["Cough", "Pour"], ["Pour", "Speech"]
        >>> given = levels(labels[0], ref[::-1], labels[1], ref, ref.sum(axis=0))
        >>> confused(*labels, given, pair(*labels, given))
        [(1, 0)]
    """
    paired = {pair.est for pair in matching.pairs}, {pair.ref for pair in matching.pairs}
    est, ref = (
        [i for i, label in enumerate(labels) if label != SILENCE and i not in taken]
        for labels, taken in zip((est_labels, ref_labels), paired, strict=True)
    )
    return [(ref[i], est[j]) for i, j in best_assignment(given.sdr[np.ix_(ref, est)])]


def confusion_matrix(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Confusion matrix over multi-sets of labels.

    A cell counts the sources of the row's class that were given the column's label: on the diagonal the true
    positives, elsewhere the pairs of :func:`confused`. The last column, ``silence``, counts missed sources that no
    estimate was left for; the last row false alarms that no reference was left for. So a row adds up to the references
    of its class, a column to the estimates of its label, and false positives and negatives are the sums off the
    diagonal.

    Args:
        rows: mixtures, as :func:`s5.metrics.score_mixture` returns them.

    Returns:
        ``labels``: the classes in alphabetical order, then ``silence``; ``counts``: the matrix as a list of rows.

    Example:
        >>> row = {"ref_labels": ["Pour", "Pour"], "est_labels": ["Cough", "Pour"], "pairs": [{"ref": 0, "est": 1}],
        ...        "confused": [(1, 0)]}
        >>> confusion_matrix([row])
        {'labels': ['Cough', 'Pour', 'silence'], 'counts': [[0, 0, 0], [1, 1, 0], [0, 0, 0]]}
    """
    rows = list(rows)
    names = sorted({label for row in rows for label in active([*row["ref_labels"], *row["est_labels"]])})
    place = {name: i for i, name in enumerate([*names, SILENCE])}
    counts = np.zeros((len(place), len(place)), dtype=int)
    for row in rows:
        cells = [(pair["ref"], pair["est"]) for pair in row["pairs"]] + [tuple(cell) for cell in row["confused"]]
        for ref, est in cells:
            counts[place[row["ref_labels"][ref]], place[row["est_labels"][est]]] += 1
        refs, ests = {ref for ref, _ in cells}, {est for _, est in cells}
        for i, label in enumerate(row["ref_labels"]):
            if label != SILENCE and i not in refs:
                counts[place[label], -1] += 1
        for j, label in enumerate(row["est_labels"]):
            if label != SILENCE and j not in ests:
                counts[-1, place[label]] += 1
    return {"labels": [*names, SILENCE], "counts": counts.tolist()}
