"""YAMNet: MobileNet v1 over patches of a log-mel spectrogram, trained on AudioSet.

TensorFlow's release (Plakal and Ellis, ``research/audioset/yamnet`` of its models; Apache License 2.0) has 3.75 million
weights. The repository ships them as ``pretrained/yamnet.safetensors``.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from s5.checkpoints import load_tensors, read_tensors
from s5.tagging.augment import LogMelAugment
from s5.tagging.encoder import Encoder, Resampler
from s5.tagging.logmel import MagnitudeLogMel
from s5.utils.config import check_arguments, resolve
from s5.utils.errors import InputError

RATE = 16000
"""Sampling rate that the network hears, in Hz."""
N_MELS = 64
"""Mel bands of its spectrogram."""
PATCH = 96
"""Frames of a patch: 0.96 s."""
HOP = 160
"""Samples from frame to frame: 10 ms."""
WINDOW = 400
"""Samples of the analysis window: 25 ms."""
OFFSET = 0.001
"""Added to the bands' magnitudes before the logarithm: what silence is."""
CHUNK = 32
"""Patches that frozen layers work on at a time on a CPU, at most: more do not fit its caches and cost twice."""
N_CLASSES = 521
"""Classes of AudioSet that the release tells apart."""
LAYERS = (
    (2, 32),
    *((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512)),
    *[(1, 512)] * 5,
    *((2, 1024), (1, 1024)),
)
"""Stride and channels of each layer: a convolution, then pairs of a depthwise and a pointwise one."""


class _SameConv(nn.Conv2d):
    """A convolution without bias whose edges are padded as TensorFlow's ``same``: the odd row and column at the end."""

    def __init__(self, planes: int, channels: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(planes, channels, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        size, step = self.kernel_size[0], self.stride[0]
        missing = [max(0, (-(-n // step) - 1) * step + size - n) for n in x.shape[2:]]
        if missing[0] == missing[1] == size - 1:
            return functional.conv2d(x, self.weight, None, step, size // 2, groups=self.groups)
        height, width = missing
        return super().forward(
            functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)),
        )


class _Step(nn.Module):
    """Convolution, batch norm without a scale, ReLU: [N, planes, H, W] -> [N, channels, H / stride, W / stride]."""

    def __init__(self, planes: int, channels: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = _SameConv(planes, channels, kernel, stride, groups)
        self.norm = nn.BatchNorm2d(channels, eps=1e-4, momentum=0.01)
        self.norm.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.conv(x)), inplace=True)


class _Pair(nn.Module):
    """A depthwise convolution of 3x3 and a pointwise one, each with its batch norm and ReLU."""

    def __init__(self, planes: int, channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = _Step(planes, planes, 3, stride, groups=planes)
        self.pointwise = _Step(planes, channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class YAMNetEncoder(Encoder):
    """Waveform to a sequence of features, one a patch of 0.96 s.

    The last patch is filled with silence, and so is a waveform that is shorter than one: there is a patch wherever the
    waveform is, as in the release.

    Args:
        sampling_rate: of the mixture in Hz; the encoder resamples it to 16 kHz.
        n_channels: channels that are encoded; see :class:`s5.tagging.encoder.Encoder`.
        hop: seconds from patch to patch, a multiple of 0.01; half the patches cost half the time.
        output: ``embeddings`` (1024 a patch) or ``scores``, the probabilities of the release's 521 classes.
        augment: arguments of :class:`s5.tagging.augment.LogMelAugment`; by default none.
        weights: the release's weights, ``pretrained/yamnet.safetensors``.
    """

    def __init__(
        self,
        sampling_rate: int = RATE,
        n_channels: int = 1,
        hop: float = 0.48,
        output: Literal["embeddings", "scores"] = "embeddings",
        augment: dict[str, Any] | None = None,
        weights: str | None = None,
    ) -> None:
        frames = hop * RATE / HOP
        if round(frames) < 1 or abs(frames - round(frames)) > 1e-6:
            raise InputError("YAMNetEncoder: hop", hop, "a multiple of 0.01 s, at least that")
        check_arguments(LogMelAugment, augment or {}, "augment")
        channels = [n for _, n in LAYERS]
        super().__init__(sampling_rate, n_channels, N_CLASSES if output == "scores" else channels[-1], weights)
        self.hop_frames = round(frames)
        self.resampler = Resampler(sampling_rate, RATE)
        self.log_mel = MagnitudeLogMel(RATE, N_MELS, 512, WINDOW, HOP, 125.0, 7500.0, OFFSET)
        self.augment = LogMelAugment(**(augment or {}))
        self.layers = nn.ModuleList([_Step(1, channels[0], 3, LAYERS[0][0])])
        self.layers.extend(
            _Pair(planes, n, stride) for planes, (stride, n) in zip(channels[:-1], LAYERS[1:], strict=True)
        )
        self.classifier = nn.Linear(channels[-1], N_CLASSES) if output == "scores" else None

    @property
    def n_layers(self) -> int:
        """The first convolution and the pairs: 14."""
        return len(self.layers)

    def top_layers(self, n: int) -> list[nn.Module]:
        """The last ``n`` layers, and the classifier of ``scores``."""
        self._check_layers(n)
        return [*list(self.layers)[self.n_layers - n :], *([self.classifier] if self.classifier else [])]

    def load_weights(self) -> None:
        """Loads ``weights``: those of the release, which has no scales of batch norms; see the class."""
        if not self.weights:
            return
        tensors = read_tensors(resolve(self.weights))
        if self.classifier is None:
            tensors = {key: value for key, value in tensors.items() if not key.startswith("classifier.")}
        for key, value in self.state_dict().items():
            if key.endswith("norm.weight"):
                tensors.setdefault(key, torch.ones_like(value))
            elif key.endswith("num_batches_tracked"):
                tensors.setdefault(key, torch.zeros_like(value))
        load_tensors(self, tensors, self.weights)

    def encode(self, waveform: Tensor) -> Tensor:
        """Encodes single-channel waveforms.

        Args:
            waveform: [N, T] at the mixture's sampling rate.

        Returns:
            [N, patches, feature_dim].
        """
        patches = self.patches(self.resampler(waveform))
        x = patches.flatten(0, 1).unsqueeze(1)
        n_fixed = 0 if x.requires_grad else self._count_fixed()
        if n_fixed:
            n_chunks = -(-len(x) // CHUNK) if x.device.type == "cpu" else 1
            with torch.no_grad():
                x = torch.cat([self._run(chunk, 0, n_fixed) for chunk in x.chunk(n_chunks)])
        x = self._run(x, n_fixed, self.n_layers)
        features = x.mean((2, 3)).unflatten(0, patches.shape[:2])
        return features if self.classifier is None else self.classifier(features).sigmoid()

    def _count_fixed(self) -> int:
        """Number of the first layers that need no gradient and whose statistics stay: their patches do not meet."""
        for n, layer in enumerate(self.layers):
            learns = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in layer.parameters())
            if layer.training or learns:
                return n
        return self.n_layers

    def _run(self, x: Tensor, first: int, end: int) -> Tensor:
        for layer in list(self.layers)[first:end]:
            x = layer(x)
        return x

    def patches(self, waveform: Tensor) -> Tensor:
        """[N, T] at 16 kHz -> log-mel patches [N, patches, 96, 64]."""
        first, step = (PATCH - 1) * HOP + WINDOW, self.hop_frames * HOP
        more = -(-max(0, waveform.shape[-1] - first) // step)
        mel = self.log_mel(functional.pad(waveform, (0, first + more * step - waveform.shape[-1])))
        if self.augment.training:  # magnitudes have half the decibels of powers
            floor = math.log(OFFSET)
            mel = self.augment(mel - floor, 2.0).clamp(min=0) + floor
        return mel.mT.unfold(1, PATCH, self.hop_frames).mT
