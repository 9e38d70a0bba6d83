"""From spectra to the tokens of a Locoformer, and from tokens to the values of each bin.

A token is one band of one or several frames. Three pairs of encoder and decoder make them: ``bins``, a band a bin
(TF-Locoformer's); ``bands``, a linear layer for each band (as TUSS and band-split networks have them); ``sfc``, bands
that choose their bins by attention (K. Saijo and Y. Bando, "Spectral Feature Compression", TASLP 2026).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s5.utils.errors import InputError

Plane = Literal["complex", "magnitude", "intensity"]
FrontEnd = Literal["bins", "bands", "sfc"]
Bands = Sequence[tuple[int, int]]
"""(number of bands, bins of each) from the lowest bin upwards."""

POWER_FLOOR = 1e-8
"""Smallest power of a bin, in a mixture of unit power, so that silence is a small constant."""


def n_planes(planes: Sequence[Plane], n_channels: int) -> int:
    """Planes that :func:`input_planes` makes."""
    sizes = {"complex": 2 * n_channels, "magnitude": n_channels, "intensity": n_channels - 1}
    return sum(sizes[plane] for plane in planes)


def input_planes(spectrum: Tensor, planes: Sequence[Plane], compression: float) -> Tensor:
    """Input planes of the network.

    Args:
        spectrum: [B, M, frames, bins], complex.
        planes: ``"complex"``: real and imaginary part of each channel; ``"magnitude"``: of each channel;
            ``"intensity"``: the active intensity of channels 2 to M against channel 1 by the bin's mean power, within
            -2 and 2: the side that a bin comes from.
        compression: exponent of the magnitudes, those of the complex planes too.

    Returns:
        [B, frames, bins, n], float32.
    """
    real, imag = spectrum.real.contiguous(), spectrum.imag.contiguous()
    power = (real * real).addcmul_(imag, imag)
    found = []
    for plane in planes:
        if plane == "intensity":
            cross = (real[:, :1] * real[:, 1:]).addcmul_(imag[:, :1], imag[:, 1:])
            found.append((cross / power.mean(1, keepdim=True).clamp(min=POWER_FLOOR)).clamp(-2, 2))
        elif plane == "magnitude":
            found.append(power.clamp(min=POWER_FLOOR) ** (compression / 2))
        elif compression == 1:
            found += [real, imag]
        else:
            gain = power.clamp(min=POWER_FLOOR) ** ((compression - 1) / 2)
            found += [real * gain, imag * gain]
    return torch.cat(found, dim=1).permute(0, 2, 3, 1).contiguous()


def band_edges(bands: Bands, n_bins: int) -> list[int]:
    """First bin of each band, and the number of bins. The last band has the last bin, at half of the rate, as well.

    Raises:
        InputError: bands that have not as many bins as there are, the last one left out.

    Example:
        >>> band_edges([(2, 1), (1, 2)], 5)
        [0, 1, 2, 5]
    """
    widths = [width for count, width in bands for _ in range(count)]
    if not widths or min(widths) < 1 or sum(widths) != n_bins - 1:
        raise InputError("bands", f"{sum(widths)} bins in all", f"{n_bins - 1}, half of n_fft, at least 1 a band")
    return [0, *accumulate(widths[:-1]), n_bins]


class BinEncoder(nn.Module):
    """A 3x3 convolution and a norm over the whole map, as in TF-Locoformer: a token a bin."""

    def __init__(self, n_planes: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_planes, dim, 3, padding=1)
        self.norm = nn.GroupNorm(1, dim)

    def forward(self, x: Tensor, known: bool = True) -> Tensor:
        """[B, frames, bins, n_planes] -> [B, frames, bins, dim]; ``known: False`` is as of :class:`BandEncoder`."""
        x = x if known else torch.zeros_like(x)
        return self.norm(self.conv(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)


class BinDecoder(nn.Module):
    """A transposed 3x3 convolution, as in TF-Locoformer."""

    def __init__(self, dim: int, n_values: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(dim, n_values, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, frames, bins, dim] -> [B, frames, bins, n_values]."""
        return self.deconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def start_at(self, values: Sequence[float]) -> None:
        """Sets the biases: values a bin that an untrained network gives on average."""
        _fill(self.deconv.bias, values)


class BinNorm(nn.Module):
    """Batch norm of each plane in each bin, without weights. [B, frames, bins, n] -> the same."""

    def __init__(self, n_bins: int, n_planes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(n_bins * n_planes, affine=False, momentum=0.05)

    def forward(self, x: Tensor, known: bool = True) -> Tensor:
        """[B, frames, bins, n] -> the same; zeros, which is the mean, where x is not known: no statistics are kept."""
        return self.norm(x.flatten(2).flatten(0, 1)).view(x.shape) if known else torch.zeros_like(x)


class BandEncoder(nn.Module):
    """A linear layer for each band of ``frames`` frames, and an embedding of the band.

    Args:
        edges: see :func:`band_edges`.
        n_planes: of each bin.
        dim: features of a token.
        frames: of a token.
    """

    def __init__(self, edges: Sequence[int], n_planes: int, dim: int, frames: int) -> None:
        super().__init__()
        self.groups, self.frames = _groups(edges), frames
        self.norm = BinNorm(edges[-1], n_planes)
        self.weights = nn.ParameterList(
            _uniform(count, frames * width * n_planes, dim) for _, count, width in self.groups
        )
        self.embedding = nn.Parameter(0.1 * torch.randn(len(edges) - 1, dim))

    def forward(self, x: Tensor, known: bool = True) -> Tensor:
        """Encodes planes.

        Args:
            x: [B, frames, bins, n_planes]; frames are filled up with zeros.
            known: False where there is nothing to see yet: the tokens are those of the mean of all inputs.

        Returns:
            [B, frames / self.frames, bands, dim].
        """
        x = _fill_up(self.norm(x, known), self.frames)
        batch = len(x)
        x = x.unflatten(1, (-1, self.frames)).flatten(0, 1)
        bands = []
        for (start, count, width), weight in zip(self.groups, self.weights, strict=True):
            part = x[:, :, start : start + count * width].unflatten(2, (count, width))
            bands.append(torch.bmm(part.permute(2, 0, 1, 3, 4).flatten(2), weight))
        tokens = torch.cat(bands).transpose(0, 1) + self.embedding
        return tokens.unflatten(0, (batch, -1))


class BandDecoder(nn.Module):
    """A linear layer for each band. Arguments as of :class:`BandEncoder`, with the values of a bin."""

    def __init__(self, edges: Sequence[int], dim: int, n_values: int, frames: int) -> None:
        super().__init__()
        self.groups, self.frames, self.n_values = _groups(edges), frames, n_values
        self.weights = nn.ParameterList(
            _uniform(count, dim, frames * width * n_values) for _, count, width in self.groups
        )
        self.biases = nn.ParameterList(
            nn.Parameter(torch.zeros(count, 1, frames * width * n_values)) for _, count, width in self.groups
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, tokens, bands, dim] -> [B, tokens * frames, bins, n_values]."""
        batch, length = x.shape[:2]
        bands = x.flatten(0, 1).transpose(0, 1)
        first, parts = 0, []
        for (_, count, width), weight, bias in zip(self.groups, self.weights, self.biases, strict=True):
            part = torch.baddbmm(bias, bands[first : first + count], weight)
            part = part.view(count, batch * length, self.frames, width, self.n_values)
            parts.append(part.permute(1, 2, 0, 3, 4).flatten(2, 3))
            first += count
        return torch.cat(parts, dim=2).unflatten(0, (batch, length)).flatten(1, 2)

    def start_at(self, values: Sequence[float]) -> None:
        """Sets the biases: values a bin that an untrained network gives on average."""
        for bias in self.biases:
            _fill(bias, values)


class CompressionEncoder(nn.Module):
    """Learned queries, one a band, that take what they need from the bins of each token by attention.

    Args:
        edges: see :func:`band_edges`. A query starts out with a bias towards the bins of its band.
        n_planes: of each bin.
        dim: features of a token.
        frames: of a token.
        heads: of the attention.
    """

    def __init__(self, edges: Sequence[int], n_planes: int, dim: int, frames: int, heads: int) -> None:
        super().__init__()
        self.frames = frames
        self.norm = BinNorm(edges[-1], n_planes)
        self.linear = nn.Linear(frames * n_planes, dim)
        self.position = nn.Parameter(0.1 * torch.randn(edges[-1], dim))
        self.attention = _CrossAttention(_towards_band(edges), dim, heads)

    def forward(self, x: Tensor, known: bool = True) -> Tensor:
        """As :class:`BandEncoder`'s."""
        x = _fill_up(self.norm(x, known), self.frames).unflatten(1, (-1, self.frames))
        x = self.linear(x.permute(0, 1, 3, 2, 4).flatten(3)) + self.position
        return self.attention(x)


class CompressionDecoder(nn.Module):
    """The way back: a learned query a bin, which takes what it needs from the bands of a token by attention."""

    def __init__(self, edges: Sequence[int], dim: int, n_values: int, frames: int, heads: int) -> None:
        super().__init__()
        self.frames = frames
        self.attention = _CrossAttention(_towards_band(edges).T, dim, heads)
        self.linear = nn.Linear(dim, frames * n_values)

    def forward(self, x: Tensor) -> Tensor:
        """[B, tokens, bands, dim] -> [B, tokens * frames, bins, n_values]."""
        values = self.linear(F.silu(self.attention(x))).unflatten(-1, (self.frames, -1))
        return values.transpose(2, 3).flatten(1, 2)

    def start_at(self, values: Sequence[float]) -> None:
        """Sets the biases: values a bin that an untrained network gives on average."""
        _fill(self.linear.bias, values)


class _CrossAttention(nn.Module):
    """Learned queries, one a row of ``bias``, over positions, one a column: [B, T, columns, dim] -> [B, T, rows, dim].

    The bias is learned too, for each head.
    """

    def __init__(self, bias: Tensor, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise InputError("dim", dim, f"a multiple of heads ({heads})")
        self.heads = heads
        self.query = nn.Parameter(torch.randn(len(bias), dim))
        self.embedding = nn.Parameter(0.1 * torch.randn(len(bias), dim))
        self.bias = nn.Parameter(bias.repeat(heads, 1, 1))
        self.norm = nn.LayerNorm(dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        both = self.key_value(self.norm(x.flatten(0, 1))).unflatten(-1, (2, self.heads, -1))
        key, value = both.transpose(1, 3).unbind(2)  # each [rows, heads, positions, dim / heads]
        query = self.query.to(key.dtype).unflatten(-1, (self.heads, -1)).transpose(0, 1).expand(len(key), -1, -1, -1)
        taken = F.scaled_dot_product_attention(query, key, value, self.bias.to(key.dtype)[None])
        return (self.out(taken.transpose(1, 2).flatten(2)) + self.embedding).unflatten(0, x.shape[:2])


def make_encoder(
    kind: FrontEnd, edges: Sequence[int], n_planes: int, dim: int, frames: int, heads: int
) -> BinEncoder | BandEncoder | CompressionEncoder:
    """The encoder of a front end. Raises InputError for several frames a token of ``bins``."""
    if kind == "bands":
        return BandEncoder(edges, n_planes, dim, frames)
    if kind == "sfc":
        return CompressionEncoder(edges, n_planes, dim, frames, heads)
    if frames != 1:
        raise InputError("frames", frames, "1, for encoder bins")
    return BinEncoder(n_planes, dim)


def make_decoder(
    kind: FrontEnd, edges: Sequence[int], dim: int, n_values: int, frames: int, heads: int
) -> BinDecoder | BandDecoder | CompressionDecoder:
    """The decoder that goes with :func:`make_encoder`'s encoder."""
    if kind == "bands":
        return BandDecoder(edges, dim, n_values, frames)
    return BinDecoder(dim, n_values) if kind == "bins" else CompressionDecoder(edges, dim, n_values, frames, heads)


def _groups(edges: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first bin, number of bands, bins of each) of neighbouring bands of one width."""
    groups: list[tuple[int, int, int]] = []
    for start, stop in pairwise(edges):
        if groups and groups[-1][2] == stop - start:
            groups[-1] = (groups[-1][0], groups[-1][1] + 1, stop - start)
        else:
            groups.append((start, 1, stop - start))
    return groups


def _towards_band(edges: Sequence[int]) -> Tensor:
    """Biases of the bands' attention to bins [bands, bins]: 0 in the band, falling by 2 a band's width outside."""
    bins = torch.arange(edges[-1], dtype=torch.float32)
    lower = torch.tensor(edges[:-1], dtype=torch.float32)[:, None]
    upper = torch.tensor(edges[1:], dtype=torch.float32)[:, None] - 1
    outside = torch.maximum(lower - bins, bins - upper).clamp(min=0)
    return -2 * outside / (upper - lower + 1)


def _fill_up(x: Tensor, frames: int) -> Tensor:
    """[B, T, ...] with zeros behind, up to a multiple of ``frames``."""
    missing = -x.shape[1] % frames
    return F.pad(x, (*[0] * (2 * (x.dim() - 2)), 0, missing)) if missing else x


def _uniform(count: int, n_in: int, n_out: int) -> nn.Parameter:
    """Weights [count, n_in, n_out] as a linear layer's."""
    return nn.Parameter(torch.empty(count, n_in, n_out).uniform_(-(n_in**-0.5), n_in**-0.5))


def _fill(bias: Tensor | None, values: Sequence[float]) -> None:
    assert bias is not None
    with torch.no_grad():
        bias.unflatten(-1, (-1, len(values))).copy_(torch.tensor(values))
