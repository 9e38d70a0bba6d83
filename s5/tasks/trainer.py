"""Trainer that resumes within an epoch and writes its files atomically.

ESPnet's trainer does the steps. This module adds the loop over epochs, the checkpoints, the handling of signals, the
processes of a distributed training, and validation figures that are not averages over batches.
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import humanfriendly
import numpy as np
import torch
from espnet2.schedulers.abs_scheduler import AbsEpochStepScheduler, AbsValEpochStepScheduler
from espnet2.torch_utils.set_all_random_seed import set_all_random_seed
from espnet2.train.distributed_utils import DistributedOption
from espnet2.train.reporter import Average, Reporter, SubReporter, WeightedAverage, aggregate
from espnet2.train.trainer import GradScaler, Trainer, TrainerOptions
from espnet2.utils.build_dataclass import build_dataclass
from torch import nn

from s5.system.training_log import write_epochs
from s5.tasks.checkpoint import Checkpoints, Position, read
from s5.tasks.distributed import Ranks
from s5.tasks.logging.boards import Board, Tensorboard, WandB
from s5.tasks.logging.examples import Examples
from s5.tasks.model_selection import EpochModels
from s5.tasks.preemption import Requeue, request_requeue, stop_requested
from s5.utils.errors import InputError

RANK_SEED = 1_000_003
"""Difference of the seeds of two processes, so that their dropout and augmentation differ."""


@dataclass
class S5TrainerOptions(TrainerOptions):
    """Options of ESPnet's trainer and of :class:`S5Trainer`."""

    checkpoint_minutes: float = 15.0
    dist_timeout: float = 600.0
    num_examples: int = 3
    examples_interval: int = 0


class S5Trainer(Trainer):
    """The trainer of taggers and separators."""

    @classmethod
    def build_options(cls, args: argparse.Namespace) -> S5TrainerOptions:
        """Options of the trainer from the arguments. Raises InputError for an unsupported option of ESPnet."""
        for name in ("use_adapter", "sharded_ddp", "use_deepspeed", "num_att_plot", "ddp_comm_hook"):
            if getattr(args, name, None):
                raise InputError(f"key {name}", getattr(args, name), "none, because S5 does not support it")
        for name in ("num_examples", "examples_interval", "wandb_model_log_interval"):
            if getattr(args, name) < (least := -1 if name.startswith("wandb") else 0):
                raise InputError(f"key {name}", getattr(args, name), f"at least {least}")
        return build_dataclass(S5TrainerOptions, args)

    @classmethod
    def run(
        cls,
        model: Any,
        optimizers: Sequence[torch.optim.Optimizer],
        schedulers: Sequence[Any],
        train_iter_factory: Any,
        valid_iter_factory: Any,
        plot_attention_iter_factory: None,
        trainer_options: S5TrainerOptions,
        distributed_option: DistributedOption,
    ) -> None:
        """Trains from the last checkpoint, or from the start, to the last epoch. Arguments as in ESPnet's trainer.

        Raises:
            Requeue: a stop signal was received; the state is saved.
            OSError: a file could not be written; the last checkpoint is unchanged.
            InputError: no checkpoint can be read, or a parameter has no gradient in a distributed training.
        """
        if distributed_option.ngpu > 1:
            raise InputError("--ngpu", distributed_option.ngpu, "1 a process (python -m s5.bin.train starts them)")
        training = _Training(cls, model, optimizers, schedulers, trainer_options, distributed_option)
        training.resume()
        training.prepare()
        training.run(train_iter_factory, valid_iter_factory)
        training.ranks.close()

    @classmethod
    @torch.no_grad()
    def validate_one_epoch(cls, model: torch.nn.Module, reporter: SubReporter, **kwargs: Any) -> None:
        """Runs over the validation set once. Arguments as in ESPnet's trainer.

        A model may have a method ``figures(averages: dict[str, float]) -> dict[str, float]``. It takes the averages of
        all reported values, and its result replaces them in the log, in tensorboard and for ``best_model_criterion``.
        """
        super().validate_one_epoch(model=model, reporter=reporter, **kwargs)
        figures = getattr(getattr(model, "module", model), "figures", None)
        if figures is None or not reporter.count:
            return
        averages = {name: float(aggregate(values)) for name, values in reporter.stats.items()}
        # The reporter needs one entry a batch: the first has weight 1, the others 0.
        nothing = [WeightedAverage(np.nan, 0)] * (reporter.count - 1)
        values = {name: [WeightedAverage(value, 1), *nothing] for name, value in figures(averages).items()}
        reporter.stats.clear()
        reporter.stats.update(values)


class _Training:
    """State of one training: model, optimizers, position and files."""

    def __init__(
        self,
        trainer: type[S5Trainer],
        model: Any,
        optimizers: Sequence[torch.optim.Optimizer],
        schedulers: Sequence[Any],
        options: S5TrainerOptions,
        distributed: DistributedOption,
    ) -> None:
        self.trainer, self.model, self.optimizers, self.schedulers = trainer, model, optimizers, schedulers
        self.options, self.distributed = options, distributed
        self.scaler = GradScaler() if options.use_amp else None
        self.reporter = Reporter()
        self.folder = Path(options.output_dir)
        self.ranks = Ranks(distributed.distributed, options.dist_timeout)
        self.checkpoints = Checkpoints(self.folder)
        self.models = EpochModels(self.folder, options.best_model_criterion, options.keep_nbest_models)
        self.position = Position(1)
        self.partial: dict[str, Any] | None = None
        self.random: dict[str, Any] | None = None
        self.saved: Position | None = None
        self.saved_at = time.monotonic()
        self.no_valid_step = False
        self.watch = _GradientWatch(model)
        self.curves_due = 0.0
        self.examples: Examples | None = None

    # Resume.

    def resume(self) -> None:
        """Loads the last checkpoint, if there is one. All processes load the one that the first process chose."""
        if self.ranks.first:
            self.checkpoints.clear_leftovers()
        state = None

        def load() -> None:
            nonlocal state
            state = self.checkpoints.load() if self.options.resume else None

        self._write(load)
        if not self.ranks.first_of(state is not None):
            return
        if state is None:
            # The first process has renamed a damaged checkpoint, so the newest one is readable.
            state = read(next(p for p in (self.checkpoints.newest, self.checkpoints.previous) if p.exists()))
        self.load_state(state)
        first = self.ranks.first_of(self.position)
        if first != self.position:
            raise InputError(self.folder, f"a checkpoint of {self.position}", f"that of process 0, of {first}")
        logging.info("resumed from a checkpoint: %s", self.position)
        self._write(self._write_log)

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.reporter.load_state_dict(state["reporter"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        for scheduler, values in zip(self.schedulers, state["schedulers"], strict=True):
            if scheduler is not None:
                scheduler.load_state_dict(values)
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])
        # The keys below are missing in a checkpoint of ESPnet's own trainer, which is of the end of an epoch.
        self.position = Position(**state.get("position", {"epoch": self.reporter.get_epoch() + 1}))
        self.partial = state.get("partial")
        self.no_valid_step = state.get("no_valid_step", False)
        parameters = dict(self.model.named_parameters())
        for name, gradient in state.get("gradients", {}).items():
            parameters[name].grad = gradient.to(parameters[name])
        states = state.get("random", [])
        if len(states) == self.ranks.size:
            self.random = states[self.ranks.rank]
        elif states:
            text = "%d processes resume a training of %d: random numbers start from the seed"
            logging.warning(text, self.ranks.size, len(states))
        self.saved = self.position

    def prepare(self) -> None:
        """Wraps the model for several processes, if there are several."""
        options = self.options
        self.parallel: nn.Module = self.model
        if not self.distributed.distributed:
            return
        on_gpu = self.distributed.ngpu == 1
        if on_gpu:
            _synchronise_batch_norms(self.model)
        elif any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in self.model.train().modules()):
            logging.warning("each batch norm uses the items of its own process: on CPUs they cannot be synchronised")
        self.parallel = nn.parallel.DistributedDataParallel(
            self.model,
            device_ids=[torch.cuda.current_device()] if on_gpu else None,
            find_unused_parameters=options.unused_parameters,
            gradient_as_bucket_view=options.gradient_as_bucket_view,
        )

    # Epochs.

    def run(self, train: Any, valid: Any) -> None:
        """Runs the remaining epochs and writes the averages of the best ones."""
        options, began = self.options, time.monotonic()
        writers = self._open_writers()
        self.boards: list[Board] = [Tensorboard(writers["valid"])] if writers else []
        if options.use_wandb and self.ranks.first:
            self.boards.append(WandB())
        if self.boards and options.num_examples:
            self.examples = Examples(
                self.model, valid.loader.dataset, options.num_examples, options.examples_interval, options.max_epoch
            )
        first = self.position.epoch
        if first > options.max_epoch:
            logging.warning("the training has already reached max_epoch: %d", first)
            self.reporter.set_epoch(max(self.reporter.stats, default=0))
        for epoch in range(first, options.max_epoch + 1):
            if self._is_over(epoch):
                break
            left = (time.monotonic() - began) / max(epoch - first, 1) * (options.max_epoch - epoch + 1)
            estimate = f". Estimated time to finish: {humanfriendly.format_timespan(left)}" if epoch > first else ""
            logging.info("%d/%depoch started%s", epoch, options.max_epoch, estimate)
            set_all_random_seed(options.seed + epoch + RANK_SEED * self.ranks.rank)
            self.reporter.set_epoch(epoch)
            if not self.position.trained:
                self._train(epoch, train, writers)
                self.position = Position(epoch, trained=True)
            self._validate(epoch, valid)
            self._step_schedulers()
            self.position = Position(epoch + 1)
            self._write(self._finish_epoch)
            self.saved, self.saved_at = self.position, time.monotonic()
            self._write(partial(self._report, epoch, writers))
        else:
            logging.info("finished after %d epochs", options.max_epoch)
        for writer in writers.values():
            writer.close()
        self._write(self._finish)

    def _is_over(self, epoch: int) -> bool:
        """Whether the previous epochs end the training: invalid gradients, or no improvement within ``patience``."""
        options = self.options
        if epoch == 1 or self.position != Position(epoch):
            return False
        if self.no_valid_step:
            logging.warning("stopped after epoch %d: the gradients of all its steps are invalid", epoch - 1)
            return True
        return options.patience is not None and bool(
            self.reporter.check_early_stopping(options.patience, *options.early_stopping_criterion)
        )

    def _train(self, epoch: int, factory: Any, writers: dict[str, Any]) -> None:
        start = self.position.batch
        with self.reporter.observe("train") as part:
            if self.partial is not None:
                _fill_part(part, self.partial)
                self.partial = None
            iterator = factory.build_iter(epoch, start=start) if start else factory.build_iter(epoch)
            no_valid_step = self.trainer.train_one_epoch(
                model=self.parallel,
                optimizers=self.optimizers,
                schedulers=self.schedulers,
                iterator=self._pausing(iterator, part),
                reporter=part,
                scaler=self.scaler,
                summary_writer=writers.get("train"),
                options=self.options,
                distributed_option=self.distributed,
            )
            # Steps before a resume count as well.
            self.no_valid_step = no_valid_step and not any(
                np.isfinite(norm.value) for norm in part.stats.get("grad_norm", [])
            )

    def _pausing(self, batches: Iterator[Any], part: SubReporter) -> Iterator[Any]:
        """Yields the batches of an epoch. It may save and stop between two, if no gradients are being accumulated."""
        while True:
            if self.position.batch % self.options.accum_grad == 0:
                self._pause(part)
            batch = next(batches, None)
            # Only now, because the loader draws random numbers as it does in an uninterrupted training.
            self._restore_random()
            if batch is None:
                return
            yield batch
            self._check_gradients()
            self.position = Position(self.position.epoch, self.position.batch + 1)

    def _restore_random(self) -> None:
        """Restores the random states once after a resume within an epoch. At its start the seed sets them."""
        if self.random is not None and self.position.batch:
            _set_random_state(self.random)
        self.random = None

    def _check_gradients(self) -> None:
        """Names the parameters without a gradient after the first batch. Raises InputError if that is an error."""
        missing = self.watch.missing()
        if not missing:
            return
        names = ", ".join(missing[:5]) + (f" ({len(missing)} in all)" if len(missing) > 5 else "")
        if self.distributed.distributed and not self.options.unused_parameters:
            raise InputError("key unused_parameters", f"false, but no gradient reaches {names}", "true or freeze_param")
        logging.warning("no gradient reaches %s", names)

    def _validate(self, epoch: int, factory: Any) -> None:
        average, network = getattr(self.model, "_average", {}), getattr(self.model, "network", self.model)
        # Running statistics are not synchronised by gradients and may differ between processes.
        self.ranks.share(average[name] for name, _ in network.named_buffers() if name in average)
        with self.reporter.observe("valid") as part:
            self.trainer.validate_one_epoch(
                model=self.parallel,
                iterator=self._pausing_validation(factory.build_iter(epoch)),
                reporter=part,
                options=self.options,
                distributed_option=self.distributed,
            )

    def _pausing_validation(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yields the batches of a validation. A stop within it saves the state before it, so a resume repeats it."""
        while True:
            self._pause(None)
            batch = next(batches, None)
            self._restore_random()
            if batch is None:
                return
            yield batch

    def _step_schedulers(self) -> None:
        for scheduler in self.schedulers:
            if isinstance(scheduler, AbsValEpochStepScheduler):
                scheduler.step(self.reporter.get_value(*self.options.val_scheduler_criterion))
            elif isinstance(scheduler, AbsEpochStepScheduler):
                scheduler.step()

    # Files.

    def _pause(self, part: SubReporter | None) -> None:
        """Saves if it is due or if any process received a stop signal; all stop in the second case."""
        minutes = self.options.checkpoint_minutes
        due = self.ranks.first and 0 < minutes * 60 <= time.monotonic() - self.saved_at
        stop, due = self.ranks.any(stop_requested() is not None, due)
        if (stop or due) and self.position != self.saved:
            states = self.ranks.gather(_random_state())
            self._write(lambda: self.checkpoints.save(self._state(part, states)))
            self.saved, self.saved_at = self.position, time.monotonic()
            logging.info("saved: %s", self.position)
        if stop:
            if self.ranks.first:
                request_requeue()
            signal = stop_requested()
            logging.warning("stopped by %s; resume at %s", signal.name if signal else "a signal", self.position)
            if self.options.use_wandb:
                WandB().interrupted()
            self.ranks.close()
            raise Requeue

    def _state(self, part: SubReporter | None, states: list[dict[str, Any]]) -> dict[str, Any]:
        """State to resume from. At the end of an epoch, ``part`` is None and ``states`` is empty."""
        return {
            "model": self.model.state_dict(),
            "reporter": self.reporter.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [None if s is None else s.state_dict() for s in self.schedulers],
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "position": vars(self.position),
            "partial": None if part is None else _part_state(part),
            "random": states,
            "gradients": {n: p.grad for n, p in self.model.named_parameters() if p.grad is not None},
            "no_valid_step": self.no_valid_step,
        }

    def _finish_epoch(self) -> None:
        """Saves an epoch. Its weights come first, because the checkpoint relies on them."""
        epoch = self.reporter.get_epoch()
        logging.info(self.reporter.log_message())
        self.models.save(epoch, self.model.state_dict())
        self.checkpoints.save(self._state(None, []))
        self._write_log()
        self.models.update_links(self.reporter)
        interval = self.options.nbest_averaging_interval
        if interval > 0 and epoch % interval == 0:
            self.models.average(self.reporter, f"till{epoch}epoch")
        self.models.prune(self.reporter)

    def _write_log(self) -> None:
        sizes = [(p.numel(), p.requires_grad) for p in self.model.parameters()]
        total, trainable = sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)
        write_epochs(self.folder, self.reporter.stats, total, trainable)

    def _draw_curves(self) -> None:
        """Draws ESPnet's curves. Drawing takes at most about 1 % of the time of the training."""
        began = time.monotonic()
        if self.options.use_matplotlib:
            self.reporter.matplotlib_plot(self.folder / "images")
        self.curves_due = time.monotonic() + 100 * (time.monotonic() - began)

    def _finish(self) -> None:
        self._draw_curves()
        self.models.average(self.reporter)
        self.models.prune(self.reporter, finished=True)

    def _write(self, write: Callable[[], None]) -> None:
        """Calls ``write`` in the first process. All processes end if it fails."""
        error = None
        if self.ranks.first:
            try:
                write()
            except (OSError, InputError) as e:
                error = e
        self.ranks.settle(error)

    def _open_writers(self) -> dict[str, Any]:
        if not (self.options.use_tensorboard and self.ranks.first):
            return {}
        from torch.utils.tensorboard import SummaryWriter

        return {part: SummaryWriter(str(self.folder / "tensorboard" / part)) for part in ("train", "valid")}

    def _report(self, epoch: int, writers: dict[str, Any]) -> None:
        """Writes examples and curves of the figures for people."""
        if self.examples is not None and self.examples.due(epoch):
            before = _random_state()  # examples must not change the random numbers of the training
            self.examples.show(self.boards, epoch)
            _set_random_state(before)
        if epoch < self.options.max_epoch and time.monotonic() >= self.curves_due:
            self._draw_curves()
        for part, writer in writers.items():
            self.reporter.tensorboard_add_scalar(writer, key1=part)
        if self.options.use_wandb:
            self.reporter.wandb_log()
            every = self.options.wandb_model_log_interval
            if every > 0 and epoch % every == 0:
                WandB().weights(self.folder / f"{epoch}epoch.pth", epoch)


class _GradientWatch:
    """Finds the parameters that get no gradient in the first backward pass."""

    def __init__(self, model: nn.Module) -> None:
        self.waiting = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.hooks = [
            p.register_post_accumulate_grad_hook(lambda _, name=name: self.waiting.pop(name, None))
            for name, p in list(self.waiting.items())
        ]

    def missing(self) -> list[str]:
        """Names of the parameters without a gradient at the first call; nothing afterwards."""
        missing = list(self.waiting)
        for hook in self.hooks:
            hook.remove()
        self.hooks, self.waiting = [], {}
        return missing


def _synchronise_batch_norms(model: Any) -> None:
    """Synchronises the batch norms of a model over all processes. Frozen modules stay frozen."""
    names = {module: name for name, module in model.named_modules()}
    frozen = [names[module] for module in model.frozen]
    nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model.frozen = [model.get_submodule(name) for name in frozen]


def _part_state(part: SubReporter) -> dict[str, Any]:
    """Values and weights that an unfinished pass has reported, as plain values."""
    stats = {
        name: [(float(v.value), getattr(v, "weight", None)) for v in values] for name, values in part.stats.items()
    }
    seconds = time.perf_counter() - part.start_time
    return {"stats": stats, "count": part.count, "total_count": part.total_count, "seconds": seconds}


def _fill_part(part: SubReporter, state: dict[str, Any]) -> None:
    """Restores the values of :func:`_part_state`."""
    for name, values in state["stats"].items():
        part.stats[name] = [Average(v) if weight is None else WeightedAverage(v, weight) for v, weight in values]
    part.count, part.total_count = state["count"], state["total_count"]
    part.start_time = time.perf_counter() - state["seconds"]


def _random_state() -> dict[str, Any]:
    """States of the random generators of this process."""
    kind, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys, np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
