"""The simulator ``spatialscaper``: SpatialScaper's ``Scaper`` places the events, its ``spatialize`` convolves them.

SpatialScaper (Roman et al., "Spatial Scaper", ICASSP 2024; https://github.com/iranroman/SpatialScaper, CC BY 4.0) is
not a requirement of the recipe. ``tools/installers/install_spatialscaper.sh`` installs it; it is imported on first use.
The parts of a scene come from

* the sampler: number of events, labels, files, excerpts, background and room, as in the native scene of the item;
* ``Scaper``: onset (under the overlap limit), SNR, and the position or, for a moving event, the trajectory. It draws
  points in the box around a room's positions; the nearest impulse responses are used and the scene has their positions;
* ``spatialize``: every convolution, for moving events with impulse responses that fade into each other;
* the rules of a scene (:func:`s5.scene.render`): levels, onsets and the dry target. ``Scaper.generate`` differs: it
  cuts the reverberation at the source's end and sets levels by mean magnitude.

The native renderer therefore makes the same samples for the same scene.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from s5.scene.config import Rest
from s5.scene.placement import RejectedDraw, angles, describe_room
from s5.scene.rendering.cpu import (
    Rendered,
    add_at,
    direct_part,
    event_source,
    full_length,
    gain,
    load_response,
    remainder,
    render_plan,
)
from s5.scene.rendering.motion import HOP, fade_frames
from s5.scene.rendering.plan import Plan, PlannedEvent, event_path, plan
from s5.scene.rendering.room import SofaRoom, open_room
from s5.scene.sampler import MAX_TRIES, Sampler, scene_seed
from s5.scene.spec import Event, Scene
from s5.utils.errors import InputError

INSTALLER = "tools/installers/install_spatialscaper.sh"
LAYOUT = "spatialscaper_RIRs"
"""Folder below ``rir_dir`` from which Scaper reads its rooms."""
LABEL_RATE = 10
"""Points of a trajectory per second, and steps per second of the overlap test: the library's own value."""
MAX_PLACEMENTS = 10
"""Number of placements of a scene's events, with up to MAX_TRIES draws per event, before they are refused."""


def check() -> None:
    """Raises InputError, with the command that installs it, if SpatialScaper cannot be imported."""
    _library()


def draw_scene(sampler: Sampler, item: int) -> Scene:
    """Scene ``item`` of epoch 0: the native scene's events, placed by ``Scaper``.

    The scene is the same on any machine, in any order of calls: the global generators from which the library draws are
    seeded and then restored.

    Raises:
        InputError: the library is missing, the material is bad, or no placement satisfies the rules.
    """
    seed = scene_seed(sampler.fingerprint, sampler.config.seed, 0, item)
    scene = sampler.scene(0, item)
    with _seeded(seed):
        path = _choose_room(sampler, scene.room.sofa_path)
        room = open_room(os.path.join(sampler.root, path))
        config, angle = sampler.config, sampler.config.same_class_min_angle
        foreground = _Placement(sampler, scene, room, config.dirs.sound_event, config.event_snr, angle)
        interference = _Placement(sampler, scene, room, config.dirs.interference, config.interference_snr, 0)
        events, others = foreground.place(scene.fg_events), interference.place(scene.int_events)
    return replace(
        scene,
        fg_events=events,
        int_events=others,
        room=scene.room if path == scene.room.sofa_path else describe_room(path, room, scene.room.direct_range_ms),
        extra=scene.extra | {"simulator": {"name": "spatialscaper", "version": _library().version.version}},
    )


def render_scene(scene: Scene, root: str | Path = ".", ready: str = "", rest: Rest = "none") -> Rendered:
    """Renders any scene, static or moving, with the library's ``spatialize``; arguments as :func:`s5.scene.render`.

    Raises InputError if the library is missing, or a file is missing, unreadable or does not fit the scene.
    """
    planned = plan(scene, root, ready)
    # The background needs no convolution, so the native renderer makes it.
    background = render_plan(replace(planned, events=(), labels=())).mixture
    mixture, channel = background.astype(np.float64), planned.rules.reference_channel
    dry = np.zeros((len(planned.labels), planned.n_samples), dtype=np.float32)
    wet = np.zeros_like(dry)
    interference = np.zeros((0 if rest == "none" else planned.n_interferers, planned.n_samples), dtype=np.float32)
    interferers = iter(interference)
    for event in planned.events:
        target = next(interferers, None) if event.slot is None else dry[event.slot]
        signal = _event(event, planned, target is not None)
        add_at(mixture, signal[:-1], event.onset)
        if event.slot is not None:
            add_at(wet[event.slot], signal[channel], event.onset)
        if target is not None:
            add_at(target, signal[-1], event.onset)
    rendered = Rendered(mixture.astype(np.float32), dry, wet, list(planned.labels))
    if rest != "none":
        left = remainder(rendered.mixture[channel], dry, interference)
        rendered.dry_interference, rendered.rest = interference, background[[channel]] if rest == "noise" else left
    return rendered


@cache
def _library() -> Any:
    """The imported package."""
    try:
        import spatialscaper
        import spatialscaper.spatialize
        import spatialscaper.version
    except ImportError as e:
        found, expected = "no SpatialScaper installed", f"{INSTALLER} to be run"
        if e.name != "spatialscaper":
            found = f"no {e.name}, which it needs"
        raise InputError("--simulator spatialscaper", found, expected) from e
    return spatialscaper


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds the global generators from which the library draws, and restores them afterwards."""
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _choose_room(sampler: Sampler, drawn: str) -> str:
    """Path of the drawn room; of another room if the drawn one is in Scaper's layout and in another format."""
    form = sampler.config.spatialscaper.format
    wanted = [path for path in sampler.material.room_paths() if (_name(path) or ("", form))[1] == form]
    if not wanted:
        where = os.path.join(sampler.root, sampler.config.dirs.room_ir)
        raise InputError(where, "no room", f"files <room>_{form}.sofa")
    if os.path.join(sampler.root, drawn) in wanted:
        return drawn
    other = random.choice(wanted)
    return other if os.path.isabs(drawn) else os.path.relpath(other, sampler.root)


def _name(path: str) -> tuple[str, str] | None:
    """Room and format of a file in Scaper's layout; None for any other file."""
    if Path(path).parent.name != LAYOUT:
        return None
    for room, template in _library().core.__ROOM_RIR_FILE__.items():
        for form in ("foa", "mic"):
            if Path(path).name == template.format(fmt=form):
                return room, form
    return None


@cache
def _placer() -> type:
    """Scaper with the changes that placing needs; defined late, as its base class is imported late."""

    class Placer(_library().Scaper):  # type: ignore[misc]
        def __init__(self, positions: np.ndarray | None, **arguments: Any) -> None:
            # The DCASE format allows only the 13 classes of another task.
            super().__init__(DCASE_format=False, **arguments)
            self.label_rate = LABEL_RATE  # add_event reads it in any format
            self._positions = positions

        def get_room_irs_xyz(self) -> np.ndarray:
            if self._positions is None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self._positions = np.asarray(super().get_room_irs_xyz())
            return self._positions

        def define_event_onset_time(self, *arguments: Any) -> float:
            onset = super().define_event_onset_time(*arguments)
            if onset is None:  # otherwise add_event calls itself until the stack overflows
                raise RejectedDraw("no onset under the overlap limit")
            return onset

    return Placer


@dataclass
class _Placement:
    """Places the foreground events or the interference of one scene."""

    sampler: Sampler
    scene: Scene
    room: SofaRoom
    folder: str | None
    """Folder with a folder for each label."""
    snr: tuple[float, float]
    angle: float
    """Least angle in degrees between events of a label along their whole way; 0: any angle."""

    def place(self, events: Sequence[Event]) -> list[Event]:
        """Events with onset, position and SNR from Scaper, in onset order."""
        if not events:
            return []
        scaper = self._scaper()
        reason = ""
        for _ in range(MAX_PLACEMENTS):
            scaper.fg_events = []
            try:
                placed: list[Event] = []
                for event in events:
                    placed.append(self._apart(scaper, event, placed))
                return sorted(placed, key=lambda event: event.event_time)
            except RejectedDraw as e:
                reason = str(e)
        found = f"no placement of {len(events)} events in {self.room.path} in {MAX_PLACEMENTS} tries ({reason})"
        raise InputError(f"{self.sampler.where}: simulator spatialscaper", found, "limits that allow a placement")

    def _scaper(self) -> Any:
        """A Scaper for the room and the folder.

        It reads a room in its own layout itself. Its reader may refuse other rooms, so it gets their positions.
        """
        config, path = self.sampler.config, self.room.path
        name = _name(path)
        place = {"rir_dir": str(Path(path).parents[1]), "room": name[0], "fmt": name[1]} if name else {}
        scaper = _placer()(
            None if name else self.room.positions,
            duration=config.duration,
            foreground_dir=os.path.join(self.sampler.root, str(self.folder)),
            sr=config.sampling_rate,
            max_event_overlap=config.max_event_overlap,
            ref_db=config.ref_db,
            speed_limit=config.spatialscaper.speed_limit,
            **place,
        )
        try:
            positions = scaper.get_room_irs_xyz()
        except (AssertionError, OSError, RuntimeError, ValueError, KeyError) as e:
            found = f"a file that SpatialScaper cannot read ({str(e) or type(e).__name__})"
            raise InputError(path, found, "a valid SOFA file") from e
        if positions.shape != self.room.positions.shape or not np.allclose(positions, self.room.positions):
            raise InputError(path, "positions that SpatialScaper reads differently", "cartesian ones")
        return scaper

    def _apart(self, scaper: Any, event: Event, placed: Sequence[Event]) -> Event:
        """Places one more event, far enough from those of its label."""
        others = [point for other in placed if other.label == event.label for point in other.event_position or []]
        for _ in range(MAX_TRIES):
            new = self._one(scaper, event)
            near = self.angle and others and np.degrees(angles(new.event_position or [], others)).min() <= self.angle
            if not near:
                return new
            scaper.fg_events.pop()
        raise RejectedDraw(f"no place {self.angle:g} degrees from the other events of {event.label}")

    def _one(self, scaper: Any, event: Event) -> Event:
        """Places one more event wherever Scaper puts it."""
        config = self.sampler.config
        # With the excerpt's length as the longest allowed, Scaper uses it as the event's length.
        scaper.max_event_dur = event.event_duration
        moving = random.random() < config.spatialscaper.moving_probability
        if int(event.event_duration * LABEL_RATE) < 2:
            moving = False  # its trajectory has no second point
        scaper.add_event(
            label=("const", event.label),
            source_file=("choose", [event_path(self.sampler.root, self.folder, event)]),
            event_time=("uniform", 0, config.duration),
            event_position=("moving" if moving else "static", ("uniform", None, None)),
            snr=("uniform", *self.snr),
        )
        drawn = scaper.fg_events[-1]
        utils, room = _library().utils, self.room
        indices = np.asarray(utils.traj_2_ir_idx(room.positions, drawn.event_position))
        indices = indices[utils.find_indices_of_change(room.positions[indices])]
        positions = room.positions if self.scene.rules.position == "equal" else room.own_positions
        return replace(event, event_time=drawn.event_time, event_position=positions[indices].tolist(), snr=drawn.snr)


def _event(event: PlannedEvent, planned: Plan, with_dry: bool) -> np.ndarray:
    """The scaled event [M + 1, n]: its wet channels, and its dry target or zeros."""
    source = event_source(event, planned.rate)
    if len(event.responses) > 1:
        fade_frames(len(source), len(event.responses), event.clip.path)  # refuses events that the library gets wrong
    length = max(map(full_length, event.responses))
    responses = np.zeros((planned.n_channels + 1, len(event.responses), length))
    for k, response in enumerate(event.responses):
        rir = load_response(response)
        responses[:-1, k, : rir.shape[1]] = rir
        if with_dry:
            reference = load_response(response.plain)[planned.rules.reference_channel]
            direct = direct_part(response, reference, planned.rules, planned.direct_range_ms)
            responses[-1, k, : len(reference)][direct] = reference[direct]
    signal = spatialize(source, responses)
    return signal * gain(event.level, np.mean(np.square(signal[:-1])))


def spatialize(source: np.ndarray, responses: np.ndarray) -> np.ndarray:
    """Full convolution with the library's ``spatialize``.

    The library returns as many samples as the source has, and divides moving sources by their largest sample. So the
    source is padded with silence for the reverberation, and wet and dry channels are convolved in one call.

    Args:
        source: source [n].
        responses: impulse responses [C, K, L], C channels at K positions that are passed at equal intervals; each fades
            into the next (:mod:`s5.scene.rendering.motion`).

    Returns:
        [C, n + L - 1] float64; if K > 1, up to one scale for all channels.
    """
    module = _library().spatialize
    n_positions, tail = responses.shape[1], responses.shape[2] - 1
    if n_positions == 1:
        return module.spatialize(np.pad(source, (0, tail)), responses, np.zeros(1), sr=1).T
    padded = np.pad(source, (0, tail + 2 * HOP))
    # Times are in samples, as the rate is 1 Hz.
    weights = module.generate_interpolation_matrix(np.linspace(0, len(source), n_positions), 1, HOP)
    n_frames = module.stft_num_frames(padded, HOP)
    weights = np.pad(weights, ((0, n_frames - len(weights)), (0, 0)), mode="edge")
    return module.spatialize(padded, responses, weights, sr=1, win_size=2 * HOP)[: len(source) + tail].T
