"""Losses of the separation model: SDR between output slots and dry targets, under three rules of alignment.

All three come from one matrix of pairwise SDRs, [batch, target slot, output slot]; they differ in which permutations of
the output slots they allow and in how they choose among them:

* ``ca_pi_sdr``: the best permutation within each class (seed report on CA-PI-SDR, Eq. (3)); the default of the recipes.
* ``ca_sdr``: a random permutation within each class (the same report, section 4.3: the 2025 loss on repeated labels).
* ``pi_sdr``: the best of all permutations (blind source separation).
"""

from __future__ import annotations

from itertools import permutations
from typing import Literal

import torch

Normalize = Literal["slots", "n_sources"]


def ca_pi_sdr(
    estimate: torch.Tensor,
    target: torch.Tensor,
    label_index: torch.Tensor,
    silence_index: int | None = None,
    normalize: Normalize = "slots",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Class-aware permutation-invariant SDR loss: Eqs. (2) to (4), CA-PI-SDR.

    Args:
        estimate: separated waveforms [batch, K, samples].
        target: dry sources [batch, K, samples], zeros in silent slots.
        label_index: class index of each slot [batch, K].
        silence_index: class index that marks a silent slot (C, one past the last class). None: a slot whose target is
            all zero is silent. A silent slot counts 0, whatever the estimate.
        normalize: ``"slots"`` divides the sum by K, as the official baseline does; ``"n_sources"`` by the item's number
            of sources, as Eq. (3) is written.

    Returns:
        loss [batch] in dB, negated (lower is better), float32 whatever the input's precision; permutation [batch, K]:
        output slot ``permutation[b, k]`` belongs to target slot ``k``.

    Example:
        >>> first, second = torch.tensor([1.0, 0, 0, 0]), torch.tensor([0, 1.0, 0, 0])
        >>> target = torch.stack([first, second])[None]
        >>> swapped = 0.9 * torch.stack([second, first])[None]
        >>> loss, permutation = ca_pi_sdr(swapped, target, torch.tensor([[7, 7]]))
        >>> round(loss.item(), 2), permutation.tolist()
        (-20.0, [[1, 0]])
        >>> round(ca_pi_sdr(swapped, target, torch.tensor([[3, 7]]))[0].item(), 2)  # other classes: no swap
        2.58
    """
    scores, n_active = _scores(estimate, target, label_index, silence_index)
    candidates = _sum_by_permutation(scores).masked_fill(~_allowed(label_index), -torch.inf)
    return _choose(scores, candidates, n_active, normalize)


def ca_sdr(
    estimate: torch.Tensor,
    target: torch.Tensor,
    label_index: torch.Tensor,
    silence_index: int | None = None,
    normalize: Normalize = "slots",
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Class-aware SDR loss: sources of one class are matched at random, anew at each call (CA-PI-SDR, section 4.3).

    Arguments and results as in :func:`ca_pi_sdr`; ``generator`` makes the draws reproducible. With distinct labels both
    losses are the same.

    Example:
        >>> x = torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(0))
        >>> ca_sdr(0.9 * x, x, torch.tensor([[3, 7]]))[1].tolist()
        [[0, 1]]
    """
    scores, n_active = _scores(estimate, target, label_index, silence_index)
    allowed = _allowed(label_index)
    device = generator.device if generator is not None else allowed.device
    draw = torch.rand(allowed.shape, generator=generator, device=device).to(allowed.device)
    return _choose(scores, draw.masked_fill(~allowed, -1.0), n_active, normalize)


def pi_sdr(
    estimate: torch.Tensor,
    target: torch.Tensor,
    label_index: torch.Tensor | None = None,
    silence_index: int | None = None,
    normalize: Normalize = "slots",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Permutation-invariant SDR loss: the best of all permutations, whatever the labels (CA-PI-SDR, section 4.3).

    Arguments and results as in :func:`ca_pi_sdr`; ``label_index`` only tells silent slots, by ``silence_index``.

    Example:
        >>> x = torch.eye(3)[None]
        >>> pi_sdr(0.9 * x.flip(1), x)[1].tolist()
        [[2, 1, 0]]
    """
    scores, n_active = _scores(estimate, target, label_index, silence_index)
    return _choose(scores, _sum_by_permutation(scores), n_active, normalize)


def pairwise_sdr(estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """SDR of every output slot against every target, in dB (CA-PI-SDR, Eq. (4); torchmetrics' signal_noise_ratio).

    No mean is removed; the float32 epsilon in numerator and denominator keeps value and gradient finite for zeros.

    Args:
        estimate: [batch, K, samples].
        target: [batch, K, samples].

    Returns:
        [batch, target slot, output slot] float32.

    Example:
        >>> pairwise_sdr(torch.full((1, 1, 10), 0.9), torch.ones(1, 1, 10)).round(decimals=2).tolist()
        [[[20.0]]]
    """
    if estimate.shape != target.shape or estimate.dim() != 3:
        raise ValueError(
            f"estimate {tuple(estimate.shape)}, target {tuple(target.shape)}: expected [batch, K, samples]"
        )
    eps = torch.finfo(torch.float32).eps
    with torch.autocast(estimate.device.type, enabled=False):
        estimate, target = estimate.float(), target.float()
        # The difference itself, not |s|^2 - 2 <s, e> + |e|^2: that cancels in float32 once an estimate is good.
        noise = (target[:, :, None] - estimate[:, None]).square().sum(-1)
        signal = target.square().sum(-1)[:, :, None]
        return 10 * torch.log10((signal + eps) / (noise + eps))


def _scores(
    estimate: torch.Tensor, target: torch.Tensor, label_index: torch.Tensor | None, silence_index: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairwise SDR [batch, target, output] with rows of silent targets at 0, and the number of active slots [batch]."""
    if label_index is not None and label_index.shape != target.shape[:2]:
        raise ValueError(f"label_index {tuple(label_index.shape)} must be [batch, K] = {tuple(target.shape[:2])}")
    if silence_index is None:
        active = target.detach().ne(0).any(-1)
    elif label_index is None:
        raise ValueError("silence_index needs label_index")
    else:
        active = label_index.to(target.device) != silence_index
    scores = pairwise_sdr(estimate, target).masked_fill(~active[:, :, None], 0.0)
    return scores, active.sum(-1)


def _permutation_table(k: int, device: torch.device) -> torch.Tensor:
    """All permutations [K!, K], the identity first (so that it wins ties)."""
    return torch.tensor(list(permutations(range(k))), device=device)


def _allowed(label_index: torch.Tensor) -> torch.Tensor:
    """Eq. (2): [batch, K!], true where a permutation leaves the sequence of labels unchanged."""
    table = _permutation_table(label_index.shape[1], label_index.device)
    return (label_index[:, table] == label_index[:, None]).all(-1)


def _sum_by_permutation(scores: torch.Tensor) -> torch.Tensor:
    """Sum of the paired scores under each permutation [batch, K!], without gradient (it only serves the choice)."""
    k = scores.shape[1]
    return scores.detach()[:, torch.arange(k, device=scores.device), _permutation_table(k, scores.device)].sum(-1)


def _choose(
    scores: torch.Tensor, candidates: torch.Tensor, n_active: torch.Tensor, normalize: Normalize
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss [batch] and permutation [batch, K] of the candidate [batch, K!] with the highest value."""
    k = scores.shape[1]
    best = candidates.to(scores.device).argmax(-1)
    permutation = _permutation_table(k, scores.device)[best]
    total = scores.gather(2, permutation[:, :, None]).sum((1, 2))
    if normalize == "slots":
        return -total / k, permutation
    if normalize == "n_sources":
        return -total / n_active.clamp(min=1), permutation
    raise ValueError(f"normalize={normalize!r}: expected 'slots' or 'n_sources'")
