"""Scores of a test set: one row a mixture, and what follows from the rows by class, number of sources and subset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from s5.labels import SILENCE
from s5.metrics.class_aware import Pair, Select, levels, pair, repeats
from s5.metrics.labels import Counts, active, label_counts_by_class

Row = dict[str, Any]


def score_mixture(
    utt: str,
    est_labels: Sequence[str],
    est: np.ndarray,
    ref_labels: Sequence[str],
    ref: np.ndarray,
    mixture: np.ndarray,
    probabilities: Sequence[float] | None = None,
    select: Select = "sdr",
    penalty_fn: float = 0.0,
    penalty_fp: float = 0.0,
) -> Row:
    """Scores one mixture; a row of plain numbers and strings that JSON and another process can take.

    Args:
        utt: name of the mixture.
        est_labels: label of each estimate, ``silence`` for a silent slot.
        est: estimates [n, samples].
        ref_labels: label of each reference, ``silence`` for a silent slot.
        ref: references [m, samples].
        mixture: reference channel of the mixture [samples].
        probabilities: confidence of each estimate, in the order of ``est_labels``.
        select: pairing within a class, see :func:`s5.metrics.capi_sdri`.
        penalty_fn: value of a missed source in dB.
        penalty_fp: value of a false one in dB.

    Returns:
        ``utt``, ``ref_labels``, ``est_labels`` and ``probabilities`` as given, ``CAPI-SDRi``, ``PI-SDRi`` (None if
        nothing is active on either side), ``tp``, ``fp``, ``fn`` and ``pairs``; in a pair, ``est`` and ``ref`` are
        slots: they count ``est_labels`` and ``ref_labels`` from 0.

    Raises:
        ValueError: as :func:`s5.metrics.capi_sdri`, or another number of probabilities than of estimates.

    Example:
        >>> ref = np.eye(2, 8)
        >>> row = score_mixture("a", ["Cough"], 0.9 * ref[:1], ["Cough", "Pour"], ref, ref.sum(axis=0))
        >>> round(row["CAPI-SDRi"], 2), row["fn"], row["pairs"][0]["ref"]
        (10.0, 1, 0)
    """
    if probabilities is not None and len(probabilities) != len(est_labels):
        raise ValueError(f"{utt}: {len(probabilities)} probabilities for {len(est_labels)} estimates, expected as many")
    given = levels(est_labels, est, ref_labels, ref, mixture)
    matching = pair(est_labels, ref_labels, given, select)
    without_labels = pair(_anonymous(est_labels), _anonymous(ref_labels), given, select)
    return {
        "utt": utt,
        "ref_labels": list(ref_labels),
        "est_labels": list(est_labels),
        "probabilities": None if probabilities is None else [float(p) for p in probabilities],
        "CAPI-SDRi": matching.value(penalty_fn, penalty_fp),
        "PI-SDRi": without_labels.value(penalty_fn, penalty_fp),
        **matching.counts._asdict(),
        "pairs": [_pair_row(found) for found in sorted(matching.pairs, key=lambda found: found.ref)],
    }


class Scorer:
    """Collects mixtures and computes what ``scores.json`` holds.

    Args:
        select: pairing within a class: ``"sdr"`` (official) or ``"sdri"`` (Eq. (10), CA-PI-SDR).
        penalty_fn: value of a missed source in dB.
        penalty_fp: value of a false one in dB.

    Example:
        >>> scorer = Scorer()
        >>> ref = np.eye(2, 8)
        >>> row = scorer.update("a", ["Cough", "Pour"], 0.9 * ref, ["Cough", "Pour"], ref, ref.sum(axis=0))
        >>> row = scorer.update("b", ["Cough"], ref[:1], [], [], ref.sum(axis=0))
        >>> metrics = scorer.compute()["metrics"]
        >>> round(metrics["CAPI-SDRi"], 2), metrics["accuracy_mix"], round(metrics["accuracy_src"], 2)
        (10.0, 50.0, 66.67)
    """

    def __init__(self, select: Select = "sdr", penalty_fn: float = 0.0, penalty_fp: float = 0.0) -> None:
        self.select, self.penalty_fn, self.penalty_fp = select, penalty_fn, penalty_fp
        self.rows: list[Row] = []

    def update(
        self,
        utt: str,
        est_labels: Sequence[str],
        est: np.ndarray,
        ref_labels: Sequence[str],
        ref: np.ndarray,
        mixture: np.ndarray,
        probabilities: Sequence[float] | None = None,
    ) -> Row:
        """Scores one mixture (arguments as in :func:`score_mixture`), keeps and returns its row."""
        options = (self.select, self.penalty_fn, self.penalty_fp)
        row = score_mixture(utt, est_labels, est, ref_labels, ref, mixture, probabilities, *options)
        self.rows.append(row)
        return row

    def compute(self) -> dict[str, Any]:
        """The scores of all mixtures so far.

        Returns:
            ``metrics`` and ``counts`` of the whole set; ``by_class``, ``by_n_sources`` and ``by_subset``, each entry
            one flat mapping of counts and metrics (DupSet: a class repeats among the references; NoDupSet: one or more
            references, all distinct; a mixture without a reference is in neither); ``mixtures``, the rows.
            Accuracies, precision and recall are in percent, levels in dB; a mean over nothing is None.
        """
        n_sources = sorted({len(active(row["ref_labels"])) for row in self.rows})
        return {
            **summarise(self.rows),
            "by_class": self._by_class(),
            "by_n_sources": {str(n): self._part(partial(_has_length, n)) for n in n_sources},
            "by_subset": {
                "DupSet": self._part(repeats),
                "NoDupSet": self._part(lambda labels: bool(active(labels)) and not repeats(labels)),
            },
            "mixtures": self.rows,
        }

    def _part(self, chosen: Callable[[list[str]], bool]) -> dict[str, float | int | None]:
        """Counts and metrics of the mixtures whose reference labels are chosen."""
        summary = summarise(row for row in self.rows if chosen(row["ref_labels"]))
        return {**summary["counts"], **summary["metrics"]}

    def _by_class(self) -> dict[str, dict[str, float | int | None]]:
        """Counts, accuracies and SDR improvements of each class that occurs on either side."""
        counts: dict[str, Counts] = {}
        gains: dict[str, list[float]] = {}
        for row in self.rows:
            for label, found in label_counts_by_class(row["est_labels"], row["ref_labels"]).items():
                counts[label] = counts.get(label, Counts()).plus(found)
            for found_pair in row["pairs"]:
                gains.setdefault(found_pair["label"], []).append(found_pair["sdri"])
        return {label: self._class_row(counts[label], gains.get(label, [])) for label in sorted(counts)}

    def _class_row(self, counts: Counts, gains: list[float]) -> dict[str, float | int | None]:
        penalty = counts.fn * self.penalty_fn + counts.fp * self.penalty_fp
        return {
            **counts._asdict(),
            "CAPI-SDRi": (sum(gains) + penalty) / counts.total,
            "SDRi": _mean(gains),
            **_count_metrics(counts),
        }


def summarise(rows: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """``metrics`` and ``counts`` of some rows of :func:`score_mixture`.

    * CAPI-SDRi and PI-SDRi: mean over the mixtures with something active on either side.
    * CA-SDRi: the same mean where all labels are distinct within each mixture (the rule of 2025), None elsewhere.
    * SDRi: mean over the pairs, i.e. over the sources with a right label.
    * accuracy_src: true positives over true and false predictions of all mixtures; precision and recall likewise.
    * accuracy_mix = Acc1: share of mixtures with all labels right. Acc2: mean recall of the mixtures that have a
      reference. Acc3: mean TP/(TP+FN+FP), 100 % for a mixture rightly left empty (Acc1 to Acc3: seed report of 2025).

    Example:
        >>> summarise([])["metrics"]["CAPI-SDRi"] is None
        True
    """
    rows = list(rows)
    counts = [Counts(row["tp"], row["fp"], row["fn"]) for row in rows]
    total = Counts()
    for one in counts:
        total = total.plus(one)
    values = [row["CAPI-SDRi"] for row in rows if row["CAPI-SDRi"] is not None]
    distinct = not any(repeats(row["est_labels"]) or repeats(row["ref_labels"]) for row in rows)
    accuracy_mix = _percent(_mean([float(one.correct) for one in counts]))
    metrics = {
        "CAPI-SDRi": _mean(values),
        "CA-SDRi": _mean(values) if distinct else None,
        "PI-SDRi": _mean([row["PI-SDRi"] for row in rows if row["PI-SDRi"] is not None]),
        "SDRi": _mean([found["sdri"] for row in rows for found in row["pairs"]]),
        "accuracy_mix": accuracy_mix,
        "Acc1": accuracy_mix,
        "Acc2": _percent(_mean([one.tp / (one.tp + one.fn) for one in counts if one.tp + one.fn])),
        "Acc3": _percent(_mean([one.tp / one.total if one.total else 1.0 for one in counts])),
        **_count_metrics(total),
    }
    numbers = {"mixtures": len(rows), "scored": len(values), "correct": sum(one.correct for one in counts)}
    return {"metrics": metrics, "counts": {**numbers, **total._asdict()}}


def _has_length(n: int, labels: list[str]) -> bool:
    return len(active(labels)) == n


def _count_metrics(counts: Counts) -> dict[str, float | None]:
    return {
        "accuracy_src": _percent(_ratio(counts.tp, counts.total)),
        "precision": _percent(_ratio(counts.tp, counts.tp + counts.fp)),
        "recall": _percent(_ratio(counts.tp, counts.tp + counts.fn)),
    }


def _pair_row(found: Pair) -> Row:
    return {**asdict(found), "sdri": found.sdri}


def _anonymous(labels: Sequence[str]) -> list[str]:
    """All active labels made one, so that any estimate may be paired with any reference."""
    return [label if label == SILENCE else "source" for label in labels]


def _mean(values: Sequence[float]) -> float | None:
    return _ratio(sum(values), len(values))


def _ratio(numerator: float, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


def _percent(value: float | None) -> float | None:
    return None if value is None else 100.0 * value
