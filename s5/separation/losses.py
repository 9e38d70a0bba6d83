"""Computes the losses of separators: the SDR between output slots and dry targets under four rules of alignment.

Three losses use one matrix of pairwise SDRs, [batch, target slot, output slot]. They differ in the permutations of the
output slots that they allow, and in the choice among them:

* ``ca_pi_sdr``: the best permutation within each class (Nguyen et al., Eq. (3)); the default of the recipes.
* ``ca_sdr``: a random permutation within each class (section 4.3 there: the loss of 2025 on repeated labels).
* ``pi_sdr``: the best permutation of all active slots, whatever their classes (blind source separation).

The fourth, ``snr``, permutes nothing: the loss of the DCASE 2025 baselines, whose labels are distinct.

``sa_sdr`` sums sources and errors over the slots before it divides, so that silent slots count as well. It is a loss of
blind separation (:mod:`s5.separation.uss`).
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
    limit: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Class-aware permutation-invariant SDR loss: Eqs. (2) to (4), CA-PI-SDR.

        L = -max_p sum_k SDR(e_p(k), s_k) / K, over permutations p that leave the sequence of labels unchanged

    Args:
        estimate: separated waveforms [batch, K, samples].
        target: dry sources [batch, K, samples], zeros in silent slots.
        label_index: class index of each slot [batch, K].
        silence_index: class index of silent slots (C, one past the last class). None: slots whose target is all zero
            are silent. A silent slot counts 0, whatever the estimate.
        normalize: ``"slots"`` divides the sum by K, as the official baseline does; ``"n_sources"`` divides it by the
            item's number of sources, as in Eq. (3).
        limit: of each SDR in dB, as in :func:`sdr`.

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
    scores, n_active = _scores(estimate, target, label_index, silence_index, limit)
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
    """Class-aware SDR loss: each call matches the sources of one class at random (CA-PI-SDR, section 4.3).

        L = -sum_k SDR(e_p(k), s_k) / K, for a random permutation p that leaves the sequence of labels unchanged

    Arguments and results as in :func:`ca_pi_sdr`. ``generator`` makes the draws reproducible; by default they come from
    torch's generator, which ESPnet seeds in every epoch from the seed of the training. With distinct labels both losses
    are equal.

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
    """Permutation-invariant SDR loss: the best permutation of the active slots (Eq. (1) and section 4.3, CA-PI-SDR).

        L = -max_p sum_k SDR(e_p(k), s_k) / K, over permutations p of the active slots

    Arguments and results as in :func:`ca_pi_sdr`; ``label_index`` only marks silent slots, by ``silence_index``. Silent
    slots keep their place: their zeros (0 dB, without a gradient) would beat any active output that is worse.

    Example:
        >>> x = torch.eye(3)[None]
        >>> pi_sdr(0.9 * x.flip(1), x)[1].tolist()
        [[2, 1, 0]]
    """
    scores, n_active = _scores(estimate, target, label_index, silence_index)
    allowed = _allowed(_active(target, label_index, silence_index).long())
    return _choose(scores, _sum_by_permutation(scores).masked_fill(~allowed, -torch.inf), n_active, normalize)


def snr(
    estimate: torch.Tensor,
    target: torch.Tensor,
    label_index: torch.Tensor | None = None,
    silence_index: int | None = None,
    normalize: Normalize = "slots",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative SNR slot by slot, without permutation: the separation loss of the DCASE 2025 baselines.

        L = -sum_k SDR(e_k, s_k) / K

    Arguments and results as in :func:`ca_pi_sdr`; ``label_index`` only marks silent slots, by ``silence_index``.

    Example:
        >>> x = torch.eye(3)[None]
        >>> loss, permutation = snr(0.9 * x, x)
        >>> round(loss.item(), 2), permutation.tolist()
        (-20.0, [[0, 1, 2]])
    """
    active = _active(target, label_index, silence_index)
    scores = sdr(estimate, target).masked_fill(~active, 0.0)
    batch, k = scores.shape
    permutation = torch.arange(k, device=scores.device).expand(batch, k)
    return _normalized(scores.sum(-1), active.sum(-1), k, normalize), permutation


def sa_sdr(
    estimate: torch.Tensor,
    target: torch.Tensor,
    power: torch.Tensor | None = None,
    tau: float = 0.0,
    cost: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Source-aggregated SDR loss (von Neumann et al., "SA-SDR", ICASSP 2022), the best permutation of all slots.

        L = min_p 10 log10((sum_k |s_k - e_p(k)|^2 + tau P) / (sum_k |s_k|^2 + tau P))

    Args:
        estimate: waveforms [batch, N, samples].
        target: waveforms [batch, N, samples], zeros in silent slots.
        power: energy P of the mixture [batch], of which the share ``tau`` limits the loss: it is at least about
            10 log10(tau) dB. An item without an active target is divided by P alone.
        tau: share.
        cost: what each pair of target and slot [batch, target, slot] adds to a permutation's value in dB when
            permutations are compared; the loss itself has none of it.

    Returns:
        loss [batch] in dB, negated SA-SDR, float32; permutation [batch, N] as of :func:`ca_pi_sdr`.

    Example:
        >>> x = torch.eye(3)[None]
        >>> loss, permutation = sa_sdr(0.9 * x.flip(1), x)
        >>> round(loss.item(), 2), permutation.tolist()
        (-20.0, [[2, 1, 0]])
    """
    eps = torch.finfo(torch.float32).eps
    with torch.autocast(estimate.device.type, enabled=False):
        estimate, target = estimate.float(), target.float()
        power = estimate.new_zeros(len(estimate)) if power is None else power
        source = target.square().sum((1, 2))
        below = torch.where(source > 0, source + tau * power, power) + eps
        with torch.no_grad():
            error = _sum_by_permutation((target[:, :, None] - estimate[:, None]).square().sum(-1))
            value = 10 * torch.log10((error + tau * power[:, None] + eps) / below[:, None])
            value = value if cost is None else value + _sum_by_permutation(cost.float())
            permutation = _permutation_table(target.shape[1], target.device)[value.argmin(-1)]
        estimate = estimate.gather(1, permutation[..., None].expand_as(estimate))
        error = (target - estimate).square().sum((1, 2))
        return 10 * torch.log10((error + tau * power + eps) / below), permutation


def best_sdr(estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Sum of the active targets' SDRs (:func:`sdr`), each with a slot of its own, under the best choice of slots.

        best(e, s) = max_p sum_k SDR(e_p(k), s_k), over permutations p of the N slots and active targets k

    Args:
        estimate: waveforms [batch, N, samples].
        target: waveforms [batch, N, samples], zeros in silent slots.

    Returns:
        [batch] in dB.

    Example:
        >>> x = torch.eye(3)[None]
        >>> round(best_sdr(0.9 * x.flip(1), x).item(), 2)
        60.0
    """
    return _sum_by_permutation(_scores(estimate, target, None, None)[0]).max(-1).values


def sdr(estimate: torch.Tensor, target: torch.Tensor, limit: float | None = None) -> torch.Tensor:
    """SDR of waveforms in dB (Eq. (4), CA-PI-SDR; torchmetrics' signal_noise_ratio), in float32 under autocast too.

        SDR(e, s) = 10 log10((|s|^2 + eps) / (|s - e|^2 + tau |s|^2 + eps)), tau = 10^(-limit / 10)

    The mean is not removed. The float32 epsilon keeps value and gradient finite for zeros.

    Args:
        estimate: [..., samples], of a shape that broadcasts with ``target``.
        target: [..., samples].
        limit: soft upper limit in dB (Wisdom et al., MixIT, NeurIPS 2020), for losses; None: tau is 0.

    Returns:
        [...] float32.

    Example:
        >>> round(sdr(torch.full((100,), 0.9), torch.ones(100)).item(), 2)
        20.0
    """
    eps = torch.finfo(torch.float32).eps
    with torch.autocast(estimate.device.type, enabled=False):
        estimate, target = estimate.float(), target.float()
        # The difference comes first, because |s|^2 - 2 <s, e> + |e|^2 cancels in float32 for good estimates.
        noise, power = (target - estimate).square().sum(-1), target.square().sum(-1)
        noise = noise if limit is None else noise + 10 ** (-limit / 10) * power
        return 10 * torch.log10((power + eps) / (noise + eps))


def pairwise_sdr(estimate: torch.Tensor, target: torch.Tensor, limit: float | None = None) -> torch.Tensor:
    """SDR (:func:`sdr`) of every output slot against every target.

    Args:
        estimate: [batch, K, samples].
        target: [batch, K, samples].
        limit: see there.

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
    return sdr(estimate[:, None], target[:, :, None], limit)


def _scores(
    estimate: torch.Tensor,
    target: torch.Tensor,
    label_index: torch.Tensor | None,
    silence_index: int | None,
    limit: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairwise SDR [batch, target, output], 0 for silent targets, and the number of active slots [batch]."""
    active = _active(target, label_index, silence_index)
    scores = pairwise_sdr(estimate, target, limit).masked_fill(~active[:, :, None], 0.0)
    return scores, active.sum(-1)


def _active(target: torch.Tensor, label_index: torch.Tensor | None, silence_index: int | None) -> torch.Tensor:
    """Active slots: [batch, K] bool."""
    if label_index is not None and label_index.shape != target.shape[:2]:
        raise ValueError(f"label_index {tuple(label_index.shape)} must be [batch, K] = {tuple(target.shape[:2])}")
    if silence_index is None:
        return target.detach().ne(0).any(-1)
    if label_index is None:
        raise ValueError("silence_index needs label_index")
    return label_index.to(target.device) != silence_index


def _permutation_table(k: int, device: torch.device) -> torch.Tensor:
    """All permutations [K!, K]; the identity is first and so wins ties."""
    return torch.tensor(list(permutations(range(k))), device=device)


def _allowed(label_index: torch.Tensor) -> torch.Tensor:
    """Permutations that leave the sequence of labels unchanged (Eq. (2)): [batch, K!] bool."""
    table = _permutation_table(label_index.shape[1], label_index.device)
    return (label_index[:, table] == label_index[:, None]).all(-1)


def _sum_by_permutation(scores: torch.Tensor) -> torch.Tensor:
    """Sum of the paired scores under each permutation [batch, K!], without gradient."""
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
    return _normalized(total, n_active, k, normalize), permutation


def _normalized(total: torch.Tensor, n_active: torch.Tensor, k: int, normalize: Normalize) -> torch.Tensor:
    """The loss [batch] from the sum of the SDRs of an item."""
    if normalize == "slots":
        return -total / k
    if normalize == "n_sources":
        return -total / n_active.clamp(min=1)
    raise ValueError(f"normalize={normalize!r}: expected 'slots' or 'n_sources'")
