"""Facts of the tagging losses, and the official values."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from s5.tagging.losses import multi_hot_bce, pit_cross_entropy

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture
def golden():
    return {key: torch.as_tensor(value) for key, value in np.load(GOLDEN / "loss_pit_ce.npz").items()}


def test_official_values(golden):
    loss, permutation = pit_cross_entropy(golden["logits"], golden["label_index"])
    assert loss.tolist() == pytest.approx(golden["loss"].tolist(), abs=1e-5)
    assert loss.mean().item() == pytest.approx(golden["mean"].item(), abs=1e-5)
    assert permutation.tolist() == golden["perm"].tolist()


def test_order_of_labels_and_of_tracks_does_not_matter(golden):
    loss, _ = pit_cross_entropy(golden["logits"][:, [2, 0, 1]], golden["label_index"][:, [1, 0, 2]])
    assert loss.tolist() == pytest.approx(golden["loss"].tolist(), abs=1e-5)


def test_it_is_the_cross_entropy_of_the_reported_permutation(golden):
    logits, labels = golden["logits"], golden["label_index"]
    loss, permutation = pit_cross_entropy(logits, labels)
    aligned = logits.gather(1, permutation[:, :, None].expand_as(logits))
    expected = functional.cross_entropy(aligned.transpose(1, 2), labels, reduction="none").mean(1)
    assert torch.allclose(loss, expected)


def test_class_weight_is_a_weighted_mean_over_slots(golden):
    logits, labels = golden["logits"], golden["label_index"]
    weight = torch.linspace(0.5, 2.0, 19)
    loss, permutation = pit_cross_entropy(logits, labels, weight)
    aligned = logits.gather(1, permutation[:, :, None].expand_as(logits))
    for i in range(len(loss)):
        expected = functional.cross_entropy(aligned[i], labels[i], weight)
        assert loss[i].item() == pytest.approx(expected.item(), abs=1e-5)
    uniform = pit_cross_entropy(logits, labels, torch.full((19,), 3.0))[0]
    assert uniform.tolist() == pytest.approx(golden["loss"].tolist(), abs=1e-5)


def test_gradient_separates_tracks_that_begin_alike():
    """Two tracks with the same output and one source: the gradient pulls one to the source, the other to silence."""
    logits = torch.zeros(1, 2, 4, requires_grad=True)
    pit_cross_entropy(logits, torch.tensor([[1, 3]]))[0].sum().backward()
    assert sorted(logits.grad[0].argmin(-1).tolist()) == [1, 3]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(golden, dtype):
    logits = golden["logits"].to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = pit_cross_entropy(logits, golden["label_index"])
        single = multi_hot_bce(logits[:, 0, :18], golden["label_index"])
    assert loss.dtype == single.dtype == torch.float32
    assert torch.equal(loss, pit_cross_entropy(logits.float(), golden["label_index"])[0])


def test_multi_hot_leaves_silence_out():
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([[0.0, 1, 0, 1, 0], [0, 0, 0, 0, 0]])
    expected = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)
    assert torch.allclose(multi_hot_bce(logits, torch.tensor([[3, 5, 1], [5, 5, 5]])), expected)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"expected the same \[batch, K\]"):
        pit_cross_entropy(torch.zeros(2, 3, 19), torch.zeros(2, 2, dtype=torch.long))
