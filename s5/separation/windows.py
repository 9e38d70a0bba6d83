"""Recordings of any length: overlapping windows, cross-faded, in memory that does not grow with the recording.

A window is separated like a mixture of its own. What one window calls its second source may be the next one's first, so
sources are followed from window to window as tracks: within a label, by how well they agree where the windows overlap.
A label has as many tracks as it has sources in one window at most; a track is no identity beyond that.
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
"""What is done with windows [M, n] float32 of one length: the labels and sources of each.

The same labels in all windows: ``lambda xs: [(labels, separator.separate(x, labels)[: len(labels)]) for x in xs]``.
"""


class Track(NamedTuple):
    """One source over a whole recording: its label, and which one of that label it is, from 0."""

    label: str
    number: int


class TrackFile(NamedTuple):
    """A track that was written to a file, and what of it 16 bits could not hold."""

    path: Path
    track: Track
    clipped: Clipped


Waveforms = Mapping[Track, np.ndarray]


@dataclass(frozen=True)
class Segment:
    """A stretch of the result.

    Attributes:
        start: its first sample in the recording.
        length: in samples.
        sources: [length] float32 of every track that sounds in it; the others are silent there.
    """

    start: int
    length: int
    sources: Waveforms


def separate_windows(
    blocks: Iterable[np.ndarray], separate: Separate, window: int, overlap: int, batch_size: int = 1
) -> Iterator[Segment]:
    """Separates a recording that arrives piece by piece.

    Windows of ``window`` samples start every ``window - overlap`` samples; the last one ends with the recording, and
    so overlaps the one before by more. Neighbours are cross-faded over the last ``overlap`` samples of the earlier one
    by squared sines, which sum to one: what both agree on comes through unchanged. A recording of at most one window is
    separated as it is. Kept in memory: less than three windows of the input, a batch of them, and the end of the window
    before.

    Args:
        blocks: [M, any number of samples] each, one after the other.
        separate: see :data:`Separate`.
        window: samples.
        overlap: samples, at most half a window.
        batch_size: windows that are separated at once.

    Yields:
        Consecutive segments from sample 0 on that add up to the recording's length.

    Raises:
        InputError: an overlap that does not fit the window, no sample at all, or waveforms of another length than the
            window's.
    """
    if not 0 < overlap <= window // 2:
        raise InputError("overlap", f"{overlap} samples", f"1 to {window // 2}, half a window")
    tail: Waveforms = {}  # the end of the window before, which the next one is faded into
    written = 0
    for (start, length, last), (labels, sources) in _batched(
        _windows(blocks, window, window - overlap), separate, batch_size
    ):
        _check(labels, sources, length)
        # A last window that starts early begins with what is written already: context alone.
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
    """Separates a file of any length into ``<name>_<slot>_<Label>.wav``, one a track, each as long as the recording.

    The file is read, and the results are written (16 bit, the recording's sampling rate), window by window. Slots count
    the tracks in the order in which they begin. Nothing is left behind if anything goes wrong.

    Args:
        recording: WAV, FLAC or Ogg.
        folder: where the results go; made if it is not there.
        separate: see :data:`Separate`.
        window: seconds.
        overlap: seconds.
        batch_size: windows that are separated at once.

    Returns:
        Each result.

    Raises:
        InputError: a file that cannot be read, samples that are not finite, or as in :func:`separate_windows`.
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
    """The rising half of a cross-fade, a squared sine: [n] float32; ``1 - fade_in(n)`` is the falling half.

    Example:
        >>> fade_in(3).round(2).tolist()
        [0.15000000596046448, 0.5, 0.8500000238418579]
    """
    return (np.sin(np.pi / 2 * np.arange(1, n + 1) / (n + 1)) ** 2).astype(np.float32)


def _windows(blocks: Iterable[np.ndarray], window: int, hop: int) -> Iterator[tuple[int, np.ndarray, bool]]:
    """(first sample, [M, window], whether it is the last) of each window; the last one ends with the recording."""
    buffer: np.ndarray | None = None  # begins where the window before began
    start = 0  # of the buffer
    offset = 0  # of the next window in the buffer
    for block in blocks:
        for first in range(0, block.shape[1], window):  # a long block in pieces, so that the buffer stays small
            piece = np.asarray(block[:, first : first + window], dtype=np.float32)
            buffer = piece if buffer is None else np.concatenate((buffer, piece), axis=1)
            # A window goes out once there is a sample behind it: only then is it not the last.
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
    """(first sample, length, whether it is the last) of each window, and what is in it."""
    while batch := list(islice(windows, batch_size)):
        found = separate([samples for _, samples, _ in batch])
        for (start, samples, last), one in zip(batch, found, strict=True):
            yield (start, samples.shape[1], last), one


def _check(labels: Sequence[str], sources: Sequence[np.ndarray] | np.ndarray, n: int) -> None:
    shapes = [list(np.shape(source)) for source in sources]
    if len(labels) != len(sources) or any(shape != [n] for shape in shapes):
        raise InputError("window", f"{len(labels)} labels, sources {shapes}", f"a waveform of {n} samples a label")


def _follow(labels: Sequence[str], sources: Sequence[np.ndarray], tail: Waveforms) -> dict[Track, np.ndarray]:
    """Gives each source its track.

    Args:
        labels: of the sources.
        sources: [n] each, from the beginning of the overlap on.
        tail: [overlap] of each track that sounded in the window before.
    """
    tracks: dict[Track, np.ndarray] = {}
    for label in dict.fromkeys(labels):
        mine = [source for name, source in zip(labels, sources, strict=True) if name == label]
        before = [track for track in tail if track.label == label]
        pairs = _agreeing(mine, [tail[track] for track in before])
        tracks |= {before[j]: mine[i] for i, j in pairs}
        # What goes on in none of them takes the first tracks that are not in use.
        rest = [source for i, source in enumerate(mine) if i not in dict(pairs)]
        free = (track for track in (Track(label, k) for k in count()) if track not in tracks and track not in before)
        tracks |= dict(zip(free, rest, strict=False))
    return tracks


def _agreeing(sources: Sequence[np.ndarray], tails: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Pairs (source, tail), as many as there can be, of the highest summed correlation over the overlap."""
    if len(sources) <= 1 >= len(tails) or not sources or not tails:
        return [(0, 0)][: min(len(sources), len(tails))]
    from scipy.optimize import linear_sum_assignment

    n = len(tails[0])
    unit = [np.stack([x[:n] / max(float(np.linalg.norm(x[:n])), 1e-12) for x in group]) for group in (sources, tails)]
    return list(zip(*linear_sum_assignment(unit[0] @ unit[1].T, maximize=True), strict=True))


def _cross_fade(before: Waveforms, after: Waveforms, overlap: int, length: int) -> dict[Track, np.ndarray]:
    """[length] of all tracks of both; where a track is in one of them alone, it fades from or into silence."""
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
    """[M, about a second] float32 of a file, one after the other."""
    with open_audio(recording) as sound:
        for first in range(0, sound.frames, sound.samplerate):
            yield next_frames(sound, min(sound.samplerate, sound.frames - first), recording).T
        if not sound.frames:
            raise InputError(recording, "no sample", "audio")


class _TrackWriter:
    """A file a track, opened when the track begins; all have the same length at any time."""

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
