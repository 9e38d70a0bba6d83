"""Scene -> samples, by the rules of DCASE 2026 Task 4 (SpAudSyn), on the CPU.

Fast enough to run inside a training data loader:

* convolution by overlap-add, with a transform length that depends on the impulse response alone. So its spectrum is
  made once and kept, short events cost one short block, and the transforms stay within the processor's cache;
* one forward transform of the source serves all channels and the dry target;
* decoded audio and spectra are kept within byte budgets a process (:func:`set_cache_budget`). A data loader that forks
  its workers shares what the parent has loaded before (:func:`preload`).

Signals and spectra are float32 and complex64. float64 is used where sums or normalisations decide a level: the energy
of an impulse response, of a wet event and of the background.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.fft
import soundfile
import soxr

from s5.errors import InputError
from s5.scene.cache import ByteCache
from s5.scene.room import SofaRoom, open_room
from s5.scene.spec import Event, Scene

MIN_TRANSFORM = 4096
"""Below this many samples the overhead of a block outweighs its transform."""

TRANSFORM_FACTOR = 2.5
"""Transform length over that of the impulse response; at least 2. Between 2 and 4 this was the fastest (1 to 4 s)."""

REFERENCE_CHANNEL = 0


@dataclass
class Rendered:
    """What a scene sounds like. Sources are in onset order; K is their number, M the number of channels.

    Attributes:
        mixture: [M, T] float32.
        dry: [K, T] float32, targets: the source through the direct part of the reference channel's impulse response.
        wet: [K, T] float32, the whole reverberant source on the reference channel.
        labels: of the K sources.
    """

    mixture: np.ndarray
    dry: np.ndarray
    wet: np.ndarray
    labels: list[str]


@dataclass
class _Filter:
    """Spectra [M + 1, F] complex64 of an impulse response's M channels and of its direct part."""

    spectra: np.ndarray
    n_fft: int
    length: int


_audio: ByteCache[np.ndarray] = ByteCache(192 << 20, lambda x: x.nbytes)
_filters: ByteCache[_Filter] = ByteCache(256 << 20, lambda x: x.spectra.nbytes)


def set_cache_budget(audio: int = 192 << 20, filters: int = 256 << 20) -> None:
    """Sets how many bytes of decoded audio and of impulse responses' spectra this process keeps."""
    _audio.resize(audio)
    _filters.resize(filters)


def preload(
    files: Iterable[str | Path],
    sampling_rate: int,
    rooms: Iterable[str | Path] = (),
    direct_range_ms: Sequence[float] = (6, 50),
) -> None:
    """Fills the caches of this process as far as their budgets go, so that workers forked from it share them.

    Args:
        files: audio, e.g. :meth:`s5.scene.Sampler.files`; mono files are kept ready to use.
        sampling_rate: the scenes', Hz.
        rooms: SOFA files, e.g. :meth:`s5.scene.Sampler.rooms`.
        direct_range_ms: the scenes'.

    Raises:
        InputError: an unreadable file.
    """
    for file in files:
        path = str(file)
        n_frames, rate, channels = _info(path)
        if _audio.used + 4 * channels * n_frames > 0.9 * _audio.budget:
            break
        if channels == 1:
            _source(path, 0, n_frames, rate, sampling_rate)
        else:
            _read(path, 0, n_frames)
    for room in map(open_room, rooms):
        for position in room.positions.tolist():
            if _filters.used > 0.9 * _filters.budget:
                return
            _filter(room, position, sampling_rate, direct_range_ms)


def render(scene: Scene, root: str | Path = ".", sources: bool = True) -> Rendered:
    """Renders a scene.

    Background: scaled to ``ref_db + snr`` (10 log10 of the mean square over channels and samples). Event: read, mono,
    resampled, divided by its peak, convolved with the position's impulse response (its mean energy over channels being
    1), scaled so that the whole wet signal, tail included, has the level ``ref_db + snr``, placed at its onset and cut
    at the scene's end. The dry target takes the same scale. All-zero sources stay as they are.

    Args:
        scene: what to render; channels, sampling rate and duration are its own.
        root: folder that the scene's relative paths start from.
        sources: whether the dry and wet sources are wanted; without them (``dry`` and ``wet`` are then [0, T]) the
            mixture is the same and made sooner.

    Raises:
        InputError: a file is missing or unreadable, or does not fit the scene.
    """
    config = scene.config
    room = open_room(os.path.join(root, scene.room.sofa_path))
    mixture = np.zeros((room.n_channels, config.n_samples), dtype=np.float32)
    for event in scene.bg_events:
        mixture += _background(event, scene, room.n_channels, root)
    events = sorted(scene.fg_events, key=lambda event: event.event_time)
    dry = np.zeros((len(events) if sources else 0, config.n_samples), dtype=np.float32)
    wet = np.zeros_like(dry)
    for k, event in enumerate(events):
        start, signal = _event(event, scene, room, _path(root, config.foreground_dir, event), dry=sources)
        _add(mixture, signal[: room.n_channels], start)
        if not sources:
            continue
        _add(wet[k : k + 1], signal[REFERENCE_CHANNEL : REFERENCE_CHANNEL + 1], start)
        _add(dry[k : k + 1], signal[-1:], start)
    for event in sorted(scene.int_events, key=lambda event: event.event_time):
        start, signal = _event(event, scene, room, _path(root, config.interference_dir, event), dry=False)
        _add(mixture, signal, start)
    return Rendered(mixture, dry, wet, [str(event.label) for event in events])


def _path(root: str | Path, folder: str | None, event: Event) -> str:
    """Where an event's file is: SpAudSyn accepts names with or without their folder in front."""
    if folder is not None and not event.source_file.startswith(folder):
        return os.path.join(root, folder, event.source_file)
    return os.path.join(root, event.source_file)


def _add(target: np.ndarray, signal: np.ndarray, start: int) -> None:
    n = min(signal.shape[-1], target.shape[-1] - start)
    if n > 0:
        target[:, start : start + n] += signal[:, :n]


def _event(event: Event, scene: Scene, room: SofaRoom, path: str, dry: bool = True) -> tuple[int, np.ndarray]:
    """Onset (sample) and scaled signal [M + 1, n]: the wet channels and the dry target; [M, n] without ``dry``."""
    rate, n_wet = scene.config.sr, room.n_channels
    source = _event_source(event, path, rate)
    assert event.event_position is not None
    response = _filter(room, event.event_position[0], rate, scene.room.direct_range_ms)
    signal = _convolve(source, response, n_wet + dry)
    energy = _energy(signal[:n_wet])
    if energy > 0:
        level = 10 * np.log10(energy / (n_wet * signal.shape[1]))
        signal *= np.float32(10 ** ((scene.config.ref_db + event.snr - level) / 20))
    return int(event.event_time * rate), signal


def _event_source(event: Event, path: str, rate: int) -> np.ndarray:
    """The part of the file that an event uses: [n] float32, mono, at the scene's rate, peak 1 (or all zero)."""
    file_rate = _info(path)[1]
    # Truncated, not rounded, as the official synthesiser reads.
    start, n_frames = int((event.source_time or 0) * file_rate), int(event.event_duration * file_rate)
    return _source(path, start, n_frames, file_rate, rate)


def _source(path: str, start: int, n_frames: int, file_rate: int, rate: int) -> np.ndarray:
    n_total = _info(path)[0]
    whole = start == 0 and n_frames >= n_total and n_total * 4 * 8 <= _audio.budget

    def prepare() -> np.ndarray:
        mono = _read(path, start, n_frames, keep=not whole).mean(axis=0, dtype=np.float32)
        if not len(mono):
            raise InputError(path, f"no sample at {start / file_rate:g} s", "audio")
        mono = _resample(mono[None], file_rate, rate)[0]
        peak = np.abs(mono).max()
        return mono / peak if peak > 0 else mono

    return _audio.get((path, _stamp(path), rate), prepare) if whole else prepare()


def _background(event: Event, scene: Scene, n_channels: int, root: str | Path) -> np.ndarray:
    """[M, T] float32, scaled."""
    config = scene.config
    path = _path(root, config.background_dir, event)
    n_frames, file_rate, channels = _info(path)
    if channels not in (1, n_channels):
        raise InputError(path, f"{channels} channels", f"{n_channels}, as the room's impulse responses have")
    if event.source_time is None:
        ambient = _resample(_read(path, 0, n_frames), file_rate, config.sr)
        if not ambient.shape[1]:
            raise InputError(path, "no sample", "audio")
        ambient = np.tile(ambient, (1, -(-config.n_samples // ambient.shape[1])))
    else:
        start, n = int(event.source_time * file_rate), int(event.event_duration * file_rate)
        ambient = _resample(_read(path, start, n), file_rate, config.sr)
        if ambient.shape[1] + 1 < config.n_samples:
            raise InputError(path, f"{n_frames} frames", f"{start + n}, which the scene's background reaches")
        if ambient.shape[1] < config.n_samples:  # by one sample, where times were truncated twice
            ambient = np.pad(ambient, ((0, 0), (0, 1)))
    ambient = ambient[:, : config.n_samples]
    energy = _energy(ambient)
    if energy == 0:
        return ambient
    return ambient * np.float32(10 ** ((config.ref_db + event.snr - 10 * np.log10(energy / ambient.size)) / 20))


def _filter(room: SofaRoom, position: Sequence[float], rate: int, direct_range_ms: Sequence[float]) -> _Filter:
    """The impulse response of a position, normalised, with its direct part, as spectra."""

    def make() -> _Filter:
        index = room.index(position)
        rir = _resample(room.rir(index), room.sampling_rate, rate)
        energy = np.square(rir).sum(axis=1).mean()
        if energy == 0:
            raise InputError(f"{room.path}: Data.IR[{index}]", "only zeros", "an impulse response")
        rir /= np.sqrt(energy)
        peak = int(np.abs(rir[REFERENCE_CHANNEL]).argmax())
        before, after = (int(ms * rate / 1000) for ms in direct_range_ms)
        direct = np.zeros((1, rir.shape[1]))
        part = slice(max(0, peak - before), peak + after + 1)
        direct[0, part] = rir[REFERENCE_CHANNEL, part]
        n_fft = scipy.fft.next_fast_len(max(MIN_TRANSFORM, int(TRANSFORM_FACTOR * rir.shape[1])), real=True)
        spectra = scipy.fft.rfft(np.concatenate([rir, direct]).astype(np.float32), n_fft)
        return _Filter(spectra, n_fft, rir.shape[1])

    return _filters.get((room.path, room.stamp, *position, rate, *direct_range_ms), make)


def _convolve(source: np.ndarray, response: _Filter, n_channels: int) -> np.ndarray:
    """Full convolution [n_channels, n + L - 1] float32 of ``source`` [n] with the first channels of a filter."""
    n, n_fft, tail = len(source), response.n_fft, response.length - 1
    block = n_fft - tail  # at least as long as the tail, so that a tail reaches into the next block only
    n_blocks = -(-n // block)
    blocks = np.zeros((n_blocks, block), dtype=np.float32)
    blocks.reshape(-1)[:n] = source
    spectrum = scipy.fft.rfft(blocks, n_fft)
    out = scipy.fft.irfft(response.spectra[:n_channels, None] * spectrum, n_fft)
    whole = np.empty((n_channels, n_blocks + 1, block), dtype=np.float32)
    whole[:, :-1] = out[..., :block]
    whole[:, -1] = 0
    whole[:, 1:, :tail] += out[..., block:]
    return whole.reshape(n_channels, -1)[:, : n + tail]


def _energy(signal: np.ndarray) -> float:
    """Sum of squares: short stretches in float32, their sum in float64."""
    n = signal.shape[1] // 1024 * 1024
    stretches = signal[:, :n].reshape(len(signal), -1, 1024)
    rest = signal[:, n:]
    energies = np.einsum("cbt,cbt->cb", stretches, stretches), np.einsum("ct,ct->c", rest, rest)
    return float(sum(energy.sum(dtype=np.float64) for energy in energies))


def _resample(signal: np.ndarray, rate: float, target: float) -> np.ndarray:
    """[C, n] -> [C, ceil(n * target / rate)], soxr's high quality."""
    if rate == target or not signal.shape[1]:
        return signal
    n = int(np.ceil(signal.shape[1] * (target / rate)))
    out = np.zeros((len(signal), n), dtype=signal.dtype)
    for channel, row in zip(out, signal, strict=True):
        new = soxr.resample(row, rate, target, quality="HQ")
        channel[: len(new)] = new[:n]
    return out


def _stamp(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError as e:
        raise InputError(path, e.strerror or "no file", "an audio file") from e
    return stat.st_mtime_ns, stat.st_size


def _open(path: str) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, OSError) as e:
        found = "a file that libsndfile cannot read" if os.path.isfile(path) else "no file"
        raise InputError(path, found, "an audio file") from e


_infos: dict[str, tuple[tuple[int, int], tuple[int, int, int]]] = {}


def _info(path: str) -> tuple[int, int, int]:
    """Frames, sampling rate and channels of a file."""
    stamp = _stamp(path)
    kept = _infos.get(path)
    if kept is None or kept[0] != stamp:
        with _open(path) as sound:
            kept = stamp, (sound.frames, sound.samplerate, sound.channels)
        _infos[path] = kept
    return kept[1]


def _read(path: str, start: int, n_frames: int, keep: bool = True) -> np.ndarray:
    """Samples [C, n] float32 of a file from a frame on; fewer where it ends. Short files are decoded once and kept."""
    n_total, _, channels = _info(path)

    def decode(start: int, n_frames: int) -> np.ndarray:
        with _open(path) as sound:
            try:
                sound.seek(start)
                data = sound.read(n_frames, dtype="float32", always_2d=True).T
            except soundfile.LibsndfileError as e:
                raise InputError(path, f"damaged audio ({e.error_string})", "an audio file") from e
        if data.shape[1] < min(n_frames, n_total - start):
            raise InputError(path, f"{data.shape[1]} frames", f"{min(n_frames, n_total - start)} (a truncated file?)")
        if not np.isfinite(data).all():
            raise InputError(path, "samples that are not finite", "audio")
        return np.ascontiguousarray(data)

    start = min(start, n_total)
    # The file's size alone decides whether it is decoded whole or by slice, never what the cache happens to hold.
    if keep and n_total * channels * 4 * 8 <= _audio.budget:
        return _audio.get((path, _stamp(path)), lambda: decode(0, n_total))[:, start : start + n_frames]
    return decode(start, n_frames)
