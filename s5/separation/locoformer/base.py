"""Base class of the networks of dual-path blocks: from waveforms to planes, and from features to waveforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from s5.separation.locoformer.blocks import Block, FeedForwardKind, Norm, Part, PathConfig, make_norm
from s5.separation.locoformer.dual_path import TFDualPath, run_blocks
from s5.separation.locoformer.front_ends import (
    FrontEnd,
    Plane,
    band_edges,
    input_planes,
    make_decoder,
    make_encoder,
    n_planes,
)
from s5.separation.stft import istft, stft
from s5.utils.errors import InputError

Output = Literal["mask", "mapping", "both"]
START: dict[Output, list[float]] = {"mask": [0.5, 0.0], "mapping": [0.0, 0.0], "both": [0.5, 0.0, 0.0, 0.0]}
"""Biases of a bin's values: real and imaginary part of the mask, of the mapped spectrum."""


class DualPathNetwork(nn.Module):
    """Base class of the networks on :class:`s5.separation.locoformer.TFDualPath`; these are the keys of all of them.

    Args:
        n_channels: microphones or Ambisonics channels M.
        n_fft: STFT window in samples (Hann).
        hop_length: STFT hop in samples.
        planes: what the network sees of each bin, see :func:`s5.separation.locoformer.front_ends.input_planes`.
        compression: exponent of the magnitudes that it sees (1: as they are).
        encoder: the front end: ``"bands"``, a linear layer a band; ``"sfc"``, bands by attention; ``"bins"``, a token a
            bin by a convolution, for short windows.
        bands: (number of bands, bins of each) from the lowest bin upwards, n_fft / 2 bins in all.
        frames: of a token.
        dim: features of a token.
        n_blocks: blocks that the mixture goes through.
        slot_blocks: blocks that the features of each slot go through after that.
        path: parts of a block's two paths, in order; the default is TF-Locoformer's.
        heads: of the attention.
        attention_dim: length of its queries, keys and values over all heads.
        ffn_dim: hidden features of the feed-forward networks, behind the gate.
        kernel: positions that their convolutions see.
        ffn: ``"swiglu"``, TF-Locoformer's, with a transposed convolution back; ``"glu"``, with a linear layer back.
        norm: ``"rms_group"``, TF-Locoformer's, or ``"layer"``, the faster one on CPUs.
        decoder_dim: features that a slot is decoded from; by default ``dim``.
        output: ``"mask"``, complex masks of the reference channel, which start from half of it; ``"mapping"``, spectra;
            ``"both"``, their sum.
        checkpointing: recompute the blocks in the backward pass instead of keeping their activations.

    Raises:
        InputError: sizes that do not go together.
    """

    channels_last = True
    """Its convolutions run fastest with channels-last weights; see ``s5.separation.memory_format``."""

    window: Tensor

    def __init__(
        self,
        n_channels: int = 4,
        n_fft: int = 2048,
        hop_length: int = 512,
        planes: Sequence[Plane] = ("complex", "magnitude", "intensity"),
        compression: float = 0.3,
        encoder: FrontEnd = "bands",
        bands: Sequence[tuple[int, int]] = ((24, 2), (12, 4), (10, 12), (8, 26), (10, 60)),
        frames: int = 1,
        dim: int = 64,
        n_blocks: int = 6,
        slot_blocks: int = 0,
        path: Sequence[Part] = ("ffn", "attention", "ffn"),
        heads: int = 4,
        attention_dim: int = 128,
        ffn_dim: int = 256,
        kernel: int = 4,
        ffn: FeedForwardKind = "swiglu",
        norm: Norm = "rms_group",
        decoder_dim: int | None = None,
        output: Output = "mask",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < hop_length <= n_fft // 2 or n_fft % 2:
            found = f"{n_fft}, {hop_length}"
            raise InputError(f"{type(self).__name__}: n_fft, hop_length", found, "even, and at most half of it")
        if frames < 1:
            raise InputError(f"{type(self).__name__}: frames", frames, "at least 1")
        self.n_channels, self.n_fft, self.hop_length = n_channels, n_fft, hop_length
        self.planes, self.compression, self.output = tuple(planes), compression, output
        self.dim, self.n_blocks, self.n_slot_blocks, self.norm = dim, n_blocks, slot_blocks, norm
        self.decoder_dim, self.checkpointing = decoder_dim or dim, checkpointing
        self.encoder, self.frames = encoder, frames
        self.edges = list(range(n_fft // 2 + 2)) if encoder == "bins" else band_edges(bands, n_fft // 2 + 1)
        self.path = PathConfig(tuple(path), heads, attention_dim, ffn_dim, kernel, ffn, norm)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def add_backbone(self, film_dim: int = 0, time_film: int = 0) -> None:
        """Makes ``backbone``, with conditions of these lengths."""
        planes = n_planes(self.planes, self.n_channels)
        options = (self.encoder, self.frames, film_dim, time_film, self.checkpointing)
        self.backbone = TFDualPath(planes, self.edges, self.dim, self.n_blocks, self.path, *options)

    def add_decoder(self, film_dim: int = 0) -> None:
        """Makes ``slot_blocks``, ``head`` and ``decoder``."""
        self.slot_blocks = nn.ModuleList(Block(self.dim, self.path, film_dim) for _ in range(self.n_slot_blocks))
        self.head = nn.Sequential(make_norm(self.norm, self.dim), nn.Linear(self.dim, 2 * self.decoder_dim), nn.GLU())
        start = START[self.output]
        self.decoder = make_decoder(
            self.encoder, self.edges, self.decoder_dim, len(start), self.frames, self.path.heads
        )
        self.decoder.start_at(start)

    def make_encoder(self, n: int) -> nn.Module:
        """Another encoder like that of the backbone, for ``n`` planes."""
        return make_encoder(self.encoder, self.edges, n, self.dim, self.frames, self.path.heads)

    def analyse(self, mixture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Spectra of mixtures, in float32 whatever the blocks run in.

        Args:
            mixture: [B, M, T] waveforms.

        Returns:
            level [B]: bins of the mixture divided by it have unit power; spectrum [B, M, frames, bins] of the mixture
            divided by it; planes [B, frames, bins, n_planes].

        Raises:
            InputError: another number of channels.
        """
        if mixture.shape[1] != self.n_channels:
            raise InputError("mixture", f"{mixture.shape[1]} channels", f"{self.n_channels}")
        with torch.autocast(mixture.device.type, enabled=False):
            level = mixture.float().square().mean((1, 2)).sqrt() * torch.linalg.vector_norm(self.window)
            spectrum = self.spectrum(mixture, level)
            return level, spectrum, input_planes(spectrum, self.planes, self.compression)

    def spectrum(self, waveform: Tensor, level: Tensor) -> Tensor:
        """[B, n, T] divided by level [B], where that is above zero -> complex [B, n, frames, bins]."""
        with torch.autocast(waveform.device.type, enabled=False):
            scaled = waveform.float() / torch.where(level > 0, level, 1.0)[:, None, None]
            return stft(scaled, self.n_fft, self.hop_length, self.window)

    def process(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Features of slots through ``slot_blocks``: [rows, tokens, bands, dim] -> the same."""
        return run_blocks(self.slot_blocks, x, self.checkpointing and self.training, condition)

    def decode(self, x: Tensor, reference: Tensor) -> Tensor:
        """Features of slots to their spectra.

        Args:
            x: [rows, tokens, bands, dim].
            reference: [rows, frames, bins], the spectrum of the reference channel of each row's mixture.

        Returns:
            [rows, frames, bins], complex.
        """
        values = self.decoder(self.head(x)).float()[:, : reference.shape[1]]
        parts = torch.view_as_complex(values.unflatten(-1, (-1, 2)).contiguous())
        if self.output == "mapping":
            return parts[..., 0]
        masked = parts[..., 0] * reference
        return masked if self.output == "mask" else masked + parts[..., 1]

    def waveform(self, spectrum: Tensor, level: Tensor, length: int) -> Tensor:
        """Spectra [rows, frames, bins] and level [rows] of :meth:`analyse` -> waveforms [rows, length] float32."""
        with torch.autocast(spectrum.device.type, enabled=False):
            return istft(spectrum, self.n_fft, self.hop_length, length, self.window) * level[:, None]
