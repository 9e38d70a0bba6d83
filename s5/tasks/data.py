"""Training and validation items: scenes rendered anew in every epoch, or the fixed scenes of a data directory."""

from __future__ import annotations

import atexit
import errno
import logging
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
import torch
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from torch.utils.data import DataLoader, Dataset, Sampler

from s5.data import DataDir
from s5.labels import LabelSet
from s5.scene import Sampler as SceneSampler
from s5.scene import render_plan, scene_seed
from s5.scene.bad_audio import read_excluded
from s5.scene.config import Rest
from s5.scene.ready import folder_of
from s5.scene.rendering.plan import plan
from s5.tasks.parcel import NotHandedOver, Parcel
from s5.tasks.preemption import ignore_stop_signals
from s5.utils.config import load_yaml
from s5.utils.errors import InputError
from s5.utils.parallel import SHARED_MEMORY, fate

if TYPE_CHECKING:
    from s5.scene.rendering.gpu import DeviceRenderer

Item = tuple[str, dict[str, Any]]
Batch = tuple[list[str], dict[str, Any]]
SAMPLER_YAML = "sampler.yaml"

BATCHES_AHEAD = 2
"""Number of batches whose recordings are read while the device renders an earlier one."""


def is_virtual(path: str | Path) -> bool:
    """Whether a data directory holds a sampler instead of recordings."""
    return Path(path, SAMPLER_YAML).exists()


@cache
def device_renderer(device: str, cache_mb: int) -> DeviceRenderer:
    """Renderer of this process for a device. Training and validation share it and its cache."""
    from s5.scene.rendering.gpu import DeviceRenderer

    return DeviceRenderer(device, cache_mb)


class VirtualScenes(Dataset):
    """Scenes drawn and rendered on the fly.

    An item depends on the sampler's rules, the seed, the epoch and its number only. The number of workers, the batch
    size and the machine do not change it.

    Args:
        path: a data directory that holds ``sampler.yaml``.
        overrides: sampler keys that replace those of the file (e.g. ``n_events: [1, 3]`` for a separator).
        seed: seed of the training.
        num_scenes: scenes of an epoch; by default the sampler's.
        with_sources: whether items carry the dry targets.
        planned: whether items carry the scene's plan instead of its samples, for a renderer on the device.
        n_channels: number of leading channels of the mixtures to render; None: all.
        rest: ``residual`` or ``noise``: items also carry ``dry_interference`` [I, T], in onset order, and that ``rest``
            [1, T] of the mixture; I is the sampler's most interferers of a scene. It requires ``with_sources``.
    """

    def __init__(
        self,
        path: str | Path,
        overrides: Mapping[str, Any] | None = None,
        seed: int = 0,
        num_scenes: int | None = None,
        with_sources: bool = True,
        planned: bool = False,
        n_channels: int | None = None,
        rest: Rest = "none",
    ) -> None:
        if "rest" in (overrides or {}):
            raise InputError("scene_conf: key rest", "a key of fixed sets", "the training's own key rest")
        where = Path(path, SAMPLER_YAML)
        excluded = read_excluded(Path(path))
        self.sampler = SceneSampler({**load_yaml(where), **(overrides or {})}, where=where, exclude=excluded)
        if overrides:
            self.sampler.check_requests()  # the file itself was checked when the set was made
        self.labels = LabelSet(tuple(self.sampler.config.labels))
        self.n_slots = self.sampler.config.n_slots
        self.seed = seed
        self.num_scenes = num_scenes or self.sampler.config.num_scenes
        self.with_sources = with_sources
        self.planned, self.n_channels, self.rest = planned, n_channels, rest
        self.n_interference = self.sampler.n_interference
        self.fingerprint = self.sampler.fingerprint
        self.ready = folder_of(Path(path).absolute().parent, self.sampler.config.sampling_rate)
        if not Path(self.ready).is_dir():
            logging.warning("%s: no prepared audio, so rendering is slower (stage 2 writes it)", self.ready)

    def __len__(self) -> int:
        return self.num_scenes

    def __getitem__(self, key: tuple[int, int]) -> Item | InputError:
        epoch, item = key
        seed = scene_seed(self.fingerprint, self.seed, epoch, item)
        name = f"epoch{epoch}_{item:06d}"
        try:
            drawn = self.sampler.sample(seed)
            scene = plan(drawn, self.sampler.root, self.ready)
            if drawn.slots is None:  # the rules of 2025 fix the order of the slots
                # Training shuffles the slots, silence last, so that no slot learns to be the first event.
                scene = scene.with_slots(np.random.default_rng([seed, 1]).permutation(len(scene.labels)).tolist())
            data: dict[str, Any] = {"label_index": self.labels.indices(scene.labels, self.n_slots)}
            if self.planned:
                return name, {"plan": scene, **data}
            rendered = render_plan(scene, self.with_sources, self.n_channels, self.rest)
        except InputError as e:
            return e
        data = {"mixture": rendered.mixture, **data}
        if self.with_sources:
            data["dry"] = _with_rows(rendered.dry, self.n_slots)
        if rendered.dry_interference is not None:
            data["dry_interference"] = _with_rows(rendered.dry_interference, self.n_interference)
            data["rest"] = rendered.rest
        return name, data


def _with_rows(signals: np.ndarray, n_rows: int) -> np.ndarray:
    """Signals [n, T] followed by rows of zeros: [n_rows, T]."""
    out = np.zeros((n_rows, signals.shape[1]), np.float32)
    out[: len(signals)] = signals
    return out


class FixedScenes(Dataset):
    """The mixtures of a data directory in its order. Slots are in the order of ``labels``.

    With ``rest``, items carry the same further targets as those of :class:`VirtualScenes`; I is the directory's own. A
    directory without these targets, as published sets are, has items without them.
    """

    def __init__(
        self, path: str | Path, labels: LabelSet, n_slots: int, with_sources: bool = True, rest: Rest = "none"
    ) -> None:
        self.data = DataDir.load(path, labels, n_slots)
        self.labels, self.n_slots, self.with_sources = labels, n_slots, with_sources
        self.n_interference = self.data.n_interference
        self.rest: Rest = rest if rest != "none" and self.data.has_rest(rest) else "none"

    def __len__(self) -> int:
        return len(self.data.utts)

    def __getitem__(self, key: tuple[int, int]) -> Item | InputError:
        utt = self.data.utts[key[1]]
        try:
            mixture, _ = self.data.mixture(utt)
            labels = self.data.labels[utt]
            data = {
                "mixture": mixture,
                "label_index": self.labels.indices(labels, self.n_slots, f"{self.data.path}: {utt}"),
            }
            if self.with_sources:
                data["dry"] = self.data.sources(utt)
            if self.rest != "none":
                data["dry_interference"] = self.data.interference(utt)
                data["rest"] = self.data.rest(utt, self.rest)
        except InputError as e:
            return e
        return utt, data


def collate(items: list[Item | InputError]) -> Batch | InputError:
    """Stacks items of one length into a batch; plans stay a list. Returns the first InputError among the items."""
    good: list[Item] = []
    for item in items:
        if isinstance(item, InputError):
            return item
        good.append(item)
    names = [name for name, _ in good]
    columns = {key: [data[key] for _, data in good] for key in good[0][1]}
    plans = {} if "plan" not in columns else {"plan": columns.pop("plan")}
    lengths = {mixture.shape for mixture in columns.get("mixture", ())}
    if len(lengths) > 1:
        return InputError(
            f"batch of {names[0]} ..", f"mixtures of shapes {sorted(lengths)}", "one shape (or batch_size 1)"
        )
    return names, {**plans, **{key: torch.from_numpy(np.stack(column)) for key, column in columns.items()}}


def _pack(items: list[Item | InputError]) -> Parcel | OSError:
    """A batch in the form that a worker sends."""
    try:
        return Parcel(collate(items))
    except OSError as e:
        return e


def _begin_work(_: int) -> None:
    """Prepares a worker."""
    ignore_stop_signals()
    # The training would wait forever for a message that cannot be sent. It notices that the worker has ended.
    Queue._on_queue_feeder_error = staticmethod(_give_up)  # type: ignore[attr-defined]


def _give_up(error: Exception, _: object) -> None:
    os.write(2, f"error: a batch cannot be sent: {' '.join(str(error).split())}\n".encode())
    os._exit(1)


_workers: WeakSet[BaseProcess] = WeakSet()
"""Workers of all data loaders of a training."""


@contextmanager
def report_lost_loaders() -> Iterator[None]:
    """Replaces torch's error about a lost data loader's worker by a ChildProcessError that gives the reason."""
    _workers.clear()
    try:
        yield
    except NotHandedOver as e:
        codes = _exit_codes(2.0)
        if not codes:  # the worker lives, and could not send
            raise
        raise ChildProcessError(errno.ECHILD, fate("a worker of the data loader", *codes)) from e
    except RuntimeError as e:
        if not str(e).startswith("DataLoader worker"):
            raise
        raise ChildProcessError(errno.ECHILD, fate("a worker of the data loader", *_exit_codes())) from e


def _exit_codes(patience: float = 0.0) -> list[int]:
    """Exit codes of the workers that have ended, after at most so many seconds of waiting for one."""
    until = time.monotonic() + patience
    codes: list[int] = []
    while not codes:
        # Torch's handler of SIGCHLD raises its own error wherever this process is: here, it is caught.
        with suppress(RuntimeError):
            codes = [worker.exitcode for worker in _workers if worker.exitcode is not None]
            time.sleep(0.05 if patience else 0.0)
        if time.monotonic() >= until:
            break
    return codes


def _kill_workers() -> None:
    """Kills the remaining workers of a process that ends."""
    workers = [child for child in multiprocessing.active_children() if child.daemon]
    if workers:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would report a crash
        for worker in workers:
            worker.kill()


class _EpochBatches(Sampler):
    """Batches of (epoch, item) keys. It lives in the main process, so workers persist over the epochs."""

    def __init__(self, n_items: int, batch_size: int, rank: int, world_size: int, drop_last: bool) -> None:
        self.epoch, self.start = 1, 0
        if batch_size < world_size:
            raise InputError("batch_size", batch_size, f"at least one item a process ({world_size})")
        n_full = n_items // batch_size
        batches = [list(range(i * batch_size, (i + 1) * batch_size)) for i in range(n_full)]
        rest = list(range(n_full * batch_size, n_items))
        if rest and not (drop_last and batches):
            # Every process needs an item of every batch. A rest that is too small joins the previous batch.
            if not batches and len(rest) < world_size:
                raise InputError("data", f"{n_items} items", f"at least one a process ({world_size})")
            if len(rest) >= world_size or not batches:
                batches.append(rest)
            else:
                batches[-1] += rest
        self.batches = [batch[rank::world_size] for batch in batches]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter([[(self.epoch, item) for item in batch] for batch in self.batches[self.start :]])


class SceneIterFactory(AbsIterFactory):
    """ESPnet's iterator factory over the datasets above. Workers persist over the epochs and keep their caches.

    Args:
        dataset: dataset that takes (epoch, item) keys.
        batch_size: items of a batch over all processes.
        num_workers: number of processes that render or read.
        rank: number of this process.
        world_size: number of processes.
        drop_last: whether to leave out an incomplete last batch (training).
        pin_memory: whether to pin the memory for transfers to a GPU.
        renderer: renderer of batches of plans, for a dataset with ``planned``.
    """

    def __init__(
        self,
        dataset: VirtualScenes | FixedScenes,
        batch_size: int,
        num_workers: int = 1,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        pin_memory: bool = False,
        renderer: DeviceRenderer | None = None,
    ) -> None:
        self.renderer = renderer
        self.n_slots = dataset.n_slots if dataset.with_sources else 0
        self.rest, self.n_interference = dataset.rest, dataset.n_interference
        self.batches = _EpochBatches(len(dataset), batch_size, rank, world_size, drop_last)
        self.loader: DataLoader = DataLoader(
            dataset,
            batch_sampler=self.batches,
            collate_fn=_pack if num_workers else collate,
            num_workers=num_workers,
            # Forked workers share the loaded audio.
            multiprocessing_context="fork" if num_workers else None,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            worker_init_fn=_begin_work,
        )

    def __len__(self) -> int:
        return len(self.batches)

    def build_iter(self, epoch: int, shuffle: bool | None = None, start: int = 0) -> Iterator[Batch]:
        """Batches of an epoch, without the first ``start`` ones.

        Raises InputError for bad data, OSError if a worker had no memory, RuntimeError if a worker was lost (see
        :func:`report_lost_loaders`).
        """
        self.batches.epoch, self.batches.start = epoch, start
        return self._delivered() if self.renderer is None else self._rendered(self.renderer)

    def _delivered(self) -> Iterator[Batch]:
        batches = self._start_loader()
        if self.loader.num_workers:
            # At its end, a process sends SIGTERM and waits for the workers, which ignore it. This handler runs first.
            atexit.unregister(_kill_workers)
            atexit.register(_kill_workers)
        for batch in batches:
            if isinstance(batch, InputError | OSError):
                raise batch
            yield batch

    def _start_loader(self) -> Iterator[Any]:
        if not self.loader.num_workers:
            return iter(self.loader)
        try:
            multiprocessing.get_context("fork").Lock()
        except OSError as e:
            reason = f"{e.strerror}: no room for the workers' locks; free some space, or use --num_workers 0"
            raise OSError(e.errno, reason, SHARED_MEMORY) from None
        others = set(multiprocessing.active_children())
        batches = iter(self.loader)
        _workers.update(set(multiprocessing.active_children()) - others)
        return batches

    def _rendered(self, renderer: DeviceRenderer) -> Iterator[Batch]:
        """Renders the plans of the workers. A thread reads the recordings of the next batches meanwhile."""
        waiting: deque[tuple[list[str], dict[str, Any], Future]] = deque()
        with ThreadPoolExecutor(1) as pool:
            for names, batch in self._delivered():
                waiting.append((names, batch, pool.submit(renderer.load, batch["plan"])))
                if len(waiting) > BATCHES_AHEAD:
                    yield self._render(renderer, *waiting.popleft())
            while waiting:
                yield self._render(renderer, *waiting.popleft())

    def _render(self, renderer: DeviceRenderer, names: list[str], batch: dict[str, Any], loaded: Future) -> Batch:
        made = renderer.render(batch.pop("plan"), self.n_slots, loaded.result(), self.rest, self.n_interference)
        batch = {"mixture": made.mixture, **batch} | ({"dry": made.dry} if self.n_slots else {})
        others = {"dry_interference": made.dry_interference, "rest": made.rest}
        return names, batch | {key: value for key, value in others.items() if value is not None}
