"""Builds a label-queried TF-GridNet from ESPnet's TFGridNetV2 blocks with our transform and conditioning.

Z.-Q. Wang et al., "TF-GridNet: Integrating Full- and Sub-Band Modeling for Speech Separation", TASLP 2023; the second
separator of Deng et al., section 2.2. Unlike in ESPnet's TFGridNetV2, the query conditions every block, silence yields
zeros instead of NaN, and the transform stays in float32 when the blocks run in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from s5.separation.conditioning import FiLM, LabelEmbedding, active_slots
from s5.separation.espnet import import_module
from s5.separation.stft import istft, stft
from s5.utils.errors import InputError


class TFGridNet(nn.Module):
    """Separates K slots in one pass, queried by labels, by complex spectral mapping or masking.

    The mixture is scaled to unit power and transformed. A 3x3 convolution turns real and imaginary parts of all
    channels into ``emb_dim`` features per bin. Each block has a recurrent network along frequency, one along time and
    self-attention over frames. A transposed convolution returns the real and imaginary part of each slot.

    Args:
        n_labels: number of labels C (without silence).
        n_slots: K, number of sources per pass.
        n_channels: microphones or Ambisonics channels M.
        n_fft: STFT window in samples (Hann).
        hop_length: STFT hop in samples.
        n_blocks: number of blocks.
        emb_dim: number of features per bin.
        emb_ks: number of bins (frames) per step of the recurrent networks.
        emb_hs: hop of these steps; a hop of ``emb_ks`` is several times as fast.
        hidden: units of the recurrent networks in each direction.
        n_heads: heads of the self-attention.
        qk_dim: approximate length of its queries and keys, over all bins.
        conditioning: use of the query before every block: ``"film"`` scales and shifts the features; ``"concat"``
            appends the query's embedding to the features and mixes both by a 1x1 convolution.
        condition_dim: width of the label MLP.
        output: ``"mapping"`` for spectra of the sources (the original), or ``"mask"`` for complex masks of the
            reference channel that start from a third of the mixture in each slot, which suits short trainings.
        checkpointing: recompute the blocks in the backward pass instead of keeping their activations.

    Raises:
        InputError: sizes do not fit together, or the mixture has another channel count.
    """

    window: Tensor

    def __init__(
        self,
        n_labels: int = 18,
        n_slots: int = 3,
        n_channels: int = 4,
        n_fft: int = 1024,
        hop_length: int = 512,
        n_blocks: int = 6,
        emb_dim: int = 48,
        emb_ks: int = 4,
        emb_hs: int = 4,
        hidden: int = 192,
        n_heads: int = 4,
        qk_dim: int = 512,
        conditioning: Literal["film", "concat"] = "film",
        condition_dim: int = 256,
        output: Literal["mapping", "mask"] = "mapping",
        checkpointing: bool = False,
    ) -> None:
        # Only building this network needs ESPnet.
        block = import_module("tfgridnetv2_separator").GridNetV2Block
        super().__init__()
        if emb_dim % n_heads:
            raise InputError("TFGridNet: emb_dim", emb_dim, f"a multiple of n_heads ({n_heads})")
        if not 1 <= emb_hs <= emb_ks:
            raise InputError("TFGridNet: emb_hs", emb_hs, f"1 to emb_ks ({emb_ks})")
        if not 0 < hop_length <= n_fft // 2 or n_fft % 2:
            raise InputError("TFGridNet: n_fft, hop_length", f"{n_fft}, {hop_length}", "even, and at most half of it")
        self.n_labels, self.n_slots, self.n_channels = n_labels, n_slots, n_channels
        self.n_fft, self.hop_length = n_fft, hop_length
        self.conditioning, self.output, self.checkpointing = conditioning, output, checkpointing
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

        self.conv = nn.Sequential(nn.Conv2d(2 * n_channels, emb_dim, 3, padding=1), nn.GroupNorm(1, emb_dim, eps=1e-5))
        self.blocks = nn.ModuleList(
            block(emb_dim, emb_ks, emb_hs, n_fft // 2 + 1, hidden, n_head=n_heads, approx_qk_dim=qk_dim)
            for _ in range(n_blocks)
        )
        self.deconv = nn.ConvTranspose2d(emb_dim, 2 * n_slots, 3, padding=1)
        self.label_embedding = LabelEmbedding(n_labels * n_slots, condition_dim)
        parts = ("scale", "shift") if conditioning == "film" else ("shift",)
        self.film = FiLM({f"block{i}->{part}": emb_dim for i in range(n_blocks) for part in parts}, condition_dim)
        if conditioning == "concat":
            layers = [nn.Conv2d(emb_dim, emb_dim, 1, bias=False) for _ in range(n_blocks)]
            for layer in layers:
                nn.init.dirac_(layer.weight)  # starts from unchanged features
            self.mix = nn.ModuleList(layers)
        if output == "mask":
            assert self.deconv.bias is not None
            with torch.no_grad():
                self.deconv.weight *= 0.03
                self.deconv.bias.copy_(torch.tensor([1 / n_slots, 0.0]).repeat(n_slots))

    def forward(self, mixture: Tensor, label_vector: Tensor) -> Tensor:
        """Waveforms [B, M, T], one-hot labels [B, K, C] (zeros: silence) -> dry sources [B, K, T] float32."""
        if mixture.shape[1] != self.n_channels:
            raise InputError("mixture", f"{mixture.shape[1]} channels", f"{self.n_channels}")
        mixture = mixture.float()
        level = mixture.square().mean((1, 2), keepdim=True).sqrt()
        scaled = mixture / torch.where(level > 0, level, 1.0)
        spectrum = stft(scaled, self.n_fft, self.hop_length, self.window, "constant")
        x = torch.cat((spectrum.real, spectrum.imag), dim=1)
        parts = self._blocks(self.conv(x), label_vector).float().unflatten(1, (self.n_slots, 2))
        sources = torch.complex(parts[:, :, 0], parts[:, :, 1])
        if self.output == "mask":
            sources = sources * spectrum[:, :1]
        waveform = istft(sources, self.n_fft, self.hop_length, mixture.shape[-1], self.window)
        return waveform * level * active_slots(label_vector)[..., None]

    def _blocks(self, x: Tensor, label_vector: Tensor) -> Tensor:
        """Runs all conditioned blocks: [B, emb_dim, frames, bins] -> [B, 2 K, frames, bins]."""
        condition = self.label_embedding(label_vector.flatten(1).to(x.dtype))
        biases = self.film(condition)
        for i, block in enumerate(self.blocks):
            # A convolution over features and embedding is the sum of both parts. The embedding is the same in every
            # bin, so its part, the shift, is computed once.
            mixed = self.mix[i](x) if self.conditioning == "concat" else x * (1 + biases[f"block{i}->scale"])
            x = self._run(block, mixed + biases[f"block{i}->shift"])
        return self.deconv(x)

    def _run(self, block: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if self.checkpointing and self.training:
            return checkpoint(block, x, use_reentrant=False)
        return block(x)
