"""Base class of the ESPnet2 tasks that train taggers and separators: options, data and batches."""

from __future__ import annotations

import argparse
import logging
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, cast, get_args

import torch
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.tasks.abs_task import AbsTask, IteratorOptions
from espnet2.train.abs_espnet_model import AbsESPnetModel
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import str2bool, str_or_none
from torch import nn

from s5.labels import LabelSet
from s5.scene.config import Rest
from s5.system.model import build_network
from s5.tasks.data import FixedScenes, SceneIterFactory, VirtualScenes, collate, device_renderer, is_virtual
from s5.tasks.espnet_patches import patch_main
from s5.tasks.trainer import S5Trainer
from s5.utils.errors import InputError

patch_main()


class S5Task(AbsTask):
    """An ESPnet2 task whose items are scenes. ``s5.tasks.launch`` sets the options that follow from the data."""

    num_optimizers = 1
    trainer = S5Trainer
    networks: dict[str, type[nn.Module]]
    """Network classes by the name that ``network`` takes."""
    with_sources: bool
    """Whether batches carry the dry targets."""
    valid_figures: tuple[str, ...]
    """Figures that validation reports and ``best_model_criterion`` may name."""

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Adds the options of S5 to those of ESPnet."""
        add = parser.add_argument_group("S5").add_argument
        add("--network", choices=sorted(cls.networks), default=min(cls.networks), help="Kind of network")
        add("--network_conf", action=NestedDictAction, default={}, help="Arguments of the network")
        add("--num_threads", type=int, help="CPU threads of the training process (default: torch's)")
        add("--renderer", choices=("cpu", "device"), default="cpu", help="Render scenes in the workers or on the GPU")
        add("--device_cache_mb", type=int, default=2048, help="Audio and impulse responses kept on the GPU, in MB")
        add("--bf16", type=str2bool, default=False, help="Run the network in bfloat16")
        add("--ema_decay", type=float, default=0.0, help="Decay of the average of the weights, e.g. 0.999; 0: none")
        add("--checkpoint_minutes", type=float, default=15.0, help="Interval of saving in an epoch; 0: at its end only")
        add("--dist_timeout", type=float, default=600.0, help="Seconds to wait for another process before giving up")
        add("--num_examples", type=int, default=3, help="Validation mixtures shown in tensorboard and W&B; 0: none")
        add("--examples_interval", type=int, default=0, help="Epochs between examples; 0: at most 1 %% of the time")
        add("--num_scenes", type=int, help="Fresh scenes an epoch (default: the sampler's)")
        add("--scene_conf", action=NestedDictAction, default={}, help="Sampler keys to replace")
        add(
            "--rest",
            choices=get_args(Rest),
            default="none",
            help="Further targets: dry interference and a rest of the mixture",
        )
        add("--train_data", type=str_or_none, help="Data directory, usually a virtual one")
        add("--valid_data", type=str_or_none, help="Data directory")
        add("--labels", type=str, nargs="+", default=[], help="Label set (default: the training data's)")
        add("--n_slots", type=int, default=3, help="Output slots K")
        add("--sampling_rate", type=int, help="In Hz (default: the training data's)")

    @classmethod
    def build_network(cls, args: argparse.Namespace) -> nn.Module:
        """Builds the network that the arguments describe. Raises InputError for an argument that does not fit."""
        if args.num_threads is not None:  # more threads than a small network needs slow the workers down
            if type(args.num_threads) is not int or args.num_threads < 1:
                raise InputError("num_threads", repr(args.num_threads), "a whole number of at least 1")
            torch.set_num_threads(args.num_threads)
        return build_network(
            cls.networks[args.network], args.network_conf, "network_conf", len(args.labels), args.n_slots
        )

    @classmethod
    @abstractmethod
    def build_model(cls, args: argparse.Namespace) -> AbsESPnetModel:
        """Builds the ESPnet model around the network."""

    @classmethod
    def build_optimizers(cls, args: argparse.Namespace, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Builds ESPnet's optimizer and updates the average of the weights after each of its steps."""
        optimizers = super().build_optimizers(args, model)
        if args.ema_decay:
            for optimizer in optimizers:
                optimizer.register_step_post_hook(lambda *_: cast(Any, model).update_average())
        return optimizers

    @classmethod
    def channels_used(cls, args: argparse.Namespace) -> int | None:
        """Number of leading channels of a mixture that the model uses; None: all."""
        return None

    @classmethod
    def build_collate_fn(cls, args: argparse.Namespace, train: bool) -> Callable[..., Any]:
        """Returns the function that stacks items into a batch."""
        return collate

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool) -> None:
        """Returns None: the dataset renders the scenes."""
        return None

    @classmethod
    def required_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """Returns no name: the data come from ``--train_data`` and ``--valid_data``."""
        return ()

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """Returns no name, see :meth:`required_data_names`."""
        return ()

    @classmethod
    def build_task_iter_factory(
        cls, args: argparse.Namespace, iter_options: IteratorOptions, mode: str
    ) -> AbsIterFactory:
        """Builds batches of scenes: rendered on the fly if the data directory is virtual, else read from its files."""
        path = args.train_data if mode == "train" else args.valid_data
        if path is None:
            raise InputError(f"--{mode}_data", "nothing", "a data directory")
        labels = LabelSet(tuple(args.labels))
        rest: Rest = args.rest if cls.with_sources else "none"
        dataset: VirtualScenes | FixedScenes
        renderer = None
        if is_virtual(path):
            num_scenes = args.num_scenes if mode == "train" else None
            if args.renderer == "device":
                renderer = device_renderer("cuda" if args.ngpu > 0 else "cpu", args.device_cache_mb)
            dataset = VirtualScenes(
                path,
                args.scene_conf,
                args.seed,
                num_scenes,
                cls.with_sources,
                planned=renderer is not None,
                n_channels=cls.channels_used(args),
                rest=rest,
            )
            if dataset.labels != labels:
                raise InputError(
                    f"{path}/sampler.yaml", f"labels {' '.join(dataset.labels.names)}", " ".join(args.labels)
                )
        else:
            dataset = FixedScenes(path, labels, args.n_slots, cls.with_sources, rest)
        distributed = iter_options.distributed
        factory = SceneIterFactory(
            dataset,
            iter_options.batch_size,
            num_workers=args.num_workers,
            rank=torch.distributed.get_rank() if distributed else 0,
            world_size=torch.distributed.get_world_size() if distributed else 1,
            drop_last=mode == "train",
            pin_memory=args.ngpu > 0,
            renderer=renderer,
        )
        logging.info("[%s] %s: %d items in %d batches", mode, path, len(dataset), len(factory))
        return factory
