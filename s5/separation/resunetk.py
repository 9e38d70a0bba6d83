"""Builds ResUNetK, the label-queried separator of the DCASE 2025 and 2026 baselines, at any size.

ResUNetK is a residual U-Net over the magnitude spectrograms of all channels, conditioned on the labels of all K slots.
It predicts a magnitude mask and a phase rotation for each slot and input channel; a 1x1 convolution sums the masked
channels into one dry source per slot. The default arguments build the official network of 2026, with the same
parameters and output (Nguyen et al., section 3.2); ``single_query`` that of 2025, with one label per query.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from s5.separation.conditioning import FiLM, LabelEmbedding, active_slots, clues_in_time
from s5.separation.feedback import Passes
from s5.separation.fused import (
    affine_leaky,
    avg_pool2d,
    conv2d,
    film_scale_shift,
    frozen_statistics,
    inference_dtype,
    norm_film_conv,
    strips,
)
from s5.separation.masks import apply_masks
from s5.separation.stft import istft, stft
from s5.utils.errors import InputError

POWER_FLOOR = 1e-10  # the official floor of the power before the root: silence has a magnitude of 1e-5


class ResidualBlock(nn.Module):
    """Two pre-activated 3x3 convolutions with FiLM biases and a shortcut: [B, in, T, F] -> [B, out, T, F]."""

    def __init__(self, in_channels: int, out_channels: int, momentum: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels, momentum=momentum)
        self.bn2 = nn.BatchNorm2d(out_channels, momentum=momentum)
        self.conv1 = _xavier(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False))
        self.conv2 = _xavier(nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False))
        self.shortcut = _xavier(nn.Conv2d(in_channels, out_channels, 1)) if in_channels != out_channels else None

    def film_sizes(self) -> dict[str, int]:
        """Channels that FiLM conditions here, by place."""
        return {"beta1": self.bn1.num_features, "beta2": self.bn2.num_features}

    def forward(self, x: Tensor, beta1: Tensor, beta2: Tensor) -> Tensor:
        """x [B, in, T, F], biases [B, channels, 1, 1] -> [B, out, T, F]."""
        y = norm_film_conv(x, self.bn1, beta1, self.conv1)
        y = norm_film_conv(y, self.bn2, beta2, self.conv2)
        return y.add_(x if self.shortcut is None else self.shortcut(x))

    def folded(self, dtype: torch.dtype, beta1: Tensor, beta2: Tensor) -> Callable[[Tensor], Tensor]:
        """Prepares :meth:`forward` in evaluation, without gradient, as a function of x in the given precision."""
        before = film_scale_shift(self.bn1, beta1)
        scale, shift = film_scale_shift(self.bn2, beta2)
        weight1 = (self.conv1.weight * scale[:, None, None, None]).to(dtype)
        weight2 = self.conv2.weight.to(dtype)

        def run(x: Tensor) -> Tensor:
            y = conv2d(affine_leaky(x, *before), weight1, shift, leaky=True)
            return conv2d(y, weight2, add=x if self.shortcut is None else _one_by_one(x, self.shortcut))

        return run


class EncoderBlock(nn.Module):
    """A residual block and average pooling. It returns the pooled map and the unpooled one for the skip connection."""

    def __init__(self, in_channels: int, out_channels: int, pool: tuple[int, int], momentum: float) -> None:
        super().__init__()
        self.conv_block1 = ResidualBlock(in_channels, out_channels, momentum)
        self.out_channels, self.pool = out_channels, pool

    def film_sizes(self) -> dict[str, int]:
        """Channels that FiLM conditions here, by place."""
        return {f"conv_block1->{name}": size for name, size in self.conv_block1.film_sizes().items()}

    def forward(self, x: Tensor, betas: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """x [B, in, T, F] -> pooled and unpooled [B, out, ...]."""
        x = self.conv_block1(x, *betas)
        return (avg_pool2d(x, self.pool) if self.pool != (1, 1) else x), x

    def infer(
        self, x: Tensor, betas: Sequence[Tensor], dtype: torch.dtype, before: nn.Conv2d | None = None
    ) -> tuple[Tensor, Tensor]:
        """Runs :meth:`forward` in evaluation, without gradient, on x or on the 1x1 convolution ``before`` of x."""
        run = self.conv_block1.folded(dtype, *betas)
        channels = max(self.conv_block1.bn1.num_features, self.conv_block1.bn2.num_features)
        pooled, skip = [], []
        for strip in strips(x, channels * x.shape[3], self.pool[0]):
            part = x[:, :, strip.read]
            y = run(part if before is None else _one_by_one(part, before))[:, :, strip.inner]
            skip.append(y)
            pooled.append(F.avg_pool2d(y, self.pool) if self.pool != (1, 1) else y)
        return _joined(pooled), _joined(skip)


class DecoderBlock(nn.Module):
    """A transposed convolution, the skip connection and a residual block."""

    def __init__(self, in_channels: int, out_channels: int, pool: tuple[int, int], momentum: float) -> None:
        super().__init__()
        self.conv1 = _xavier(nn.ConvTranspose2d(in_channels, out_channels, pool, stride=pool, bias=False))
        self.bn1 = nn.BatchNorm2d(in_channels, momentum=momentum)
        self.conv_block2 = ResidualBlock(out_channels * 2, out_channels, momentum)
        self.out_channels, self.pool = out_channels, pool

    def film_sizes(self) -> dict[str, int]:
        """Channels that FiLM conditions here, by place."""
        inner = {f"conv_block2->{name}": size for name, size in self.conv_block2.film_sizes().items()}
        return {"beta1": self.bn1.num_features, **inner}

    def forward(self, x: Tensor, skip: Tensor, betas: Sequence[Tensor]) -> Tensor:
        """x [B, in, T, F] and skip [B, out, T * pool, F * pool] -> [B, out, T * pool, F * pool]."""
        x = norm_film_conv(x, self.bn1, betas[0], self.conv1)
        return self.conv_block2(torch.cat((x, skip), dim=1), *betas[1:])

    def infer(
        self, x: Tensor, skip: Tensor, betas: Sequence[Tensor], dtype: torch.dtype
    ) -> Iterator[tuple[slice, Tensor]]:
        """Runs :meth:`forward` in evaluation, without gradient; yields rows and their output, strip by strip."""
        run = self.conv_block2.folded(dtype, *betas[1:])
        before, weight = film_scale_shift(self.bn1, betas[0]), self.conv1.weight.to(x.dtype)
        ratio, _ = self.conv1.stride
        for strip in strips(skip, 2 * skip.shape[1] * skip.shape[3], ratio):
            low = affine_leaky(x[:, :, strip.read.start // ratio : strip.read.stop // ratio], *before)
            up = F.conv_transpose2d(low, weight, stride=self.conv1.stride)
            yield strip.write, run(torch.cat((up, skip[:, :, strip.read]), dim=1))[:, :, strip.inner]


class _Base(nn.Module):
    """U-Net whose parameters have the official names below ``base.``."""

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

    def forward(
        self, x: Tensor, betas: dict[str, Tensor], shifts: dict[str, Tensor], recompute: bool = False
    ) -> Tensor:
        """Masks from the output of ``pre_conv``: [B, widths[0], T, F] -> [B, n_masks, T, F].

        Args:
            x: output of ``pre_conv``.
            betas: FiLM biases by place.
            shifts: [B, channels, frames, 1] by block, added to its output; may be empty.
            recompute: recompute the blocks' activations in the backward pass.
        """

        def run(block: nn.Module, *args: object):  # type: ignore[no-untyped-def]
            if not recompute:
                return block(*args)
            return checkpoint(block, *args, use_reentrant=False, context_fn=_forward_and_again)

        skips: list[Tensor] = []
        for name, block in self.blocks().items():
            mine = _below(betas, name)
            if isinstance(block, DecoderBlock):
                x = run(block, x, skips.pop(), mine)
            else:
                x, skip = run(block, x, mine)
                if not name.endswith("a"):
                    skips.append(skip)
            x = _shifted(x, shifts.get(name))
        return self.after_conv(x)

    def infer(
        self, x: Tensor, betas: dict[str, Tensor], shifts: dict[str, Tensor], dtype: torch.dtype
    ) -> Iterator[tuple[slice, Tensor]]:
        """Runs ``pre_conv`` and :meth:`forward` in evaluation, without gradient, on the network's input x.

        Yields:
            Frames and their masks, strip by strip, so no block holds its inner maps as a whole.
        """
        skips: list[Tensor] = []
        output: Iterator[tuple[slice, Tensor]] | None = None
        for name, block in self.blocks().items():
            mine = _below(betas, name)
            if isinstance(block, DecoderBlock):
                x = x if output is None else _joined([part for _, part in output])
                strips = block.infer(x, skips.pop(), mine, dtype)
                output = _shifted_strips(strips, shifts.get(name))
            else:
                x, skip = block.infer(x, mine, dtype, None if skips else self.pre_conv)
                x = _shifted(x, shifts.get(name))
                if not name.endswith("a"):
                    skips.append(skip)
        assert output is not None
        for frames, part in output:
            yield frames, _one_by_one(part, self.after_conv)

    def blocks(self) -> dict[str, EncoderBlock | DecoderBlock]:
        """All conditioned blocks by name, in order of use."""
        return {name: m for name, m in self.named_children() if isinstance(m, EncoderBlock | DecoderBlock)}


class ResUNetK(nn.Module):
    """Separates K slots in one pass, queried by labels.

    Args:
        n_labels: number of labels C (without silence).
        n_slots: K, number of sources per pass.
        n_channels: microphones or Ambisonics channels M.
        n_fft: STFT window in samples (Hann, reflect padding). Lengths that are no multiple of the hop have one frame
            more than in the official network, where masks make clicks at the end (:mod:`s5.separation.stft`).
        hop_length: STFT hop in samples.
        widths: channels of the encoder blocks, which the decoder mirrors. Their number is the depth.
        pools: (time, frequency) pooling of each encoder block; by default 2x2, and 1x2 in the last.
        condition_dim: width of the label MLP.
        bn_momentum: momentum of all batch norms.
        compression: exponent of the magnitudes at the input (1: the official network).
        intensity: add the active intensity of channels 2..M against channel 1, in [-1, 1], to the input. It shows the
            direction of a bin, which magnitudes do not (false: the official network).
        n_bands: number of bands that replace the bins, one bin wide at low frequencies and wider above
            (:func:`band_matrix`); several times cheaper. By default single bins (the official network).
        mask_channels: number of channels, from the reference channel on, that are masked and summed into a source; by
            default all (the official network). All channels are input of the network in any case.
        pass_through: start from masks that pass half of the reference channel, in phase, to every slot. The official
            initialisation (false) starts from random phases, from which a short training does not recover.
        checkpointing: recompute the blocks in the backward pass instead of keeping their activations.
        passes: with more than one, the magnitudes of each slot's estimate are fed back as further input planes
            (:mod:`s5.separation.feedback`).
        time_film: add a shift to the output of each block, frame by frame: a linear map, zero at first, of the frame
            posteriors of the slots' classes, which :meth:`forward` then wants as well (Time-FiLM, after Morocutti et
            al., arXiv 2507.17297).
        single_query: build the network of 2025, with one label and one source per query. K queries of a mixture run as
            a batch of K items; ``n_slots`` does not shape the network, and ``label_vector`` may have any number of
            slots.

    Raises:
        InputError: sizes do not fit together, or the mixture's channels or the size of the label vectors are wrong.
    """

    channels_last = True
    """Whether channels-last weights are fastest; see ``s5.separation.memory_format``."""

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
        single_query: bool = False,
        passes: int = 1,
        time_film: bool = False,
    ) -> None:
        super().__init__()
        pools = [tuple(p) for p in pools] if pools else [(2, 2)] * (len(widths) - 1) + [(1, 2)]  # type: ignore[misc]
        if len(pools) != len(widths):
            raise InputError("ResUNetK: pools", f"{len(pools)} of them", f"one a width ({len(widths)})")
        if not 0 < hop_length <= n_fft // 2:
            raise InputError("ResUNetK: hop_length", hop_length, f"1 to {n_fft // 2}, half of n_fft")
        self.n_labels, self.n_slots, self.n_channels = n_labels, n_slots, n_channels
        self.n_fft, self.hop_length = n_fft, hop_length
        self.compression, self.intensity, self.checkpointing = compression, intensity, checkpointing
        self.single_query = single_query
        self.slots_a_pass = 1 if single_query else n_slots
        self.time_ratio = math.prod(p[0] for p in pools)
        name, size = ("n_bands", n_bands) if n_bands else ("half of n_fft", n_fft // 2)
        if size % math.prod(p[1] for p in pools):
            raise InputError(f"ResUNetK: {name}", size, f"a multiple of {math.prod(p[1] for p in pools)} (the pools)")
        self.passes = Passes(passes)
        n_inputs = n_channels + (n_channels - 1 if intensity else 0) + (self.slots_a_pass if passes > 1 else 0)
        self.mask_channels = mask_channels or n_channels
        if not 1 <= self.mask_channels <= n_channels:
            raise InputError("ResUNetK: mask_channels", mask_channels, f"1 to {n_channels}")
        n_masks = self.slots_a_pass * self.mask_channels * 3
        positions = n_bands or n_fft // 2 + 1
        self.base = _Base(n_inputs, n_masks, self.mask_channels, positions, widths, pools, bn_momentum)
        if passes > 1:
            self.estimate_norm = nn.BatchNorm1d(n_bands or n_fft // 2, momentum=bn_momentum, affine=False)
        bands = band_matrix(n_bands, n_fft // 2) if n_bands else None
        self.register_buffer("to_bins", bands, persistent=False)
        self.register_buffer("to_bands", bands if bands is None else (bands.T / bands.sum(1)), persistent=False)
        sizes = {f"{b}->{n}": size for b, m in self.base.blocks().items() for n, size in m.film_sizes().items()}
        self.label_embedding = LabelEmbedding(n_labels * self.slots_a_pass, condition_dim)
        self.film = FiLM(sizes, condition_dim)
        self.time_film = time_film
        if time_film:
            channels = {name: block.out_channels for name, block in self.base.blocks().items()}
            self.to_shifts = nn.ModuleDict(
                {name: nn.Conv1d(self.slots_a_pass, n, 1, bias=False) for name, n in channels.items()}
            )
            for parameter in self.to_shifts.parameters():
                nn.init.zeros_(parameter)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        if pass_through:
            self._pass_through()

    def forward(self, mixture: Tensor, label_vector: Tensor, frames: Tensor | None = None) -> Tensor:
        """Separates mixtures.

        Args:
            mixture: [B, M, T] waveforms.
            label_vector: [B, K, C], one-hot a slot, zeros for silence.
            frames: [B, T', C] with ``time_film``: posteriors of all classes, spread evenly over the recording.

        Returns:
            [B, K, T] float32: the dry sources.
        """
        if mixture.shape[1] != self.n_channels:
            raise InputError("mixture", f"{mixture.shape[1]} channels", f"{self.n_channels}")
        slots = label_vector.shape[1]
        if label_vector.shape[2] != self.n_labels or (slots != self.n_slots and not self.single_query):
            found, expected = f"{slots} slots, {label_vector.shape[2]} labels", f"{self.n_slots} and {self.n_labels}"
            raise InputError("label_vector", found, expected)
        active = active_slots(label_vector) != 0
        repeats = slots // self.slots_a_pass
        # Transforms, features, query and masks stay in float32, whatever the precision of the U-Net.
        with torch.autocast(mixture.device.type, enabled=False):
            spectrum = self._stft(mixture)
            features = self._features(spectrum)
            query = label_vector.reshape(-1, self.slots_a_pass * self.n_labels).to(features.dtype)
            betas = self.film(self.label_embedding(query))
            clues = clues_in_time(frames, label_vector, self.time_film)
            shifts = {} if clues is None else self._shifts(clues, spectrum.shape[3], features.shape[2])
        sources: Tensor | None = None
        for left in reversed(range(self.passes.draw())):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not left):
                seen = self._with_estimate(features, sources, active, repeats)
                if self.training or torch.is_grad_enabled():
                    sources = self._separate(spectrum, seen, betas, shifts, repeats)
                else:
                    sources = self._infer(spectrum, seen, betas, shifts, active, repeats)
        assert sources is not None
        waveform = istft(sources, self.n_fft, self.hop_length, mixture.shape[-1], self.window)
        return torch.where(active[..., None], waveform.reshape(*active.shape, -1), 0.0)

    def _shifts(self, clues: Tensor, frames: int, padded: int) -> dict[str, Tensor]:
        """Shifts [B * repeats, channels, frames of its output, 1] of each block, from posteriors [B, K, T', C]."""
        clue = clues.float().sum(-1).reshape(-1, self.slots_a_pass, clues.shape[2])
        clue = F.pad(F.interpolate(clue, frames, mode="linear"), (0, padded - frames), mode="replicate")
        shifts = {}
        for name, block in self.base.blocks().items():
            padded = padded * block.pool[0] if isinstance(block, DecoderBlock) else padded // block.pool[0]
            shifts[name] = self.to_shifts[name](F.adaptive_avg_pool1d(clue, padded))[..., None]
        return shifts

    def _separate(
        self, spectrum: Tensor, features: Tensor, betas: dict[str, Tensor], shifts: dict[str, Tensor], repeats: int
    ) -> Tensor:
        """Complex spectra [B * repeats, slots, frames, bins] of the sources, with gradients."""
        x = self.base.pre_conv(features)
        if len(x) < len(spectrum[0]) * repeats:
            x = x.repeat_interleave(repeats, dim=0)
        masks = self.base(x, betas, shifts, self.checkpointing and self.training)
        with torch.autocast(spectrum.device.type, enabled=False):
            return self._synthesise(spectrum, masks)

    def _infer(
        self,
        spectrum: Tensor,
        features: Tensor,
        betas: dict[str, Tensor],
        shifts: dict[str, Tensor],
        active: Tensor,
        repeats: int,
    ) -> Tensor:
        """Runs :meth:`_separate` without gradients in autocast's precision; passes without active slots are skipped."""
        device = spectrum.device.type
        dtype = inference_dtype(spectrum.device)
        passes = active.reshape(-1, self.slots_a_pass).any(1).nonzero()[:, 0]
        frames, bins = spectrum.shape[3:]
        slots = self.slots_a_pass
        out = spectrum.new_zeros(active.numel() // slots, slots, frames, bins, dtype=torch.cfloat)
        with torch.autocast(device, enabled=False):
            x = features.to(dtype)
            # On a CPU single passes are as fast as a batch, and need the memory of one.
            together = 1 if device == "cpu" else max(1, len(passes))
            for index in passes.split(together) if len(passes) else ():
                items = index // repeats
                mine, added = ({name: one[index] for name, one in group.items()} for group in (betas, shifts))
                seen = _items(x, items if len(x) == spectrum.shape[1] else index)
                for rows, masks in self.base.infer(seen, mine, added, dtype):
                    rows = slice(rows.start, min(rows.stop, frames))
                    out[index, :, rows] = self._synthesise(spectrum[:, items, :, rows], masks)
        return out

    def _synthesise(self, spectrum: Tensor, masks: Tensor) -> Tensor:
        weight, bias = self.base.out_conv.weight.flatten(), self.base.out_conv.bias
        assert bias is not None
        return apply_masks(spectrum, masks, weight, bias, self.slots_a_pass, self.to_bins)

    @torch.no_grad()
    def _pass_through(self) -> None:
        """Initialises the last layers: gain 1/2, no rotation, only the reference channel."""
        bias, mix = self.base.after_conv.bias, self.base.out_conv
        assert bias is not None and mix.bias is not None
        bias.unflatten(0, (-1, 3))[:, 1] = 1.0
        self.base.after_conv.weight *= 0.1
        mix.weight.zero_()
        mix.weight[0, 0] = 1.0
        mix.bias.zero_()

    def _stft(self, mixture: Tensor) -> Tensor:
        """[B, M, T] -> real and imaginary parts [2, B, M, frames, bins] float32."""
        spectrum = stft(mixture, self.n_fft, self.hop_length, self.window)
        return torch.stack((spectrum.real, spectrum.imag))

    def _features(self, spectrum: Tensor) -> Tensor:
        """The network's input [B, n_inputs, frames, bins - 1 or bands] from the spectrum [2, B, M, frames, bins].

        Zero frames pad it to a multiple of the pooling over time. The memory is channels-last.
        """
        power = spectrum.square().sum(0)
        cross = (spectrum[:, :, :1] * spectrum[:, :, 1:]).sum(0) if self.intensity else None
        if self.to_bands is not None:
            power = power[..., :-1] @ self.to_bands
            cross = None if cross is None else cross[..., :-1] @ self.to_bands
        power = power.clamp(min=POWER_FLOOR)
        features = power.sqrt() if self.compression == 1 else power ** (self.compression / 2)
        features = self._normalised(features)
        if cross is not None:
            features = torch.cat((features, (cross / power.mean(1, keepdim=True)).clamp(-2, 2)), dim=1)
        features = features if self.to_bands is not None else features[..., :-1]
        features = F.pad(features, (0, 0, 0, -features.shape[2] % self.time_ratio))
        return features.contiguous(memory_format=torch.channels_last)

    def _with_estimate(self, features: Tensor, sources: Tensor | None, active: Tensor, repeats: int) -> Tensor:
        """The network's input with the slots' estimates: one row a query, where estimates are fed back.

        Args:
            features: :meth:`_features`.
            sources: [B * repeats, slots, frames, bins], the spectra of the pass before; None in the first one.
            active: [B, K].
            repeats: queries a mixture.

        Returns:
            [B * repeats, n_inputs + slots, ...]; the features as they are without feedback.
        """
        if self.passes.most == 1:
            return features
        features = features.repeat_interleave(repeats, dim=0)
        shape = (len(features), self.slots_a_pass, *features.shape[2:])
        planes = features.new_zeros(shape)
        if sources is not None:
            with torch.autocast(features.device.type, enabled=False):
                power = torch.view_as_real(sources[..., :-1]).square().sum(-1)
                power = power if self.to_bands is None else power @ self.to_bands
                asked = active.reshape(-1, self.slots_a_pass, 1, 1)
                seen = (power * asked).clamp(min=POWER_FLOOR) ** (self.compression / 2)
                # Zero is the mean: it says nothing, of a silent slot and in the first pass.
                seen = self.estimate_norm(seen.flatten(0, 2)).view(seen.shape) * asked
                planes[:, :, : seen.shape[2]] = seen
        return torch.cat((features, planes), dim=1).contiguous(memory_format=torch.channels_last)

    def _normalised(self, features: Tensor) -> Tensor:
        """Applies batch norm over the bins, the last dimension: [B, M, frames, bins] -> the same shape."""
        if type(self.base.bn0) is not nn.BatchNorm2d:  # synchronised over processes
            return self.base.bn0(features.transpose(1, 3)).transpose(1, 3)
        rows = features.reshape(-1, features.shape[-1])
        bn = self.base.bn0
        if self.training and bn.num_batches_tracked is not None:
            bn.num_batches_tracked.add_(1)
        rows = F.batch_norm(
            rows, bn.running_mean, bn.running_var, bn.weight, bn.bias, bn.training, bn.momentum or 0.0, bn.eps
        )
        return rows.reshape(features.shape)


def band_matrix(n_bands: int, n_bins: int) -> Tensor:
    """Interpolation from bands to bins: [n_bands, n_bins] float32, triangles that sum to 1 in each bin.

    The first bands are one bin apart. The distance grows by a constant factor, and the last band is on the last bin.

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


def _forward_and_again() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of a checkpointed forward pass and of its recomputation, which must not update statistics again."""
    return nullcontext(), frozen_statistics()


def _below(betas: dict[str, Tensor], block: str) -> list[Tensor]:
    """Biases of one block, in order of use."""
    return [beta for name, beta in betas.items() if name.startswith(f"{block}->")]


def _shifted(x: Tensor, shift: Tensor | None) -> Tensor:
    """x [B, channels, frames, F] plus a shift [B, channels, frames, 1], if there is one."""
    return x if shift is None else x + shift.to(x.dtype)


def _shifted_strips(parts: Iterator[tuple[slice, Tensor]], shift: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """Adds a shift to the strips of a map."""
    for rows, part in parts:
        yield rows, _shifted(part, None if shift is None else shift[:, :, rows])


def _one_by_one(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1x1 convolution without gradient, in the precision of x."""
    assert conv.bias is not None
    return conv2d(x, conv.weight.to(x.dtype), conv.bias[None])


def _joined(parts: list[Tensor]) -> Tensor:
    """Joins strips of rows to one map."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _items(x: Tensor, items: Tensor) -> Tensor:
    """x[items], without a copy for a single item."""
    return x[int(items) :][:1] if len(items) == 1 else x[items]


def _xavier(layer):  # type: ignore[no-untyped-def]
    """Official initialisation: Xavier uniform weights, zero bias."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
