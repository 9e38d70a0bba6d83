"""Adds sounds of other corpora to the development set, by the challenge's rules.

The rules in their order (:class:`s5.challenge.corpus.config.KeepRules`), by the status that a file gets:

    remove_low_amplitude                     its peak is below 0.02
    remove_too_short                         it is shorter than 0.1 s
    remove_too_short_after_trim              it is shorter than 0.1 s without the zeros at its ends
    remove_contain_low_amplitude_segment     10 s in a row stay below 0.02
    selected, _trim, _resampled              it is kept; without zeros at its ends; resampled to 32 kHz

Statuses and files are those of the baselines' scripts add_sound_event.py and add_interference.py.
"""

from __future__ import annotations

import io
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from s5.challenge.corpus.config import Addition, KeepRules
from s5.data import next_frames, open_audio
from s5.data.names import shortened
from s5.utils.errors import InputError
from s5.utils.files import write_bytes, write_json
from s5.utils.parallel import run_jobs
from s5.utils.text import read_json

LOW = "remove_low_amplitude"
SHORT = "remove_too_short"
SHORT_AFTER_TRIM = "remove_too_short_after_trim"
QUIET_SEGMENT = "remove_contain_low_amplitude_segment"
SELECTED = "selected"
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Item:
    """A file to convert, or the part of it from ``start`` to ``end`` in seconds."""

    source: str
    target: str
    """Path below the folder of results, e.g. ``sound_event/train/Speech/p001/a.wav``."""
    start: float | None = None
    end: float | None = None


def judge(audio: np.ndarray, rate: int, rules: KeepRules) -> tuple[str, np.ndarray]:
    """Status of a sound (without ``_resampled``), and the sound without the zeros at its ends.

    Args:
        audio: [T] float32, full scale 1.
        rate: sampling rate in Hz.
        rules: limits to judge by.

    Example:
        >>> status, kept = judge(np.array([0, 0.5] * 400 + [0] * 200, np.float32), 1000, KeepRules())
        >>> status, len(kept)
        ('selected_trim', 799)
    """
    if not len(audio) or np.abs(audio).max() < rules.peak:
        return LOW, audio
    if len(audio) < rules.min_seconds * rate:
        return SHORT, audio
    kept = np.trim_zeros(audio)
    if len(kept) < int(rules.min_seconds * rate):
        return SHORT_AFTER_TRIM, kept
    if _has_quiet_segment(kept, int(rules.segment * rate), int(rules.shift * rate), rules.peak):
        return QUIET_SEGMENT, kept
    return SELECTED + ("_trim" if len(kept) != len(audio) else ""), kept


def _has_quiet_segment(audio: np.ndarray, n: int, shift: int, peak: float) -> bool:
    """Whether n samples in a row, starting at a multiple of ``shift``, stay below the peak."""
    starts = np.arange(0, len(audio) - n + 1, shift)
    loud = np.append(np.flatnonzero(np.abs(audio) >= peak), np.iinfo(np.int64).max)
    next_loud = loud[np.searchsorted(loud, starts)]
    return bool((next_loud - starts >= n).any())


@dataclass(frozen=True)
class Convert:
    """Converts one item; a job for :func:`s5.utils.parallel.run_jobs`."""

    out: str
    rules: KeepRules

    def __call__(self, item: Item) -> str:
        """Writes the sound if it is kept. Returns the status, ``unreadable: <why>`` for a file that is no audio."""
        try:
            audio, rate = _read(item)
        except InputError as e:
            return f"{UNREADABLE}: {str(e).removeprefix(f'{item.source}: found ').partition(', expected ')[0]}"
        status, kept = judge(audio, rate, self.rules)
        if not status.startswith(SELECTED):
            return status
        if rate != self.rules.sampling_rate:
            kept = _resampled(kept, rate, self.rules.sampling_rate)
            status += "_resampled"
        if beyond := int((np.abs(kept) > 1).sum()):
            logging.warning("%s: %d samples beyond full scale were clipped", item.target, beyond)
        content = io.BytesIO()
        soundfile.write(content, kept, self.rules.sampling_rate, format="WAV", subtype="PCM_16")
        path = Path(self.out, item.target)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content.getvalue())
        return status


def _read(item: Item) -> tuple[np.ndarray, int]:
    """The sound mixed down to one channel, [T] float32, and its sampling rate in Hz."""
    with open_audio(item.source) as sound:
        rate = sound.samplerate
        start, n = 0, sound.frames
        if item.start is not None and item.end is not None:
            start = min(sound.frames, round(item.start * rate))
            n = min(sound.frames - start, round((item.end - item.start) * rate))
        audio = next_frames(sound, n, item.source, start=start)
    return (audio[:, 0] if audio.shape[1] == 1 else audio.mean(axis=1)), rate


def _resampled(audio: np.ndarray, rate: int, target: int) -> np.ndarray:
    """The sound resampled by soxr in high quality: ceil(T * target / rate) samples."""
    n = int(np.ceil(len(audio) * target / rate))
    new = soxr.resample(audio, rate, target, quality="HQ")[:n]
    return np.pad(new, (0, n - len(new)))


def items_of(addition: Addition, part: Path, dev: Path) -> list[Item]:
    """Files to convert for an addition.

    Args:
        addition: the addition.
        part: folder of the other corpus.
        dev: folder of the development set, which holds the lists of picked files.

    Raises:
        InputError: the list is missing, names a path outside of the folders or a target twice; a class has no folder.
    """
    source = part / addition.folder
    return _of_classes(addition, source) if addition.picks is None else _picked(addition, source, dev / addition.picks)


def _picked(addition: Addition, source: Path, picks: Path) -> list[Item]:
    data = read_json(picks, "a list of picked files")
    if not isinstance(data, list):
        raise InputError(picks, f"a JSON {type(data).__name__}", "a list of picked files")
    items, seen = [], set()
    for i, row in enumerate(data):
        names = [row.get(key) if isinstance(row, dict) else None for key in ("file_name", "convert_path")]
        for key, name in zip(("file_name", "convert_path"), names, strict=True):
            if not isinstance(name, str) or not name or name.startswith("/") or ".." in Path(name).parts:
                raise InputError(f"{picks}[{i}].{key}", repr(name)[:80], "a path below the folder")
        if names[1] in seen:
            raise InputError(f"{picks}[{i}].convert_path", f"{names[1]} twice", "each path once")
        seen.add(names[1])
        items.append(Item(str(source / str(names[0])), f"{addition.into}/{names[1]}"))
    return items


def _of_classes(addition: Addition, source: Path) -> list[Item]:
    """All wav files of the addition's classes in its splits."""
    items = []
    for split, here in addition.splits.items():
        for name in addition.classes:
            folder = source / split / name
            try:
                names = sorted(entry for entry in os.listdir(folder) if entry.endswith(".wav"))
            except OSError as e:
                raise InputError(
                    folder, e.strerror or "no folder", f"a folder for each class of {addition.name}"
                ) from e
            items += [Item(str(folder / file), f"{addition.into}/{here}/{name}/{file}") for file in names]
    return items


def convert(name: str, items: Sequence[Item], out: str | Path, rules: KeepRules, nj: int = 1) -> Counter[str]:
    """Converts files; an interrupted run is resumed.

    ``<out>/.<name>.jsonl`` records the status of each file. A file is converted again if its source, the rules or its
    result have changed. The counts are written to ``<out>/<name>.json``.

    Args:
        name: name of the addition.
        items: the files.
        out: folder of results.
        rules: which sounds are kept.
        nj: number of processes.

    Returns:
        Number of files by status.

    Raises:
        InputError: a source is missing (nothing is converted then) or is no audio (the others are converted).
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    absent = [item.source for item in items if not os.path.isfile(item.source)]
    if absent:
        raise InputError(f"{name}: {shortened(absent, 1)}", "no file", f"the {len(items)} files that are picked")
    log = out / f".{name}.jsonl"
    stamps = [_stamp(item, rules) for item in items]
    done = _done(log, out)
    todo = [(i, stamp) for i, stamp in zip(items, stamps, strict=True) if done.get(i.target, ("", ""))[0] != stamp]
    status = {item.target: done[item.target][1] for item in items if item.target in done}
    if todo:
        logging.info("%s: %d files, %d of them to convert", name, len(items), len(todo))
        results = run_jobs(Convert(str(out), rules), [item for item, _ in todo], nj, name)
        with log.open("a", encoding="utf-8") as lines:
            for (item, stamp), result in zip(todo, results, strict=True):
                status[item.target] = result
                if not result.startswith(UNREADABLE):
                    lines.write(json.dumps([item.target, stamp, result]) + "\n")
                    lines.flush()
    bad = [item.source for item in items if status[item.target].startswith(UNREADABLE)]
    if bad:
        why = next(s for s in status.values() if s.startswith(UNREADABLE)).partition(": ")[2]
        raise InputError(f"{name}: {shortened(bad, 1)}", why, "audio")
    counts = Counter(status.values())
    write_json(out / f"{name}.json", summary(counts), indent=1)
    return counts


def summary(counts: Mapping[str, int]) -> dict[str, Any]:
    """Number of files, of kept and of removed ones, and of each status.

    Example:
        >>> summary({"selected": 2, "remove_too_short": 1})
        {'files': 3, 'kept': 2, 'removed': 1, 'statuses': {'remove_too_short': 1, 'selected': 2}}
    """
    kept = sum(n for status, n in counts.items() if status.startswith(SELECTED))
    total = sum(counts.values())
    return {"files": total, "kept": kept, "removed": total - kept, "statuses": dict(sorted(counts.items()))}


def statuses(name: str, out: str | Path) -> dict[str, str]:
    """Status by target of the files that were converted into a folder."""
    return {target: status for target, (_, status) in _done(Path(out, f".{name}.jsonl"), Path(out)).items()}


def _done(log: Path, out: Path) -> dict[str, tuple[str, str]]:
    """Stamp and status by target from a log whose last line may be cut off; files that are missing are left out."""
    done: dict[str, tuple[str, str]] = {}
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else []:
        with suppress(ValueError):
            target, stamp, status = json.loads(line)
            if not status.startswith(SELECTED) or (out / target).is_file():
                done[target] = stamp, status
    return done


def _stamp(item: Item, rules: KeepRules) -> str:
    stat = os.stat(item.source)
    return f"{stat.st_size} {stat.st_mtime_ns} {item.start} {item.end} {sorted(vars(rules).items())}"
