"""Runs the decoding stages over a data directory: tag, vote, separate, fuse. Each writes all of its output or none.

Equal systems, weights and audio make equal bytes, whatever the number of processes.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from s5.data import Clipped, DataDir, audio_info, read_audio, write_audio
from s5.data.names import source_name
from s5.fusion import Counts, Vote
from s5.inference.results import Estimates, Posteriors, Results, Rows, Separated, Tables, read_rows, write_rows
from s5.system.system import NETWORKS, Result, S5System, Windows
from s5.utils.errors import InputError
from s5.utils.parallel import run_batches
from s5.utils.shards import Shards, whole_folder

Out = TypeVar("Out")

CHANGES = "changes"
"""Table of a shard of stage 10: number of slots that the gate silenced, then the refinement's counts."""


def spread(data: DataDir, num: int | None) -> DataDir:
    """Selects ``num`` mixtures spread evenly over a data directory; all for None or a larger number."""
    if num is None or num >= len(data.utts):
        return data
    places = np.linspace(0, len(data.utts) - 1, num).round().astype(int)
    return replace(data, utts=[data.utts[i] for i in places])


def tag(system: S5System, data: DataDir, out: str | Path, nj: int = 1, shards: Shards | None = None) -> None:
    """Writes ``posteriors/<tagger>.ark`` and ``.scp``: K x (C + 1) matrices, or 1 x C of multi-hot taggers.

    ``labels.txt`` and ``n_slots`` beside them hold the label set and K.
    """
    folder, taggers = Results(out).posteriors.folder, [model.name for model in system.config.taggers]

    def write(items: Sequence[str], part: Path) -> None:
        found = _run(system, _Tag(system, data), items, nj, "tag")
        tables = {name: {utt: one[name] for utt, one in zip(items, found, strict=True)} for name in taggers}
        Posteriors(part).write(tables, folder)

    if shards and not shards.joins:
        with shards.writing(data.utts) as part:
            write(shards.part(data.utts, shards.index or 0), part)
        return
    with whole_folder(folder) as partial:
        if shards:
            Posteriors(partial).join(list(shards.parts(data.utts)), taggers, folder)
        else:
            write(data.utts, partial)
        Posteriors(partial).write_facts(system.labels, system.n_slots)


def vote(system: S5System, out: str | Path) -> None:
    """Reads ``posteriors/``, writes ``labels``, ``probabilities`` and ``silence/``."""
    results, taggers = Results(out), [model.name for model in system.config.taggers]
    tables = results.posteriors.load(taggers)
    votes = {utt: system.vote(tables.of(utt), tables.labels, tables.n_slots) for utt in tables.utts}
    results.write_votes(votes, taggers)


def copy_oracle_labels(data: DataDir, out: str | Path) -> None:
    """Writes the true labels as ``labels``, and ``probabilities`` of 1, instead of a vote."""
    labels = {utt: list(data.labels[utt]) for utt in data.utts}
    Results(out).write_votes({utt: Vote(row, [1.0] * len(row)) for utt, row in labels.items()})


def separate(
    system: S5System,
    data: DataDir,
    out: str | Path,
    nj: int = 1,
    shards: Shards | None = None,
    oracle: bool = False,
) -> None:
    """Reads ``labels``, writes ``separated/<separator>/<utt>.npy``: [K, samples] float32 by separator.

    An objects system finds the labels itself, and writes ``labels`` and ``probabilities``; it reads ``posteriors/`` if
    its taggers' prior counts. ``separated/<tse>/<utt>.npz`` has the slots after each pass.

    Args:
        system: the system.
        data: data directory.
        out: results folder.
        nj: number of processes.
        shards: part of the work to do in this process.
        oracle: whether ``labels`` holds the true labels, which an objects system then takes too.
    """
    results, loop = Results(out), system.config.kind == "objects"
    rows = None if loop and not oracle else results.labels(data.utts)
    taggers = [model.name for model in system.config.taggers]
    posteriors = results.posteriors.load(taggers) if rows is None and system.config.tags else None

    def write(items: Sequence[str], folder: Path, tables: Path) -> None:
        job: Any = _Separate(system, data, rows or {}, Separated(folder))
        if loop:
            job = _Loop(system, data, rows, posteriors, Separated(folder))
        votes = _run(system, job, items, nj, "separate")
        if rows is None:
            Results(tables).write_votes(dict(zip(items, votes, strict=True)))

    with whole_folder(results.separated.folder, shards) as partial:
        for model in system.config.extractors():
            (partial / model.name).mkdir(exist_ok=True)
        if shards is None:
            write(data.utts, partial, results.path)
        elif shards.joins:
            parts = list(shards.parts(data.utts))
            if rows is None:
                results.join_votes(parts)
        else:
            with shards.writing(data.utts) as part:
                write(shards.part(data.utts, shards.index or 0), partial, part)


def fuse(
    system: S5System,
    data: DataDir,
    out: str | Path,
    nj: int = 1,
    oracle: bool = False,
    shards: Shards | None = None,
) -> Counts | None:
    """Reads ``labels`` and ``separated/``, writes ``estimates/<utt>_<slot>_<Label>.wav`` (16 bit, active slots).

    A system with a refinement also reads ``posteriors/`` and runs the networks. ``final_labels`` and
    ``final_probabilities`` hold the labels of the estimates. The log names estimates that 16 bits clip.

    Args:
        system: the system.
        data: data directory.
        out: results folder.
        nj: number of processes.
        oracle: whether the labels are true labels, which neither gate nor refinement changes.
        shards: part of the work to do in this process.

    Returns:
        Counts of the refinement, which the log shows too; None without a refinement, and for a shard.
    """
    utts, results, config = data.utts, Results(out), system.config
    gate, refine = (None, None) if oracle else (config.gate, config.refine)
    votes = results.votes(utts, system.gate_taggers() if gate else (), given=oracle)
    posteriors = results.posteriors.load([model.name for model in config.taggers]) if refine else None

    def write(items: Sequence[str], estimates: Path, tables: Path) -> Rows:
        """Writes estimates and final labels; returns the counts of gate and refinement by utterance."""
        job = _Fuse(system, data, votes, posteriors, results.separated, Estimates(estimates))
        if refine:
            found = _run(system, job, items, nj, "fuse")
        else:
            found = list(
                run_batches(job, items, 1, nj, "fuse", NETWORKS if any(config.fusion.sharpen.values()) else ())
            )
        final, changes = {}, {}
        for utt, (result, clipped) in zip(items, found, strict=True):
            for name, what in clipped.items():
                _say_clipped(name, what, str(data.mixture_path(utt)))
            final[utt] = Vote(result.labels, result.probabilities)
            changes[utt] = [str(n) for n in (result.gated, *vars(result.counts or Counts()).values())]
        Results(tables).write_final(final)
        return changes

    with whole_folder(results.estimates.folder, shards) as partial:
        if shards is None:
            changes = write(utts, partial, results.path)
        elif shards.joins:
            parts = list(shards.parts(utts))
            results.join_final(parts)
            changes = {utt: row for part in parts for utt, row in read_rows(part / CHANGES).items()}
        else:
            with shards.writing(utts) as part:
                write_rows(part / CHANGES, write(shards.part(utts, shards.index or 0), partial, part))
            return None
    gated, counts = 0, Counts()
    for silenced, *refined in (map(int, row) for row in changes.values()):
        gated += silenced
        counts.add(Counts(*refined))
    if gate:
        logging.info("gate: %d of %d slots silenced", gated, sum(len(vote.labels) for vote in votes.values()))
    if not refine:
        return None
    logging.info(
        "refine: %d labels removed, %d restored, in %d of %d mixtures; %d loops, %d queries, %d sources tagged again; "
        "%d mixtures still changed in their last loop",
        *(counts.removed, counts.restored, counts.changed, counts.mixtures),
        *(counts.loops, counts.queries, counts.tagged, counts.unsettled),
    )
    return counts


class Written(NamedTuple):
    """A source that was written to a file."""

    path: Path
    label: str
    probability: float


def separate_file(
    system: S5System, recording: str | Path, folder: str | Path, labels: Sequence[str] | None = None
) -> list[Written]:
    """Tags and separates one recording into ``<name>_<slot>_<Label>.wav`` files (16 bit, its own sampling rate).

    Once all of them are written, they replace the files of this form that an earlier run left for the recording.
    Samples beyond full scale are clipped, and the log names the file.

    A recording longer than a window of ``system.decode`` is separated window by window in constant memory. Each file
    then holds one source followed through all windows, and its probability is the highest of its label in any window.

    Args:
        system: the system.
        recording: WAV, FLAC or Ogg file with the system's number of channels, of any sampling rate and length.
        folder: output folder; created if it does not exist.
        labels: labels of the sources in every window; by default each window is tagged.

    Raises:
        InputError: the file cannot be read or has another number of channels, or labels are unknown or too many.
    """
    from s5.separation.windows import separate_long_file

    channels, n_samples, fs = audio_info(recording)
    if channels != system.n_channels:
        raise InputError(recording, f"{channels} channels", f"{system.n_channels}, as the models were trained with")
    folder, name = Path(folder), Path(recording).stem
    if n_samples > system.decode.window * fs:
        with _outputs(folder, name) as partial:
            decode, windows = system.decode, Windows(system, fs, labels)
            files = separate_long_file(recording, partial, windows, decode.window, decode.overlap, system.batch_size)
            results = [(Written(f.path, f.track.label, windows.best[f.track.label]), f.clipped) for f in files]
    else:
        mixture, fs = read_audio(recording)
        sources = system(mixture, fs, labels)
        results = []
        with _outputs(folder, name) as partial:
            for slot, source in enumerate(sources):
                path = partial / source_name(name, slot, source.label)
                clipped = write_audio(path, source.waveform[None], fs, subtype="PCM_16")
                results.append((Written(path, source.label, source.probability), clipped))
    for written, clipped in results:
        _say_clipped(written.path.name, clipped, str(recording))
    return [written._replace(path=folder / written.path.name) for written, _ in results]


@contextmanager
def _outputs(folder: Path, name: str) -> Iterator[Path]:
    """Yields a folder to fill with ``<name>_<slot>_<Label>.wav``; at the end its files replace those in ``folder``.

    Labels have no underscore, so outputs of a recording ``<name>_0`` are told apart and stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial.", dir=folder) as partial:
        yield Path(partial)
        made = sorted(os.listdir(partial))
        for file in made:
            os.replace(Path(partial, file), folder / file)
    form = re.compile(re.escape(name) + r"_(0|[1-9][0-9]*)_[^_\s]+\.wav")
    for old in folder.iterdir():
        if form.fullmatch(old.name) and old.name not in made and old.is_file():
            old.unlink()


def _say_clipped(name: str, clipped: Clipped, recording: str) -> None:
    """Logs a warning for a clipped output, with a factor for the recording that avoids it."""
    if clipped.samples:
        factor = f"{0.95 / clipped.peak:.2g}"  # rounding adds less than a twentieth
        logging.warning("%s: %s; multiply %s by %s or less and separate it again", name, clipped, recording, factor)


@dataclass
class _Tag:
    """Job that tags some utterances."""

    system: S5System
    data: DataDir

    def __call__(self, utts: Sequence[str]) -> list[dict[str, np.ndarray]]:
        found: dict[str, dict[str, np.ndarray]] = {}
        for group, mixtures in _by_shape(self.system, self.data, utts):
            with _named(self.data, group[0]):
                tables = self.system.tag(mixtures)
            found |= {utt: {name: table[i] for name, table in tables.items()} for i, utt in enumerate(group)}
        return [found[utt] for utt in utts]


@dataclass
class _Separate:
    """Job that writes the separated sources of some utterances."""

    system: S5System
    data: DataDir
    rows: Rows
    folder: Separated

    def __call__(self, utts: Sequence[str]) -> list[None]:
        for group, mixtures in _by_shape(self.system, self.data, utts):
            with _named(self.data, group[0]):
                separated = self.system.separate(mixtures, [self.rows[utt] for utt in group])
            for name, sources in separated.items():
                for utt, one in zip(group, sources, strict=True):
                    self.folder.write(name, utt, one)
        return [None] * len(utts)


@dataclass
class _Loop:
    """Job that writes the separated sources and passes of some utterances of an objects system; returns labels."""

    system: S5System
    data: DataDir
    rows: Rows | None
    tables: Tables | None
    folder: Separated

    def __call__(self, utts: Sequence[str]) -> list[Vote]:
        votes, first = {}, self.system.config.tse[0].name
        for group, mixtures in _by_shape(self.system, self.data, utts):
            labels = None if self.rows is None else [self.rows[utt] for utt in group]
            posteriors = [self.tables.of(utt) for utt in group] if self.tables else None
            with _named(self.data, group[0]):
                found = self.system.find_objects(mixtures, labels, posteriors)
            for utt, (vote, outputs, passes) in zip(group, found, strict=True):
                votes[utt] = vote
                for name, sources in outputs.items():
                    self.folder.write(name, utt, sources)
                self.folder.write_passes(first, utt, passes, self.system.labels)
        return [votes[utt] for utt in utts]


class _Fused(NamedTuple):
    """Result of an utterance without its waveforms, and its clipped estimates by file name."""

    result: Result
    clipped: dict[str, Clipped]


@dataclass
class _Fuse:
    """Job that writes the estimates of some utterances and returns their final labels."""

    system: S5System
    data: DataDir
    votes: dict[str, Vote]
    tables: Tables | None
    separated: Separated
    folder: Estimates

    def __call__(self, utts: Sequence[str]) -> list[_Fused]:
        given, rates = [], []
        for utt in utts:
            mixture, fs = self.data.mixture(utt)
            vote = self.votes[utt]
            outputs = {
                model.name: self.separated.read(model.name, utt, len(vote.labels), mixture.shape[1])
                for model in self.system.config.extractors()
            }
            given.append((mixture, vote, outputs, self.tables.of(utt) if self.tables else None))
            rates.append(fs)
        found = zip(utts, self.system.finish_all(given), rates, strict=True)
        return [self._write(utt, result, fs) for utt, result, fs in found]

    def _write(self, utt: str, result: Result, fs: int) -> _Fused:
        clipped = {}
        for slot, label in enumerate(result.labels):
            name = self.folder.path(utt, slot, label).name
            clipped[name] = self.folder.write(utt, slot, label, result.sources[slot], fs)
        result.sources = result.sources[:0]  # the main process needs the rest only
        return _Fused(result, {name: what for name, what in clipped.items() if what.samples})


def processes(system: S5System, nj: int) -> int:
    """Number of processes for networks: one on a GPU, because several would only compete for it."""
    if nj > 1 and system.device != "cpu":
        logging.info("one process instead of %d: the networks run on %s", nj, system.device)
        return 1
    return nj


def _run(
    system: S5System, job: Callable[[Sequence[str]], list[Out]], utts: Sequence[str], nj: int, name: str
) -> list[Out]:
    """Runs a job with networks on all utterances; returns one result per utterance."""
    return list(run_batches(job, utts, system.batch_size, processes(system, nj), name, NETWORKS))


def _by_shape(system: S5System, data: DataDir, utts: Sequence[str]) -> Iterator[tuple[list[str], np.ndarray]]:
    """Groups utterances whose mixtures have one shape; yields them with their mixtures [B, M, samples]."""
    groups: dict[tuple[int, ...], dict[str, np.ndarray]] = {}
    for utt in utts:
        mixture, fs = data.mixture(utt)
        if fs != system.sampling_rate:
            expected = f"{system.sampling_rate} Hz, as the models were trained"
            raise InputError(f"{data.path}: {utt}", f"{fs} Hz", expected)
        groups.setdefault(mixture.shape, {})[utt] = mixture
    for group in groups.values():
        yield list(group), np.stack(list(group.values()))


@contextmanager
def _named(data: DataDir, utt: str) -> Iterator[None]:
    """Puts the recording's name in front of error messages."""
    try:
        yield
    except InputError as e:
        raise InputError.at(f"{data.path}: {utt}", e) from None
