"""Locoformer: a label-queried separator of dual-path blocks over bands and frames.

Its blocks are those of TF-Locoformer (:mod:`s5.separation.locoformer.blocks`). The mixture goes through them once; each
active slot is then read out of the features by its query and decoded on its own, and silent slots cost nothing.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s5.separation.conditioning import active_slots, clues_in_time
from s5.separation.feedback import Passes
from s5.separation.locoformer.base import DualPathNetwork
from s5.separation.locoformer.blocks import film_layer, modulate
from s5.separation.locoformer.front_ends import input_planes
from s5.utils.errors import InputError


class Locoformer(DualPathNetwork):
    """Label-queried separation of K slots in one pass.

    Args:
        n_labels: number of labels C (without silence).
        n_slots: K, sources a pass.
        conditioning: how the query enters. ``"film"``: the sum of the active slots' embeddings scales and shifts the
            features before each block, a slot's own and the sum those that it is decoded from. ``"prompt"``: the slots'
            embeddings go through the blocks together with the frames, and the features are multiplied by them.
        condition_dim: length of a slot's embedding.
        time_film: whether a tagger's frame posteriors of the queried classes scale and shift the features before each
            block, frame by frame; :meth:`forward` then wants them as well.
        passes: with more than one, the magnitudes of each slot's estimate are fed back (:mod:`s5.separation.feedback`):
            their tokens are added to those of the mixture and to the features that the slot is decoded from.
        network: the arguments of :class:`s5.separation.locoformer.base.DualPathNetwork`; ``slot_blocks`` are those of
            active slots.

    Raises:
        InputError: sizes that do not go together, or a mixture or query of another size.
    """

    def __init__(
        self,
        n_labels: int = 18,
        n_slots: int = 3,
        conditioning: Literal["film", "prompt"] = "film",
        condition_dim: int = 64,
        time_film: bool = False,
        passes: int = 1,
        **network: Any,
    ) -> None:
        super().__init__(**network)
        self.n_labels, self.n_slots, self.conditioning = n_labels, n_slots, conditioning
        film_dim = condition_dim if conditioning == "film" else 0
        self.time_film = time_film
        self.add_backbone(film_dim, n_labels if time_film else 0)
        self.slot_embedding = SlotEmbedding(n_labels, n_slots, condition_dim)
        self.to_slot = film_layer(2 * condition_dim, self.dim) if film_dim else nn.Linear(condition_dim, self.dim)
        self.add_decoder()
        self.passes = Passes(passes)
        if passes > 1:
            self.estimate_encoder = self.make_encoder(1)
            self.to_estimate = film_layer(condition_dim, self.dim)

    def forward(self, mixture: Tensor, label_vector: Tensor, frames: Tensor | None = None) -> Tensor:
        """Separates mixtures.

        Args:
            mixture: [B, M, T] waveforms.
            label_vector: [B, K, C], one-hot a slot, zeros for silence.
            frames: [B, T', C] with ``time_film``: posteriors of all classes, spread evenly over the recording.

        Returns:
            [B, K, T] float32: the dry source of each slot, exactly zero where the query is silence.
        """
        check_query(label_vector, self.n_slots, self.n_labels)
        batch, slots = label_vector.shape[:2]
        clues = clues_in_time(frames, label_vector, self.time_film)
        frames = None if clues is None else clues.amax(1)
        level, spectrum, planes = self.analyse(mixture)
        active = active_slots(label_vector).flatten() != 0
        rows = active.nonzero()[:, 0]
        if not len(rows):  # one slot all the same: what trains is the same parameters in every step
            rows = active.new_zeros(1, dtype=torch.long)
        items = rows // slots
        reference = spectrum[:, 0][items]
        sources: Tensor | None = None
        for left in reversed(range(self.passes.draw())):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not left):
                sources = self.decode(self._features(planes, label_vector, frames, rows, sources), reference)
        assert sources is not None
        waveform = self.waveform(sources, level[items], mixture.shape[-1])
        out = waveform.new_zeros(batch * slots, mixture.shape[-1]).index_copy(0, rows, waveform)
        return torch.where(active[:, None], out, 0.0).view(batch, slots, -1)

    def _features(
        self, planes: Tensor, label_vector: Tensor, frames: Tensor | None, rows: Tensor, estimate: Tensor | None
    ) -> Tensor:
        """Features of the active slots: [active slots, tokens, bands, dim].

        Args:
            planes: [B, frames, bins, n_planes].
            label_vector: [B, K, C].
            frames: [B, T', C], posteriors of the queried classes, zeros of the others.
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
        return self.process(x if seen is None else x + seen)

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


def check_query(label_vector: Tensor, n_slots: int, n_labels: int) -> None:
    """Refuses a query [B, K, C] of other sizes than K and C. Raises InputError."""
    slots, labels = label_vector.shape[1:]
    if (slots, labels) != (n_slots, n_labels):
        raise InputError("label_vector", f"{slots} slots, {labels} labels", f"{n_slots} and {n_labels}")


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
