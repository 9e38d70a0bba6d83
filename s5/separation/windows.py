"""Separates recordings of any length in overlapping windows with cross-fades, in constant memory.

Each window is separated like a mixture. The order of its sources may differ from the next window's, so sources are
followed from window to window as tracks: within a label, by their correlation in the overlap. A label has as many
tracks as its greatest number of sources in one window; a track does not identify a source beyond that.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from s5.data import Clipped, audio_info, next_frames, open_audio, whole_numbers
from s5.data.names import source_name
from s5.utils.errors import InputError

Separated = tuple[Sequence[str], Sequence[np.ndarray] | np.ndarray]
"""Labels of the active sources of a window, possibly none, and as many waveforms [n]."""
Separate = Callable[[Sequence[np.ndarray]], Iterable[Separated]]
"""Function of windows [M, n] float32 of one length that returns the labels and sources of each.

With known labels: ``lambda xs: [(labels, separator.separate(x, labels)[: len(labels)]) for x in xs]``.
"""


class Track(NamedTuple):
    """A source over a whole recording: its label, and its number among the tracks of the label, from 0."""

    label: str
    number: int


class TrackFile(NamedTuple):
    """A track in a file, and the samples that 16 bits clipped."""

    path: Path
    track: Track
    clipped: Clipped


Waveforms = Mapping[Track, np.ndarray]


@dataclass(frozen=True)
class Segment:
    """A segment of the result.

    Attributes:
        start: first sample in the recording.
        length: length in samples.
        sources: [length] float32 of each active track; the others are silent.
    """

    start: int
    length: int
    sources: Waveforms


def separate_windows(
    blocks: Iterable[np.ndarray], separate: Separate, window: int, overlap: int, batch_size: int = 1
) -> Iterator[Segment]:
    """Separates a recording that arrives block by block.

    Windows of ``window`` samples start every ``window - overlap`` samples. The last window ends with the recording, so
    its overlap may be longer. Neighbours are cross-faded over the last ``overlap`` samples of the earlier one by
    squared sines that sum to one. A recording of at most one window is separated as a whole. The memory holds less than
    three windows of the input, one batch of windows, and the end of the window before.

    Args:
        blocks: consecutive blocks [M, any number of samples].
        separate: see :data:`Separate`.
        window: window length in samples.
        overlap: overlap in samples, at most half a window.
        batch_size: number of windows per call of ``separate``.

    Yields:
        Consecutive segments from sample 0 to the end of the recording.

    Raises:
        InputError: the overlap does not fit the window, there is no sample, or waveforms differ in length from the
            window.
    """
    if not 0 < overlap <= window // 2:
        raise InputError("overlap", f"{overlap} samples", f"1 to {window // 2}, half a window")
    tail: Waveforms = {}  # the end of the window before, for the cross-fade
    written = 0
    for (start, length, last), (labels, sources) in _batched(
        _windows(blocks, window, window - overlap), separate, batch_size
    ):
        _check(labels, sources, length)
        # A last window that starts earlier repeats written samples, which only serve as context.
        sources = [np.asarray(source, dtype=np.float32)[written - start :] for source in sources]
        length -= written - start
        tracks = _follow(labels, sources, tail)
        faded = _cross_fade(tail, tracks, overlap, length) if written else tracks
        ready = length if last else length - overlap
        yield Segment(written, ready, {track: source[:ready] for track, source in faded.items()})
        tail = {track: source[ready:].copy() for track, source in tracks.items()}
        written += ready


def separate_long_file(
    recording: str | Path,
    folder: str | Path,
    separate: Separate,
    window: float = 10.0,
    overlap: float = 2.0,
    batch_size: int = 1,
) -> list[TrackFile]:
    """Separates a file of any length into ``<name>_<slot>_<Label>.wav``, one per track, as long as the recording.

    It reads the file and writes the results (16 bit, the recording's sampling rate) window by window. Slots number the
    tracks in the order of their beginning. After an error no file remains.

    Args:
        recording: WAV, FLAC or Ogg file.
        folder: output folder; created if it does not exist.
        separate: see :data:`Separate`.
        window: window length in seconds.
        overlap: overlap in seconds.
        batch_size: number of windows per call of ``separate``.

    Returns:
        The files, in the order of their slots.

    Raises:
        InputError: the file cannot be read, samples are not finite, or as in :func:`separate_windows`.
    """
    _, _, fs = audio_info(recording)
    Path(folder).mkdir(parents=True, exist_ok=True)
    segments = separate_windows(_read(recording), separate, round(window * fs), round(overlap * fs), batch_size)
    writer = _TrackWriter(Path(folder), Path(recording).stem, fs)
    try:
        for segment in segments:
            writer.write(segment)
        return writer.finish()
    finally:
        writer.clean()


def fade_in(n: int) -> np.ndarray:
    """Rising half of a cross-fade, a squared sine: [n] float32; ``1 - fade_in(n)`` is the falling half.

    Example:
        >>> fade_in(3).round(2).tolist()
        [0.15000000596046448, 0.5, 0.8500000238418579]
    """
    return (np.sin(np.pi / 2 * np.arange(1, n + 1) / (n + 1)) ** 2).astype(np.float32)


def _windows(blocks: Iterable[np.ndarray], window: int, hop: int) -> Iterator[tuple[int, np.ndarray, bool]]:
    """Yields (first sample, samples [M, window], whether it is the last) of each window."""
    buffer: np.ndarray | None = None  # starts with the window before
    start = 0  # of the buffer
    offset = 0  # of the next window in the buffer
    for block in blocks:
        for first in range(0, block.shape[1], window):  # pieces keep the buffer small
            piece = np.asarray(block[:, first : first + window], dtype=np.float32)
            buffer = piece if buffer is None else np.concatenate((buffer, piece), axis=1)
            # A window is not the last as soon as a sample follows it.
            while buffer.shape[1] > offset + window:
                buffer, start = buffer[:, offset:], start + offset
                yield start, buffer[:, :window], False
                offset = hop
    if buffer is None:
        raise InputError("recording", "no sample", "audio")
    length = min(window, buffer.shape[1])
    yield start + buffer.shape[1] - length, buffer[:, -length:], True


def _batched(
    windows: Iterator[tuple[int, np.ndarray, bool]], separate: Separate, batch_size: int
) -> Iterator[tuple[tuple[int, int, bool], Separated]]:
    """Yields (first sample, length, whether it is the last) of each window with its labels and sources."""
    while batch := list(islice(windows, batch_size)):
        found = separate([samples for _, samples, _ in batch])
        for (start, samples, last), one in zip(batch, found, strict=True):
            yield (start, samples.shape[1], last), one


def _check(labels: Sequence[str], sources: Sequence[np.ndarray] | np.ndarray, n: int) -> None:
    shapes = [list(np.shape(source)) for source in sources]
    if len(labels) != len(sources) or any(shape != [n] for shape in shapes):
        raise InputError("window", f"{len(labels)} labels, sources {shapes}", f"a waveform of {n} samples per label")


def _follow(labels: Sequence[str], sources: Sequence[np.ndarray], tail: Waveforms) -> dict[Track, np.ndarray]:
    """Assigns each source to a track.

    Args:
        labels: labels of the sources.
        sources: waveforms [n] from the start of the overlap.
        tail: waveform [overlap] of each active track of the window before.
    """
    tracks: dict[Track, np.ndarray] = {}
    for label in dict.fromkeys(labels):
        mine = [source for name, source in zip(labels, sources, strict=True) if name == label]
        before = [track for track in tail if track.label == label]
        pairs = _agreeing(mine, [tail[track] for track in before])
        tracks |= {before[j]: mine[i] for i, j in pairs}
        # Sources without a track take the first unused ones.
        rest = [source for i, source in enumerate(mine) if i not in dict(pairs)]
        free = (track for track in (Track(label, k) for k in count()) if track not in tracks and track not in before)
        tracks |= dict(zip(free, rest, strict=False))
    return tracks


def _agreeing(sources: Sequence[np.ndarray], tails: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Pairs (source, tail) with the highest summed correlation over the overlap."""
    if len(sources) <= 1 >= len(tails) or not sources or not tails:
        return [(0, 0)][: min(len(sources), len(tails))]
    from scipy.optimize import linear_sum_assignment

    n = len(tails[0])
    unit = [np.stack([x[:n] / max(float(np.linalg.norm(x[:n])), 1e-12) for x in group]) for group in (sources, tails)]
    return list(zip(*linear_sum_assignment(unit[0] @ unit[1].T, maximize=True), strict=True))


def _cross_fade(before: Waveforms, after: Waveforms, overlap: int, length: int) -> dict[Track, np.ndarray]:
    """Cross-fades all tracks to [length]; a track in only one window fades from or into silence."""
    rise = fade_in(overlap)
    faded: dict[Track, np.ndarray] = {}
    for track in dict.fromkeys([*before, *after]):
        waveform = after[track].copy() if track in after else np.zeros(length, np.float32)
        waveform[:overlap] *= rise
        if track in before:
            waveform[:overlap] += (1 - rise) * before[track]
        faded[track] = waveform
    return faded


def _read(recording: str | Path) -> Iterator[np.ndarray]:
    """Yields the blocks of a file [M, at most a second] float32."""
    with open_audio(recording) as sound:
        for first in range(0, sound.frames, sound.samplerate):
            yield next_frames(sound, min(sound.samplerate, sound.frames - first), recording).T
        if not sound.frames:
            raise InputError(recording, "no sample", "audio")


class _TrackWriter:
    """Writes one file per track, opened when the track begins; all files have the same length at any time."""

    def __init__(self, folder: Path, name: str, fs: int) -> None:
        self.folder, self.name, self.fs = folder, name, fs
        self.files: dict[Track, tuple[Path, soundfile.SoundFile]] = {}
        self.clipped: dict[Track, Clipped] = {}

    def write(self, segment: Segment) -> None:
        for track in segment.sources:
            if track not in self.files:
                handle, path = tempfile.mkstemp(dir=self.folder, prefix=f".{self.name}.", suffix=".wav")
                os.close(handle)
                file = soundfile.SoundFile(path, "w", self.fs, 1, subtype="PCM_16", format="WAV")
                self.files[track] = (Path(path), file)
                self.clipped[track] = Clipped()
                self._silence(file, segment.start)
        for track, (_, file) in self.files.items():
            if track in segment.sources:
                samples, clipped = whole_numbers(segment.sources[track], 16)
                file.write(samples.astype(np.int16))
                self.clipped[track] = self.clipped[track].joined(clipped)
            else:
                self._silence(file, segment.length)

    def finish(self) -> list[TrackFile]:
        results = []
        for slot, (track, (path, file)) in enumerate(list(self.files.items())):
            file.close()
            os.chmod(path, 0o644)
            target = self.folder / source_name(self.name, slot, track.label)
            os.replace(path, target)
            results.append(TrackFile(target, track, self.clipped[track]))
        self.files = {}
        return results

    def clean(self) -> None:
        for path, file in self.files.values():
            file.close()
            path.unlink(missing_ok=True)

    def _silence(self, file: soundfile.SoundFile, length: int) -> None:
        for first in range(0, length, self.fs):
            file.write(np.zeros(min(self.fs, length - first), np.int16))
