"""Renders batches of scenes on the device that trains (``renderer: device``).

The samples are those of :func:`s5.scene.render` up to rounding, from the same plans (:mod:`s5.scene.rendering.plan`),
with one set of transforms per batch. Sources, backgrounds and impulse responses stay on the device within a budget, so
after a while only plans are copied from the host.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, groupby
from typing import Any

import numpy as np
import scipy.fft
import torch
from torch import Tensor

from s5.scene import audio
from s5.scene.cache import ByteCache
from s5.scene.config import Rest
from s5.scene.rendering.cpu import direct_part, full_length, load_response, remainder, split_source
from s5.scene.rendering.plan import Plan, PlannedBackground, PlannedEvent, Response, RoomColour
from s5.scene.rendering.rules import RenderRules
from s5.scene.rendering.variation import colour_filter, colour_room, filtered, vary

LARGEST = 16
"""A file is cached whole if it takes at most 1 / LARGEST of the cache; otherwise its clips are cached."""

WORKSPACE_MB = 1024
"""Approximate memory for the transforms of one step in MB, besides the cache and the batch itself."""

Arrays = dict[Hashable, np.ndarray]


@dataclass
class RenderedBatch:
    """B rendered scenes.

    Attributes:
        mixture: [B, M, T] float32.
        dry: [B, K, T] float32, targets by slot, zeros in unused slots; [B, 0, T] without targets.
        dry_interference: [B, I, T] float32, interferers in onset order, then zeros; None unless requested.
        rest: [B, 1, T] float32, what is left of each mixture; None unless requested.
    """

    mixture: Tensor
    dry: Tensor
    dry_interference: Tensor | None = None
    rest: Tensor | None = None


@dataclass
class _Part:
    """Input of one impulse response: the source of an event or, if the event moves, a stretch of it."""

    scene: int
    planned: Plan
    event: PlannedEvent
    source: Tensor
    response: Response
    n_wet: int
    """Length of the wet event in samples, with all its parts and the impulse response's trailing zeros."""
    shift: int
    """First sample of the part in a moving event."""
    group: int
    """Number of the event in the batch."""
    row: int | None
    """Row of the event's dry target among those of its scene; None for an event without one."""


class DeviceRenderer:
    """Renders batches of planned scenes.

    Args:
        device: e.g. ``cuda`` or ``cpu``.
        cache_mb: memory of the device for recordings and impulse responses in MB.
        workspace_mb: memory of the device for transforms in MB.

    Example:
        renderer = DeviceRenderer("cuda", cache_mb=4096)
        batch = renderer.render([plan(scene, root) for scene in scenes])    # batch.mixture [B, M, T]
    """

    def __init__(self, device: str | torch.device, cache_mb: int = 2048, workspace_mb: int = WORKSPACE_MB) -> None:
        self.device = torch.device(device)
        self.cache: ByteCache[Tensor] = ByteCache(cache_mb << 20, lambda x: x.nbytes)
        self.workspace = workspace_mb << 20
        self._reading = threading.Lock()
        self._lengths: dict[Response, int] = {}
        self._windows: dict[Hashable, slice] = {}

    def load(self, plans: Iterable[Plan]) -> Arrays:
        """Reads the data that plans need and the device lacks into the host's memory; may run in another thread.

        Raises InputError as :func:`s5.scene.render`.
        """
        arrays: Arrays = {}
        with self._reading:  # the readers' caches are not thread-safe
            for key, read in self._needs(plans):
                if key not in arrays and key not in self.cache:
                    arrays[key] = read()
                    if isinstance(key, Response):
                        self._lengths[key] = full_length(key)
        return arrays

    def render(
        self,
        plans: Sequence[Plan],
        n_slots: int | None = None,
        loaded: Arrays | None = None,
        rest: Rest = "none",
        n_interference: int | None = None,
    ) -> RenderedBatch:
        """Renders scenes of one length, rate and number of channels.

        Args:
            plans: B plans.
            n_slots: K; 0: no targets; None: the most targets of a scene.
            loaded: result of :meth:`load`; any other data are read now.
            rest: ``residual`` or ``noise`` also renders the dry interference and that rest of each mixture.
            n_interference: I, if they are rendered; None: the most interferers of a scene.

        Raises:
            InputError: as :func:`s5.scene.render`.
        """
        shapes = {(p.n_channels, p.n_samples, p.rate) for p in plans}
        if len(shapes) != 1:
            raise ValueError(f"scenes of {sorted(shapes)} (channels, samples, Hz) in one batch")
        n_channels, n_samples, _ = shapes.pop()
        if n_slots is None:
            n_slots = max(len(p.labels) for p in plans)
        most = max(p.n_interferers for p in plans)
        n_rows = n_slots
        if rest != "none":
            n_rows += most if n_interference is None else n_interference
            if n_rows < n_slots + most or n_slots < max(len(p.labels) for p in plans):
                raise ValueError(f"{n_slots} slots and {n_rows - n_slots} of interference: too few for rest {rest}")
        tensors = self._tensors(plans, loaded)
        # The rows of the interferers follow those of the slots.
        mixture, dry = (self._zeros(len(plans), n, n_samples) for n in (n_channels, n_rows))
        with torch.no_grad():
            for scene, planned in enumerate(plans):
                for background in planned.backgrounds:
                    self._add_background(mixture[scene], background, planned, tensors)
            noise = _references(mixture, plans) if rest == "noise" else None
            all_parts = list(self._parts(plans, tensors, None if rest == "none" else n_slots))
            for parts in self._steps(all_parts, n_channels):
                self._add_events(mixture, dry, parts, tensors)
            if rest == "none":
                return RenderedBatch(mixture, dry)
            dry, interference = dry[:, :n_slots], dry[:, n_slots:]
            left = remainder(_references(mixture, plans), dry, interference) if noise is None else noise[:, None]
        return RenderedBatch(mixture, dry, interference, left)

    def _needs(self, plans: Iterable[Plan]) -> Iterator[tuple[Hashable, Callable[[], np.ndarray]]]:
        """Yields the cache's key and a reader of each recording and impulse response of the plans."""
        for planned in plans:
            rate = planned.rate
            for background in planned.backgrounds:
                key, clip = self._key(background.clip, rate)
                yield ("background", *key), partial(audio.ambience, clip, rate)
            for event in planned.events:
                for wanted in event.clips:
                    key, clip = self._key(wanted, rate)
                    yield ("source", *key), partial(_read_source, clip, rate)
                for response in event.responses:
                    yield response.plain, partial(load_response, response.plain)

    def _key(self, clip: audio.Clip, rate: int) -> tuple[tuple[Any, ...], audio.Clip]:
        """Key of a clip in the cache and the clip to read: the whole file, if it may be cached whole."""
        if clip.info.rate == rate and clip.nbytes_of_file * LARGEST <= self.cache.budget:
            return (clip.path, clip.stamp), clip.whole_file
        return (clip.path, clip.stamp, clip.start, clip.n_frames, rate), clip

    def _tensors(self, plans: Sequence[Plan], loaded: Arrays | None) -> dict[Hashable, Tensor]:
        """All data of a batch on the device. They are held for the batch, even if they leave the cache."""
        arrays = self.load(plans) if loaded is None else loaded
        tensors: dict[Hashable, Tensor] = {}
        for key, read in self._needs(plans):
            if key not in tensors:
                tensors[key] = self.cache.get(key, partial(self._make, arrays, key, read))
        for response in (r for planned in plans for event in planned.events for r in event.responses):
            if response.colour is not None and response not in tensors:
                tensors[response] = self._colour(response, response.colour, tensors[response.plain])
        return tensors

    def _colour(self, response: Response, colour: RoomColour, rir: Tensor) -> Tensor:
        channel = colour.rules.reference_channel
        direct = self._window(response.plain, rir[channel : channel + 1], colour.rules, colour.direct_range_ms)
        return colour_room(rir, direct, self._upload(colour_filter(colour.gains, response.rate)), torch.fft)

    def _filtered(self, source: Tensor, taps: np.ndarray) -> Tensor:
        return filtered(source, self._upload(taps), torch.fft)

    def _make(self, arrays: Arrays, key: Hashable, read: Callable[[], np.ndarray]) -> Tensor:
        if key in arrays:
            return self._upload(arrays[key])
        with self._reading:  # it left the cache after load() found it there
            return self._upload(read())

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, device=self.device)

    def _upload(self, array: np.ndarray) -> Tensor:
        # A copy on the CPU too, because the array may be one of the host's cache.
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, copy=True)

    def _cut(self, tensors: dict[Hashable, Tensor], kind: str, clip: audio.Clip, rate: int) -> Tensor:
        """Samples of a clip as float32."""
        key, held = self._key(clip, rate)
        whole = tensors[(kind, *key)]
        if held != clip:
            whole = whole[clip.start : clip.start + clip.n_frames]
        return whole.float()

    def _add_background(
        self, mixture: Tensor, background: PlannedBackground, planned: Plan, tensors: dict[Hashable, Tensor]
    ) -> None:
        frames = self._cut(tensors, "background", background.clip, planned.rate).T  # [C, n]
        n = planned.n_samples
        if background.fill:
            times = -(-n // frames.shape[1])
            repeated = planned.rules.short_background == "tile"
            frames = frames.repeat(1, times) if repeated else frames.repeat_interleave(times, 1)
        frames = frames[:, :n]
        mean_square = _energy(frames[None]) / (n * frames.shape[0])
        mixture[:, : frames.shape[1]] += frames * _scale(background.level, mean_square)

    def _parts(
        self, plans: Sequence[Plan], tensors: dict[Hashable, Tensor], first_interferer: int | None
    ) -> Iterator[_Part]:
        """Parts of all events; ``first_interferer`` is the row of a scene's first interferer (None: they have none)."""
        group = 0
        for scene, planned in enumerate(plans):
            rows = None if first_interferer is None else count(first_interferer)
            for event in planned.events:
                row = next(rows) if event.slot is None and rows is not None else event.slot
                read = partial(self._cut, tensors, "source", rate=planned.rate)
                source = vary(
                    read(event.clip)[: event.length], event.blend, event.colour, planned.rate, read, self._filtered
                )
                n_wet = len(source) + max(self._lengths[r.plain] for r in event.responses) - 1
                for response, shift, part in split_source(source, event, self._upload):
                    yield _Part(scene, planned, event, part, response, n_wet, shift, group, row)
                group += 1

    def _steps(self, parts: list[_Part], n_channels: int) -> Iterator[list[_Part]]:
        """Groups parts of similar length, as many as the workspace holds, with all parts of an event in one step."""
        events = [list(event) for _, event in groupby(parts, lambda part: part.group)]
        step: list[_Part] = []
        for event in sorted(events, key=lambda event: event[0].n_wet):
            # Source, spectra of impulse responses, products and results: about 8 bytes per sample and channel.
            n_bytes = (len(step) + len(event)) * event[0].n_wet * (2 + 3 * n_channels) * 8
            if step and n_bytes > self.workspace:
                yield step
                step = []
            step = step + event
        if step:
            yield step

    def _add_events(self, mixture: Tensor, dry: Tensor, parts: list[_Part], tensors: dict[Hashable, Tensor]) -> None:
        n_fft = scipy.fft.next_fast_len(max(part.n_wet for part in parts), real=True)
        sources = self._zeros(len(parts), n_fft)
        for i, part in enumerate(parts):
            sources[i, part.shift : part.shift + len(part.source)] = part.source
        sources = torch.fft.rfft(sources)
        used = {part.response: i for i, part in reversed(list(enumerate(parts)))}
        place = {response: i for i, response in enumerate(used)}
        which = [place[part.response] for part in parts]
        wet = self._convolved(sources, [tensors[response] for response in used], which, n_fft)  # [E, M, n]
        groups = list(dict.fromkeys(part.group for part in parts))
        first = {part.group: part for part in reversed(parts)}
        if len(groups) < len(parts):  # the parts of a moving event are added
            index = self._upload(np.array([groups.index(part.group) for part in parts]))
            wet = self._zeros(len(groups), *wet.shape[1:]).index_add_(0, index, wet)
        events = [first[group] for group in groups]
        samples = self._upload(np.array([event.n_wet * wet.shape[1] for event in events]))
        level = self._upload(np.array([event.event.level for event in events]))
        scale = _scale(level, _energy(wet) / samples)
        for i, event in enumerate(events):
            _add(mixture[event.scene], wet[i], scale[i], event.event.onset, event.n_wet)
        del wet
        if dry.shape[1]:
            of = {group: scale[i] for i, group in enumerate(groups)}
            self._add_direct(dry, parts, of, sources, n_fft, tensors)

    def _add_direct(
        self,
        dry: Tensor,
        parts: list[_Part],
        scale: dict[int, Tensor],
        sources: Tensor,
        n_fft: int,
        tensors: dict[Hashable, Tensor],
    ) -> None:
        """Adds the dry targets; ``sources`` are the spectra of the parts."""
        targets = [i for i, part in enumerate(parts) if part.row is not None]
        if not targets:
            return
        direct = []
        for i in targets:
            planned, response = parts[i].planned, parts[i].response.plain
            channel = planned.rules.reference_channel
            rir = tensors[response][channel : channel + 1]
            window = self._window(response, rir, planned.rules, planned.direct_range_ms)
            only = rir[:, : window.stop].clone()
            only[:, : window.start] = 0
            direct.append(only)
        made = self._convolved(sources[targets], direct, list(range(len(targets))), n_fft)
        for i, signal in zip(targets, made, strict=True):
            part = parts[i]
            _add(dry[part.scene, part.row][None], signal, scale[part.group], part.event.onset, part.n_wet)

    def _window(self, response: Response, rir: Tensor, rules: RenderRules, range_ms: tuple[float, float]) -> slice:
        """Direct part of the reference channel [1, L]; kept, because finding it waits for the device."""
        key = (response, rules, range_ms)
        if key not in self._windows:
            host = rir[0].cpu().numpy()
            self._windows[key] = direct_part(response, host, rules, range_ms)
        return self._windows[key]

    def _convolved(self, sources: Tensor, responses: list[Tensor], which: list[int], n_fft: int) -> Tensor:
        """Convolves sources, given by their spectra [E, F], with ``responses[which]`` [C, L]: [E, C, n_fft]."""
        padded = self._zeros(len(responses), len(responses[0]), n_fft)
        for i, response in enumerate(responses):
            padded[i, :, : response.shape[1]] = response
        spectra = torch.fft.rfft(padded)
        del padded
        if which != list(range(len(spectra))):
            spectra = spectra[which]
        return torch.fft.irfft(spectra * sources[:, None], n_fft)


def _references(mixture: Tensor, plans: Sequence[Plan]) -> Tensor:
    """A copy [B, T] of the reference channels of mixtures [B, M, T]."""
    return torch.stack([channels[p.rules.reference_channel] for channels, p in zip(mixture, plans, strict=True)])


def _read_source(clip: audio.Clip, rate: int) -> np.ndarray:
    if clip.info.rate == rate and clip.info.channels == 1:
        return audio.read(clip)[:, 0]  # in the file's own type: 16 bits take half the bytes
    return audio.source(clip, rate)


def _energy(signal: Tensor) -> Tensor:
    """Sums of squares [E] float64 of signals [E, C, n]: in float32 over short stretches, in float64 over their sums."""
    n = signal.shape[-1] // 1024 * 1024
    stretches = signal[..., :n].unflatten(-1, (-1, 1024)).square().sum(-1).double().sum((-2, -1))
    return stretches + signal[..., n:].square().sum(-1).double().sum(-1)


def _scale(level: float | Tensor, mean_square: Tensor) -> Tensor:
    """Factors that bring signals to levels in dB; 1 for an all-zero signal."""
    some = mean_square > 0
    scale = 10 ** ((level - 10 * mean_square.where(some, mean_square.new_ones(())).log10()) / 20)
    return scale.where(some, scale.new_ones(())).float()


def _add(target: Tensor, signal: Tensor, scale: Tensor, start: int, length: int) -> None:
    n = min(length, target.shape[-1] - start)
    if n > 0:
        target[:, start : start + n] += signal[:, :n] * scale
