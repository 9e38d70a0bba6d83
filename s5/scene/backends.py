"""Simulators by name: each draws the scenes of a fixed set and renders them (``simulate --simulator NAME``).

A simulator is a module with the functions of :class:`Simulator`. Their results depend on the sampler's configuration,
its root, its files and the item alone: not on earlier calls, the process or a global random state. Randomness starts
from ``scene_seed(sampler.fingerprint, sampler.config.seed, 0, item)``. The rendered sources are in slot order,
``rendered.labels == scene.labels``, and ``Scene.load`` reads what ``Scene.save`` wrote. Facts for which SpAudSyn's
format has no key, such as the simulator's name, belong in ``extra`` of the event or scene.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol, cast

from s5.scene.config import Rest
from s5.scene.rendering.cpu import Rendered, render
from s5.scene.sampler import Sampler
from s5.scene.spec import Scene
from s5.utils.errors import InputError, one_of

SIMULATORS = {"native": "s5.scene.backends", "spatialscaper": "s5.scene.spatialscaper"}
"""Module of each simulator; it is imported on first use."""


class Simulator(Protocol):
    """Functions of a simulator's module."""

    def check(self) -> None:
        """Raises InputError where the simulator cannot run, e.g. because a library is not installed."""

    def draw_scene(self, sampler: Sampler, item: int) -> Scene:
        """Draws scene ``item`` of epoch 0 by the sampler's rules, without the files in ``sampler.excluded``.

        Raises InputError for bad material, or if no scene can be drawn.
        """

    def render_scene(self, scene: Scene, root: str | Path = ".", ready: str = "", rest: Rest = "none") -> Rendered:
        """Renders a scene, as :func:`s5.scene.render` does.

        ``ready`` is the folder of prepared material (:mod:`s5.scene.ready`). Unless ``rest`` is ``none``, the result
        has the dry interference and that rest of the mixture.

        Raises InputError for bad material.
        """


def simulator(name: str) -> Simulator:
    """The module of a simulator, checked to run here. Raises InputError for an unknown name or a missing library."""
    if name not in SIMULATORS:
        raise InputError("--simulator", name, one_of(SIMULATORS, name))
    module = cast(Simulator, importlib.import_module(SIMULATORS[name]))
    module.check()
    return module


def check() -> None:
    """The native simulator needs no library beyond the requirements."""


def draw_scene(sampler: Sampler, item: int) -> Scene:
    """Scene ``item`` of epoch 0 from the sampler itself."""
    return sampler.scene(0, item)


def render_scene(scene: Scene, root: str | Path = ".", ready: str = "", rest: Rest = "none") -> Rendered:
    """Renders a scene with :func:`s5.scene.render`."""
    return render(scene, root, ready=ready, rest=rest)
