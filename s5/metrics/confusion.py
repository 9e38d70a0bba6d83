"""Computes a confusion matrix of labels that may repeat within a mixture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from s5.labels import SILENCE
from s5.metrics.class_aware import Levels, Matching, best_assignment
from s5.metrics.labels import active


def confused(est_labels: Sequence[str], ref_labels: Sequence[str], given: Levels, matching: Matching) -> list[Any]:
    """Pairs estimates of a wrong label with the references that they resemble most.

    Equal labels are paired first, as in the metric (``matching``), so a right label is never a confusion, whatever its
    slot. The other estimates and references differ in class; they are paired for the highest sum of SDRs. The rest are
    missed sources or false alarms.

    Args:
        est_labels: label of each estimate, ``silence`` for a silent slot.
        ref_labels: label of each reference, ``silence`` for a silent slot.
        given: SDRs of this mixture.
        matching: pairs of this mixture.

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

    A cell counts the sources of the row's class with the column's label: true positives on the diagonal, pairs of
    :func:`confused` elsewhere. The last column, ``silence``, counts missed sources without an estimate; the last row
    false alarms without a reference. So the sum of a row is the number of references of its class, the sum of a column
    the number of estimates of its label, and the sums off the diagonal are false negatives and false positives.

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
