"""Starts an ESPnet task from a training YAML and data directories, and checks both before it runs."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from s5.labels import LabelSet
from s5.scene import SamplerConfig
from s5.system.derived import with_derived
from s5.system.kinds import KINDS, load
from s5.system.origins import describe, write_origins
from s5.system.sizes import Keys, resolve_training
from s5.tasks.distributed import ProcessGroup, remove_stale_inits, report_lost_workers, slurm_init_method
from s5.tasks.espnet_patches import import_without_transformers, load_only_weights
from s5.tasks.init_checks import check_start
from s5.tasks.logging.boards import check_wandb
from s5.tasks.preemption import handle_signals
from s5.tasks.resolved import Phase, check_goes_on, check_same, phase_of, resolved, start_options, write_resolved
from s5.utils.config import check_arguments, load_yaml, parse
from s5.utils.errors import InputError, one_of
from s5.utils.files import write_text


def train_model(
    system: str | Path,
    name: str,
    phase: str,
    train_data: str,
    valid_data: str,
    expdir: str | Path,
    ngpu: int = -1,
    extra: Sequence[str] = (),
) -> None:
    """Trains a model that a system names, or resumes its training.

    Args:
        system: system YAML.
        name: a model in it.
        phase: ``train``, ``finetune``, ``finetune2`` and so on. Each fine-tuning starts from the best checkpoint of the
            previous phase.
        train_data: data directory, usually virtual.
        valid_data: data directory.
        expdir: folder of the experiments.
        ngpu: number of GPUs of this process, 0 or 1; -1: one if there is one. A training on several GPUs has a process
            for each, which reads its rank from the environment (``s5.tasks.distributed``).
        extra: further ESPnet options, as on a command line; they override the YAML.

    Raises:
        InputError: the YAML or the data are wrong.
        OSError: a file could not be written; the old one is unchanged.
        ConnectionError: another process of this training was lost.
        ChildProcessError: a worker of the data loader was lost.
        Requeue: SIGTERM or SIGUSR1 was received; the state is saved, and the same call resumes.
    """
    found = phase_of(system, name, phase)
    options = [*extra, *start_options(found, expdir)]
    task = KINDS[found.kind].task.split(".")[-2]
    train(task, found.file, train_data, valid_data, Path(expdir) / found.folder, ngpu, options, found)


def train(
    task: str,
    config_path: str | Path,
    train_data: str,
    valid_data: str,
    output_dir: str | Path,
    ngpu: int = -1,
    extra: Sequence[str] = (),
    phase: Phase | None = None,
) -> None:
    """Runs an ESPnet task; arguments and errors as in :func:`train_model`.

    Args:
        task: module of ``s5.tasks``: ``tagging``, ``separation`` or ``source_tagging``.
        config_path: training YAML that errors name.
        output_dir: folder of the experiment. InputError if it holds a model of another training.
        phase: the training of a system; by default the YAML alone describes it.
    """
    for data in (train_data, valid_data):
        if not Path(data).is_dir():
            raise InputError(data, "no such folder", "a data directory (stages 1 and 2)")
    sampler = _sampler(train_data)
    found = resolve_training([str(config_path)]) if phase is None else Keys(phase.config, phase.origins)
    keys, files = with_derived(found, train_data)
    labels = sampler.labels if isinstance(sampler.labels, list) else list(LabelSet.load(sampler.labels).names)
    config = {**keys, "labels": labels, "n_slots": sampler.n_slots, "sampling_rate": sampler.sampling_rate}
    config |= {"train_data": str(train_data), "valid_data": str(valid_data), "output_dir": str(output_dir)}

    load_only_weights()
    task_class = _task(task)
    _check_options(task_class, extra)
    _check_config(task_class, config, config_path)
    import torch

    if ngpu < 0:
        ngpu = min(torch.cuda.device_count(), 1)
    elif ngpu > torch.cuda.device_count():
        raise InputError("--ngpu", ngpu, f"at most {torch.cuda.device_count()}, the GPUs that torch finds here")
    config |= {"ngpu": ngpu, "resume": True, "iterator_type": "task", "num_att_plot": 0}
    now = resolved(keys, train_data, valid_data, extra)
    check_same(output_dir, now)
    check_goes_on(output_dir)
    args = _arguments(task_class, config, extra, Path(output_dir))
    check_start(task_class, args)
    check_wandb(args)
    if ProcessGroup.find().rank == 0:
        write_resolved(output_dir, now)
        write_origins(output_dir, describe(keys, files))
    _fill_schedule(args, sampler)
    _take_place(args, Path(output_dir))
    if ngpu == 0:
        _keep_memory()
    from s5.tasks.data import report_lost_loaders

    with handle_signals(), report_lost_workers(), report_lost_loaders():
        task_class.main(args=args)


def _keep_memory() -> None:
    """Makes the C library keep freed memory: on a CPU, each step needs the memory that the previous one has freed."""
    import ctypes

    trim_threshold, mmap_threshold, largest = -1, -3, 1 << 30  # the names' numbers in malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    for option in (trim_threshold, mmap_threshold):
        mallopt(option, largest)


def _take_place(args: argparse.Namespace, folder: Path) -> None:
    """Sets ESPnet's options of a distributed training from the environment."""
    place = ProcessGroup.find()
    args.multiprocessing_distributed = False  # the processes are already started
    if place.size == 1:
        return
    import torch

    args.dist_world_size, args.dist_rank = place.size, place.rank
    args.ngpu = min(args.ngpu, 1)
    # A launcher may make only its own GPU visible to each process.
    args.local_rank = place.local_rank % max(torch.cuda.device_count(), 1) if args.ngpu else 0
    args.dist_backend = "nccl" if args.ngpu else "gloo"
    if args.dist_init_method == "env://":
        args.dist_init_method = place.init_method or slurm_init_method(folder)
    if place.rank == 0:
        remove_stale_inits(folder, args.dist_init_method)
    else:
        logging.getLogger().setLevel(logging.ERROR)  # the first process logs for all


def _sampler(train_data: str | Path) -> SamplerConfig:
    where = Path(train_data, "sampler.yaml")
    if not where.exists():
        raise InputError(train_data, "no sampler.yaml", "a virtual data directory (stage 2)")
    return parse(SamplerConfig, load_yaml(where), where)


def _task(name: str) -> Any:
    logging.info("importing ESPnet")
    import_without_transformers()
    return load(next(kind.task for kind in KINDS.values() if kind.task.split(".")[-2] == name))


def _check_options(task_class: Any, extra: Sequence[str]) -> None:
    """Refuses an unknown option in one line, where ESPnet would print all known ones."""
    known = [option for option in task_class.get_parser()._option_string_actions if option.startswith("--")]
    for word in extra:
        name = word.split("=")[0]
        if word.startswith("--") and not any(option.startswith(name) for option in known):  # abbreviations are fine
            raise InputError(name, "an unknown ESPnet option", one_of(known, name, 5))


def _check_config(task_class: Any, config: dict[str, Any], where: str | Path) -> None:
    """Refuses unknown keys and wrong values before anything is built or written."""
    import torch
    from espnet2.tasks.abs_task import optim_classes, scheduler_classes

    actions = {a.dest: a for a in task_class.get_parser()._actions}
    for key, value in config.items():
        if key not in actions:
            raise InputError(f"{where}: key {key}", "an unknown key", one_of(actions, str(key), 5))
        _check_value(actions[key], value, f"{where}: key {key}")
    criteria = config.get("best_model_criterion") or []
    for row in criteria if isinstance(criteria, list) else [criteria]:
        if not (isinstance(row, list) and len(row) == 3 and all(isinstance(word, str) for word in row)):
            raise InputError(f"{where}: key best_model_criterion", ascii(row)[:80], "lists [phase, figure, min or max]")
    for kind, table, given in (("optim", optim_classes, ("params",)), ("scheduler", scheduler_classes, ("optimizer",))):
        name = config.get(kind)
        if name is None:
            continue
        if name not in table:
            raise InputError(f"{where}: key {kind}", name, one_of(table, str(name)))
        conf = dict(config.get(f"{kind}_conf") or {})
        if name == "onecyclelr":
            conf.setdefault("total_steps", 1)
        check_arguments(table[name], conf, f"{where}: {kind}_conf", given)
    sampler = Path(config["train_data"], "sampler.yaml")
    parse(SamplerConfig, {**load_yaml(sampler), **(config.get("scene_conf") or {})}, f"{where}: scene_conf")
    parser_defaults = vars(task_class.get_parser().parse_args(["--output_dir", "unused"]))
    try:
        with torch.device("meta"):
            task_class.build_model(argparse.Namespace(**{**parser_defaults, **config}))
    except InputError as e:
        raise InputError.at(where, e) from None
    for phase, figure, _ in criteria:
        if phase == "valid" and figure not in task_class.valid_figures:
            raise InputError(f"{where}: key best_model_criterion", figure, one_of(task_class.valid_figures, figure))


def _check_value(action: argparse.Action, value: Any, where: str) -> None:
    if isinstance(action.default, dict) and not isinstance(value, dict):
        raise InputError(where, ascii(value)[:80], "a mapping of keys")
    if action.choices is not None and value is not None and value not in action.choices:
        raise InputError(where, value, one_of(map(str, action.choices), str(value)))
    if action.type in (int, float) and value is not None and not (isinstance(value, list) and action.nargs):
        try:
            assert not isinstance(value, bool) and math.isfinite(action.type(str(value)))
        except (ValueError, AssertionError):
            raise InputError(where, repr(value), f"a number ({action.type.__name__})") from None


def _arguments(task_class: Any, config: dict[str, Any], extra: Sequence[str], output_dir: Path) -> argparse.Namespace:
    """Options as ESPnet reads them: from a YAML file, then from the command line."""
    output_dir.mkdir(parents=True, exist_ok=True)
    path = output_dir / "train.yaml"
    write_text(path, yaml.safe_dump(config, sort_keys=False))
    return task_class.get_parser().parse_args(["--config", str(path), *extra])


def _fill_schedule(args: argparse.Namespace, sampler: SamplerConfig) -> None:
    """Sets the length of a one-cycle schedule to the number of updates, unless the YAML gives it."""
    if args.scheduler != "onecyclelr" or "total_steps" in args.scheduler_conf or "epochs" in args.scheduler_conf:
        return
    batches = max(1, (args.num_scenes or sampler.num_scenes) // args.batch_size)
    updates = -(-batches // args.accum_grad) * args.max_epoch
    args.scheduler_conf = {**args.scheduler_conf, "total_steps": updates + 1}
