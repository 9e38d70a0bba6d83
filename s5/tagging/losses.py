"""Computes the losses of taggers: permutation-invariant cross entropy (tracks) and binary cross entropy (multi-hot)."""

from __future__ import annotations

from itertools import permutations

import torch
from torch.nn import functional


def pit_cross_entropy(
    logits: torch.Tensor, label_index: torch.Tensor, class_weight: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy under the best assignment of tracks to labels (CA-PI-SDR, section 3.1; PIT).

        L = min_p sum_k -log softmax(logits_p(k))[label_k] / K, over all permutations p

    Args:
        logits: one row of class scores per track [batch, K, C + 1], silence last.
        label_index: class index of each slot [batch, K], C for silence; in any order.
        class_weight: weight of each class [C + 1]; an item's loss is then the weighted mean over its slots.

    Returns:
        loss [batch] (mean over the slots), float32 whatever the input's precision; permutation [batch, K]: track
        ``permutation[b, k]`` belongs to slot ``k`` of ``label_index``.

    Example:
        >>> logits = torch.tensor([[[0.0, 5.0], [5.0, 0.0]]])
        >>> loss, permutation = pit_cross_entropy(logits, torch.tensor([[0, 1]]))
        >>> round(loss.item(), 4), permutation.tolist()
        (0.0067, [[1, 0]])
    """
    if logits.dim() != 3 or logits.shape[:2] != label_index.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)}, label_index {tuple(label_index.shape)}: expected the same [batch, K]"
        )
    with torch.autocast(logits.device.type, enabled=False):
        log_probability = logits.float().log_softmax(-1)
    k = label_index.shape[1]
    # [batch, slot, track]
    cost = -log_probability.gather(2, label_index[:, None].expand(-1, k, -1)).transpose(1, 2)
    if class_weight is not None:
        weight = class_weight.to(cost)[label_index]
        cost = cost * (weight * k / weight.sum(-1, keepdim=True))[:, :, None]
    table = torch.tensor(list(permutations(range(k))), device=cost.device)
    by_permutation = cost.detach()[:, torch.arange(k, device=cost.device), table].sum(-1)
    permutation = table[by_permutation.argmin(-1)]
    return cost.gather(2, permutation[:, :, None]).mean((1, 2)), permutation


def multi_hot_bce(logits: torch.Tensor, label_index: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy of a multi-hot tagger (2025: distinct labels, one sigmoid per class).

        L = -sum_c (y_c log sigmoid(z_c) + (1 - y_c) log(1 - sigmoid(z_c))) / C

    Args:
        logits: class scores before the sigmoid [batch, C].
        label_index: class index of each slot [batch, K], C for silence.

    Returns:
        loss [batch], mean over the C classes, float32 whatever the input's precision.

    Example:
        >>> round(multi_hot_bce(torch.zeros(1, 18), torch.tensor([[3, 5, 18]])).item(), 4)
        0.6931
    """
    n_classes = logits.shape[1]
    target = torch.zeros(len(logits), n_classes + 1, device=logits.device)
    target = target.scatter_(1, label_index, 1.0)[:, :n_classes]
    with torch.autocast(logits.device.type, enabled=False):
        return functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none").mean(-1)
