"""Runs frozen models while another model is trained on their outputs (``estimates`` of a system's model)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from s5.separation.losses import sa_sdr
from s5.separation.tse import TSE
from s5.separation.uss import USS
from s5.system.model import TrainedModel, load_model
from s5.tagging.tagger import Tagger
from s5.utils.errors import InputError


def add_estimators(parser: argparse._ArgumentGroup) -> None:
    """Adds the option ``--estimators``."""
    parser.add_argument(
        "--estimators",
        nargs="*",
        default=[],
        metavar="FOLDER",
        help="Experiment folders, or checkpoints in them, of frozen models whose outputs the training uses",
    )


def load_estimators(args: argparse.Namespace) -> list[TrainedModel]:
    """The models of ``--estimators``, frozen. The training's own model must not register them, as it is saved.

    Raises:
        InputError: there is no such model, or its labels, K or sampling rate are not those of the training.
    """
    models = []
    for path in map(Path, args.estimators):
        model = load_model(path, None, None) if path.is_dir() else load_model(path.parent, path.name, None)
        own = {"labels": list(model.labels.names), "n_slots": model.n_slots, "sampling_rate": model.sampling_rate}
        for key, value in own.items():
            if getattr(args, key) not in (value, None):
                raise InputError(f"{model.name}: {key}", value, f"{getattr(args, key)}, as in the training")
        model.network.requires_grad_(False)
        models.append(model)
    return models


def load_for(network: torch.nn.Module, args: argparse.Namespace) -> tuple[TrainedModel | None, list[TrainedModel]]:
    """The models of ``--estimators``: the tagger whose frame posteriors the network wants, and the others.

    None are loaded for a network on the meta device, which only checks sizes.

    Raises:
        InputError: as of :func:`load_estimators`; the network wants a tagger and there is none, or the reverse.
    """
    if next(network.parameters()).is_meta:
        return None, []
    models = load_estimators(args)
    taggers = [model for model in models if isinstance(model.network, Tagger)]
    wanted = getattr(network, "time_film", False)
    if len(taggers) != wanted:
        found = f"{str(wanted).lower()}, and {len(taggers)} taggers to give frame posteriors"
        raise InputError("network_conf: time_film", found, "true and a tagger (frames: NAME in the system), or neither")
    return taggers[0] if taggers else None, [model for model in models if model not in taggers]


@torch.no_grad()
def estimates_of(
    model: TrainedModel, batch: Mapping[str, Tensor], uss: TrainedModel | None = None
) -> tuple[Tensor, Tensor]:
    """Outputs of a frozen model for a batch of scenes, each with the dry source that it holds.

    Args:
        model: a separator, TSE, or USS, which has no query.
        batch: ``mixture`` [B, M, n], ``dry`` [B, K, n], zeros in silent slots, and ``query`` [B, K], the class indices
            to ask for (C is silence).
        uss: its outputs are the enrolments of TSE; None: TSE gets none.

    Returns:
        Waveforms [B, N, n] and for each the slot of its source [B, N], K if it holds none (:func:`match`).
    """
    mixture, dry, query, n_labels = batch["mixture"], batch["dry"], batch["query"], len(model.labels)
    network = model.network.to(mixture.device)
    if isinstance(network, USS):
        waveforms = network(mixture).waveform.float()
    else:
        label_vector = F.one_hot(query, n_labels + 1)[..., :n_labels].to(mixture.dtype)
        clues = [label_vector]
        if isinstance(network, TSE) and uss is not None:
            clues.append(enrolments(uss, mixture, dry)[0] * (query < n_labels)[..., None])
        waveforms = network(mixture, *clues).float()
    return waveforms, match(waveforms, dry, mixture[:, 0])


@torch.no_grad()
def enrolments(uss: TrainedModel, mixture: Tensor, dry: Tensor) -> tuple[Tensor, Tensor]:
    """First estimates of sources by a frozen USS.

    Args:
        uss: the model.
        mixture: [B, M, n].
        dry: [B, K, n], zeros in silent slots.

    Returns:
        The foreground [B, K, n] in the order of the sources, what is left of it in silent slots; and the slots of
        interference [B, I, n].
    """
    network = uss.network.to(mixture.device)
    assert isinstance(network, USS)
    waveform = network(mixture).waveform.float()
    foreground = waveform[:, : network.foreground]
    order = sa_sdr(foreground, F.pad(dry, (0, 0, 0, network.foreground - dry.shape[1])))[1][:, : dry.shape[1]]
    paired = foreground.gather(1, order[..., None].expand_as(dry))
    return paired, waveform[:, network.foreground : network.foreground + network.interference]


def match(waveforms: Tensor, dry: Tensor, reference: Tensor, threshold: float = 0.0) -> Tensor:
    """Finds the source that each waveform holds.

    It is the source with the highest SDR, if this SDR is higher than that of the mixture and that of silence (0 dB)
    by more than a threshold. The latter matters for weak sources: silence improves on a mixture of negative SDR.

    Args:
        waveforms: [B, N, n].
        dry: [B, K, n], zeros in silent slots.
        reference: [B, n], the mixture's reference channel.
        threshold: in dB.

    Returns:
        Slot of the source [B, N], K if there is none.
    """
    power = dry.square().sum(-1)  # [B, K]
    found = torch.cat([waveforms, reference[:, None]], 1)
    error = power[:, None] + found.square().sum(-1, keepdim=True) - 2 * found @ dry.mT  # [B, N + 1, K]
    smallest = torch.finfo(power.dtype).tiny
    sdr = 10 * torch.log10(power[:, None] / error.clamp(min=smallest).maximum(1e-6 * power[:, None]))
    gain = sdr[:, :-1] - sdr[:, -1:].clamp(min=0)
    gain = gain.masked_fill(power[:, None] <= 0, -torch.inf)
    best = gain.max(-1)
    return torch.where(best.values > threshold, best.indices, dry.shape[1])
