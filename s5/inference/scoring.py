"""Scores a folder of estimates against a test set: finds and reads the files, computes in parallel, prints a table.

The estimates may come from any system that names files as in the challenge, <utt>_<slot>_<Label>.wav
(2025: <utt>_<Label>.wav). The metrics are in ``s5.metrics``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypedDict, TypeVar

import numpy as np

from s5.data import DataDir, read_audio
from s5.data.names import SourceFile, audio_files, find_source_files, source_name
from s5.inference.bounds import BoundsFolder, checksum
from s5.inference.bounds import Rows as BoundRows
from s5.inference.results import probability
from s5.labels import SILENCE, LabelSet
from s5.metrics import BOUNDS, active, score_bounds, score_mixture
from s5.metrics.terms import Row
from s5.utils.errors import InputError
from s5.utils.parallel import in_processes
from s5.utils.text import read_text

if TYPE_CHECKING:
    from s5.scene.spec import Event, Scene

T = TypeVar("T")

Slots = list[SourceFile | None]
"""Sources of a mixture by slot; None for a silent slot before the last active one."""


class References(Protocol):
    """A test set: names, labels and content of its mixtures."""

    utts: list[str]

    def read(self, utt: str) -> tuple[np.ndarray, int, list[str], np.ndarray]:
        """Reads reference channel [samples], sampling rate in Hz, labels and dry sources [n, samples] of a mixture."""

    def scene(self, utt: str) -> Scene | None:
        """Scene of a mixture; None if it is unknown."""

    def expects(self, utt: str) -> bool:
        """Whether a mixture has a source."""


class DataDirReferences:
    """References of a data directory."""

    def __init__(self, path: Path, labels: LabelSet) -> None:
        self._data = DataDir.load(path, labels)
        if not self._data.has_sources:
            raise InputError(path, "no labels with dry sources", "a data directory with references")
        self.utts = list(self._data.utts)

    def read(self, utt: str) -> tuple[np.ndarray, int, list[str], np.ndarray]:
        """See :class:`References`."""
        mixture, fs = self._data.mixture(utt)
        labels = list(self._data.labels[utt])
        return mixture[0], fs, labels, self._data.sources(utt, (mixture.shape[1], fs))[: len(labels)]

    def scene(self, utt: str) -> Scene | None:
        """See :class:`References`."""
        path = self._data.scene_path(utt)
        return None if path is None else _load_scene(path)

    def expects(self, utt: str) -> bool:
        """See :class:`References`."""
        return bool(self._data.labels[utt])


class ChallengeReferences:
    """References in the challenge's layout: ``soundscape/<utt>.wav``, ``oracle_target/<utt>_<slot>_<Label>.wav``.

    Args:
        path: folder that holds both.
        labels: label set.
        metadata: list of the set's scenes (``metadata/valid.json``) in the order of the mixtures' names; optional.

    Raises:
        InputError: there is no mixture, a target fits no mixture, a slot before another has no file, or the list has
            another length.
    """

    def __init__(self, path: Path, labels: LabelSet, metadata: Path | None = None) -> None:
        self._mixtures = audio_files(path / "soundscape")
        if not self._mixtures:
            raise InputError(path / "soundscape", "no wav file", "one for each mixture")
        self.utts = list(self._mixtures)
        self._sources = find_sources(path / "oracle_target", self.utts, labels)
        for utt, slots in self._sources.items():
            if None in slots:
                missing = source_name(utt, slots.index(None), "<Label>")
                raise InputError(path / "oracle_target" / missing, "no such file", f"one, as {utt} has a later slot")
        self._scenes: dict[str, Path] = {} if metadata is None else self._list_scenes(metadata)

    def _list_scenes(self, metadata: Path) -> dict[str, Path]:
        from s5.scene.formats.lists import MetadataList

        scenes = MetadataList.load(metadata)
        if len(scenes) != len(self.utts):
            raise InputError(metadata, f"{len(scenes)} scenes", f"{len(self.utts)}, one for each mixture")
        return {u: scenes.folder / entry.metadata_path for u, entry in zip(self.utts, scenes.entries, strict=True)}

    def read(self, utt: str) -> tuple[np.ndarray, int, list[str], np.ndarray]:
        """See :class:`References`."""
        mixture, fs = read_audio(self._mixtures[utt])
        slots = self._sources[utt]
        return mixture[0], fs, slot_labels(slots), read_sources(slots, mixture.shape[1], fs)

    def scene(self, utt: str) -> Scene | None:
        """See :class:`References`."""
        return _load_scene(self._scenes[utt]) if utt in self._scenes else None

    def expects(self, utt: str) -> bool:
        """See :class:`References`."""
        return bool(self._sources[utt])


def _load_scene(path: Path) -> Scene:
    from s5.scene.spec import Scene

    return Scene.load(path)


def conditions(scene: Scene, ref_labels: Sequence[str], where: object) -> dict[str, Any]:
    """Room, SNRs and smallest angle of a scene, for the argument ``scene`` of :func:`s5.metrics.score_mixture`.

    Args:
        scene: the scene.
        ref_labels: labels of the references. The scene may order events of different classes otherwise (2025: class
            order), but not those of one class.
        where: place that error messages name.

    Raises:
        InputError: the scene has other labels.
    """
    targets = scene.targets
    if Counter(active(ref_labels)) != Counter(str(event.label) for event in targets):
        raise InputError(where, f"a scene of {' '.join(scene.labels) or 'silence'}", " ".join(ref_labels) or "silence")
    by_label: dict[str, list[Event]] = {}
    for event in targets:
        by_label.setdefault(str(event.label), []).append(event)
    angles = [a for group in by_label.values() for a in angles_between([e.event_position or [] for e in group])]
    queues = {label: iter(group) for label, group in by_label.items()}
    events = [None if label == SILENCE else next(queues[label]) for label in ref_labels]
    return {
        "room": Path(scene.room.sofa_path).stem,
        "snr": [None if event is None else float(event.snr) for event in events],
        "angle": round(min(angles), 3) if angles else None,
    }


def angles_between(positions: Sequence[Sequence[Sequence[float]]]) -> list[float]:
    """Angles in degrees between all pairs of sources, seen from the microphone.

    Args:
        positions: points [x, y, z] of each source; the mean position of a moving source counts.

    Example:
        >>> angles_between([[[1, 0, 0]], [[0, 2, 0]], [[-3, 0, 0]]])
        [90.0, 180.0, 90.0]
    """
    points = [np.mean(np.asarray(path, dtype=float).reshape(-1, 3), axis=0) for path in positions if len(path)]
    units = [point / max(float(np.linalg.norm(point)), 1e-12) for point in points]
    return [
        float(np.degrees(np.arccos(np.clip(units[i] @ units[j], -1.0, 1.0))))
        for i in range(len(units))
        for j in range(i + 1, len(units))
    ]


def open_references(path: Path, labels: LabelSet, metadata: Path | None = None) -> References:
    """Opens the references in a folder of either layout; only the challenge's layout uses ``metadata``."""
    if (path / "wav.scp").is_file():
        if metadata is not None:
            raise InputError(metadata, "a list of scenes", f"none: {path} has its own (scene.scp)")
        return DataDirReferences(path, labels)
    if (path / "soundscape").is_dir():
        return ChallengeReferences(path, labels, metadata)
    found = "neither wav.scp nor soundscape/" if path.is_dir() else "no such folder"
    raise InputError(path, found, "a data directory, or a folder with soundscape/ and oracle_target/")


def find_sources(folder: Path, utts: Sequence[str], labels: LabelSet) -> dict[str, Slots]:
    """Finds the sources of each mixture in a folder.

    Raises:
        InputError: as :func:`s5.data.names.find_source_files`, or an unknown label.
    """
    numbered = find_source_files(folder, utts)
    for slots in numbered.values():
        for file in slots.values():
            if labels.index(file.label, file.path) == labels.silence_index:
                raise InputError(file.path, f"label {file.label}", "no file for a silent slot")
    return {utt: [found.get(i) for i in range(max(found, default=-1) + 1)] for utt, found in numbered.items()}


def slot_labels(slots: Slots) -> list[str]:
    """Labels by slot; ``silence`` for a slot without a file."""
    return [SILENCE if file is None else file.label for file in slots]


def without_estimate(references: References, estimates: dict[str, Slots]) -> list[str]:
    """Mixtures with a source but without any estimate: the system found nothing, or files are missing."""
    return [utt for utt in references.utts if references.expects(utt) and not estimates[utt]]


def read_sources(slots: Slots, n_samples: int, fs: int) -> np.ndarray:
    """Reads single-channel files to [slots, samples] float32. Raises InputError if one does not fit the mixture."""
    waveforms = np.zeros((len(slots), n_samples), dtype=np.float32)
    for waveform, file in zip(waveforms, slots, strict=True):
        if file is None:
            continue
        samples, _ = read_audio(file.path, fs)
        if samples.shape != (1, n_samples):
            expected = f"1 channel of {n_samples} samples, as its mixture"
            raise InputError(file.path, f"{samples.shape[0]} channel(s) of {samples.shape[1]} samples", expected)
        waveform[:] = samples[0]
    return waveforms


def read_probabilities(path: Path, estimates: dict[str, Slots]) -> dict[str, list[float]]:
    """Reads the confidence of each estimate from lines ``<utt> <p> ...``, one for each slot of the vote.

    Slots after the last estimate, which were silenced after the vote, are dropped.
    """
    lines = read_text(path, "lines of <utt> <probability> ...").splitlines()
    found: dict[str, list[float]] = {}
    for number, line in enumerate(lines, 1):
        utt, *words = line.split() or [""]
        if not utt:
            continue
        where = f"{path}:{number}"
        if utt not in estimates or utt in found:
            raise InputError(where, f"mixture {utt}" + " again" * (utt in found), "each of the references once")
        n = len(estimates[utt])
        if len(words) < n:
            raise InputError(where, f"{len(words)} probabilities", f"one for each of the {n} slots of {utt}")
        found[utt] = [probability(word, where) for word in words][:n]
    for utt, slots in estimates.items():
        if slots and utt not in found:
            raise InputError(path, f"no line for {utt}", f"the probabilities of its {len(slots)} slots")
    return found


class Scored(TypedDict):
    """A scored mixture.

    ``row`` is a row of :func:`s5.metrics.score_mixture`; ``bounds`` are the rows of the floors and ceilings by name.
    """

    row: Row
    bounds: BoundRows


def score_set(
    references: References,
    estimates: dict[str, Slots],
    probabilities: dict[str, list[float]] | None,
    options: dict[str, Any],
    bounds: BoundsFolder,
    utts: Sequence[str],
    n_jobs: int,
) -> Iterator[Scored]:
    """Scores some mixtures and their floors and ceilings in ``n_jobs`` processes; yields them in order."""
    job = partial(_score_with_bounds, references, estimates, probabilities, options, bounds.checksums())
    for utt, (row, found) in zip(utts, score_all(job, utts, n_jobs), strict=True):
        yield {"row": row, "bounds": bounds.rows(utt) if found is None else found}


def _score_with_bounds(
    references: References,
    estimates: dict[str, Slots],
    probabilities: dict[str, list[float]] | None,
    options: dict[str, Any],
    known: dict[str, str | None],
    utt: str,
) -> tuple[Row, BoundRows | None]:
    """Scores one mixture and its floors and ceilings; None instead of these if they are known."""
    mixture, fs, labels, sources, scene = truth = _read(references, utt)
    row = _score(truth, estimates[utt], probabilities, options, utt)
    found = checksum(labels, sources, mixture, fs, scene, options)
    if known.get(utt) == found:
        return row, None
    rows = score_bounds(utt, labels, sources, mixture, fs, scene=scene, **options)
    return row, {name: {**one, "checksum": found} for name, one in rows.items()}


def score_one(
    references: References,
    estimates: dict[str, Slots],
    probabilities: dict[str, list[float]] | None,
    options: dict[str, Any],
    utt: str,
) -> Row:
    """Reads the files of one mixture and scores them; returns a row of :func:`s5.metrics.score_mixture`."""
    return _score(_read(references, utt), estimates[utt], probabilities, options, utt)


class _Truth(NamedTuple):
    """References of a mixture, and what is known of its scene."""

    mixture: np.ndarray
    fs: int
    labels: list[str]
    sources: np.ndarray
    scene: dict[str, Any] | None


def _read(references: References, utt: str) -> _Truth:
    mixture, fs, labels, sources = references.read(utt)
    scene = references.scene(utt)
    known = None if scene is None else conditions(scene, labels, f"scene of {utt}")
    return _Truth(mixture, fs, labels, sources, known)


def _score(
    truth: _Truth, slots: Slots, probabilities: dict[str, list[float]] | None, options: dict[str, Any], utt: str
) -> Row:
    mixture, fs, labels, sources, scene = truth
    est = read_sources(slots, len(mixture), fs)
    confidence = None if probabilities is None else probabilities.get(utt, [])
    return score_mixture(utt, slot_labels(slots), est, labels, sources, mixture, confidence, scene=scene, **options)


def score_all(job: partial[T], utts: Sequence[str], n_jobs: int) -> Iterator[T]:
    """Scores all mixtures in ``n_jobs`` processes; yields the results of the job in order."""
    if n_jobs == 1:
        yield from map(job, utts)
        return
    # One thread per process, because the processes share the cores. They read this variable when they start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    yield from in_processes(job, utts, n_jobs, "score", chunk=4)


def table(scores: dict[str, Any]) -> str:
    """Formats the main figures as a table: all mixtures, by number of sources, by subset."""
    columns = ("CAPI-SDRi", "SDRi", "accuracy_mix", "accuracy_src")
    heads = ("mixtures", "CAPI-SDRi dB", "SDRi dB", "mixture acc. %", "source acc. %")
    parts = _parts(scores)
    lines = [f"{'':<10}" + "".join(f"{head:>{len(head) + 2}}" for head in heads)]
    for name, part in parts.items():
        cells = [str(part["mixtures"]), *(_figure(part[column]) for column in columns)]
        lines.append(
            f"{name:<10}" + "".join(f"{cell:>{len(head) + 2}}" for cell, head in zip(cells, heads, strict=True))
        )
    metrics = scores["metrics"]
    lines.append("")
    if interval := scores.get("intervals", {}).get("metrics", {}).get("CAPI-SDRi"):
        level, (low, high) = scores["intervals"]["level"], interval
        lines.append(f"CAPI-SDRi {_figure(metrics['CAPI-SDRi'])} dB, {level:g} % interval {low:.2f} to {high:.2f} dB")
    lines.append(", ".join(f"{name} {_figure(metrics[name])} %" for name in ("precision", "recall", "Acc2", "Acc3")))
    lines.append(", ".join(f"{name} {_figure(metrics[name])} dB" for name in ("CA-SDRi", "PI-SDRi")))
    return "\n".join(lines)


def bounds_table(bounds: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats the CAPI-SDRi of floors and ceilings as a table, with the rows of :func:`table`.

    Args:
        bounds: scores by name, as :meth:`s5.inference.bounds.BoundsFolder.update` returns them.
    """
    columns = {name: _parts(bounds[name]) for name in BOUNDS}
    lines = ["CAPI-SDRi in dB of other estimates with the true labels:"]
    lines.append(f"{'':<10}" + "".join(f"{name:>12}" for name in BOUNDS))
    for part in columns[BOUNDS[0]]:
        cells = (_figure(found[part]["CAPI-SDRi"]) for found in columns.values())
        lines.append(f"{part:<10}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


def _parts(scores: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Counts and figures of the rows of :func:`table`."""
    parts = {"all": {**scores["counts"], **scores["metrics"]}}
    for n, part in scores["by_n_sources"].items():
        parts[f"{n} source" + ("" if n == "1" else "s")] = part
    return parts | scores["by_subset"]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
