"""Changes of ESPnet (version 202511) while a training runs, each with its reason.

``test/tasks/test_espnet_patches.py`` reads the installed ESPnet and fails if a change is no longer needed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from s5.utils.config import parse_value
from s5.utils.errors import InputError


def import_without_transformers() -> None:
    """Imports ESPnet's adapters without ``transformers``. A training does not need it, and it takes six seconds."""
    if "transformers" not in sys.modules:
        sys.modules["transformers"] = None  # type: ignore[assignment]
        try:
            importlib.import_module("espnet2.layers.create_adapter_fn")
        finally:
            del sys.modules["transformers"]


def load_only_weights() -> None:
    """Makes every ``torch.load`` of this process refuse code.

    Reason: ESPnet loads checkpoints and ``--init_param`` with ``weights_only=False``, so a crafted file could run code.
    """
    import torch

    from s5.checkpoints import plain_kinds

    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    torch.serialization.add_safe_globals(plain_kinds())


def patch_main() -> None:
    """Replaces two names that ESPnet's main function uses: ``DistributedOption`` and ``wandb``.

    Reasons: ESPnet's processes wait for each other without the limit ``dist_timeout``; and see :class:`WandbOfMain`.
    """
    from espnet2.tasks import abs_task

    abs_task.DistributedOption = _distributed_option()
    abs_task.wandb = WandbOfMain()


def read_numbers() -> None:
    """Makes options such as ``--optim_conf lr=2e-3`` read values as the project's YAML files do.

    Reason: ESPnet's loader follows YAML 1.1, in which ``2e-3`` is a text.
    """
    from espnet2.utils import nested_dict_action

    nested_dict_action.yaml = SimpleNamespace(Loader=None, load=lambda text, Loader: parse_value(text))


def _distributed_option() -> Any:
    import torch
    from espnet2.train.distributed_utils import DistributedOption

    @dataclass
    class WithTimeout(DistributedOption):
        """ESPnet's options of a distributed training, with a limit on the time that processes wait for each other."""

        dist_timeout: float = 600.0

        def init_torch_distributed(self) -> None:
            """Joins the process group. Raises RuntimeError if the others are later than ``dist_timeout`` seconds."""
            if not self.distributed:
                return
            os.environ.setdefault("NCCL_DEBUG", "WARN")
            if self.ngpu > 0:
                torch.cuda.set_device(self.local_rank)
            torch.distributed.init_process_group(
                backend=self.dist_backend,
                init_method=self.dist_init_method,
                world_size=self.dist_world_size,
                rank=self.dist_rank,
                timeout=timedelta(seconds=self.dist_timeout),
            )

    return WithTimeout


class WandbOfMain:
    """The module ``wandb`` for ESPnet's main function, with two changed calls.

    Reasons: a resumed training may change the run's configuration (``max_epoch``, processes), which ``wandb`` refuses
    by default. Without an API key, ESPnet trains without W&B although the user has asked for it; here it is an error.
    """

    def __getattr__(self, name: str) -> Any:
        import wandb

        return getattr(wandb, name)

    @property
    def config(self) -> WandbOfMain:
        """Replaces ``wandb.config``."""
        return self

    def update(self, args: argparse.Namespace) -> None:
        """Calls ``wandb.config.update`` and allows changed values."""
        import wandb

        wandb.config.update(args, allow_val_change=True)

    def login(self) -> None:
        """Calls ``wandb.login``. Raises InputError for a missing API key."""
        import wandb

        try:
            wandb.login()
        except wandb.errors.UsageError:
            expected = "one (command wandb login, or WANDB_API_KEY), WANDB_MODE=offline, or false"
            raise InputError("--use_wandb", "no API key", expected) from None
