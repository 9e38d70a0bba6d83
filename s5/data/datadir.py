"""Kaldi data directories: reads, checks and writes them.

    wav.scp                    <utt> <path>                   mixtures
    labels                     <utt> <Label> <Label> ...      labels of the active sources, possibly none
    source1.scp source2.scp .. <utt> <path>                   dry targets in the order of the labels
    interference1.scp ..       <utt> <path>                   dry interferers in onset order
    rest.scp                   <utt> <path>                   reference channel of the mixture minus all dry sources
    noise.scp                  <utt> <path>                   backgrounds on the reference channel
    scene.scp                  <utt> <path>                   the scene's JSON file
    n_slots                    <K>                            most sources of an utterance; without the file: 3

Every file is sorted by utterance. Paths start from the working directory (the recipe folder). A set with ``wav.scp``
alone is unlabelled; all sources, interferers, rests or scenes may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from s5.data.audio import audio_info, read_audio
from s5.data.kaldi import read_n_slots
from s5.labels import LabelSet
from s5.utils.errors import InputError
from s5.utils.files import write_text
from s5.utils.text import read_json, read_text

N_SLOTS = 3
"""Default number of slots, K."""

RESTS = {"residual": "rest", "noise": "noise"}
"""Name of the files of each kind of rest (:data:`s5.scene.config.Rest`)."""


@dataclass
class Row:
    """One utterance of a data directory."""

    utt: str
    wav: str
    labels: tuple[str, ...] | None = None
    """Labels in slot order; None in a set without labels."""
    sources: tuple[str, ...] = ()
    """Paths of the dry targets, one per label, or none at all."""
    scene: str | None = None
    interference: tuple[str, ...] = ()
    """Paths of the dry interferers in onset order."""
    rest: str | None = None
    noise: str | None = None

    @property
    def audio(self) -> tuple[str, ...]:
        """Paths of all its audio files: sources, interferers, rest, mixture."""
        rests = (path for path in (self.rest, self.noise) if path is not None)
        return (*self.sources, *self.interference, *rests, self.wav)


@dataclass
class DataDir:
    """A data directory whose files agree with each other. Audio is opened only on request.

    Attributes:
        path: the directory.
        utts: utterances, sorted.
        labels: labels of each utterance in slot order; empty for an unlabelled set.
        n_slots: K, the most sources of an utterance.

    Example:
        data = DataDir.load("data/test", LabelSet.load("conf/labels.txt"))
        for utt in data.utts:
            mixture, fs = data.mixture(utt)        # [M, T]
            sources = data.sources(utt)            # [K, T]
    """

    path: Path
    utts: list[str]
    labels: dict[str, tuple[str, ...]]
    n_slots: int
    _wavs: dict[str, str] = field(repr=False)
    _sources: list[dict[str, str]] = field(repr=False)
    _scenes: dict[str, str] = field(repr=False)
    _interference: list[dict[str, str]] = field(default_factory=list, repr=False)
    _rests: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, path: str | Path, labels: LabelSet | None = None, n_slots: int | None = None) -> DataDir:
        """Reads a data directory.

        Args:
            path: the directory.
            labels: the labels that may occur; None allows any.
            n_slots: K, the most sources of an utterance; by default the directory's own.

        Raises:
            InputError: a file is missing, malformed or not sorted, names an utterance twice or disagrees with another
                file; a label is unknown; an utterance has more labels than slots, or labels and sources that do not
                correspond, or interferers with a gap. The error names the file and the utterance.
        """
        path = Path(path)
        wavs = _read_scp(path / "wav.scp", required=True)
        if not wavs:
            raise InputError(path / "wav.scp", "no utterance", "at least one")
        if n_slots is None:
            file = path / "n_slots"
            n_slots = read_n_slots(file, "the number of slots") if file.exists() else N_SLOTS
        found = cls._read_labels(path, wavs, labels, n_slots)
        beyond = path / f"source{n_slots + 1}.scp"
        for utt in _read_scp(beyond):
            raise InputError(beyond, f"a source for {utt}", f"at most {n_slots}")
        names = [path / f"source{k + 1}.scp" for k in range(n_slots)]
        sources = [_read_scp(name) for name in names]
        if any(name.exists() for name in names):
            _check_sources(names, sources, found, wavs)
        scenes = _read_scp(path / "scene.scp")
        if scenes:
            _same_utterances(path / "scene.scp", scenes, wavs)
        interference = _read_interference(path, wavs)
        rests = {kind: _read_scp(path / f"{name}.scp") for kind, name in RESTS.items()}
        for kind, lines in rests.items():
            if (file := path / f"{RESTS[kind]}.scp").exists():
                _same_utterances(file, lines, wavs)
        return cls(path, list(wavs), found, n_slots, wavs, sources, scenes, interference, rests)

    @staticmethod
    def _read_labels(
        path: Path, wavs: dict[str, str], labels: LabelSet | None, n_slots: int
    ) -> dict[str, tuple[str, ...]]:
        file = path / "labels"
        if not file.exists():
            return {}
        lines = _read_lines(file)
        _same_utterances(file, lines, wavs)
        found = {utt: tuple(rest.split()) for utt, (rest, _) in lines.items()}
        for utt, (_, number) in lines.items():
            if len(found[utt]) > n_slots:
                raise InputError(f"{file}:{number}", f"{len(found[utt])} labels for {utt}", f"at most {n_slots}")
            for label in found[utt]:
                if label == "silence":
                    raise InputError(f"{file}:{number}", f"silence for {utt}", "labels of active sources only")
                if labels is not None:
                    labels.index(label, f"{file}:{number}")
        return found

    def mixture(self, utt: str, fs: int | None = None) -> tuple[np.ndarray, int]:
        """Mixture [M, T] float32 and its sampling rate. Raises InputError as :func:`s5.data.read_audio`."""
        return read_audio(self.mixture_path(utt), fs)

    def mixture_path(self, utt: str) -> Path:
        """Path of the mixture. Raises InputError for an unknown utterance."""
        if utt not in self._wavs:
            raise InputError(self.path / "wav.scp", f"no utterance {utt}", "one")
        return Path(self._wavs[utt])

    def sources(self, utt: str, shape: tuple[int, int] | None = None) -> np.ndarray:
        """Dry targets [n_slots, T] float32 in the order of the labels; unused slots are zero.

        Args:
            utt: the utterance.
            shape: samples and sampling rate of its mixture; by default read from its header.

        Raises:
            InputError: the set has no sources, or a file is bad or differs from its mixture in length or sampling rate.
        """
        return self._read(utt, self._source_paths(utt), self.n_slots, shape)

    def interference(self, utt: str, shape: tuple[int, int] | None = None) -> np.ndarray:
        """Dry interferers [n_interference, T] float32 in onset order, then zeros; arguments as :meth:`sources`.

        Raises:
            InputError: a file is bad or differs from its mixture in length or sampling rate.
        """
        return self._read(utt, self._interference_paths(utt), self.n_interference, shape)

    def rest(self, utt: str, kind: str = "residual", shape: tuple[int, int] | None = None) -> np.ndarray:
        """Reads the rest of a mixture, [1, T] float32.

        Args:
            utt: the utterance.
            kind: ``residual``: its reference channel minus all dry sources; ``noise``: the backgrounds alone.
            shape: samples and sampling rate of its mixture; by default read from its header.

        Raises:
            InputError: the set has no such rest, or the file is bad or differs from its mixture in length or sampling
                rate.
        """
        self.mixture_path(utt)  # refuses an unknown utterance
        if not self.has_rest(kind):
            raise InputError(self.path, f"no {RESTS[kind]}.scp", f"the rest of each mixture (simulate --rest {kind})")
        return self._read(utt, [self._rests[kind][utt]], 1, shape)

    def _read(self, utt: str, paths: list[str], n_rows: int, shape: tuple[int, int] | None) -> np.ndarray:
        n_samples, rate = shape or audio_info(self.mixture_path(utt))[1:]
        out = np.zeros((n_rows, n_samples), dtype=np.float32)
        for row, path in enumerate(paths):
            audio, _ = read_audio(path, rate)
            if audio.shape != (1, n_samples):
                found = f"{audio.shape[0]} x {audio.shape[1]} samples"
                raise InputError(path, found, f"1 x {n_samples}, as the mixture")
            out[row] = audio[0]
        return out

    def scene_path(self, utt: str) -> Path | None:
        """Path of the scene's JSON file; None if the set has no scenes."""
        self.mixture_path(utt)  # refuses an unknown utterance
        return Path(self._scenes[utt]) if utt in self._scenes else None

    @property
    def has_sources(self) -> bool:
        """Whether the set has dry targets; true for a labelled set without any active source."""
        return bool(self.labels) and (any(self._sources) or not any(self.labels.values()))

    @property
    def n_interference(self) -> int:
        """I, the number of ``interference<k>.scp`` files."""
        return len(self._interference)

    def has_rest(self, kind: str = "residual") -> bool:
        """Whether the set has a rest of each mixture, of a kind as in :meth:`rest`."""
        return bool(self._rests.get(kind))

    def check(self, fs: int | None = None, channels: int | None = None, decode: bool = False) -> None:
        """Opens every file that the directory names.

        Args:
            fs: required sampling rate in Hz; None: that of the first mixture.
            channels: required channels of the mixtures; None: those of the first mixture.
            decode: whether to read all samples instead of headers, which finds damaged audio.

        Raises:
            InputError: a file is missing or damaged, or has another sampling rate, channel count or length; or, in a
                set with a rest, a mixture has another number of dry interferers than its scene.
        """
        for utt in self.utts:
            channels, n_samples, fs = _check_file(self._wavs[utt], channels, None, fs, decode)
            sources = self._source_paths(utt) if self.has_sources else []
            rests = [lines[utt] for lines in self._rests.values() if lines]
            for path in (*sources, *self._interference_paths(utt), *rests):
                _check_file(path, 1, n_samples, fs, decode)
            scene = self.scene_path(utt)
            if scene is not None and not scene.is_file():
                raise InputError(scene, "no file", f"the scene of {utt}")
            if scene is not None and rests:
                self._check_interferers(utt, scene)

    def _source_paths(self, utt: str) -> list[str]:
        if not self.has_sources:
            raise InputError(self.path, "no source1.scp", f"dry targets (requested for {utt})")
        return [self._sources[slot][utt] for slot in range(len(self.labels[utt]))]

    def _check_interferers(self, utt: str, scene: Path) -> None:
        document = read_json(scene, "a scene's JSON file")
        expected = len(document.get("int_events") or []) if isinstance(document, dict) else 0
        if (found := len(self._interference_paths(utt))) != expected:
            where = self.path / f"interference{min(found, expected) + 1}.scp"
            raise InputError(where, f"{found} dry interferers of {utt} in all", f"{expected}, as in {scene}")

    def _interference_paths(self, utt: str) -> list[str]:
        return [lines[utt] for lines in self._interference if utt in lines]


def write_data_dir(
    path: str | Path, rows: Iterable[Row], n_slots: int = N_SLOTS, n_interference: int | None = None
) -> None:
    """Writes a data directory: each file under a temporary name, then renamed, ``wav.scp`` last.

    Args:
        path: the directory; made if it does not exist.
        rows: its utterances in any order.
        n_slots: number of ``source<k>.scp`` files, K.
        n_interference: number of ``interference<k>.scp`` files; None: the most interferers of an utterance.

    Raises:
        InputError: an utterance occurs twice, has a space in its name, has more sources than slots or other than one
            per label, or more interferers than ``n_interference``.
    """
    path = Path(path)
    rows = sorted(rows, key=lambda row: row.utt)
    for i, row in enumerate(rows):
        if not re.fullmatch(r"\S+", row.utt):
            raise InputError(path, f"utterance {row.utt!r}", "a name without space")
        if i and rows[i - 1].utt == row.utt:
            raise InputError(path, f"utterance {row.utt} twice", "each once")
        n_sources, n_labels = len(row.sources), len(row.labels or ())
        if row.sources and n_sources != n_labels:
            raise InputError(path, f"{n_sources} sources for {row.utt}", f"{n_labels}, one per label")
        if n_sources > n_slots:
            raise InputError(path, f"{n_sources} sources for {row.utt}", f"at most {n_slots}")
        if n_interference is not None and len(row.interference) > n_interference:
            raise InputError(path, f"{len(row.interference)} interferers for {row.utt}", f"at most {n_interference}")
    if n_interference is None:
        n_interference = max((len(row.interference) for row in rows), default=0)
    path.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[str]] = {}
    if any(row.scene is not None for row in rows):
        files["scene.scp"] = [f"{row.utt} {row.scene}" for row in rows if row.scene is not None]
    for k in range(n_slots) if any(row.sources for row in rows) else []:
        files[f"source{k + 1}.scp"] = [f"{row.utt} {row.sources[k]}" for row in rows if len(row.sources) > k]
    for k in range(n_interference):
        lines = [f"{row.utt} {row.interference[k]}" for row in rows if len(row.interference) > k]
        files[f"interference{k + 1}.scp"] = lines
    for name in RESTS.values():
        if any(getattr(row, name) is not None for row in rows):
            files[f"{name}.scp"] = [f"{row.utt} {getattr(row, name)}" for row in rows if getattr(row, name) is not None]
    if n_slots != N_SLOTS:
        files["n_slots"] = [str(n_slots)]
    if any(row.labels is not None for row in rows):
        files["labels"] = [" ".join([row.utt, *(row.labels or ())]) for row in rows]
    files["wav.scp"] = [f"{row.utt} {row.wav}" for row in rows]
    remove_data_dir_files(path)
    for name, lines in files.items():
        write_text(path / name, "".join(f"{line}\n" for line in lines))


CONTENT = ".content"
"""File with the content of a data directory (:mod:`s5.data.content`), or in data/raw with stage 1's own checksum."""


def remove_data_dir_files(path: str | Path) -> None:
    """Removes the files that make a folder a data directory (not the audio below it); ``wav.scp`` first."""
    path = Path(path)
    names = ("wav.scp", CONTENT, "labels", "scene.scp", "n_slots", *(f"{name}.scp" for name in RESTS.values()))
    for file in [*map(path.joinpath, names), *path.glob("source[0-9]*.scp"), *path.glob("interference[0-9]*.scp")]:
        file.unlink(missing_ok=True)


def _check_file(
    path: str, channels: int | None, n_samples: int | None, fs: int | None, decode: bool
) -> tuple[int, int, int]:
    """Channels, samples and sampling rate (Hz) of an audio file. Raises InputError unless they are as required."""
    found = audio_info(path)
    if decode:
        read_audio(path)
    units = ("channels", "samples, as the mixture has", "Hz")
    for value, wanted, unit in zip(found, (channels, n_samples, fs), units, strict=True):
        if wanted not in (None, value):
            raise InputError(path, f"{value} {unit.split(',')[0]}", f"{wanted} {unit}")
    if not found[1]:
        raise InputError(path, "no sample", "audio")
    return found


def _check_sources(
    names: list[Path], sources: list[dict[str, str]], labels: dict[str, tuple[str, ...]], wavs: dict[str, str]
) -> None:
    """Raises InputError unless every label has its source and every source its label."""
    for slot, (name, lines) in enumerate(zip(names, sources, strict=True)):
        for utt in lines:
            if utt not in wavs:
                raise InputError(name, f"utterance {utt}", "only those of wav.scp")
            if slot >= len(labels.get(utt, ())):
                raise InputError(name, f"a source for {utt}", f"none, as it has {len(labels.get(utt, ()))} labels")
        for utt, found in labels.items():
            if slot < len(found) and utt not in lines:
                raise InputError(name, f"no line for {utt}", f"the source of its label {found[slot]}")


def _read_interference(path: Path, wavs: dict[str, str]) -> list[dict[str, str]]:
    """Lines of ``interference1.scp``, ``interference2.scp`` .., as many as there are.

    Raises InputError for an unknown utterance, or one whose interferers have a gap.
    """
    found: list[dict[str, str]] = []
    for k in range(1, len(list(path.glob("interference[0-9]*.scp"))) + 1):
        file = path / f"interference{k}.scp"
        lines = _read_scp(file, required=True)
        for utt in lines:
            if utt not in wavs:
                raise InputError(file, f"utterance {utt}", "only those of wav.scp")
            if found and utt not in found[-1]:
                raise InputError(
                    file, f"interferer {k} of {utt}", f"interferer {k - 1} of it in interference{k - 1}.scp"
                )
        found.append(lines)
    return found


def _same_utterances(file: Path, lines: Iterable[str], wavs: dict[str, str]) -> None:
    lines = set(lines)
    for utt in sorted(lines - wavs.keys()):
        raise InputError(file, f"utterance {utt}", "only those of wav.scp")
    for utt in sorted(wavs.keys() - lines):
        raise InputError(file, f"no line for {utt}", "one, as wav.scp has it")


def _read_scp(file: Path, required: bool = False) -> dict[str, str]:
    """Path of each utterance, from ``<utt> <path>`` lines; none without the file, unless it is required."""
    out: dict[str, str] = {}
    if not (required or file.exists()):
        return out
    for utt, (path, number) in _read_lines(file).items():
        if not path or path.endswith("|"):
            raise InputError(f"{file}:{number}", f"{path or 'nothing'} after {utt}", "a path")
        out[utt] = path
    return out


def _read_lines(file: Path) -> dict[str, tuple[str, int]]:
    """Rest of the line and line number by utterance. Raises InputError for lines that are not sorted."""
    text = read_text(file, "a file of a data directory")
    out: dict[str, tuple[str, int]] = {}
    last = ""
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        if not line.strip():
            raise InputError(f"{file}:{number}", "an empty line", "an utterance")
        utt, *rest = line.split(maxsplit=1)
        if utt in out:
            raise InputError(f"{file}:{number}", f"utterance {utt} twice", "each once")
        if utt < last:
            raise InputError(f"{file}:{number}", f"{utt} after {last}", "lines sorted by utterance (LC_ALL=C)")
        out[utt] = ("".join(rest).strip(), number)
        last = utt
    return out
