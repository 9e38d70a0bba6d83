"""The decoding stages over a data directory: tag, vote, separate, fuse. Each writes its output whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import kaldiio
import numpy as np

from s5.data import DataDir, audio_info, read_audio, write_audio
from s5.errors import InputError
from s5.labels import LabelSet
from s5.system import S5System, Source

Rows = dict[str, list[str]]


def tag(system: S5System, data: DataDir, out: str | Path, utts: Iterable[str] | None = None) -> None:
    """Writes ``posteriors/<tagger>.ark`` and ``.scp``: K x (C + 1) matrices, and the label set beside them."""
    folder = Path(out, "posteriors")
    tables: dict[str, dict[str, np.ndarray]] = {name: {} for name in system.taggers}
    for utt in utts or data.utts:
        for name, posterior in system.tag(_mixture(system, data, utt)).items():
            tables[name][utt] = posterior
    with _whole(folder) as partial:
        for name, table in tables.items():
            kaldiio.save_ark(str(partial / f"{name}.ark"), table, scp=str(partial / f"{name}.scp"))
            lines = (partial / f"{name}.scp").read_text(encoding="utf-8").replace(str(partial), str(folder))
            (partial / f"{name}.scp").write_text(lines, encoding="utf-8")
        system.labels.save(partial / "labels.txt")


def vote(system: S5System, out: str | Path) -> None:
    """Reads ``posteriors/``, writes ``labels`` and ``probabilities``."""
    folder = Path(out, "posteriors")
    labels = LabelSet.load(folder / "labels.txt")
    names = [m.name for m in system.config.taggers]
    tables = {name: _read_scp(folder / f"{name}.scp") for name in names}
    first = tables[names[0]]
    rows: Rows = {}
    shares: Rows = {}
    for utt in first:
        for name, table in tables.items():
            if utt not in table:
                raise InputError(folder / f"{name}.scp", f"no {utt}", f"the utterances of {names[0]}.scp")
        voted, probabilities = system.vote({name: np.asarray(tables[name][utt]) for name in names}, labels)
        rows[utt], shares[utt] = voted, [f"{p:.6f}" for p in probabilities]
    _write_rows(Path(out, "probabilities"), shares)
    _write_rows(Path(out, "labels"), rows)


def take_oracle(data: DataDir, out: str | Path) -> None:
    """Writes ``labels`` and ``probabilities`` from the references instead of a vote."""
    Path(out).mkdir(parents=True, exist_ok=True)
    _write_rows(Path(out, "probabilities"), {utt: ["1.000000"] * len(data.labels[utt]) for utt in data.utts})
    _write_rows(Path(out, "labels"), {utt: list(data.labels[utt]) for utt in data.utts})


def separate(system: S5System, data: DataDir, out: str | Path, utts: Iterable[str] | None = None) -> None:
    """Reads ``labels``, writes ``separated/<separator>/<utt>.npy``: [K, samples] float32 by separator."""
    rows = read_rows(Path(out, "labels"))
    with _whole(Path(out, "separated")) as partial:
        for name in system.separators:
            (partial / name).mkdir()
        for utt in utts or data.utts:
            if utt not in rows:
                raise InputError(Path(out, "labels"), f"no {utt}", f"the utterances of {data.path}")
            mixture = _mixture(system, data, utt)
            for name, sources in system.separate(mixture, rows[utt]).items():
                np.save(partial / name / f"{utt}.npy", sources)


def fuse(system: S5System, data: DataDir, out: str | Path, utts: Iterable[str] | None = None) -> None:
    """Reads ``labels`` and ``separated/``, writes ``estimates/<utt>_<slot>_<Label>.wav`` (16 bit, active slots)."""
    rows = read_rows(Path(out, "labels"))
    with _whole(Path(out, "estimates")) as partial:
        for utt in utts or data.utts:
            outputs = {}
            for model in system.config.separators:
                path = Path(out, "separated", model.name, f"{utt}.npy")
                try:
                    outputs[model.name] = np.load(path, allow_pickle=False)
                except (OSError, ValueError) as e:
                    raise InputError(path, "nothing that can be read", "separated sources (stage 9)") from e
            sources = system.fuse(outputs, rows[utt])
            fs = audio_info(data.mixture_path(utt))[2]
            for slot, label in enumerate(rows[utt]):
                write_audio(partial / f"{utt}_{slot}_{label}.wav", sources[slot][None], fs, subtype="PCM_16")


def separate_file(system: S5System, recording: str | Path, folder: str | Path) -> list[tuple[Path, Source]]:
    """Tags and separates one recording into ``<name>_<slot>_<Label>.wav`` files (16 bit, its own sampling rate)."""
    mixture, fs = read_audio(recording)
    sources = system(mixture, fs)
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = [Path(folder, f"{Path(recording).stem}_{slot}_{s.label}.wav") for slot, s in enumerate(sources)]
    for path, source in zip(paths, sources, strict=True):
        write_audio(path, source.waveform[None], fs, subtype="PCM_16")
    return list(zip(paths, sources, strict=True))


def read_rows(path: str | Path) -> Rows:
    """Reads ``<key> <token> ...`` lines. Raises InputError for a missing file or a key that stands twice."""
    rows: Rows = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as e:
        raise InputError(path, e.strerror, "a file of '<utt> <Label> ...' lines") from e
    for number, line in enumerate(lines, 1):
        key, *tokens = line.split()
        if key in rows:
            raise InputError(f"{path}:{number}", f"{key} twice", "each utterance once")
        rows[key] = tokens
    return rows


def _write_rows(path: Path, rows: Rows) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text("".join(" ".join([key, *tokens]) + "\n" for key, tokens in rows.items()), encoding="utf-8")
    partial.replace(path)


def _read_scp(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(path, "no such file", "posteriors (stage 7)")
    return dict(kaldiio.load_scp_sequential(str(path)))


def _mixture(system: S5System, data: DataDir, utt: str) -> np.ndarray:
    mixture, fs = data.mixture(utt)
    if fs != system.sampling_rate:
        raise InputError(f"{data.path}: {utt}", f"{fs} Hz", f"{system.sampling_rate} Hz, as the models were trained")
    return mixture


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of ``folder`` if all goes well and is removed if not."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
