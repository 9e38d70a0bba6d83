"""Renders a scene by the rules of its challenge (:mod:`s5.scene.rendering.rules`) on the CPU.

The renderer is fast enough for a training's data loader:

* An event is one convolution with transforms of about its own length, at lengths for which the transform is fast. Long
  scenes use overlap-add.
* One forward transform of the source serves all channels. The direct part of an impulse response is short, so the dry
  target is convolved in short blocks.
* Recordings and impulse responses are read by slice if they were prepared (:mod:`s5.scene.ready`). The spectra of
  recurring impulse responses are cached within a budget of bytes.

Signals and spectra are float32 and complex64. Sums and normalizations that decide a level (the energy of an impulse
response, of a wet event and of the background) use float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import scipy.fft

from s5.scene import audio as recordings
from s5.scene.cache import ByteCache
from s5.scene.config import Rest
from s5.scene.ready import file_of, read
from s5.scene.rendering.motion import fade_parts
from s5.scene.rendering.plan import Plan, PlannedBackground, PlannedEvent, Response, plan
from s5.scene.rendering.room import ZERO_CHANNEL, SofaRoom, open_room
from s5.scene.rendering.rules import RenderRules
from s5.scene.rendering.variation import colour_filter, colour_room, vary
from s5.scene.spec import Scene
from s5.utils.errors import InputError

FILTER_BUDGET = 128 << 20
"""Budget of a process for the spectra of impulse responses, in bytes."""

LARGEST_TRANSFORM = 409_600
"""Longer wet events use overlap-add, unless their impulse response alone is about as long."""

SIZES = sorted(2**a * 5**b for a in range(5, 22) for b in (1, 2, 3) if 2000 <= 2**a * 5**b <= 1 << 24)
"""Transform lengths, at most 28 % apart. They are few, so that the library keeps their twiddle factors. Powers of two
alone are slower, because the channels of a batch then share lines of the processor's cache."""

Samples = TypeVar("Samples", bound=Any)


@dataclass
class Rendered:
    """A rendered scene. Sources are in the order of the slots (by onset, unless the scene says otherwise).

    Attributes:
        mixture: [M, T] float32, M channels.
        dry: [K, T] float32, targets: the source through the direct part of the reference channel's impulse response.
        wet: [K, T] float32, the whole reverberant source on the reference channel.
        labels: labels of the K sources.
        dry_interference: [I, T] float32, the I interferers in onset order, made as ``dry``; None unless requested.
        rest: [1, T] float32, what is left of the mixture (:data:`s5.scene.config.Rest`); None unless requested.
    """

    mixture: np.ndarray
    dry: np.ndarray
    wet: np.ndarray
    labels: list[str]
    dry_interference: np.ndarray | None = None
    rest: np.ndarray | None = None


@dataclass
class _Filter:
    """Spectra [C, F] complex64 of impulse responses of ``length`` samples from sample ``start`` on.

    If C is not all channels, ``power`` [F] float32 is the sum of the squared magnitudes of all channels.
    """

    spectra: np.ndarray
    n_fft: int
    length: int
    start: int = 0
    power: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        return self.spectra.nbytes + (0 if self.power is None else self.power.nbytes)


spectra: ByteCache[_Filter] = ByteCache(FILTER_BUDGET, lambda x: x.nbytes)


def render(
    scene: Scene, root: str | Path = ".", sources: bool = True, ready: str = "", rest: Rest = "none"
) -> Rendered:
    """Renders a scene.

    A background is scaled to ``ref_db + snr`` (10 log10 of the mean square over channels and samples). An event is
    read, mixed down, resampled and convolved with its position's impulse response (of mean energy 1 over channels). It
    is scaled so that the whole wet signal, with its tail, has the level ``ref_db + snr``, placed at its onset and cut
    at the scene's end. The dry target gets the same scale. All-zero sources stay unscaled.

    Args:
        scene: the scene; it decides channels, sampling rate and duration.
        root: folder that the scene's relative paths start from.
        sources: whether to render the dry and wet sources; without them ``dry`` and ``wet`` are [0, T], and the same
            mixture takes less time.
        ready: folder of prepared material (:mod:`s5.scene.ready`).
        rest: ``residual`` or ``noise`` also renders the dry interference and that rest of the mixture; the other
            samples stay the same. It requires ``sources``.

    Raises:
        InputError: a file is missing or unreadable, or does not fit the scene.
    """
    return render_plan(plan(scene, root, ready), sources, rest=rest)


def render_plan(planned: Plan, sources: bool = True, n_channels: int | None = None, rest: Rest = "none") -> Rendered:
    """Renders a planned scene; see :func:`render`.

    Args:
        planned: the plan.
        sources: whether to render the dry and wet sources.
        n_channels: number of leading channels of the mixture to render, with the reference channel; None: all. Fewer
            channels take less time and are the same up to rounding: the levels come from all spectra (Parseval).
        rest: further targets, see :func:`render`.
    """
    wanted = min(n_channels or planned.n_channels, planned.n_channels)
    if planned.rules.reference_channel >= wanted:
        raise ValueError(f"n_channels {n_channels}: without the reference channel")
    if rest != "none" and not sources:
        raise ValueError(f"rest {rest}: without the sources")
    channel = planned.rules.reference_channel
    mixture = np.zeros((wanted, planned.n_samples), dtype=np.float32)
    n_targets = len(planned.labels) if sources else 0
    dry = np.zeros((n_targets, planned.n_samples), dtype=np.float32)
    wet = np.zeros_like(dry)
    interference = np.zeros((0 if rest == "none" else planned.n_interferers, planned.n_samples), dtype=np.float32)
    interferers = iter(interference)
    for background in planned.backgrounds:
        _add_background(mixture, background, planned)
    noise = mixture[channel].copy() if rest == "noise" else None
    for event in planned.events:
        source = event_source(event, planned.rate)
        signal, n_wet, energy = _through_room(source, event, wanted if wanted < planned.n_channels else None)
        scale = gain(event.level, energy / (planned.n_channels * n_wet))
        visible = signal[:, : max(0, planned.n_samples - event.onset)]
        visible *= scale
        add_at(mixture, visible, event.onset)
        if event.slot is None:
            target = next(interferers, None)
        elif sources:
            target = dry[event.slot]
            add_at(wet[event.slot], visible[channel], event.onset)
        else:
            continue
        if target is not None:
            _add_direct(target, source * scale, event, planned)
    rendered = Rendered(mixture, dry, wet, list(planned.labels))
    if rest != "none":
        rendered.dry_interference = interference
        rendered.rest = remainder(mixture[channel], dry, interference) if noise is None else noise[None]
    return rendered


def event_source(event: PlannedEvent, rate: int) -> np.ndarray:
    """The source [n] float32 of an event at ``rate`` (Hz), with its variations. Raises as :func:`render`."""
    source = recordings.source(event.clip, rate)[: event.length]
    return vary(source, event.blend, event.colour, rate, lambda clip: recordings.source(clip, rate), _coloured)


def _coloured(source: np.ndarray, taps: np.ndarray) -> np.ndarray:
    n_fft = transform_length(0, 8 * len(taps))
    return _convolve(source, _Filter(scipy.fft.rfft(taps[None], n_fft), n_fft, len(taps)))[0, : len(source)]


def remainder(reference: Samples, dry: Samples, dry_interference: Samples) -> Samples:
    """Reference channel minus all dry sources: the backgrounds and all reverberation.

    Args:
        reference: reference channel [..., T] of the mixture, an array or a tensor.
        dry: dry targets [..., K, T].
        dry_interference: dry interferers [..., I, T].

    Returns:
        [..., 1, T]: the sum of the K + I + 1 signals is the reference channel.
    """
    return (reference - dry.sum(-2) - dry_interference.sum(-2))[..., None, :]


@lru_cache(maxsize=2)  # a target reads it twice: for all channels, and for the direct part
def load_response(response: Response) -> np.ndarray:
    """Impulse response [M, L] float32 at the scene's rate, of mean energy 1 over channels, without trailing zeros.

    A colour changes the mean energy. Raises InputError for an unreadable file, only zeros or a number that is not
    finite.
    """
    if response.colour is not None:
        rir, colour = load_response(response.plain), response.colour
        direct = direct_part(response, rir[colour.rules.reference_channel], colour.rules, colour.direct_range_ms)
        return colour_room(rir, direct, colour_filter(colour.gains, response.rate), scipy.fft)
    room, length = open_room(response.path), _prepared_length(response)
    if length is not None:
        n = resampled_length(room, response.rate)
        start = 4 * (room.n_positions + response.index * room.n_channels * n)
        found = read(_prepared_file(response), "float32", start, (room.n_channels, n))
        if found is not None:
            return np.ascontiguousarray(found[:, :length])
    return normalised(room, response.index, room.rir(response.index), response.rate)


def normalised(room: SofaRoom, index: int, rir: np.ndarray, rate: int) -> np.ndarray:
    """Converts an impulse response [M, N] float64 of a room's file to the form of :func:`load_response`.

    Raises InputError if it is only zeros.
    """
    rir = recordings.resample(rir.T, room.sampling_rate, rate).T
    energy = np.einsum("mn,mn->", rir, rir) / len(rir)
    if energy == 0:
        raise InputError(f"{room.path}: Data.IR[{index}]", "only zeros", "an impulse response")
    if not rir[:, -1].any():
        rir = rir[:, : np.flatnonzero(np.any(rir, axis=0))[-1] + 1]
    out: np.ndarray = np.empty(rir.shape, dtype=np.float32)
    np.multiply(rir, 1 / np.sqrt(energy), out=out, casting="same_kind")
    return out


def _prepared_file(response: Response) -> str:
    return file_of(response.ready, "room", response.path, response.stamp)


def _prepared_length(response: Response) -> int | None:
    found = read(_prepared_file(response), "int32", 4 * response.index, (1,)) if response.ready else None
    return None if found is None else int(found[0])


def resampled_length(room: SofaRoom, rate: int) -> int:
    """Length in samples of a room's impulse responses at a rate, with trailing zeros."""
    return recordings.resampled(room.rir_length, room.sampling_rate, rate)


def direct_part(response: Response, rir: np.ndarray, rules: RenderRules, range_ms: Sequence[float]) -> slice:
    """Direct part of the reference channel ``rir`` [N] of :func:`load_response`.

    Raises InputError if the channel is zero, as targets would then be zero too.
    """
    if np.square(rir, dtype=np.float64).sum() <= ZERO_CHANNEL:
        found = f"zeros in the reference channel {rules.reference_channel}"
        raise InputError(f"{response.path}: Data.IR[{response.index}]", found, "an impulse response")
    return rules.direct_part(rir, response.rate, range_ms)


def full_length(response: Response) -> int:
    """Length in samples at the scene's rate, with trailing zeros, which count for an event's level."""
    return resampled_length(open_room(response.path), response.rate)


@lru_cache(100_000)
def _length(response: Response) -> int:
    """Length in samples at the scene's rate, without trailing zeros."""
    return _prepared_length(response) or load_response(response).shape[1]


def gain(level: float, mean_square: float) -> np.float32:
    """Factor that brings a signal to a level in dB; 1 for an all-zero signal."""
    return np.float32(10 ** ((level - 10 * np.log10(mean_square)) / 20) if mean_square > 0 else 1)


def add_at(target: np.ndarray, signal: np.ndarray, start: int) -> None:
    """Adds a signal [..., n] to a target [..., T] from sample ``start`` on, as far as the target goes."""
    n = min(signal.shape[-1], target.shape[-1] - start)
    if n > 0:
        target[..., start : start + n] += signal[..., :n]


def _add_background(mixture: np.ndarray, background: PlannedBackground, planned: Plan) -> None:
    frames = recordings.ambience(background.clip, planned.rate)
    if background.fill:
        frames = planned.rules.fill(frames.T, planned.n_samples).T
    # One sample less after times were truncated twice; more if the file is resampled.
    frames = np.ascontiguousarray(frames[: planned.n_samples], dtype=np.float32)
    mean_square = _energy(frames.reshape(1, -1)) / (planned.n_samples * frames.shape[1])
    frames *= gain(background.level, mean_square)
    mixture[:, : len(frames)] += frames.T[: len(mixture)]


def _through_room(source: np.ndarray, event: PlannedEvent, n_channels: int | None) -> tuple[np.ndarray, int, float]:
    """The wet source [n_channels, n] without trailing zeros, its length with them, and the energy of all channels."""
    n_wet = len(source) + max(map(full_length, event.responses)) - 1
    if len(event.responses) == 1:
        response = _room_filter(event.responses[0], len(source), n_channels)
        if response.power is not None:
            signal, energy = _convolve_some(source, response)
            return signal, n_wet, energy
        signal = _convolve(source, response)
    else:
        wet = [(start, _convolve(part, _room_filter(r, len(part)))) for r, start, part in split_source(source, event)]
        signal = np.zeros((len(wet[0][1]), n_wet), dtype=np.float32)
        for start, part in wet:
            add_at(signal, part, start)
    return signal[:n_channels], n_wet, _energy(signal)


def _add_direct(target: np.ndarray, source: np.ndarray, event: PlannedEvent, planned: Plan) -> None:
    """Adds the dry target of a scaled source."""
    for response, start, part in split_source(source, event):
        direct = _direct_filter(response.plain, planned.rules, planned.direct_range_ms)
        add_at(target, _convolve(part, direct)[0], event.onset + start + direct.start)


def split_source(
    source: Samples, event: PlannedEvent, convert: Callable[[np.ndarray], Any] = lambda weights: weights
) -> Iterator[tuple[Response, int, Samples]]:
    """Yields each impulse response of an event, the first sample of its part of the source, and the weighted part.

    There is one part, unless the event moves. ``source`` [n] is an array or a tensor; ``convert`` makes factors for it
    from float32 weights.
    """
    if len(event.responses) == 1:
        yield event.responses[0], 0, source
        return
    for position, first, weights in fade_parts(len(source), len(event.responses), event.clip.path):
        yield event.responses[position], first, source[first : first + len(weights)] * convert(weights)


def _room_filter(response: Response, n_source: int, n_channels: int | None = None) -> _Filter:
    """Filter of a position; if not in blocks, of the first ``n_channels`` channels with the power of all."""
    length = _length(response.plain)
    n_fft = transform_length(n_source, length)
    if n_source + length - 1 > n_fft:
        n_channels = None

    def make() -> _Filter:
        spectra = scipy.fft.rfft(load_response(response), n_fft)
        if n_channels is None:
            return _Filter(spectra, n_fft, length)
        return _Filter(spectra[:n_channels].copy(), n_fft, length, power=_power(spectra).sum(axis=0))

    if response.colour is not None:  # it does not recur
        return make()
    return spectra.get((response, n_fft, n_channels), make)


def _direct_filter(response: Response, rules: RenderRules, range_ms: Sequence[float]) -> _Filter:
    def make() -> _Filter:
        rir = load_response(response)[rules.reference_channel]
        window = direct_part(response, rir, rules, range_ms)
        part = rir[None, window]
        n_fft = transform_length(0, 8 * part.shape[1])
        return _Filter(scipy.fft.rfft(part, n_fft), n_fft, part.shape[1], window.start)

    return spectra.get((response, rules, *range_ms), make)


def transform_length(n_source: int, length: int) -> int:
    """Transform length for a source and an impulse response: of their convolution or, if that is long, of a block.

    Example:
        >>> transform_length(90_000, 64_000), transform_length(2_000_000, 64_000), transform_length(0, 300_000)
        (163840, 409600, 327680)
    """
    wanted = max(1, n_source) + length - 1
    if wanted > LARGEST_TRANSFORM:
        wanted = min(wanted, max(LARGEST_TRANSFORM, int(2.5 * length)))
    return next((size for size in SIZES if size >= wanted), scipy.fft.next_fast_len(wanted, real=True))


def _convolve(source: np.ndarray, response: _Filter) -> np.ndarray:
    """Full convolution [C, n + L - 1] float32 of ``source`` [n] with a filter."""
    n, n_fft, tail = len(source), response.n_fft, response.length - 1
    block = n_fft - tail
    if n <= block:
        return scipy.fft.irfft(response.spectra * scipy.fft.rfft(source[None], n_fft), n_fft, overwrite_x=True)[
            :, : n + tail
        ]
    n_blocks = -(-n // block)
    blocks = np.zeros((n_blocks, block), dtype=np.float32)
    blocks.reshape(-1)[:n] = source
    out = scipy.fft.irfft(response.spectra[:, None] * scipy.fft.rfft(blocks, n_fft), n_fft, overwrite_x=True)
    whole = np.zeros((len(response.spectra), n_blocks * block + tail), dtype=np.float32)
    for i in range(n_blocks):
        whole[:, i * block : i * block + n_fft] += out[:, i]
    return whole[:, : n + tail]


def _convolve_some(source: np.ndarray, response: _Filter) -> tuple[np.ndarray, float]:
    """Full convolution [C, n + L - 1] with some channels of a filter, and the energy with all channels."""
    assert response.power is not None
    spectrum = scipy.fft.rfft(source[None], response.n_fft)
    power = _power(spectrum[0])
    power *= response.power
    # Every bin counts twice, except the first and, at an even length, the last.
    ends = power[0] + (power[-1] if response.n_fft % 2 == 0 else 0)
    energy = (2 * power.sum(dtype=np.float64) - float(ends)) / response.n_fft
    out = scipy.fft.irfft(response.spectra * spectrum, response.n_fft, overwrite_x=True)
    return out[:, : len(source) + response.length - 1], energy


def _power(spectra: np.ndarray) -> np.ndarray:
    power: np.ndarray = np.square(spectra.real)
    power += np.square(spectra.imag)
    return power


def _energy(signal: np.ndarray) -> float:
    """Sum of squares: in float32 over short stretches, in float64 over their sums."""
    n = signal.shape[1] // 1024 * 1024
    stretches = signal[:, :n].reshape(len(signal), -1, 1024)
    rest = signal[:, n:]
    energies = np.einsum("cbt,cbt->cb", stretches, stretches), np.einsum("ct,ct->c", rest, rest)
    return float(sum(energy.sum(dtype=np.float64) for energy in energies))
