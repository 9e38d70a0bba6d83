"""Sounds of other corpora for the development set, by the challenge's rules: what is kept, and in which form.

The rules, in their order (:class:`s5.challenge.corpus.config.KeepRules`), and the status that a file gets:

    remove_low_amplitude                     its peak is below 0.02
    remove_too_short                         it is shorter than 0.1 s
    remove_too_short_after_trim              it is so without the zeros at its ends
    remove_contain_low_amplitude_segment     10 s in a row stay below 0.02
    selected, _trim, _resampled              kept; zeros at its ends cut; brought to 32 kHz

These are the statuses of the baselines' scripts (add_sound_event.py, add_interference.py), and the files are the same.
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
    """A file to convert."""

    source: str
    target: str
    """Below the folder of the addition's results, e.g. ``sound_event/train/Speech/p001/a.wav``."""
    start: float | None = None
    """Seconds; with ``end`` the part of the file that is meant."""
    end: float | None = None


def judge(audio: np.ndarray, rate: int, rules: KeepRules) -> tuple[str, np.ndarray]:
    """Status of a sound, and what is kept of it.

    Args:
        audio: [T] float32, full scale 1.
        rate: Hz.
        rules: to judge by.

    Returns:
        Status without ``_resampled``; the sound without zeros at its ends.

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
    """Whether a stretch of n samples, at a multiple of ``shift``, stays below the peak."""
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
        """Writes what is kept. Returns the status; ``unreadable: <why>`` for a file that is no audio."""
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
    """[T] float32 mixed down, and the rate in Hz."""
    with open_audio(item.source) as sound:
        rate = sound.samplerate
        start, n = 0, sound.frames
        if item.start is not None and item.end is not None:
            start = min(sound.frames, round(item.start * rate))
            n = min(sound.frames - start, round((item.end - item.start) * rate))
        audio = next_frames(sound, n, item.source, start=start)
    return (audio[:, 0] if audio.shape[1] == 1 else audio.mean(axis=1)), rate


def _resampled(audio: np.ndarray, rate: int, target: int) -> np.ndarray:
    """soxr's high quality, ceil(T * target / rate) samples."""
    n = int(np.ceil(len(audio) * target / rate))
    new = soxr.resample(audio, rate, target, quality="HQ")[:n]
    return np.pad(new, (0, n - len(new)))


def items_of(addition: Addition, part: Path, dev: Path) -> list[Item]:
    """The files of an addition.

    Args:
        addition: what joins.
        part: folder of the other corpus.
        dev: folder of the development set, which has the lists that pick.

    Raises:
        InputError: no such list, an entry that goes outside of the folders, a target twice; a class without folder.
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
            raise InputError(f"{picks}[{i}].convert_path", f"{names[1]} twice", "each once")
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
                raise InputError(folder, e.strerror or "no folder", f"one for each class of {addition.name}") from e
            items += [Item(str(folder / file), f"{addition.into}/{here}/{name}/{file}") for file in names]
    return items


def convert(name: str, items: Sequence[Item], out: str | Path, rules: KeepRules, nj: int = 1) -> Counter[str]:
    """Converts files, or what is left of them after an interrupted run.

    What became of each stands in ``<out>/.<name>.jsonl``; an item is done again if its source, the rules or its result
    are not as they were. ``<out>/<name>.json`` gets the counts.

    Args:
        name: of the addition.
        items: the files.
        out: folder of results.
        rules: what is kept.
        nj: processes.

    Returns:
        Number of files by status.

    Raises:
        InputError: sources that are missing (all are looked for first) or no audio (the others are converted).
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
    """Files, kept, removed, and the number of each status.

    Example:
        >>> summary({"selected": 2, "remove_too_short": 1})
        {'files': 3, 'kept': 2, 'removed': 1, 'statuses': {'remove_too_short': 1, 'selected': 2}}
    """
    kept = sum(n for status, n in counts.items() if status.startswith(SELECTED))
    total = sum(counts.values())
    return {"files": total, "kept": kept, "removed": total - kept, "statuses": dict(sorted(counts.items()))}


def statuses(name: str, out: str | Path) -> dict[str, str]:
    """Target -> status of what was converted into a folder."""
    return {target: status for target, (_, status) in _done(Path(out, f".{name}.jsonl"), Path(out)).items()}


def _done(log: Path, out: Path) -> dict[str, tuple[str, str]]:
    """Target -> stamp and status of a log's lines, of which the last may be cut off; kept files have to be there."""
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
