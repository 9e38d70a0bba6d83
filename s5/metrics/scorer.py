"""Scores a test set: one row per mixture, and figures of the whole set, by class, by subset and by scene."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from s5.labels import SILENCE
from s5.metrics.bootstrap import Bootstrap
from s5.metrics.class_aware import Select, levels, pair, repeats
from s5.metrics.confusion import confused, confusion_matrix
from s5.metrics.labels import Counts, active, label_counts_by_class
from s5.metrics.sdr import is_silent
from s5.metrics.terms import PartialSums, Row, class_terms, counts_of, mixture_terms, source_terms

SNR_STEP = 5.0
"""Width of the SNR ranges in dB."""
ANGLE_STEP = 30.0
"""Width of the angle ranges in degrees."""

Part = dict[str, float | int | None]
"""Counts and figures of some mixtures, a class or some sources."""
_Group = tuple[Part, PartialSums]


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
    scene: Mapping[str, Any] | None = None,
) -> Row:
    """Scores one mixture. The row holds plain numbers and strings, as JSON and other processes need.

    Args:
        utt: name of the mixture.
        est_labels, est, ref_labels, ref, mixture, select, penalty_fn, penalty_fp: as in :func:`s5.metrics.capi_sdri`.
        probabilities: confidence of each estimate, in the order of ``est_labels``.
        scene: facts of the scene: ``snr`` of each reference in dB in the order of ``ref_labels`` (None for silence);
            ``angle``, the smallest between two sources of one class in degrees, or None; ``room``, a name.

    Returns:
        ``utt``, ``ref_labels``, ``est_labels`` and ``probabilities`` as in the arguments; ``CAPI-SDRi``, ``CA-SDRi``,
        ``PI-SDRi`` (None if nothing is active on either side; CA-SDRi also if references repeat a label); ``tp``,
        ``fp``, ``fn``; ``pairs`` and ``confused`` (:func:`s5.metrics.confusion.confused`), in which ``est`` and ``ref``
        are slots, from 0. ``scene`` only with a scene; ``silent_refs``, the slots of references with a label but
        without sound (:func:`s5.metrics.sdr.is_silent`), only if there are any.

    Raises:
        ValueError: as :func:`s5.metrics.capi_sdri`, or the numbers of probabilities and estimates differ.

    Example:
        >>> ref = np.eye(2, 8)
        >>> row = score_mixture("a", ["Cough"], 0.9 * ref[:1], ["Cough", "Pour"], ref, ref.sum(axis=0))
        >>> round(row["CAPI-SDRi"], 2), row["fn"], row["pairs"][0]["ref"]
        (10.0, 1, 0)
    """
    if probabilities is not None and len(probabilities) != len(est_labels):
        raise ValueError(f"{utt}: {len(probabilities)} probabilities for {len(est_labels)} estimates, expected as many")
    given = levels(est_labels, est, ref_labels, ref, mixture)
    silent = [slot for slot, label in enumerate(ref_labels) if label != SILENCE and is_silent(ref[slot])]
    matching = pair(est_labels, ref_labels, given, select)
    as_in_2025 = pair(_last_of_each(est_labels), ref_labels, given, select)
    without_labels = pair(_anonymous(est_labels), _anonymous(ref_labels), given, select)
    return {
        "utt": utt,
        "ref_labels": list(ref_labels),
        "est_labels": list(est_labels),
        "probabilities": None if probabilities is None else [float(p) for p in probabilities],
        "CAPI-SDRi": matching.value(penalty_fn, penalty_fp),
        "CA-SDRi": None if repeats(ref_labels) else as_in_2025.value(penalty_fn, penalty_fp),
        "PI-SDRi": without_labels.value(penalty_fn, penalty_fp),
        **matching.counts._asdict(),
        "pairs": [{**asdict(p), "sdri": p.sdri} for p in sorted(matching.pairs, key=lambda p: p.ref)],
        "confused": [list(cell) for cell in confused(est_labels, ref_labels, given, matching)],
        **({} if scene is None else {"scene": dict(scene)}),
        **({"silent_refs": silent} if silent else {}),
    }


class Scorer:
    """Scores mixtures one by one and computes the content of ``scores.json``.

    Args:
        select: pairing within a class: ``"sdr"`` (official) or ``"sdri"`` (Eq. (10), CA-PI-SDR).
        penalty_fn: value of a missed source in dB.
        penalty_fp: value of a false source in dB.
        bootstrap: settings of the intervals; by default there are none.

    Example:
        >>> scorer = Scorer()
        >>> ref = np.eye(2, 8)
        >>> row = scorer.update("a", ["Cough", "Pour"], 0.9 * ref, ["Cough", "Pour"], ref, ref.sum(axis=0))
        >>> row = scorer.update("b", ["Cough"], ref[:1], [], [], ref.sum(axis=0))
        >>> metrics = scorer.compute()["metrics"]
        >>> round(metrics["CAPI-SDRi"], 2), metrics["accuracy_mix"], round(metrics["accuracy_src"], 2)
        (10.0, 50.0, 66.67)
    """

    def __init__(
        self,
        select: Select = "sdr",
        penalty_fn: float = 0.0,
        penalty_fp: float = 0.0,
        bootstrap: Bootstrap | None = None,
    ) -> None:
        self.select, self.penalty_fn, self.penalty_fp = select, penalty_fn, penalty_fp
        self.bootstrap = bootstrap
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
        scene: Mapping[str, Any] | None = None,
    ) -> Row:
        """Scores one mixture and returns its row; arguments as in :func:`score_mixture`."""
        options = (self.select, self.penalty_fn, self.penalty_fp)
        row = score_mixture(utt, est_labels, est, ref_labels, ref, mixture, probabilities, *options, scene)
        self.rows.append(row)
        return row

    def compute(self) -> dict[str, Any]:
        """The scores of all mixtures so far.

        Returns:
            * ``metrics`` and ``counts`` of the whole set (:func:`summarise`).
            * ``by_class``, ``by_n_sources`` and ``by_subset``: flat mappings of counts and metrics. DupSet has the
              mixtures whose references repeat a class, NoDupSet those with distinct references.
            * ``confusion`` (:func:`s5.metrics.confusion.confusion_matrix`), ``mixtures``, the rows, and ``warnings``
              (:func:`warnings`).
            * With scenes: ``by_room``; ``by_angle``, mixtures of DupSet by their smallest angle between sources of one
              class; ``by_snr``, sources by SNR with ``found`` and ``missed``.
            * With a bootstrap: ``intervals`` holds its settings, and ``metrics`` and ``by_...`` with [low, high]
              instead of each figure.

            Accuracies, precision and recall are in percent, SDRs in dB; a mean over nothing is None.
        """
        groups = self._groups()
        scores = {
            **summarise(self.rows),
            **{name: {key: part for key, (part, _) in found.items()} for name, found in groups.items()},
            "confusion": confusion_matrix(self.rows),
        }
        if self.bootstrap is not None:
            intervals = {
                name: {key: self._intervals(terms) for key, (_, terms) in found.items()}
                for name, found in groups.items()
            }
            whole = self._intervals(mixture_terms(self.rows))
            scores["intervals"] = {**asdict(self.bootstrap), "metrics": whole, **intervals}
        return {**scores, "warnings": warnings(self.rows), "mixtures": self.rows}

    def _intervals(self, terms: PartialSums) -> dict[str, list[float] | None]:
        assert self.bootstrap is not None
        found = self.bootstrap.intervals(terms)
        return {name: None if interval is None else list(interval) for name, interval in found.items()}

    def _groups(self) -> dict[str, dict[str, _Group]]:
        """All breakdowns: name -> key -> figures, and the partial sums for their intervals."""
        groups = {
            "by_class": {label: self._class(label) for label in _classes(self.rows)},
            "by_n_sources": self._mixtures(lambda row: len(active(row["ref_labels"]))),
            "by_subset": {"DupSet": _part([]), "NoDupSet": _part([])} | self._mixtures(_subset),
        }
        if any("scene" in row for row in self.rows):
            groups["by_room"] = self._mixtures(lambda row: row.get("scene", {}).get("room"))
            groups["by_angle"] = self._mixtures(lambda row: _range(row.get("scene", {}).get("angle"), ANGLE_STEP))
            groups["by_snr"] = self._snrs()
        return groups

    def _mixtures(self, key_of: Callable[[Row], Any]) -> dict[str, _Group]:
        """Counts and metrics of the mixtures by a key; mixtures with the key None are skipped."""
        groups: dict[Any, list[Row]] = {}
        for row in self.rows:
            if (key := key_of(row)) is not None:
                groups.setdefault(key, []).append(row)
        return {_name(key): _part(groups[key]) for key in sorted(groups)}

    def _class(self, label: str) -> _Group:
        """Counts, accuracies and SDR improvements of a class."""
        terms = class_terms(self.rows, label, self.penalty_fn, self.penalty_fp)
        found = (label_counts_by_class(row["est_labels"], row["ref_labels"]) for row in self.rows)
        return {**Counts.sum(one.get(label, Counts()) for one in found)._asdict(), **terms.values()}, terms

    def _snrs(self) -> dict[str, _Group]:
        """Found and missed sources by SNR."""
        slots: dict[tuple[float, float], list[list[int]]] = {}
        for i, row in enumerate(self.rows):
            for slot, snr in enumerate(row.get("scene", {}).get("snr", [])):
                if (key := _range(snr, SNR_STEP)) is not None:
                    slots.setdefault(key, [[] for _ in self.rows])[i].append(slot)
        groups = {}
        for key in sorted(slots):
            terms = source_terms(self.rows, slots[key])
            n_found, n_sources = (int(terms.denominator[:, i].sum()) for i in (0, 1))
            counts: Part = {"sources": n_sources, "found": n_found, "missed": n_sources - n_found}
            groups[_name(key)] = ({**counts, **terms.values()}, terms)
        return groups


def summarise(rows: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """``metrics`` and ``counts`` of rows of :func:`score_mixture`.

    * CAPI-SDRi and PI-SDRi: mean over the mixtures with something active on either side.
    * CA-SDRi: the metric of 2025; None if references of any mixture repeat a label. Of estimates that repeat a label
      only the last counts, as in the scorer of 2025; without such repeats it equals CAPI-SDRi.
    * SDRi: mean over the pairs, that is, over the sources with a right label.
    * accuracy_src: TP / (TP + FP + FN), precision: TP / (TP + FP), recall: TP / (TP + FN), summed over all mixtures.
    * accuracy_mix = Acc1: share of mixtures whose labels are all right. Acc2: mean recall of the mixtures with a
      reference. Acc3: mean TP / (TP + FN + FP), 100 % for an empty mixture without estimates (Acc1 to Acc3: Park et
      al.).

    Example:
        >>> summarise([])["metrics"]["CAPI-SDRi"] is None
        True
    """
    rows = list(rows)
    counts = [counts_of(row) for row in rows]
    scored = sum(row["CAPI-SDRi"] is not None for row in rows)
    numbers = {"mixtures": len(rows), "scored": scored, "correct": sum(one.correct for one in counts)}
    return {"metrics": mixture_terms(rows).values(), "counts": {**numbers, **Counts.sum(counts)._asdict()}}


def warnings(rows: Iterable[Row]) -> list[str]:
    """Names references without sound. Any estimate improves on the mixture by tens of dB there, which distorts means.

    Example:
        >>> zeros, mixture = np.zeros((1, 8)), np.ones(8)
        >>> warnings([score_mixture("a", ["Cough"], zeros, ["Cough"], zeros, mixture)])
        ['a: the reference of slot 0 (Cough) is silent: SDRi 78.3 dB']
    """
    lines = []
    for row in rows:
        improvements = {pair["ref"]: pair["sdri"] for pair in row["pairs"]}
        for slot in row.get("silent_refs", ()):
            level = f"SDRi {improvements[slot]:.1f} dB" if slot in improvements else "no estimate of its label"
            lines.append(f"{row['utt']}: the reference of slot {slot} ({row['ref_labels'][slot]}) is silent: {level}")
    return lines


def _part(rows: Sequence[Row]) -> _Group:
    """Counts and metrics of some mixtures in one mapping."""
    summary = summarise(rows)
    return {**summary["counts"], **summary["metrics"]}, mixture_terms(rows)


def _classes(rows: Iterable[Row]) -> list[str]:
    """Classes on either side."""
    return sorted({label for row in rows for label in active([*row["ref_labels"], *row["est_labels"]])})


def _subset(row: Row) -> str | None:
    if repeats(row["ref_labels"]):
        return "DupSet"
    return "NoDupSet" if active(row["ref_labels"]) else None


def _range(value: float | None, step: float) -> tuple[float, float] | None:
    """Range [low, high) of the given width around a value."""
    if value is None:
        return None
    low = math.floor(value / step) * step
    return low, low + step


def _name(key: Any) -> str:
    """Key of a breakdown as text: a number, a name or a range, ``5..10``."""
    return f"{key[0]:g}..{key[1]:g}" if isinstance(key, tuple) else str(key)


def _last_of_each(labels: Sequence[str]) -> list[str]:
    """Labels in which only the last of each name stays active.

    Example:
        >>> _last_of_each(["Pour", "Cough", "Pour"])
        ['silence', 'Cough', 'Pour']
    """
    last = {label: i for i, label in enumerate(labels)}
    return [label if last[label] == i else SILENCE for i, label in enumerate(labels)]


def _anonymous(labels: Sequence[str]) -> list[str]:
    """Replaces all active labels by one, so that any estimate fits any reference."""
    return [label if label == SILENCE else "source" for label in labels]
