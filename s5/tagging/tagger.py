"""Builds taggers from an encoder, auxiliary features and a head by name, and keeps frozen parts frozen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from s5.tagging.augment import LogMelAugment
from s5.tagging.encoder import Encoder
from s5.tagging.features import FEATURES
from s5.tagging.heads import HEADS, Head
from s5.utils.config import build
from s5.utils.errors import InputError, one_of

ENCODERS = {
    "m2d": "s5.tagging.m2d.M2DEncoder",
    "htsat": "s5.tagging.htsat.HTSATEncoder",
    "yamnet": "s5.tagging.yamnet.YAMNetEncoder",
}
"""Encoders by the ``kind`` that a configuration uses; imported on use, because their libraries take seconds."""

M = TypeVar("M", bound=nn.Module)


class OnEncoder(nn.Module):
    """Network on an encoder whose frozen parts stay frozen.

    Args:
        encoder: a kind of :data:`ENCODERS` and its arguments.
        trainable: see :class:`Tagger`.
    """

    def __init__(self, encoder: Mapping[str, Any], trainable: str) -> None:
        super().__init__()
        self.encoder = _build_encoder(encoder)
        # Names survive the exchange of modules (batch norms that several processes share).
        names = {module: name for name, module in self.encoder.named_modules()}
        self._frozen = {names[module] for module in freeze_encoder(self.encoder, trainable)}

    def encode(self, waveform: Tensor) -> Tensor:
        """Features [B, frames, dim] of [B, M, T] or [B, T]; a frozen encoder makes no graph."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and "" not in self._frozen):
            return self.encoder(waveform)

    def train(self, mode: bool = True) -> Self:
        """Switches to training or evaluation; frozen parts stay in evaluation."""
        super().train(mode)
        for name, module in self.encoder.named_modules():
            if name in self._frozen:
                module.training = False
        return self


class Tagger(OnEncoder):
    """Tagger of configured parts, each ``{kind: name, argument: value, ...}``.

    Args:
        n_labels: number of labels C (without silence).
        n_slots: K, number of tracks.
        encoder: a kind of :data:`ENCODERS` and its arguments.
        features: kinds of :data:`s5.tagging.features.FEATURES` with their arguments, auxiliary features of the
            reference channel; by default none.
        head: a kind of :data:`s5.tagging.heads.HEADS` and its arguments.
        trainable: ``head`` (with the auxiliary features' networks), ``<n>_blocks`` (also the encoder's last n layers
            and the modules after them), or ``all``. Frozen parts have no gradient and no graph, and their dropout and
            batch statistics stay in evaluation mode.

    Raises:
        InputError: an unknown kind or argument; in the forward pass, a mixture that does not fit the encoder.
    """

    def __init__(
        self,
        encoder: dict[str, Any],
        head: dict[str, Any],
        n_labels: int = 18,
        n_slots: int = 3,
        features: Sequence[dict[str, Any]] = (),
        trainable: str = "all",
    ) -> None:
        super().__init__(encoder, trainable)
        self.n_labels, self.n_slots = n_labels, n_slots
        rate = self.encoder.sampling_rate
        self.features = nn.ModuleList(
            _build(FEATURES, conf, f"features.{i}", sampling_rate=rate) for i, conf in enumerate(features)
        )
        self.head: Head = _build(
            HEADS,
            head,
            "head",
            feature_dim=self.encoder.dim,
            n_slots=n_slots,
            n_classes=n_labels + 1,
            auxiliary_dim=sum(feature.width for feature in self.features),
        )

    @property
    def multi_hot(self) -> bool:
        """Whether the output is one sigmoid per class [B, C] instead of one softmax per track [B, K, C + 1]."""
        return self.head.multi_hot

    @property
    def official_names(self) -> dict[str, str]:
        """Prefixes of keys in official checkpoints, and those here."""
        return {"m2d.backbone.": "encoder.", "backbone.": "encoder.", **self.head.official_names}

    def forward(self, mixture: Tensor) -> Tensor:
        """Waveforms [B, M, T] -> logits [B, K, C + 1], silence last; of a multi-hot head [B, C]."""
        return self.head(self.encode(mixture), self._auxiliary(mixture))

    def frame_posterior(self, mixture: Tensor) -> Tensor:
        """Posteriors of the classes in each frame of the encoder.

        The head classifies each frame as if the recording were this frame alone; auxiliary features are those of the
        whole recording. A class that several tracks may hold has the highest of their probabilities. The head learns
        from whole recordings, so these posteriors tell where a class is rather than how likely it is.

        Args:
            mixture: [B, M, T] waveforms.

        Returns:
            [B, frames, C] float32 from 0 to 1, without silence.
        """
        features, auxiliary = self.encode(mixture), self._auxiliary(mixture)
        frames = features.shape[1]
        if auxiliary is not None:
            auxiliary = auxiliary.repeat_interleave(frames, dim=0)
        logits = self.head(features.flatten(0, 1)[:, None], auxiliary).float()
        posterior = logits.sigmoid() if self.multi_hot else logits.softmax(-1)[..., :-1].amax(1)
        return posterior.unflatten(0, (-1, frames))

    def _auxiliary(self, mixture: Tensor) -> Tensor | None:
        """Embeddings of the auxiliary features [B, width], if there are any."""
        if not self.features:
            return None
        return torch.cat([feature(mixture[:, 0]) for feature in self.features], dim=1)


class M2DTagger(Tagger):
    """Track-based tagger on M2D (Nguyen et al., section 3.1, and the official baselines).

    Args:
        n_labels: number of labels C (without silence).
        n_slots: K, number of tracks.
        n_channels: number of channels to encode: 1 for the reference channel (channel 0); features of several channels
            are concatenated.
        encoder: arguments of :class:`s5.tagging.m2d.M2DEncoder`.
        head: arguments of :class:`s5.tagging.heads.TrackHead`.
        trainable: see :class:`Tagger`.

    Raises:
        InputError: an unknown argument, or a mixture with too few channels or a NaN.
    """

    def __init__(
        self,
        n_labels: int = 18,
        n_slots: int = 3,
        n_channels: int = 4,
        encoder: dict[str, Any] | None = None,
        head: dict[str, Any] | None = None,
        trainable: str = "all",
    ) -> None:
        super().__init__(
            {**(encoder or {}), "kind": "m2d", "n_channels": n_channels},
            {**(head or {}), "kind": "track"},
            n_labels,
            n_slots,
            trainable=trainable,
        )


def freeze_encoder(encoder: Encoder, trainable: str) -> list[nn.Module]:
    """Clears ``requires_grad`` of frozen parameters, and returns the modules that must stay in evaluation mode.

    Augmentation follows the tagger's own mode.

    Args:
        encoder: changed in place.
        trainable: ``head``, ``<n>_blocks`` or ``all``.

    Raises:
        InputError: another value, or more blocks than the encoder has.
    """
    if trainable == "all":
        return []
    blocks = re.fullmatch(r"(\d+)_blocks", trainable)
    if trainable != "head" and not (blocks and int(blocks[1]) <= encoder.n_layers):
        raise InputError("trainable", trainable, f"head, 0_blocks .. {encoder.n_layers}_blocks or all")
    top = encoder.top_layers(int(blocks[1])) if blocks else []
    trained = {module for layer in top for module in layer.modules()}
    kept = {id(parameter) for layer in top for parameter in layer.parameters() if parameter.requires_grad}
    for parameter in encoder.parameters():
        parameter.requires_grad_(id(parameter) in kept)
    augmenting = {m for layer in encoder.modules() if isinstance(layer, LogMelAugment) for m in layer.modules()}
    return [m for m in encoder.modules() if m not in trained | augmenting and not trained.intersection(m.modules())]


def _build_encoder(conf: Mapping[str, Any]) -> Encoder:
    module, _, name = ENCODERS[_kind(ENCODERS, conf, "encoder")].rpartition(".")
    return _build({conf["kind"]: getattr(import_module(module), name)}, conf, "encoder")


def _build(table: Mapping[str, type[M]], conf: Mapping[str, Any], where: str, **given: Any) -> M:
    """Builds the module of ``{kind: name, argument: value, ...}``; ``given`` are arguments outside the YAML."""
    kind = _kind(table, conf, where)
    arguments = {key: value for key, value in conf.items() if key != "kind"}
    return build(table[kind], arguments, where, **given)


def _kind(table: Mapping[str, Any], conf: Mapping[str, Any], where: str) -> str:
    kind = conf.get("kind")
    if kind not in table:
        raise InputError(f"{where}: key kind", kind or "nothing", one_of(table, str(kind)))
    return str(kind)


TAGGERS: dict[str, type[Tagger]] = {"m2d": M2DTagger, "tagger": Tagger}
"""Taggers by the name under ``network``."""
