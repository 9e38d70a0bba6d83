"""ESPnet task that trains a source tagger on dry sources and on the outputs of frozen separators."""

from __future__ import annotations

import argparse
from typing import cast

from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.tasks.abs_task import IteratorOptions
from espnet2.utils.nested_dict_action import NestedDictAction

from s5.tagging.source import SOURCE_TAGGERS, SourceTagger
from s5.tasks.base import S5Task
from s5.tasks.estimates import add_estimators, load_estimators
from s5.tasks.source_model import FIGURES, LossConfig, Shares, SourceTaggingModel
from s5.tasks.tagging import prepare_encoder
from s5.utils.config import parse
from s5.utils.errors import InputError


class SourceTaggingTask(S5Task):
    """Trains a source tagger with ArcFace, a decision on silence, and uniform posteriors of what is silent."""

    networks = dict(SOURCE_TAGGERS)
    with_sources = True
    valid_figures = ("loss", *FIGURES)

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Adds the options of source taggers."""
        super().add_task_arguments(parser)
        group = parser.add_argument_group("S5 source tagging")
        group.add_argument("--items", type=int, default=3, help="Training items a mixture")
        group.add_argument("--shares", action=NestedDictAction, default={}, help="Shares of the kinds of items")
        group.add_argument("--loss_conf", action=NestedDictAction, default={}, help="Margin and weights of the loss")
        add_estimators(group)

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> SourceTaggingModel:
        """Builds the source tagger that the arguments describe, with its frozen separators."""
        network = cast(SourceTagger, cls.build_network(args))
        if args.items < 1:
            raise InputError("key items", args.items, "1 or more")
        loss: LossConfig = parse(LossConfig, args.loss_conf, "loss_conf")
        shares: Shares = parse(Shares, args.shares, "shares")
        checked = any(p.is_meta for p in network.parameters())  # on the meta device only the configuration is checked
        estimators = [] if checked else load_estimators(args)
        figures = [figure for phase, figure, _ in args.best_model_criterion if phase == "valid"]
        if not checked and not estimators and "accuracy_estimates" in figures:
            raise InputError(
                "key best_model_criterion", "accuracy_estimates", "accuracy_dry: there are no --estimators"
            )
        model = SourceTaggingModel(network, estimators, loss, shares, args.items, args.bf16, args.ema_decay)
        model.freeze(args.freeze_param)
        prepare_encoder(network.encoder, args)
        return model

    @classmethod
    def build_task_iter_factory(
        cls, args: argparse.Namespace, iter_options: IteratorOptions, mode: str
    ) -> AbsIterFactory:
        """Builds batches of scenes; interfering sources are for training only."""
        if mode != "train":
            args = argparse.Namespace(**{**vars(args), "rest": "none"})
        return super().build_task_iter_factory(args, iter_options, mode)
