"""ESPnet task that trains a separator; ``python -m s5.bin.train`` runs it."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from espnet2.utils.nested_dict_action import NestedDictAction

from s5.separation import SEPARATORS, memory_format
from s5.separation.losses import ca_pi_sdr, ca_sdr, pi_sdr, snr
from s5.tasks.base import S5Task
from s5.tasks.estimates import add_estimators, load_for
from s5.tasks.models import SeparationModel
from s5.utils.config import check_arguments
from s5.utils.errors import InputError

LOSSES = {"ca_pi_sdr": ca_pi_sdr, "ca_sdr": ca_sdr, "pi_sdr": pi_sdr, "snr": snr}


class SeparationTask(S5Task):
    """Trains a label-queried separator with oracle labels."""

    networks = dict(SEPARATORS)
    with_sources = True
    valid_figures = ("loss", "sdri", "pi_sdri")

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Adds the options of separators."""
        super().add_task_arguments(parser)
        group = parser.add_argument_group("S5 separation")
        add_estimators(group)
        add = group.add_argument
        add("--loss", choices=sorted(LOSSES), default="ca_pi_sdr", help="Training loss")
        add("--loss_conf", action=NestedDictAction, default={}, help="Arguments of the loss")
        add("--queries", choices=("all", "one"), default="all", help="Sources that one query asks for in training")

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> SeparationModel:
        """Builds the separator that the arguments describe, in the memory format that suits its convolutions."""
        loss: Any = LOSSES[args.loss]
        check_arguments(loss, args.loss_conf, "loss_conf", given=("estimate", "target", "label_index", "silence_index"))
        network = memory_format(cls.build_network(args))
        if args.queries == "one" and not getattr(network, "single_query", False):
            raise InputError("key queries", "one", f"all, or a single-query network ({args.network} takes K at a time)")
        loss = partial(loss, **args.loss_conf)
        model = SeparationModel(network, len(args.labels), loss, args.bf16, args.ema_decay, args.queries == "one")
        model.tagger, others = load_for(network, args)
        if others:
            raise InputError("--estimators", others[0].name, "a tagger: separators are trained on no other outputs")
        model.freeze(args.freeze_param)
        return model
