"""The backbone: planes of a spectrum through an encoder and conditioned blocks, to features of frames and bands."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from s5.separation.locoformer.blocks import Block, PathConfig
from s5.separation.locoformer.front_ends import FrontEnd, make_encoder
from s5.utils.errors import InputError


class TFDualPath(nn.Module):
    """[B, frames, bins, n_planes] -> [B, tokens, bands, dim].

    Args:
        n_planes: real values of each bin of the input.
        edges: first bin of each band and the number of bins (:func:`s5.separation.locoformer.front_ends.band_edges`).
        dim: features.
        n_blocks: number of blocks.
        path: what a block's paths are made of.
        encoder: the front end.
        frames: of a token.
        condition_dim: length of a vector that scales and shifts the features before each block (FiLM); 0: none.
        time_film: length of vectors that do so frame by frame; 0: none.
        checkpointing: recompute the blocks in the backward pass instead of keeping their activations.
    """

    def __init__(
        self,
        n_planes: int,
        edges: Sequence[int],
        dim: int,
        n_blocks: int,
        path: PathConfig,
        encoder: FrontEnd = "bands",
        frames: int = 1,
        condition_dim: int = 0,
        time_film: int = 0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.time_film, self.checkpointing = time_film, checkpointing
        self.encoder = make_encoder(encoder, edges, n_planes, dim, frames, path.heads)
        self.blocks = nn.ModuleList(Block(dim, path, condition_dim, time_film) for _ in range(n_blocks))

    def forward(
        self,
        planes: Tensor,
        condition: Tensor | None = None,
        frames: Tensor | None = None,
        prompts: Tensor | None = None,
        added: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Features of a mixture.

        Args:
            planes: [B, frames, bins, n_planes].
            condition: [B, condition_dim] for FiLM.
            frames: [B, T', time_film] for FiLM in time, spread evenly over the recording; any T'.
            prompts: [B, P, dim], vectors that the blocks process together with the frames, as a set.
            added: [B, tokens, bands, dim], what is known of the mixture already: added to the encoder's tokens.

        Returns:
            Features [B, tokens, bands, dim], and the processed prompts [B, P, bands, dim] where there are some.

        Raises:
            InputError: frames of another width than ``time_film``, or none where it asks for them.
        """
        x = self.encoder(planes)
        if added is not None:
            x = x + added.to(x.dtype)
        clue = self._spread(frames, x.shape[1])
        n_prompts = 0
        if prompts is not None:
            n_prompts = prompts.shape[1]
            x = torch.cat((prompts[:, :, None].to(x.dtype).expand(-1, -1, x.shape[2], -1), x), dim=1)
        x = run_blocks(self.blocks, x, self.checkpointing and self.training, condition, clue, n_prompts)
        return (x, None) if prompts is None else (x[:, n_prompts:], x[:, :n_prompts])

    def _spread(self, frames: Tensor | None, length: int) -> Tensor | None:
        found = 0 if frames is None else frames.shape[-1]
        if found != self.time_film:
            raise InputError("frames", f"{found} features", self.time_film or "none, without time_film")
        if frames is None:
            return None
        return F.interpolate(frames.float().transpose(1, 2), length, mode="linear").transpose(1, 2)


def run_blocks(
    blocks: nn.ModuleList,
    x: Tensor,
    recompute: bool,
    condition: Tensor | None = None,
    frames: Tensor | None = None,
    n_prompts: int = 0,
) -> Tensor:
    """x through blocks, one after the other; ``recompute`` makes their activations again in the backward pass."""
    for block in blocks:
        if recompute:
            x = checkpoint(block, x, condition, frames, n_prompts, use_reentrant=False)
        else:
            x = block(x, condition, frames, n_prompts)
    return x
