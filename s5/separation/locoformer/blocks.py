"""The blocks of a Locoformer: feed-forward networks with convolutions and rotary self-attention, along bands and time.

K. Saijo et al., "TF-Locoformer: Transformer with Local Modeling by Convolution for Speech Separation and Enhancement",
IWAENC 2024. Features are [B, frames, bands, dim] everywhere, so that a norm, a linear layer and a convolution of
channels-last memory take them without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s5.utils.errors import InputError

Part = Literal["ffn", "attention"]
Norm = Literal["layer", "rms_group"]
FeedForwardKind = Literal["glu", "swiglu"]

NORM_GROUPS = 4
"""Groups of features that ``rms_group`` norms each scale on their own."""

_CHUNK = 2**24
"""Values of a feed-forward hidden layer that inference on a CPU makes at once; more rows follow one another."""


class RMSGroupNorm(nn.Module):
    """Divides each of four groups of features by its root mean square: [..., dim] -> the same."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        if dim % NORM_GROUPS:
            raise InputError("RMSGroupNorm: dim", dim, f"a multiple of {NORM_GROUPS}")
        self.gamma, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> the same shape, float32."""
        groups = x.float().unflatten(-1, (NORM_GROUPS, -1))
        rms = torch.linalg.vector_norm(groups, dim=-1, keepdim=True) * groups.shape[-1] ** -0.5
        return (groups / (rms + self.eps)).flatten(-2) * self.gamma


def make_norm(kind: Norm, dim: int) -> nn.Module:
    """``layer``, LayerNorm, the faster one on CPUs, or ``rms_group``, the original's."""
    return nn.LayerNorm(dim) if kind == "layer" else RMSGroupNorm(dim)


class FeedForward(nn.Module):
    """A convolution along the sequence, a gate and a projection back. [rows, length, dim] -> the same.

    Args:
        dim: features.
        hidden: features behind the gate.
        kernel: positions that the convolution sees.
        kind: ``"swiglu"``, the original's: a SiLU gate, and a transposed convolution of the same kernel back;
            ``"glu"``: a sigmoid gate and a linear layer back, at less than half of the multiply-adds.
    """

    def __init__(self, dim: int, hidden: int, kernel: int, kind: FeedForwardKind) -> None:
        super().__init__()
        if kind == "glu" and kernel % 2 == 0:
            raise InputError("kernel", kernel, "an odd number, for ffn glu")
        self.kind, self.reach = kind, kernel - 1
        # Two-dimensional convolutions of one row: these have channels-last kernels.
        padding = (0, self.reach // 2 if kind == "glu" else self.reach)
        self.conv = nn.Conv2d(dim, 2 * hidden, (1, kernel), padding=padding)
        self.back: nn.Module
        self.back = nn.Linear(hidden, dim) if kind == "glu" else nn.ConvTranspose2d(hidden, dim, (1, kernel))

    def forward(self, x: Tensor) -> Tensor:
        """[rows, length, dim] -> the same shape."""
        length = x.shape[1]
        x = _as_sequence(self.conv(_as_image(x)))
        if self.kind == "glu":
            return self.back(F.glu(x))
        value, gate = x.chunk(2, dim=-1)
        x = _as_sequence(self.back(_as_image(value * F.silu(gate))))
        return x[:, self.reach : self.reach + length]


class RotaryAttention(nn.Module):
    """Self-attention with rotary positions. [rows, length, dim] -> the same.

    Args:
        dim: features.
        attention_dim: length of queries, keys and values over all heads.
        heads: number of heads.
    """

    def __init__(self, dim: int, attention_dim: int, heads: int) -> None:
        super().__init__()
        if attention_dim % (2 * heads):
            raise InputError("attention_dim", attention_dim, f"a multiple of twice the heads ({2 * heads})")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * attention_dim, bias=False)
        self.out = nn.Linear(attention_dim, dim, bias=False)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        """[rows, length, dim] and :func:`rotations` [length, attention_dim / heads / 2] -> [rows, length, dim]."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        value = qkv[:, :, 2]
        pairs = torch.view_as_complex(qkv[:, :, :2].float().unflatten(-1, (-1, 2)))
        turned = torch.view_as_real(pairs * rotation[:, None, None]).flatten(-2).to(value.dtype)
        query, key = turned.unbind(2)
        x = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        return self.out(x.transpose(1, 2).flatten(2))


def rotations(length: int, size: int, device: torch.device, still: int = 0) -> Tensor:
    """Rotary positions as complex factors [length, size / 2]: pair i of position m turns by m / 10000^(2 i / size).

    Args:
        length: of the sequence.
        size: features of a head.
        device: where the factors are made.
        still: positions at the beginning that do not turn; the count begins behind them.
    """
    speed = 10000.0 ** -(torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
    position = (torch.arange(length, device=device, dtype=torch.float32) - still).clamp(min=0)
    angle = position[:, None] * speed
    return torch.polar(torch.ones_like(angle), angle)


@dataclass(frozen=True)
class PathConfig:
    """Configuration of a path."""

    parts: Sequence[Part] = ("ffn", "attention", "ffn")
    """Its parts in their order; by default those of TF-Locoformer."""
    heads: int = 4
    attention_dim: int = 128
    """Length of queries, keys and values over all heads."""
    ffn_dim: int = 256
    """Hidden features of the feed-forward networks, behind the gate."""
    kernel: int = 4
    """Positions that their convolutions see."""
    ffn: FeedForwardKind = "swiglu"
    norm: Norm = "rms_group"


class Path(nn.Module):
    """Feed-forward networks and attention along one axis, each with its norm before and a residual around."""

    def __init__(self, dim: int, config: PathConfig) -> None:
        super().__init__()
        c = config
        if not c.parts or c.kernel < 1:
            raise InputError("path", f"{len(c.parts)} parts, kernel {c.kernel}", "at least 1 of both")
        self.head_size, self.widest = c.attention_dim // c.heads, 2 * c.ffn_dim
        self.norms = nn.ModuleList(make_norm(c.norm, dim) for _ in c.parts)
        self.parts = nn.ModuleList(
            FeedForward(dim, c.ffn_dim, c.kernel, c.ffn)
            if part == "ffn"
            else RotaryAttention(dim, c.attention_dim, c.heads)
            for part in c.parts
        )

    def forward(self, x: Tensor, n_prompts: int = 0) -> Tensor:
        """Processes rows of sequences.

        Args:
            x: [rows, length, dim].
            n_prompts: positions at the beginning of each row that are a set. They have no place in the sequence:
                attention sees all of them from anywhere alike, and convolutions do not reach over them.

        Returns:
            [rows, length, dim].
        """
        rotation = rotations(x.shape[1], self.head_size, x.device, n_prompts)
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return self._run(x, rotation, n_prompts)
        rows = max(1, _CHUNK // (x.shape[1] * self.widest))
        return torch.cat([self._run(part, rotation, n_prompts) for part in x.split(rows)])

    def _run(self, x: Tensor, rotation: Tensor, n_prompts: int) -> Tensor:
        for norm, part in zip(self.norms, self.parts, strict=True):
            y = norm(x)
            if isinstance(part, RotaryAttention):
                y = part(y, rotation)
            elif n_prompts:
                alone = part(y[:, :n_prompts].flatten(0, 1)[:, None]).unflatten(0, (len(y), n_prompts)).squeeze(2)
                y = torch.cat((alone, part(y[:, n_prompts:])), dim=1)
            else:
                y = part(y)
            x = x + y
        return x


class Block(nn.Module):
    """A path along the bands of each frame, then one along the frames of each band.

    Args:
        dim: features.
        path: of both.
        condition_dim: length of the vector that scales and shifts the features before; 0: none.
        time_film: length of the vectors that do so frame by frame; 0: none.
    """

    def __init__(self, dim: int, path: PathConfig, condition_dim: int = 0, time_film: int = 0) -> None:
        super().__init__()
        self.film = film_layer(condition_dim, dim) if condition_dim else None
        self.time_film = film_layer(time_film, dim) if time_film else None
        self.frequency = Path(dim, path)
        self.time = Path(dim, path)

    def forward(
        self, x: Tensor, condition: Tensor | None = None, frames: Tensor | None = None, n_prompts: int = 0
    ) -> Tensor:
        """One block.

        Args:
            x: [B, n_prompts + T, bands, dim], prompts before the frames.
            condition: [B, condition_dim].
            frames: [B, T, time_film].
            n_prompts: how many of the first frames are prompts.

        Returns:
            as x.
        """
        if self.film is not None and condition is not None:
            x = modulate(x, self.film(condition)[:, None, None])
        if self.time_film is not None and frames is not None:
            parts = self.time_film(frames)[:, :, None]
            x = modulate(x, F.pad(parts, (0, 0, 0, 0, n_prompts, 0)) if n_prompts else parts)
        batch, length, bands, _ = x.shape
        x = self.frequency(x.flatten(0, 1)).unflatten(0, (batch, length))
        x = self.time(x.transpose(1, 2).flatten(0, 1), n_prompts)
        return x.unflatten(0, (batch, bands)).transpose(1, 2)


class AttentiveStatistics(nn.Module):
    """Mean and standard deviation over positions, weighted by attention: [..., positions, dim] -> [..., 2 * dim].

    Okabe et al., "Attentive Statistics Pooling for Deep Speaker Embedding", Interspeech 2018.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[..., positions, dim] -> [..., 2 * dim], float32."""
        weight = self.score(x).float().softmax(-2)
        mean = (weight * x).sum(-2)
        variance = (weight * (x - mean[..., None, :]).square()).sum(-2)
        return torch.cat((mean, (variance + 1e-5).sqrt()), dim=-1)


def film_layer(condition_dim: int, dim: int) -> nn.Linear:
    """From a condition to scales and shifts [2 * dim], zero at first: :func:`modulate` then changes nothing."""
    layer = nn.Linear(condition_dim, 2 * dim)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def modulate(x: Tensor, parts: Tensor) -> Tensor:
    """x [..., dim] scaled by 1 + the first half of ``parts`` [..., 2 * dim], and shifted by the second half."""
    scale, shift = parts.to(x.dtype).chunk(2, dim=-1)
    return torch.addcmul(x + shift, x, scale)


def _as_image(x: Tensor) -> Tensor:
    """[rows, length, dim] -> [rows, dim, 1, length], a view in channels-last memory."""
    return x.transpose(1, 2).unsqueeze(2)


def _as_sequence(x: Tensor) -> Tensor:
    """:func:`_as_image` backwards."""
    return x.squeeze(2).transpose(1, 2)
