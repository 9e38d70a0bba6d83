"""ESPnet task that trains a tagger; ``python -m s5.bin.train`` runs it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import cast

import torch
from espnet2.utils.nested_dict_action import NestedDictAction
from torch import Tensor

from s5.labels import LabelSet
from s5.tagging.decision import MultiHotDecision
from s5.tagging.encoder import Encoder
from s5.tagging.tagger import TAGGERS, Tagger
from s5.tasks.base import S5Task
from s5.tasks.checkpoint import has_checkpoint
from s5.tasks.models import TaggingModel
from s5.tasks.valid_metrics import FIGURES
from s5.utils.config import parse
from s5.utils.errors import InputError

LOSSES = {False: "pit_cross_entropy", True: "multi_hot_bce"}
"""Loss of a head: one softmax per track, or one sigmoid per class (True)."""


@dataclass
class LossConfig:
    """The key ``loss_conf``."""

    class_weight: dict[str, float] = field(default_factory=dict)
    """Weight of a class in pit_cross_entropy by its label, ``silence`` included; 1 for all others."""


class TaggingTask(S5Task):
    """Trains a tagger with permutation-invariant cross entropy over tracks, or with one sigmoid per class."""

    networks = dict(TAGGERS)
    with_sources = False
    valid_figures = ("loss", *FIGURES)

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Adds the options of taggers."""
        super().add_task_arguments(parser)
        add = parser.add_argument_group("S5 tagging").add_argument
        add("--loss", choices=sorted(LOSSES.values()), help="Training loss (default: the one that fits the head)")
        add("--loss_conf", action=NestedDictAction, default={}, help="Arguments of the loss")
        add("--decision", action=NestedDictAction, default={}, help="threshold, n_min, n_max of a multi-hot tagger")

    @classmethod
    def channels_used(cls, args: argparse.Namespace) -> int:
        """Number of channels of the encoder. Auxiliary features use the first channel."""
        with torch.device("meta"):
            return cast(Tagger, cls.build_network(args)).encoder.n_channels

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> TaggingModel:
        """Builds the tagger that the arguments describe and loads the pretrained weights of its encoder, if any."""
        network = cast(Tagger, cls.build_network(args))
        if args.loss not in (None, LOSSES[network.multi_hot]):
            kind = "a multi-hot head" if network.multi_hot else "a track-based head"
            raise InputError("loss", args.loss, f"{LOSSES[network.multi_hot]} for {kind}")
        decision: MultiHotDecision = parse(MultiHotDecision, args.decision, "decision")
        weight = _class_weight(args, network.multi_hot)
        model = TaggingModel(network, len(args.labels), args.bf16, args.ema_decay, weight, decision)
        model.freeze(args.freeze_param)
        prepare_encoder(network.encoder, args)
        return model


def prepare_encoder(encoder: Encoder, args: argparse.Namespace) -> None:
    """Loads the pretrained weights of an encoder, unless a checkpoint brings its weights.

    Raises:
        InputError: its sampling rate is not that of the data.
    """
    if args.sampling_rate not in (None, encoder.sampling_rate):
        expected = f"{args.sampling_rate}, the data's"
        raise InputError("network_conf: encoder: sampling_rate", encoder.sampling_rate, expected)
    # On the meta device only the configuration is checked.
    if not _brings_encoder(args) and not any(p.is_meta for p in encoder.parameters()):
        encoder.load_weights()


def _brings_encoder(args: argparse.Namespace) -> bool:
    """Whether the encoder's weights come from a checkpoint: of this training, or of one that it starts from."""
    targets = [(*str(start).split(":"), "", "")[2] for start in args.init_param]
    resumes = args.resume and has_checkpoint(args.output_dir)
    return resumes or any(target in ("", "network", "network.encoder") for target in targets)


def _class_weight(args: argparse.Namespace, multi_hot: bool) -> Tensor | None:
    """Weight of each class [C + 1]; None if all are equal."""
    config: LossConfig = parse(LossConfig, args.loss_conf, "loss_conf")
    if not config.class_weight:
        return None
    if multi_hot:
        raise InputError("loss_conf: key class_weight", "a multi-hot head", "a track-based head")
    weight = torch.ones(len(args.labels) + 1)
    labels = LabelSet(tuple(args.labels))
    for label, value in config.class_weight.items():
        if not 0 < value < float("inf"):
            raise InputError(f"loss_conf: key class_weight: {label}", value, "a finite number above 0")
        weight[labels.index(label, "loss_conf: key class_weight")] = value
    return weight
