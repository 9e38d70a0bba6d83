"""ResUNetK: the label-queried separator of the DCASE 2025 and 2026 baselines, at any size.

A residual U-Net over the magnitude spectrograms of all channels, conditioned by the labels of all K slots at once. It
predicts, for each slot and input channel, a magnitude mask and a phase rotation; the masked channels are summed by a
1x1 convolution into one dry source a slot. With the default arguments it is the official network: same parameters, same
output (seed 001, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from s5.errors import InputError
from s5.separation.conditioning import FiLM, LabelEmbedding, active_slots

POWER_FLOOR = 1e-10  # the official floor of the power before the root: silence enters as a magnitude of 1e-5
SLOPE = 0.01  # of every LeakyReLU


class ResidualBlock(nn.Module):
    """Two pre-activated 3x3 convolutions with FiLM biases, and a shortcut. [B, in, T, F] -> [B, out, T, F]."""

    def __init__(self, in_channels: int, out_channels: int, momentum: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels, momentum=momentum)
        self.bn2 = nn.BatchNorm2d(out_channels, momentum=momentum)
        self.conv1 = _xavier(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False))
        self.conv2 = _xavier(nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False))
        if in_channels != out_channels:
            self.shortcut = _xavier(nn.Conv2d(in_channels, out_channels, 1))

    def film_sizes(self) -> dict[str, int]:
        """Channels that FiLM conditions here, by place."""
        return {"beta1": self.bn1.num_features, "beta2": self.bn2.num_features}

    def forward(self, x: Tensor, beta1: Tensor, beta2: Tensor) -> Tensor:
        """x [B, in, T, F], biases [B, channels, 1, 1] -> [B, out, T, F]."""
        y = self.conv1(_activate(self.bn1(x), beta1))
        y = self.conv2(_activate(self.bn2(y), beta2))
        return y + (self.shortcut(x) if hasattr(self, "shortcut") else x)


class EncoderBlock(nn.Module):
    """A residual block and average pooling. Returns the pooled map and, for the skip connection, the unpooled one."""

    def __init__(self, in_channels: int, out_channels: int, pool: tuple[int, int], momentum: float) -> None:
        super().__init__()
        self.conv_block1 = ResidualBlock(in_channels, out_channels, momentum)
        self.pool = pool

    def film_sizes(self) -> dict[str, int]:
        """Channels that FiLM conditions here, by place."""
        return {f"conv_block1->{name}": size for name, size in self.conv_block1.film_sizes().items()}

    def forward(self, x: Tensor, betas: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """x [B, in, T, F] -> pooled and unpooled [B, out, ...]."""
        x = self.conv_block1(x, *betas)
        return (F.avg_pool2d(x, self.pool) if self.pool != (1, 1) else x), x


class DecoderBlock(nn.Module):
    """A transposed convolution, the skip connection and a residual block."""

    def __init__(self, in_channels: int, out_channels: int, pool: tuple[int, int], momentum: float) -> None:
        super().__init__()
        self.conv1 = _xavier(nn.ConvTranspose2d(in_channels, out_channels, pool, stride=pool, bias=False))
        self.bn1 = nn.BatchNorm2d(in_channels, momentum=momentum)
        self.conv_block2 = ResidualBlock(out_channels * 2, out_channels, momentum)

    def film_sizes(self) -> dict[str, int]:
        """Channels that FiLM conditions here, by place."""
        inner = {f"conv_block2->{name}": size for name, size in self.conv_block2.film_sizes().items()}
        return {"beta1": self.bn1.num_features, **inner}

    def forward(self, x: Tensor, skip: Tensor, betas: Sequence[Tensor]) -> Tensor:
        """x [B, in, T, F] and the skip [B, out, T * pool, F * pool] -> the skip's shape."""
        x = self.conv1(_activate(self.bn1(x), betas[0]))
        return self.conv_block2(torch.cat((x, skip), dim=1), *betas[1:])


class _Base(nn.Module):
    """The U-Net proper; its parameters carry the official names below ``base.``."""

    def __init__(
        self,
        n_inputs: int,
        n_masks: int,
        mask_channels: int,
        n_bins: int,
        widths: Sequence[int],
        pools: Sequence[tuple[int, int]],
        momentum: float,
    ) -> None:
        super().__init__()
        self.depth = len(widths)
        self.bn0 = nn.BatchNorm2d(n_bins, momentum=momentum)
        self.pre_conv = _xavier(nn.Conv2d(n_inputs, widths[0], 1))
        below = [widths[0], *widths]
        for i, (width, pool) in enumerate(zip(widths, pools, strict=True)):
            self.add_module(f"encoder_block{i + 1}", EncoderBlock(below[i], width, pool, momentum))
        self.add_module(f"conv_block{self.depth + 1}a", EncoderBlock(widths[-1], widths[-1], (1, 1), momentum))
        above = [widths[-1], *reversed(widths)]
        for i, pool in enumerate(reversed(pools)):
            self.add_module(f"decoder_block{i + 1}", DecoderBlock(above[i], above[i + 1], pool, momentum))
        self.after_conv = _xavier(nn.Conv2d(widths[0], n_masks, 1))
        self.out_conv = nn.Conv2d(mask_channels, 1, 1)

    def blocks(self) -> dict[str, EncoderBlock | DecoderBlock]:
        """Every conditioned block by name, in order of use."""
        return {name: m for name, m in self.named_children() if isinstance(m, EncoderBlock | DecoderBlock)}


class ResUNetK(nn.Module):
    """Label-queried separation of K slots in one pass.

    Args:
        n_labels: number of labels C (without silence).
        n_slots: K, sources a pass.
        n_channels: microphones or Ambisonics channels M.
        n_fft: STFT window in samples (Hann, reflect padding).
        hop_length: STFT hop in samples.
        widths: channels of the encoder blocks; the decoder mirrors them. Their number is the depth.
        pools: (time, frequency) pooling of each encoder block; by default 2x2, and 1x2 in the last.
        condition_dim: width of the label MLP.
        bn_momentum: momentum of all batch norms.
        compression: exponent applied to the magnitudes that enter the network (1: the official network).
        intensity: adds the active intensity of channels 2..M against channel 1, in [-1, 1], to the input: which side a
            bin comes from, which magnitudes alone do not tell (false: the official network).
        n_bands: the network sees and masks this many bands instead of single bins, a bin wide at low frequencies and
            wider above (:func:`band_matrix`): several times cheaper. By default single bins (the official network).
        mask_channels: channels that are masked and summed into a source, counted from the reference channel; by default
            all (the official network). All channels enter the network in any case.
        pass_through: start from masks that let half of the reference channel pass, in phase, to every slot. The
            official initialisation (false) starts from random phases, which a short training does not leave behind.
        checkpointing: recompute the blocks in the backward pass instead of keeping their activations.

    Raises:
        InputError: sizes that do not go together, or a mixture of another channel count.
    """

    window: Tensor
    to_bins: Tensor | None
    to_bands: Tensor | None

    def __init__(
        self,
        n_labels: int = 18,
        n_slots: int = 3,
        n_channels: int = 4,
        n_fft: int = 1024,
        hop_length: int = 160,
        widths: Sequence[int] = (32, 64, 128, 256, 384, 384),
        pools: Sequence[tuple[int, int]] | None = None,
        condition_dim: int = 512,
        bn_momentum: float = 0.01,
        compression: float = 1.0,
        intensity: bool = False,
        n_bands: int | None = None,
        mask_channels: int | None = None,
        pass_through: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        pools = [tuple(p) for p in pools] if pools else [(2, 2)] * (len(widths) - 1) + [(1, 2)]  # type: ignore[misc]
        if len(pools) != len(widths):
            raise InputError("ResUNetK: pools", f"{len(pools)} of them", f"one a width ({len(widths)})")
        self.n_labels, self.n_slots, self.n_channels = n_labels, n_slots, n_channels
        self.n_fft, self.hop_length = n_fft, hop_length
        self.compression, self.intensity, self.checkpointing = compression, intensity, checkpointing
        self.time_ratio = _product(p[0] for p in pools)
        name, size = ("n_bands", n_bands) if n_bands else ("half of n_fft", n_fft // 2)
        if size % _product(p[1] for p in pools):
            raise InputError(f"ResUNetK: {name}", size, f"a multiple of {_product(p[1] for p in pools)} (the pools)")
        n_inputs = n_channels + (n_channels - 1 if intensity else 0)
        self.mask_channels = mask_channels or n_channels
        if not 1 <= self.mask_channels <= n_channels:
            raise InputError("ResUNetK: mask_channels", mask_channels, f"1 to {n_channels}")
        n_masks = n_slots * self.mask_channels * 3
        positions = n_bands or n_fft // 2 + 1
        self.base = _Base(n_inputs, n_masks, self.mask_channels, positions, widths, pools, bn_momentum)
        bands = band_matrix(n_bands, n_fft // 2) if n_bands else None
        self.register_buffer("to_bins", bands, persistent=False)
        self.register_buffer("to_bands", bands if bands is None else (bands.T / bands.sum(1)), persistent=False)
        sizes = {f"{b}->{n}": size for b, m in self.base.blocks().items() for n, size in m.film_sizes().items()}
        self.label_embedding = LabelEmbedding(n_labels * n_slots, condition_dim)
        self.film = FiLM(sizes, condition_dim)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        if pass_through:
            self._pass_through()

    def forward(self, mixture: Tensor, label_vector: Tensor) -> Tensor:
        """Separates.

        Args:
            mixture: [B, M, T] waveforms.
            label_vector: [B, K, C], one-hot a slot, zeros for silence.

        Returns:
            [B, K, T] float32: the dry source of each slot, exactly zero where the query is silence.
        """
        if mixture.shape[1] != self.n_channels:
            raise InputError("mixture", f"{mixture.shape[1]} channels", f"{self.n_channels}")
        spectrum = self._stft(mixture)
        rotation_mask = self._masks(spectrum, label_vector)
        sources = self._synthesise(spectrum, rotation_mask, mixture.shape[-1])
        return sources * active_slots(label_vector)[..., None]

    @torch.no_grad()
    def _pass_through(self) -> None:
        """Initialises the last layers: gain 1/2, no rotation, the reference channel alone."""
        bias, mix = self.base.after_conv.bias, self.base.out_conv
        assert bias is not None and mix.bias is not None
        bias.unflatten(0, (-1, 3))[:, 1] = 1.0
        self.base.after_conv.weight *= 0.1
        mix.weight.zero_()
        mix.weight[0, 0] = 1.0
        mix.bias.zero_()

    def _stft(self, mixture: Tensor) -> Tensor:
        """[B, M, T] -> real and imaginary parts [2, B, M, frames, bins] float32."""
        batch, channels, length = mixture.shape
        spectrum = torch.stft(
            mixture.float().reshape(batch * channels, length),
            self.n_fft,
            self.hop_length,
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        parts = torch.stack((spectrum.real, spectrum.imag)).mT.contiguous()
        return parts.reshape(2, batch, channels, *parts.shape[-2:])

    def _features(self, spectrum: Tensor) -> Tensor:
        """The network's input [B, n_inputs, frames, bins - 1 or bands] from the spectrum [2, B, M, frames, bins]."""
        power = spectrum.square().sum(0)
        cross = (spectrum[:, :, :1] * spectrum[:, :, 1:]).sum(0) if self.intensity else None
        if self.to_bands is not None:
            power = power[..., :-1] @ self.to_bands
            cross = None if cross is None else cross[..., :-1] @ self.to_bands
        power = power.clamp(min=POWER_FLOOR)
        features = power.sqrt() if self.compression == 1 else power ** (self.compression / 2)
        features = self.base.bn0(features.transpose(1, 3)).transpose(1, 3)
        if cross is not None:
            features = torch.cat((features, (cross / power.mean(1, keepdim=True)).clamp(-2, 2)), dim=1)
        return features if self.to_bands is not None else features[..., :-1]

    def _masks(self, spectrum: Tensor, label_vector: Tensor) -> Tensor:
        """Masks before their non-linearities: [B, K, masked channels, 3 (gain, real and imaginary rotation), frames,
        bins - 1]."""
        batch, frames = spectrum.shape[1], spectrum.shape[3]
        x = self._features(spectrum)
        x = F.pad(x, (0, 0, 0, -frames % self.time_ratio)).contiguous(memory_format=torch.channels_last)
        condition = self.label_embedding(label_vector.reshape(batch, -1).to(x.dtype))
        betas = self.film(condition)
        # One copy into planes: what follows works plane by plane, which channels-last memory would make slow.
        x = self._unet(x, betas)[:, :, :frames].float().contiguous()
        if self.to_bins is not None:
            x = x @ self.to_bins
        return x.unflatten(1, (self.n_slots, self.mask_channels, 3))

    def _unet(self, x: Tensor, betas: dict[str, Tensor]) -> Tensor:
        x = self.base.pre_conv(x)
        skips: list[Tensor] = []
        for name, block in self.base.blocks().items():
            mine = [beta for key, beta in betas.items() if key.startswith(f"{name}->")]
            if isinstance(block, DecoderBlock):
                x = self._run(block, x, skips.pop(), mine)
            else:
                x, skip = self._run(block, x, mine)
                if not name.endswith("a"):
                    skips.append(skip)
        return self.base.after_conv(x)

    def _run(self, block: nn.Module, *args: object):  # type: ignore[no-untyped-def]
        if self.checkpointing and self.training:
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)

    def _synthesise(self, spectrum: Tensor, masks: Tensor, length: int) -> Tensor:
        """Masked and rotated spectra of all channels, summed into one waveform a slot: [B, K, length]."""
        batch = masks.shape[0]
        gain, real, imag = masks.unbind(3)
        gain, real, imag = torch.sigmoid(gain), torch.tanh(real), torch.tanh(imag)
        gain = gain * torch.rsqrt((real.square() + imag.square()).clamp(min=1e-20))
        real, imag = gain * real, gain * imag
        # each [B, 1, masked channels, frames, bins - 1]
        x_real, x_imag = spectrum[:, :, : self.mask_channels, :, :-1].unsqueeze(2)
        weight, bias = self.base.out_conv.weight.reshape(-1), self.base.out_conv.bias
        assert bias is not None
        out_real = torch.einsum("bkmtf,m->bkft", x_real * real - x_imag * imag, weight)
        out_imag = torch.einsum("bkmtf,m->bkft", x_real * imag + x_imag * real, weight)
        # The Nyquist bin has no mask and comes back as zero; the bias of the sum over channels reaches it all the same.
        out = torch.complex(F.pad(out_real, (0, 0, 0, 1)) + bias, F.pad(out_imag, (0, 0, 0, 1)) + bias)
        waveform = torch.istft(
            out.flatten(0, 1), self.n_fft, self.hop_length, window=self.window, center=True, length=length
        )
        return waveform.reshape(batch, self.n_slots, length)


def band_matrix(n_bands: int, n_bins: int) -> Tensor:
    """Interpolation from bands to bins: [n_bands, n_bins] float32, triangles that sum to 1 in each bin.

    The first bands are a bin apart, each further one by a constant factor more; the last lies on the last bin.

    Example:
        >>> band_matrix(3, 4).sum(0).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    if not 2 <= n_bands <= n_bins:
        raise InputError("n_bands", n_bands, f"2 to {n_bins}, the number of bins")
    low, high = 1.0, float(n_bins)
    for _ in range(60):  # bisection for the factor r with 1 + r + ... + r^(n_bands - 2) = n_bins - 1
        factor = (low + high) / 2
        too_far = sum(factor**i for i in range(n_bands - 1)) > n_bins - 1
        low, high = (low, factor) if too_far else (factor, high)
    centres = torch.tensor([0.0] + [low**i for i in range(n_bands - 1)], dtype=torch.float64).cumsum(0)
    centres[-1] = n_bins - 1
    bins = torch.arange(n_bins, dtype=torch.float64)
    upper = torch.searchsorted(centres, bins).clamp(1, n_bands - 1)
    share = (bins - centres[upper - 1]) / (centres[upper] - centres[upper - 1])
    matrix = torch.zeros(n_bands, n_bins, dtype=torch.float64)
    matrix[upper - 1, torch.arange(n_bins)] = 1 - share
    matrix[upper, torch.arange(n_bins)] += share
    return matrix.float()


def _activate(x: Tensor, beta: Tensor) -> Tensor:
    """LeakyReLU(x + beta), in place: batch norm, whose output x is, needs its input alone for the backward pass."""
    return F.leaky_relu_(x.add_(beta), SLOPE)


def _xavier(layer):  # type: ignore[no-untyped-def]
    """The official initialisation: Xavier uniform weights, zero bias."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _product(values) -> int:  # type: ignore[no-untyped-def]
    result = 1
    for value in values:
        result *= value
    return result
