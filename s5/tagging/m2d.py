"""Builds the M2D encoder of the official baselines: a vision transformer over patches of a log-mel spectrogram.

The default arguments build the backbone of ``m2d_as_vit_base-80x1001p16x16p32k``: same parameters, same features.
Smaller sizes start from random weights.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s5.checkpoints import load_tensors, read_tensors
from s5.tagging.augment import LogMelAugment
from s5.tagging.encoder import Encoder
from s5.tagging.logmel import LogMel
from s5.utils.config import check_arguments, resolve
from s5.utils.errors import InputError

_RELEASE_PREFIX = "module.ar.runtime.backbone."
"""Prefix of the encoder's keys in files of M2D's fine-tuning."""


class ReleaseSizes(NamedTuple):
    """Sizes in the name of an M2D release."""

    input_size: tuple[int, int]
    patch_size: tuple[int, int]
    sampling_rate: int


def release_sizes(path: str | Path) -> ReleaseSizes | None:
    """Reads the sizes in the name of a release's folder or file; None if neither has them.

    Example:
        >>> release_sizes("m2d_as_vit_base-80x1001p16x16p32k-240413_AS-FT_enconly/weights_ep69it3124-0.47998.pth")
        ReleaseSizes(input_size=(80, 1001), patch_size=(16, 16), sampling_rate=32000)
    """
    path = Path(path)
    for name in (path.parent.name, path.name):
        match = re.search(r"-(\d+)x(\d+)p(\d+)x(\d+)(?:p(\d+)k)?(?=[-p.]|$)", name)
        if match:
            mels, frames, height, width, kilohertz = (int(v or 16) for v in match.groups())  # M2D's default: 16 kHz
            return ReleaseSizes((mels, frames), (height, width), 1000 * kilohertz)
    return None


class _PatchEmbedding(nn.Module):
    """Projects each patch after optional convolutions: [B, planes, n_mels, frames] -> [B, dim, rows, steps]."""

    def __init__(self, planes: int, dim: int, patch_size: tuple[int, int], stem: Sequence[int]) -> None:
        super().__init__()
        factor = 2 ** len(stem)
        if any(size % factor for size in patch_size):
            raise InputError("M2DEncoder: stem", f"{len(stem)} layers", f"2^layers to divide patch_size {patch_size}")
        layers: list[nn.Module] = []
        for width in stem:
            layers += [nn.Conv2d(planes, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            planes = width
        self.stem = nn.Sequential(*layers)
        size = (patch_size[0] // factor, patch_size[1] // factor)
        self.proj = nn.Conv2d(planes, dim, kernel_size=size, stride=size)

    def forward(self, x: Tensor) -> Tensor:
        if len(self.stem):  # saves a quarter of a training step's time
            x = x.contiguous(memory_format=torch.channels_last)
        return self.proj(self.stem(x))


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class _MLP(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        if torch.is_grad_enabled():
            return self.fc2(F.gelu(hidden))
        return self.fc2(torch.ops.aten.gelu_(hidden))  # in place: a new array of this size costs as much again


class Block(nn.Module):
    """A pre-norm transformer block. [B, N, dim] -> [B, N, dim]."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim, eps=1e-6), _Attention(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), _MLP(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, dim] -> the same shape."""
        x = x + self.dropout(self.attn(self.norm1(x)))
        update = self.dropout(self.mlp(self.norm2(x)))
        return x + update if torch.is_grad_enabled() else x.add_(update)


class M2DEncoder(Encoder):
    """Encodes a waveform as a sequence of features, one per patch column (160 ms with 16-frame patches).

    Inputs longer than a window are encoded window by window; a last window shorter than a patch is dropped. Shorter
    inputs use the first columns of the position embedding.

    Args:
        sampling_rate: sampling rate of mixture and encoder in Hz; by default that in the name of ``weights``, or 32000.
        input_size: (mel bands, frames) of one window; by default that in the name of ``weights``, or (80, 1001).
        patch_size: (mel bands, frames) of one patch; by default that in the name of ``weights``, or (16, 16).
        dim: width of the transformer.
        depth: number of blocks.
        heads: number of attention heads.
        norm_stats: mean and standard deviation of the log-mel values; checkpoints have their own.
        dropout: dropout of the residual branches in training.
        contrast: add a second input plane, each band minus its mean over time, which shows events over a steady
            background. Use it for small encoders with few recordings; the released weights do not have it.
        stem: widths of 3x3 convolutions with stride 2, batch norm and ReLU before the patches' projection (Xiao et al.,
            NeurIPS 2021: early convolutions make a transformer learn sooner). The released weights have none.
        augment: arguments of :class:`s5.tagging.augment.LogMelAugment`; by default none.
        n_channels: number of channels to encode; see :class:`s5.tagging.encoder.Encoder`.
        weights: file of the M2D release, e.g.
            ``m2d_as_vit_base-80x1001p16x16p32k-240413_AS-FT_enconly/weights_ep69it3124-0.47998.pth``.
    """

    def __init__(
        self,
        sampling_rate: int | None = None,
        input_size: tuple[int, int] | None = None,
        patch_size: tuple[int, int] | None = None,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        norm_stats: tuple[float, float] = (-7.1, 4.2),
        dropout: float = 0.0,
        contrast: bool = False,
        stem: Sequence[int] = (),
        augment: dict[str, Any] | None = None,
        n_channels: int = 1,
        weights: str | None = None,
    ) -> None:
        named = (release_sizes(weights) if weights else None) or ReleaseSizes((80, 1001), (16, 16), 32000)
        input_size, patch_size = input_size or named.input_size, patch_size or named.patch_size
        if input_size[0] % patch_size[0]:
            raise InputError("M2DEncoder: input_size", f"{input_size[0]} mel bands", f"a multiple of {patch_size[0]}")
        if dim % heads:
            raise InputError("M2DEncoder: dim", dim, f"a multiple of heads ({heads})")
        check_arguments(LogMelAugment, augment or {}, "augment")
        rows, columns = input_size[0] // patch_size[0], input_size[1] // patch_size[1]
        super().__init__(sampling_rate or named.sampling_rate, n_channels, dim * rows, weights)
        self.window_frames, self.patch_size, self.rows = input_size[1], (patch_size[0], patch_size[1]), rows
        self.contrast = contrast
        self.log_mel = LogMel(self.sampling_rate, input_size[0])
        self.augment = LogMelAugment(**(augment or {}))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * columns, dim))
        self.norm_stats = nn.Parameter(torch.tensor([float(v) for v in norm_stats]), requires_grad=False)
        self.patch_embed = _PatchEmbedding(2 if contrast else 1, dim, self.patch_size, stem)
        self.blocks = nn.ModuleList([Block(dim, heads, dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks."""
        return len(self.blocks)

    def top_layers(self, n: int) -> list[nn.Module]:
        """The last ``n`` blocks and the final norm, as in the official fine-tuning ``<n>_blocks``."""
        self._check_layers(n)
        return [*self.blocks[len(self.blocks) - n :], self.norm]

    def load_weights(self) -> None:
        """Loads ``weights``: encoder-only files of the M2D release, or fine-tuned ones, whose head is dropped.

        ``norm_stats`` come from the file, or from the argument for files of 2022, which lack them.
        """
        if self.weights:
            tensors = read_tensors(resolve(self.weights))
            tensors = {key.removeprefix(_RELEASE_PREFIX): value for key, value in tensors.items()}
            tensors.setdefault("norm_stats", self.norm_stats.detach())
            load_tensors(self, tensors, self.weights)

    def encode(self, waveform: Tensor) -> Tensor:
        """Encodes single-channel waveforms.

        Args:
            waveform: [N, T] at the encoder's sampling rate.

        Returns:
            [N, steps, rows * dim]: the concatenated patches of each time step.

        Raises:
            InputError: the audio is shorter than half an analysis window.
        """
        shortest = self.log_mel.n_fft // 2 + 1  # for the reflected edges of the first frame
        if waveform.shape[-1] < shortest:
            raise InputError("mixture", f"{waveform.shape[-1]} samples", f"at least {shortest}")
        mel = self.augment((self.log_mel(waveform) - self.norm_stats[0]) / self.norm_stats[1], self.norm_stats[1])
        planes = (mel, mel - mel.mean(-1, keepdim=True)) if self.contrast else (mel,)
        mel = torch.stack(planes, dim=1)
        width = self.patch_size[1]
        mel = F.pad(mel, (0, -mel.shape[-1] % width))
        windows = mel.split(self.window_frames, dim=-1)
        # The official encoder fails on a last window shorter than a patch; it holds almost nothing and is dropped.
        features = [self._encode(window) for window in windows if window.shape[-1] >= width]
        return torch.cat(features, dim=1) if len(features) > 1 else features[0]

    def _encode(self, mel: Tensor) -> Tensor:
        """[B, planes, n_mels, frames] of at most one window -> [B, steps, rows * dim]."""
        width = self.patch_size[1]
        x = self.patch_embed(mel[..., : mel.shape[-1] // width * width])  # the stem's padding would add a patch
        steps = x.shape[-1]
        position = self.pos_embed[:, 1:].unflatten(1, (self.rows, -1))[:, :, :steps].flatten(1, 2)
        x = x.flatten(2).mT + position
        start = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat((start, x), dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)[:, 1:]
        return x.unflatten(1, (self.rows, steps)).transpose(1, 2).flatten(2)
