"""Reads and writes the results folder of a system on a data set, ``exp/<system>/<set>``.

    posteriors/<tagger>.ark, .scp    stage 7: K x (C + 1) per mixture, 1 x C from a multi-hot tagger
    posteriors/labels.txt, n_slots   the label set and K
    labels                           stage 8, of an objects system 9: <utt> <Label> ..., the labels of the active slots
    probabilities                    <utt> <p> ..., one per label, with all digits of a float
    silence/<tagger>                 <utt> <p> ..., silence posteriors of a track-based tagger in these slots
    separated/<separator>/<utt>.npy  stage 9: [K, samples] float32
    separated/<tse>/<utt>.npz        stage 9 of an objects system: the slots after each pass, for the page
    estimates/<utt>_<slot>_<L>.wav   stage 10: 16 bit, active slots
    final_labels                     labels of the estimates: those of the vote after gate and refinement
    final_probabilities              one per final label
    scores.json                      stage 11

Numbers in text keep every bit, so a stage reads exactly the values that the stage before computed.
"""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np

from s5.data import Clipped, write_audio
from s5.data.kaldi import check_posterior, read_ark, read_n_slots, read_scp
from s5.data.names import SourceFile, find_source_files, source_name
from s5.fusion import Pass, Vote
from s5.labels import LabelSet
from s5.utils.errors import InputError
from s5.utils.files import write_bytes
from s5.utils.text import read_json, read_text

Rows = dict[str, list[str]]
"""Words by utterance."""

_NO_ARRAY = (ValueError, SyntaxError, TypeError, MemoryError, OverflowError, TokenError, BadZipFile)
"""Errors of numpy for a damaged file of samples."""

_KEYS: dict[str, type] = {"metrics": dict, "mixtures": list}
_MIXTURE_KEYS: dict[str, type] = {"utt": str, "ref_labels": list, "est_labels": list, "pairs": list}


class Results:
    """A results folder.

    Args:
        path: ``exp/<system>/<set>``, or ``exp/<system>/<set>_oracle`` with true labels.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.posteriors = Posteriors(self.path / "posteriors")
        self.separated = Separated(self.path / "separated")
        self.estimates = Estimates(self.path / "estimates")
        self.labels_file, self.probabilities_file = self.path / "labels", self.path / "probabilities"
        self.final_labels_file = self.path / "final_labels"
        self.final_probabilities_file = self.path / "final_probabilities"
        self.scores_file = self.path / "scores.json"

    def write_votes(self, votes: Mapping[str, Vote], taggers: Sequence[str] = ()) -> None:
        """Writes ``labels``, ``probabilities`` and ``silence/``: the output of stage 8, or the labels of a loop.

        Args:
            votes: votes by utterance.
            taggers: taggers whose silence posteriors the votes hold.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        for tagger in taggers:
            known = {utt: as_text(vote.silence[tagger]) for utt, vote in votes.items() if vote.silence is not None}
            self._silence(tagger).parent.mkdir(exist_ok=True)
            self._silence(tagger).unlink(missing_ok=True)
            if known:
                write_rows(self._silence(tagger), known)
        write_rows(self.probabilities_file, {utt: as_text(vote.probabilities) for utt, vote in votes.items()})
        write_rows(self.labels_file, {utt: vote.labels for utt, vote in votes.items()})

    def labels(self, utts: Iterable[str]) -> Rows:
        """Reads the labels of the active slots of some utterances.

        Raises:
            InputError: the labels of an utterance are missing.
        """
        return _of(utts, self.labels_file)

    def votes(self, utts: Sequence[str], silence: Sequence[str] = (), given: bool = False) -> dict[str, Vote]:
        """Reads the output of stage 8 for some utterances.

        Args:
            utts: the utterances.
            silence: taggers whose silence posteriors are needed.
            given: whether the labels are true labels instead of a vote's.

        Raises:
            InputError: a line is missing, or holds no probability.
        """
        rows = self.labels(utts)
        shares = _numbers(rows, self.probabilities_file)
        silent = {tagger: _numbers(rows, self._silence(tagger)) for tagger in silence}

        def silence_of(utt: str) -> dict[str, np.ndarray] | None:
            return {tagger: np.array(table[utt], np.float32) for tagger, table in silent.items()} or None

        return {utt: Vote(labels, shares[utt], silence_of(utt), given) for utt, labels in rows.items()}

    def _silence(self, tagger: str) -> Path:
        return self.path / "silence" / tagger

    def write_final(self, final: Mapping[str, Vote]) -> None:
        """Writes ``final_labels`` and ``final_probabilities``: the output of stage 10."""
        write_rows(self.final_probabilities_file, {utt: as_text(vote.probabilities) for utt, vote in final.items()})
        write_rows(self.final_labels_file, {utt: vote.labels for utt, vote in final.items()})

    def join_votes(self, parts: Sequence[Path]) -> None:
        """Joins ``labels`` and ``probabilities`` of several results folders."""
        self.path.mkdir(parents=True, exist_ok=True)
        _join((self.probabilities_file, self.labels_file), parts)

    def join_final(self, parts: Sequence[Path]) -> None:
        """Joins ``final_labels`` and ``final_probabilities`` of several results folders."""
        _join((self.final_probabilities_file, self.final_labels_file), parts)

    def final(self, utts: Iterable[str] | None = None) -> dict[str, Vote]:
        """Reads labels and probabilities of the estimates of some or all utterances.

        Raises:
            InputError: those of an utterance are missing.
        """
        rows = read_rows(self.final_labels_file) if utts is None else _of(utts, self.final_labels_file)
        shares = _numbers(rows, self.final_probabilities_file)
        return {utt: Vote(labels, shares[utt]) for utt, labels in rows.items()}

    def scores(self) -> dict[str, Any]:
        """Reads ``scores.json``; see :func:`read_scores`."""
        return read_scores(self.scores_file)


@dataclass(frozen=True)
class Posteriors:
    """The folder ``posteriors``."""

    folder: Path

    def write(self, tables: Mapping[str, Mapping[str, np.ndarray]], final: Path | None = None) -> None:
        """Writes one archive per tagger.

        Args:
            tables: posteriors by tagger and utterance.
            final: later place of the folder, which the paths in the scp files name; by default its present place.
        """
        import kaldiio

        for name, table in tables.items():
            ark, scp = self.folder / f"{name}.ark", self.folder / f"{name}.scp"
            kaldiio.save_ark(str(ark), dict(table), scp=str(scp))
            lines = scp.read_text(encoding="utf-8").replace(f" {self.folder}/", f" {final or self.folder}/")
            scp.write_text(lines, encoding="utf-8")

    def join(self, parts: Sequence[Path], taggers: Sequence[str], final: Path) -> None:
        """Joins the archives of several folders; the bytes equal those of one :meth:`write` of all utterances.

        Args:
            parts: the folders.
            taggers: taggers of each folder.
            final: later place of this folder.
        """
        for name in taggers:
            with open(self.folder / f"{name}.ark", "wb") as ark, open(self.folder / f"{name}.scp", "w") as scp:
                for part in parts:
                    start = ark.tell()
                    with open(part / f"{name}.ark", "rb") as one:
                        shutil.copyfileobj(one, ark)
                    for line in read_text(part / f"{name}.scp", "posteriors of a shard").splitlines():
                        head, _, offset = line.rpartition(":")
                        utt = head.partition(" ")[0]
                        scp.write(f"{utt} {final}/{name}.ark:{start + int(offset)}\n")

    def write_facts(self, labels: LabelSet, n_slots: int) -> None:
        """Writes label set and K."""
        labels.save(self.folder / "labels.txt")
        (self.folder / "n_slots").write_text(f"{n_slots}\n", encoding="utf-8")

    def labels(self) -> LabelSet:
        """Reads the label set. Raises InputError if the file is missing, cut off, or no label set."""
        path = self.folder / "labels.txt"
        if not read_text(path, "a text file with one label per line").endswith("\n"):
            raise InputError(path, "no line break at its end (is it cut off?)", "the labels, as stage 7 writes them")
        return LabelSet.load(path)

    def n_slots(self) -> int:
        """Reads K."""
        return read_n_slots(self.folder / "n_slots")

    def taggers(self) -> list[str]:
        """Names of the taggers with posteriors."""
        return sorted(ark.stem for ark in self.folder.glob("*.ark"))

    def table(self, tagger: str) -> dict[str, np.ndarray]:
        """Reads the posteriors of one tagger by utterance from its ark file alone, which may have been moved.

        Raises:
            InputError: the file is damaged.
        """
        path, n_labels, table = self.folder / f"{tagger}.ark", len(self.labels()), {}
        for utt, posterior in read_ark(path, "posteriors (stage 7)"):
            check_posterior(posterior, n_labels, f"{path}: {utt}")
            table[utt] = posterior
        return table

    def load(self, taggers: Sequence[str]) -> Tables:
        """Reads the posteriors of all taggers of a system.

        Raises:
            InputError: a file is missing or damaged, or the taggers have different utterances.
        """
        labels = self.labels()
        tables = {name: dict(read_scp(self.folder / f"{name}.scp", "posteriors (stage 7)")) for name in taggers}
        for name, table in tables.items():
            for one, other in ((name, taggers[0]), (taggers[0], name)):
                for utt in tables[other]:
                    if utt not in tables[one]:
                        raise InputError(self.folder / f"{one}.scp", f"no {utt}", f"the utterances of {other}.scp")
            for utt, posterior in table.items():
                check_posterior(posterior, len(labels), f"{self.folder / name}.scp: {utt}")
        return Tables(tables, labels, self.n_slots())


@dataclass(frozen=True)
class Tables:
    """Posteriors of all taggers of a system.

    Attributes:
        tables: posteriors by tagger and utterance.
        labels: the label set.
        n_slots: K.
    """

    tables: dict[str, dict[str, np.ndarray]]
    labels: LabelSet
    n_slots: int

    @property
    def utts(self) -> list[str]:
        """Names of the utterances."""
        return list(next(iter(self.tables.values())))

    def of(self, utt: str) -> dict[str, np.ndarray]:
        """Posteriors of one utterance by tagger. Raises InputError if a tagger has none."""
        for name, table in self.tables.items():
            if utt not in table:
                raise InputError("posteriors", f"none of {name} for {utt}", "all utterances (stage 7)")
        return {name: table[utt] for name, table in self.tables.items()}


@dataclass(frozen=True)
class NamedPass:
    """The slots of one mixture after a pass of an objects system.

    Attributes:
        labels: label of each slot, ``silence`` for a silent one.
        probability: [K] probability of the label, or of the most probable one.
        active: [K] probability of being active.
        waveforms: [K, samples] float32, stored with 16 bits.
    """

    labels: list[str]
    probability: np.ndarray
    active: np.ndarray
    waveforms: np.ndarray


@dataclass(frozen=True)
class Separated:
    """The folder ``separated``."""

    folder: Path

    def write(self, separator: str, utt: str, sources: np.ndarray) -> None:
        """Writes one utterance's sources [K, samples]; the separator's folder must exist."""
        content = io.BytesIO()
        np.save(content, sources)
        write_bytes(self.folder / separator / f"{utt}.npy", content.getvalue())

    def write_passes(self, extractor: str, utt: str, passes: Sequence[Pass], labels: LabelSet) -> None:
        """Writes the passes of one utterance beside its sources."""
        content = io.BytesIO()
        names = [[labels.name(i) for i in one.index] for one in passes]
        np.savez(
            content,
            labels=np.array(names),
            probability=np.stack([one.probability for one in passes]),
            active=np.stack([one.active for one in passes]),
            waveforms=np.stack([one.waveforms for one in passes]).astype(np.float16),
        )
        write_bytes(self.folder / extractor / f"{utt}.npz", content.getvalue())

    def read_passes(self, utt: str) -> list[NamedPass]:
        """Reads the passes of one utterance; none of a system that is no objects system.

        Raises:
            InputError: the file is damaged.
        """
        for path in sorted(folder / f"{utt}.npz" for folder in self.folder.glob("*/")):
            if not path.is_file():
                continue
            try:
                with np.load(path, allow_pickle=False) as tables:
                    found = [tables[key] for key in ("labels", "probability", "active", "waveforms")]
                rows = zip(found[0].tolist(), found[1], found[2], found[3].astype(np.float32), strict=True)
                return [NamedPass(*row) for row in rows]
            except (OSError, EOFError, KeyError, *_NO_ARRAY) as e:
                raise InputError(path, "nothing that can be read", "passes of the loop (stage 9)") from e
        return []

    def read(self, separator: str, utt: str, n_labels: int, n_samples: int) -> np.ndarray:
        """Reads one utterance's sources [K, samples] float32.

        Raises:
            InputError: the file is missing or damaged, or does not fit labels and mixture.
        """
        path = self.folder / separator / f"{utt}.npy"
        try:
            sources = np.load(path, allow_pickle=False)
        except (OSError, EOFError, *_NO_ARRAY) as e:
            reason = getattr(e, "strerror", None) or "nothing that can be read"
            raise InputError(path, reason, "separated sources (stage 9)") from e
        form = f"float32 sources of {n_labels} labels and {n_samples} samples, as labels and mixture have (stage 9)"
        if not isinstance(sources, np.ndarray) or sources.dtype != np.float32:
            raise InputError(path, getattr(sources, "dtype", "several arrays"), form)
        if sources.ndim != 2 or len(sources) < n_labels or sources.shape[1] != n_samples:
            raise InputError(path, f"shape {list(sources.shape)}", form)
        if not np.isfinite(sources).all():
            raise InputError(path, "samples that are not finite", "separated sources (stage 9)")
        return sources


@dataclass(frozen=True)
class Estimates:
    """The folder ``estimates``."""

    folder: Path

    def path(self, utt: str, slot: int, label: str) -> Path:
        """Path of one estimate."""
        return self.folder / source_name(utt, slot, label)

    def write(self, utt: str, slot: int, label: str, waveform: np.ndarray, fs: int) -> Clipped:
        """Writes one estimate [samples]; returns the samples that 16 bits clipped."""
        return write_audio(self.path(utt, slot, label), waveform[None], fs, subtype="PCM_16")

    def find(self, utts: Collection[str]) -> dict[str, dict[int, SourceFile]]:
        """Finds the files of some utterances by slot; see :func:`s5.data.names.find_source_files`."""
        return find_source_files(self.folder, utts)


def read_scores(file: str | Path) -> dict[str, Any]:
    """Reads a ``scores.json``.

    Raises:
        InputError: the file is missing, or stage 11 did not write it.
    """
    file = Path(file)
    scores = read_json(file, "scores that stage 11 writes")
    _check(scores, _KEYS, file)
    for i, mixture in enumerate(scores["mixtures"]):
        _check(mixture, _MIXTURE_KEYS, f"{file}: mixtures[{i}]")
    return dict(scores)


def _check(data: Any, keys: dict[str, type], where: object) -> None:
    if not isinstance(data, dict):
        raise InputError(where, type(data).__name__, "a mapping of keys")
    for key, kind in keys.items():
        if not isinstance(data.get(key), kind):
            found = type(data[key]).__name__ if key in data else "nothing"
            raise InputError(f"{where}: key {key}", found, f"a {kind.__name__}, as stage 11 writes it")


def as_text(numbers: Iterable[float]) -> list[str]:
    """Formats numbers so that they read back as the same floats.

    Example:
        >>> as_text([1, 0.1, np.float32(0.1)])
        ['1.0', '0.1', '0.10000000149011612']
    """
    return [repr(float(number)) for number in numbers]


def read_rows(path: str | Path) -> Rows:
    """Reads ``<key> <token> ...`` lines.

    Raises:
        InputError: the file is missing or no UTF-8, or has an empty line or a key twice.
    """
    rows: Rows = {}
    text = read_text(path, "a file of '<utt> <Label> ...' lines")
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        if not line.strip():
            raise InputError(f"{path}:{number}", "an empty line", "an utterance")
        key, *tokens = line.split()
        if key in rows:
            raise InputError(f"{path}:{number}", f"{key} twice", "each utterance once")
        rows[key] = tokens
    return rows


def write_rows(path: Path, rows: Mapping[str, Sequence[str]]) -> None:
    """Writes ``<key> <token> ...`` lines."""
    write_bytes(path, "".join(" ".join([key, *tokens]) + "\n" for key, tokens in rows.items()).encode())


def _join(files: Iterable[Path], parts: Sequence[Path]) -> None:
    for file in files:
        write_bytes(file, b"".join((part / file.name).read_bytes() for part in parts))


def _of(utts: Iterable[str], path: Path) -> Rows:
    """Reads the lines of some utterances. Raises InputError if one is missing."""
    rows = read_rows(path)
    for utt in utts:
        if utt not in rows:
            raise InputError(path, f"no {utt}", "all utterances of the data set")
    return {utt: rows[utt] for utt in utts}


def _numbers(labels: Rows, path: Path) -> dict[str, list[float]]:
    """Reads the lines of some utterances: a number from 0 to 1 for each label."""
    numbers = {}
    for utt, words in _of(labels, path).items():
        if len(words) != len(labels[utt]):
            raise InputError(f"{path}: {utt}", f"{len(words)} probabilities", f"{len(labels[utt])}, one per label")
        numbers[utt] = [probability(word, f"{path}: {utt}") for word in words]
    return numbers


def probability(word: str, where: object) -> float:
    """Parses a probability. Raises InputError for anything else."""
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise InputError(where, word, "a probability from 0 to 1")
    return number
