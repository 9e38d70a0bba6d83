"""Locoformer: a label-queried separator of dual-path blocks over bands and frames.

Its blocks are those of TF-Locoformer (:mod:`s5.separation.locoformer.blocks`). The mixture goes through them once; each
active slot is then read out of the features by its query and decoded on its own, and silent slots cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s5.separation.conditioning import active_slots
from s5.separation.feedback import Passes
from s5.separation.locoformer.blocks import (
    Block,
    FeedForwardKind,
    Norm,
    Part,
    PathConfig,
    film_layer,
    make_norm,
    modulate,
)
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


class Locoformer(nn.Module):
    """Label-queried separation of K slots in one pass.

    Args:
        n_labels: number of labels C (without silence).
        n_slots: K, sources a pass.
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
        slot_blocks: blocks that the features of each active slot go through after that.
        path: parts of a block's two paths, in order; the default is TF-Locoformer's.
        heads: of the attention.
        attention_dim: length of its queries, keys and values over all heads.
        ffn_dim: hidden features of the feed-forward networks, behind the gate.
        kernel: positions that their convolutions see.
        ffn: ``"swiglu"``, TF-Locoformer's, with a transposed convolution back; ``"glu"``, with a linear layer back.
        norm: ``"rms_group"``, TF-Locoformer's, or ``"layer"``, the faster one on CPUs.
        conditioning: how the query enters. ``"film"``: the sum of the active slots' embeddings scales and shifts the
            features before each block, a slot's own and the sum those that it is decoded from. ``"prompt"``: the slots'
            embeddings go through the blocks together with the frames, and the features are multiplied by them.
        condition_dim: length of a slot's embedding.
        time_film: length of vectors in time that :meth:`forward` then wants as well, e.g. a tagger's frame posteriors;
            they scale and shift the features frame by frame. 0: none.
        decoder_dim: features that a slot is decoded from; by default ``dim``.
        output: ``"mask"``, complex masks of the reference channel, which start from half of it; ``"mapping"``, spectra;
            ``"both"``, their sum.
        passes: with more than one, the magnitudes of each slot's estimate are fed back (:mod:`s5.separation.feedback`):
            their tokens are added to those of the mixture and to the features that the slot is decoded from.
        checkpointing: recompute the blocks in the backward pass instead of keeping their activations.

    Raises:
        InputError: sizes that do not go together, or a mixture or query of another size.
    """

    channels_last = True
    """Its convolutions run fastest with channels-last weights; see ``s5.separation.memory_format``."""

    window: Tensor

    def __init__(
        self,
        n_labels: int = 18,
        n_slots: int = 3,
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
        conditioning: Literal["film", "prompt"] = "film",
        condition_dim: int = 64,
        time_film: int = 0,
        decoder_dim: int | None = None,
        output: Output = "mask",
        passes: int = 1,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < hop_length <= n_fft // 2 or n_fft % 2:
            raise InputError("Locoformer: n_fft, hop_length", f"{n_fft}, {hop_length}", "even, and at most half of it")
        if frames < 1:
            raise InputError("Locoformer: frames", frames, "at least 1")
        self.n_labels, self.n_slots, self.n_channels = n_labels, n_slots, n_channels
        self.n_fft, self.hop_length = n_fft, hop_length
        self.planes, self.compression, self.output = tuple(planes), compression, output
        self.conditioning, self.checkpointing = conditioning, checkpointing
        edges = list(range(n_fft // 2 + 2)) if encoder == "bins" else band_edges(bands, n_fft // 2 + 1)
        config = PathConfig(tuple(path), heads, attention_dim, ffn_dim, kernel, ffn, norm)
        film_dim = condition_dim if conditioning == "film" else 0
        decoder_dim = decoder_dim or dim
        self.backbone = TFDualPath(
            n_planes(self.planes, n_channels),
            edges,
            dim,
            n_blocks,
            config,
            encoder,
            frames,
            film_dim,
            time_film,
            checkpointing,
        )
        self.slot_embedding = SlotEmbedding(n_labels, n_slots, condition_dim)
        self.to_slot = film_layer(2 * condition_dim, dim) if film_dim else nn.Linear(condition_dim, dim)
        self.slot_blocks = nn.ModuleList(Block(dim, config) for _ in range(slot_blocks))
        self.head = nn.Sequential(make_norm(norm, dim), nn.Linear(dim, 2 * decoder_dim), nn.GLU())
        self.decoder = make_decoder(encoder, edges, decoder_dim, len(START[output]), frames, heads)
        self.decoder.start_at(START[output])
        self.passes = Passes(passes)
        if passes > 1:
            self.estimate_encoder = make_encoder(encoder, edges, 1, dim, frames, heads)
            self.to_estimate = film_layer(condition_dim, dim)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, mixture: Tensor, label_vector: Tensor, frames: Tensor | None = None) -> Tensor:
        """Separates mixtures.

        Args:
            mixture: [B, M, T] waveforms.
            label_vector: [B, K, C], one-hot a slot, zeros for silence.
            frames: [B, T', time_film], where the network has ``time_film``: vectors spread evenly over the recording.

        Returns:
            [B, K, T] float32: the dry source of each slot, exactly zero where the query is silence.
        """
        self._check(mixture, label_vector)
        batch, slots = label_vector.shape[:2]
        # Transforms, planes and masks stay in float32, whatever the blocks run in.
        with torch.autocast(mixture.device.type, enabled=False):
            mixture = mixture.float()
            # A mixture of unit power has bins of unit power.
            level = mixture.square().mean((1, 2)).sqrt()
            level = level * torch.linalg.vector_norm(self.window)
            scaled = mixture / torch.where(level > 0, level, 1.0)[:, None, None]
            spectrum = stft(scaled, self.n_fft, self.hop_length, self.window)
            planes = input_planes(spectrum, self.planes, self.compression)
        active = active_slots(label_vector).flatten() != 0
        rows = active.nonzero()[:, 0]
        if not len(rows):  # one slot all the same: what trains is the same parameters in every step
            rows = active.new_zeros(1, dtype=torch.long)
        items = rows // slots
        sources: Tensor | None = None
        for left in reversed(range(self.passes.draw())):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not left):
                values = self._values(planes, label_vector, frames, rows, sources)
                sources = self._sources(values.float()[:, : spectrum.shape[2]], spectrum[:, 0], items)
        assert sources is not None
        with torch.autocast(mixture.device.type, enabled=False):
            waveform = istft(sources, self.n_fft, self.hop_length, mixture.shape[-1], self.window)
            out = mixture.new_zeros(batch * slots, mixture.shape[-1])
            out = out.index_copy(0, rows, waveform * level[items, None])
        return torch.where(active[:, None], out, 0.0).view(batch, slots, -1)

    def _check(self, mixture: Tensor, label_vector: Tensor) -> None:
        if mixture.shape[1] != self.n_channels:
            raise InputError("mixture", f"{mixture.shape[1]} channels", f"{self.n_channels}")
        slots, labels = label_vector.shape[1:]
        if (slots, labels) != (self.n_slots, self.n_labels):
            expected = f"{self.n_slots} and {self.n_labels}"
            raise InputError("label_vector", f"{slots} slots, {labels} labels", expected)

    def _values(
        self, planes: Tensor, label_vector: Tensor, frames: Tensor | None, rows: Tensor, estimate: Tensor | None
    ) -> Tensor:
        """Output of the decoder for the active slots: [active slots, frames, bins, 2 or 4].

        Args:
            planes: [B, frames, bins, n_planes].
            label_vector: [B, K, C].
            frames: as of :meth:`forward`.
            rows: index of each active slot in [B * K].
            estimate: [active slots, frames, bins], the spectra of the pass before; None in the first one.
        """
        items = rows // label_vector.shape[1]
        embedding = self.slot_embedding(label_vector.to(planes.dtype))
        added, seen = None, None
        if self.passes.most > 1:
            seen = self._seen(planes, embedding.flatten(0, 1)[rows], estimate)
            added = seen.new_zeros(len(planes), *seen.shape[1:]).index_add(0, items, seen)
        if self.conditioning == "film":
            total = (embedding * active_slots(label_vector).to(embedding.dtype)[..., None]).sum(1)
            x, _ = self.backbone(planes, total, frames, added=added)
            own = torch.cat((embedding.flatten(0, 1)[rows], total[items]), dim=-1)
            x = modulate(x[items], self.to_slot(own)[:, None, None])
        else:
            x, prompts = self.backbone(planes, None, frames, self.to_slot(embedding), added)
            assert prompts is not None
            x = x[items] * prompts.flatten(0, 1)[rows, None]
        x = x if seen is None else x + seen
        x = run_blocks(self.slot_blocks, x, self.checkpointing and self.training)
        return self.decoder(self.head(x))

    def _seen(self, planes: Tensor, embedding: Tensor, estimate: Tensor | None) -> Tensor:
        """Tokens of the slots' estimates, scaled and shifted by the slots' embeddings.

        Shape: [active slots, tokens, bands, dim].
        """
        if estimate is None:
            tokens = self.estimate_encoder(planes.new_zeros(len(embedding), *planes.shape[1:3], 1), known=False)
        else:
            with torch.autocast(planes.device.type, enabled=False):
                plane = input_planes(estimate[:, None], ["magnitude"], self.compression)
            tokens = self.estimate_encoder(plane)
        return modulate(tokens.float(), self.to_estimate(embedding)[:, None, None])

    def _sources(self, values: Tensor, reference: Tensor, items: Tensor) -> Tensor:
        """Complex spectra [active slots, frames, bins].

        Args:
            values: [active slots, frames, bins, 2 or 4] float32.
            reference: [B, frames, bins], the spectrum of the reference channel.
            items: [active slots], the mixture of each.
        """
        parts = torch.view_as_complex(values.unflatten(-1, (-1, 2)).contiguous())
        if self.output == "mapping":
            return parts[..., 0]
        masked = parts[..., 0] * reference[items]
        return masked if self.output == "mask" else masked + parts[..., 1]


class SlotEmbedding(nn.Module):
    """Embeds each slot's label and the slot's number among those of its label: [B, K, C] -> [B, K, dim]."""

    def __init__(self, n_labels: int, n_slots: int, dim: int) -> None:
        super().__init__()
        self.label = nn.Linear(n_labels + n_slots, dim)
        self.mix = nn.Linear(dim, dim)

    def forward(self, label_vector: Tensor) -> Tensor:
        """[B, K, C], one-hot a slot -> [B, K, dim]."""
        both = torch.cat((label_vector, occurrence(label_vector)), dim=-1)
        return F.silu(self.mix(self.label(both)))


def occurrence(label_vector: Tensor) -> Tensor:
    """Number of each slot among those of its label, one-hot.

    Args:
        label_vector: [B, K, C], one-hot a slot, zeros for silence.

    Returns:
        [B, K, K]: 1 at n where n earlier slots have the label; zeros for silence.
    """
    slots = label_vector.shape[1]
    same = label_vector @ label_vector.transpose(1, 2)
    earlier = same.tril(-1).sum(-1).long()
    one_hot = torch.arange(slots, device=label_vector.device) == earlier[..., None]
    return one_hot.to(label_vector.dtype) * active_slots(label_vector)[..., None]
