"""Simulators by name: what draws the scenes of a fixed set and makes them sound (``simulate --simulator NAME``).

A simulator is a module with two functions. Both depend on the sampler's configuration, its root, its files and the item
alone, never on what was simulated before, in which process, or on a global random state::

    def check() -> None:
        "Raises InputError, in one line, where the simulator cannot run here (a library that is not installed)."

    def simulate_scene(sampler: Sampler, item: int) -> Simulated:
        "Draws scene ``item`` of epoch 0 by the sampler's rules, as far as the simulator knows them, and renders it."

and may have two more, which together do what ``simulate_scene`` does::

    def draw_scene(sampler: Sampler, item: int) -> Scene:
        "The scene without rendering it: lets a second run see that an item is the same already."

    def render_scene(scene: Scene, root: str, ready: str = "") -> Rendered:
        "Renders it; ``ready`` is the folder of prepared material (s5.scene.ready), for what calls our planner."

Randomness starts from ``scene_seed(sampler.fingerprint, sampler.config.seed, 0, item)``. Folders and rules are in
``sampler.config`` (its ``dirs`` start from ``sampler.root``); a file of ``sampler.excluded`` must not be used. Bad
material raises :class:`~s5.utils.errors.InputError`. The record is that of the native renderer: sources in slot order,
``rendered.labels == scene.labels``, and ``Scene.load`` reads ``scene`` again after ``Scene.save``. What SpAudSyn's
format has no key for (the simulator's name) goes into ``extra`` of the event or scene.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Protocol, cast

from s5.scene.rendering.cpu import Rendered, render
from s5.scene.sampler import Sampler
from s5.scene.spec import Scene
from s5.utils.errors import InputError, one_of

SIMULATORS = {"native": "s5.scene.backends", "spatialscaper": "s5.scene.spatialscaper"}
"""Name -> module; imported when it is asked for."""


@dataclass
class Simulated:
    """A scene and what it sounds like."""

    scene: Scene
    rendered: Rendered


class Simulator(Protocol):
    """What a simulator's module has; see the module's docstring for the optional ones."""

    def check(self) -> None:
        """Raises InputError where the simulator cannot run."""

    def simulate_scene(self, sampler: Sampler, item: int) -> Simulated:
        """Draws and renders one scene."""


def simulator(name: str) -> Simulator:
    """The module of a simulator, checked to run here. Raises InputError for an unknown name or a missing library."""
    if name not in SIMULATORS:
        raise InputError("--simulator", name, one_of(SIMULATORS, name))
    module = cast(Simulator, importlib.import_module(SIMULATORS[name]))
    module.check()
    return module


def check() -> None:
    """The native simulator needs nothing that is not installed with us."""


def draw_scene(sampler: Sampler, item: int) -> Scene:
    """Scene ``item`` of epoch 0."""
    return sampler.scene(0, item)


def render_scene(scene: Scene, root: str, ready: str = "") -> Rendered:
    """Renders it. Raises InputError for bad material."""
    return render(scene, root, ready=ready)


def simulate_scene(sampler: Sampler, item: int) -> Simulated:
    """Draws scene ``item`` of epoch 0 and renders it. Raises InputError for bad material."""
    scene = draw_scene(sampler, item)
    return Simulated(scene, render_scene(scene, sampler.root))
