"""TSE: target sound extraction. Each slot is asked for by a label, by an enrolment, or by both.

An enrolment is a first estimate of the source, e.g. of USS (:mod:`s5.separation.uss`) or of this network itself: the
loop of Kwon et al. (DCASE 2025, Task 4). Without enrolments the network is a label-queried separator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from s5.separation.conditioning import active_slots, clues_in_time
from s5.separation.locoformer.base import DualPathNetwork
from s5.separation.locoformer.blocks import AttentiveStatistics, Block, film_layer, modulate
from s5.separation.locoformer.dual_path import run_blocks
from s5.separation.locoformer.front_ends import Plane, input_planes, n_planes
from s5.separation.locoformer.network import SlotEmbedding, check_query
from s5.utils.errors import InputError


class TSE(DualPathNetwork):
    """Extracts K sources by their labels and enrolments.

    A slot's clue is an embedding of its label, to which the pooled features of its enrolment are added, and the tokens
    of its enrolment. These are added to the mixture's tokens, which equals further input planes of a linear front end,
    but is the same for every slot, and lets the weights of the mixture's encoder start from those of USS.

    Args:
        n_labels: number of labels C (without silence).
        n_slots: K.
        joint: True: all slots go through the blocks together. Their clues are prompts before the frames, and features
            are multiplied by a slot's processed prompt before it is decoded. False: each slot goes through the blocks
            alone, and its clue scales and shifts the features before each of them.
        condition_dim: length of a slot's embedding.
        enrolment_planes: what the network sees of each bin of an enrolment: ``complex`` or ``magnitude``.
        enrolment_blocks: blocks that the tokens of an enrolment go through.
        time_film: whether a tagger's frame posteriors of the queried classes (of a slot's class alone unless ``joint``)
            scale and shift the features before each block, frame by frame; :meth:`forward` then wants them as well.
        network: the arguments of :class:`s5.separation.locoformer.base.DualPathNetwork`.

    Raises:
        InputError: sizes that do not go together, or inputs of other sizes.
    """

    def __init__(
        self,
        n_labels: int = 18,
        n_slots: int = 3,
        joint: bool = True,
        condition_dim: int = 64,
        enrolment_planes: Sequence[Plane] = ("complex", "magnitude"),
        enrolment_blocks: int = 1,
        time_film: bool = False,
        **network: Any,
    ) -> None:
        super().__init__(**network)
        if "intensity" in enrolment_planes or not enrolment_planes:
            raise InputError("TSE: enrolment_planes", list(enrolment_planes), "complex, magnitude or both")
        self.n_labels, self.n_slots, self.joint = n_labels, n_slots, joint
        self.enrolment_planes = tuple(enrolment_planes)
        film_dim = 0 if joint else condition_dim
        self.time_film = time_film
        self.add_backbone(film_dim, n_labels if time_film else 0)
        self.slot_embedding = SlotEmbedding(n_labels, n_slots, condition_dim)
        self.enrolment_encoder = self.make_encoder(n_planes(self.enrolment_planes, 1))
        self.enrolment_blocks = nn.ModuleList(Block(self.dim, self.path) for _ in range(enrolment_blocks))
        self.pooling = AttentiveStatistics(self.dim)
        self.to_embedding = nn.Linear(2 * self.dim, condition_dim)
        if joint:
            self.to_prompt = nn.Linear(condition_dim, self.dim)
            self.to_clue = film_layer(condition_dim, self.dim)
        self.add_decoder(film_dim)

    def forward(
        self, mixture: Tensor, label_vector: Tensor, enrolment: Tensor | None = None, frames: Tensor | None = None
    ) -> Tensor:
        """Extracts sources.

        Args:
            mixture: [B, M, n] waveforms.
            label_vector: [B, K, C], one-hot a slot, zeros where the label is not known.
            enrolment: [B, K, n], a first estimate of each source at its level in the mixture, zeros for none.
            frames: [B, T', C] with ``time_film``: posteriors of all classes, spread evenly over the recording.

        Returns:
            [B, K, n] float32: the dry source of each slot, exactly zero where it has neither label nor enrolment.
        """
        check_query(label_vector, self.n_slots, self.n_labels)
        batch, slots = label_vector.shape[:2]
        clues = clues_in_time(frames, label_vector, self.time_film)
        level, spectrum, planes = self.analyse(mixture)
        active = active_slots(label_vector).flatten() != 0
        known = torch.zeros_like(active)
        if enrolment is not None:
            if enrolment.shape != (batch, slots, mixture.shape[-1]):
                expected = [batch, slots, mixture.shape[-1]]
                raise InputError("enrolment", f"shape {list(enrolment.shape)}", f"{expected}, a waveform a slot")
            known = enrolment.flatten(0, 1).ne(0).any(-1)
            active = active | known
        rows = active.nonzero()[:, 0]
        if not len(rows):  # one slot all the same: what trains is the same parameters in every step
            rows = active.new_zeros(1, dtype=torch.long)
        items, reference = rows // slots, spectrum[:, 0]
        tokens, pooled = self._enrolled(enrolment, known, level, planes)
        embedding = self.slot_embedding(label_vector.to(pooled.dtype)) + pooled.unflatten(0, (batch, slots))
        if self.joint:
            clue = modulate(tokens, self.to_clue(embedding.flatten(0, 1))[:, None, None])
            clue = clue * known[:, None, None, None]
            added = clue.unflatten(0, (batch, slots)).sum(1)
            shared = None if clues is None else clues.amax(1)
            x, prompts = self.backbone(planes, None, shared, self.to_prompt(embedding), added)
            assert prompts is not None
            x = self.process(x[items] * prompts.flatten(0, 1)[rows, None] + clue[rows])
        else:
            condition = embedding.flatten(0, 1)[rows]
            own = None if clues is None else clues.flatten(0, 1)[rows]
            x, _ = self.backbone(planes[items], condition, own, added=tokens[rows])
            x = self.process(x, condition)
        waveform = self.waveform(self.decode(x, reference[items]), level[items], mixture.shape[-1])
        out = waveform.new_zeros(batch * slots, mixture.shape[-1]).index_copy(0, rows, waveform)
        return torch.where(active[:, None], out, 0.0).view(batch, slots, -1)

    def _enrolled(
        self, enrolment: Tensor | None, known: Tensor, level: Tensor, planes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens of the enrolments [B * K, tokens, bands, dim], and embeddings [B * K, condition_dim]; zeros for none.

        Args:
            enrolment: as of :meth:`forward`.
            known: [B * K], which slots have one.
            level: [B].
            planes: [B, frames, bins, n_planes], of the mixture.
        """
        n, rows = len(known), known.nonzero()[:, 0]
        given = enrolment is not None and len(rows) > 0
        if enrolment is not None and given:
            own = level.repeat_interleave(n // len(level))[rows]
            spectrum = self.spectrum(enrolment.flatten(0, 1)[rows, None], own)
            with torch.autocast(planes.device.type, enabled=False):
                seen = input_planes(spectrum, self.enrolment_planes, self.compression)
        else:  # the same parameters take part in every step
            rows = rows.new_zeros(1)
            seen = planes.new_zeros(1, *planes.shape[1:3], n_planes(self.enrolment_planes, 1))
        tokens = self.enrolment_encoder(seen, known=given)
        tokens = run_blocks(self.enrolment_blocks, tokens, self.checkpointing and self.training)
        pooled = self.to_embedding(self.pooling(tokens.flatten(1, 2))).float()
        tokens, pooled = (part.float() * float(given) for part in (tokens, pooled))
        return (
            tokens.new_zeros(n, *tokens.shape[1:]).index_copy(0, rows, tokens),
            pooled.new_zeros(n, pooled.shape[1]).index_copy(0, rows, pooled),
        )


TSE_NETWORKS = {"tse": TSE}
"""Networks of this kind by the name that a configuration uses."""
