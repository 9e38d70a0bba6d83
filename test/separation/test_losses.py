"""Facts of the separation losses, and the official values."""

import math
from collections import Counter
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from s5.separation.losses import ca_pi_sdr, ca_sdr, pairwise_sdr, pi_sdr, sdr, snr

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture
def golden():
    return {key: torch.as_tensor(value) for key, value in np.load(GOLDEN / "loss_ca_pi_sdr.npz").items()}


def noisy(target, seed=0, level=0.3):
    """Estimates at a different level of noise in each slot, so that no two pairings have the same loss."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(target.shape, generator=generator)
    return target + level * (1 + torch.arange(target.shape[1]))[:, None] * noise


def sources(batch=2, k=3, samples=800, seed=7):
    return torch.randn(batch, k, samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("silence_index", [18, None])
def test_official_values(golden, silence_index):
    loss, permutation = ca_pi_sdr(golden["pred"], golden["target"], golden["label_index"], silence_index)
    assert loss.tolist() == pytest.approx(golden["loss"].tolist(), abs=1e-4)
    assert permutation.tolist() == golden["perm"].tolist()


def one_by_one(estimate, target, labels, allowed):
    """Eqs. (2) to (4) as they are written, in float64: {permutation: minus the sum of the SDRs} of one item.

    ``allowed(before, after)`` says of two sequences of labels whether a permutation may turn one into the other.
    """
    sums = {}
    for order in permutations(range(len(labels))):
        if allowed(labels, [labels[k] for k in order]):
            pairs = [(target[k].double(), estimate[order[k]].double()) for k in range(len(labels)) if labels[k] != 18]
            sums[order] = -sum(10 * math.log10(s.square().sum() / (s - e).square().sum()) for s, e in pairs)
    return sums


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("normalize", ["slots", "n_sources"])
def test_losses_are_what_trying_all_permutations_gives(k, normalize):
    generator = torch.Generator().manual_seed(k)
    labels = torch.where(
        torch.rand(12, k, generator=generator) < 0.25, 18, torch.randint(0, 2, (12, k), generator=generator)
    )
    target = sources(12, k, 300) * (labels != 18)[..., None]
    estimate = target[:, torch.randperm(k, generator=generator)] + torch.randn(target.shape, generator=generator)
    within = {b: one_by_one(estimate[b], target[b], labels[b].tolist(), lambda a, c: a == c) for b in range(12)}
    blind = {
        b: one_by_one(
            estimate[b], target[b], labels[b].tolist(), lambda a, c: [x == 18 for x in a] == [x == 18 for x in c]
        )
        for b in range(12)
    }
    divisor = torch.full((12,), k) if normalize == "slots" else (labels != 18).sum(1).clamp(min=1)
    for loss_function, sums in ((ca_pi_sdr, within), (pi_sdr, blind)):
        loss, permutation = loss_function(estimate, target, labels, 18, normalize)
        expected = torch.tensor([min(sums[b].values()) for b in range(12)]) / divisor
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
        for b in range(12):
            assert sums[b][tuple(permutation[b].tolist())] == pytest.approx(min(sums[b].values()), abs=1e-9)
    loss, permutation = ca_sdr(estimate, target, labels, 18, normalize, generator)
    expected = torch.tensor([within[b][tuple(permutation[b].tolist())] for b in range(12)]) / divisor
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


def test_permuting_sources_of_one_class_changes_nothing(golden):
    order = torch.tensor([2, 0, 1])
    item = slice(1, 2)  # three sources of one class
    assert golden["label_index"][1].unique().numel() == 1
    pred, target, labels = golden["pred"][item], golden["target"][item], golden["label_index"][item]
    loss, _ = ca_pi_sdr(pred[:, order], target, labels)
    assert loss.item() == pytest.approx(golden["loss"][1].item(), abs=1e-4)


def test_permutation_tells_which_output_belongs_to_a_target():
    target = sources()
    order = torch.tensor([2, 0, 1])
    estimate = noisy(target)[:, order]
    _, permutation = ca_pi_sdr(estimate, target, torch.full((2, 3), 4))
    assert torch.equal(order[permutation], torch.arange(3).expand(2, 3))


def test_swapping_sources_of_different_classes_costs():
    target = sources()
    estimate = noisy(target)
    labels = torch.tensor([[5, 1, 1], [5, 1, 2]])
    straight, _ = ca_pi_sdr(estimate, target, labels)
    swapped, permutation = ca_pi_sdr(estimate[:, [1, 0, 2]], target, labels)
    assert (swapped > straight + 3).all()
    assert permutation[:, 0].tolist() == [0, 0]


def test_the_four_losses_agree_on_distinct_labels_in_order():
    target, labels = sources(), torch.tensor([[0, 1, 2], [9, 4, 7]])
    estimate = noisy(target)
    expected = ca_pi_sdr(estimate, target, labels)[0]
    assert torch.equal(ca_sdr(estimate, target, labels)[0], expected)
    assert torch.equal(pi_sdr(estimate, target)[0], expected)
    torch.testing.assert_close(snr(estimate, target)[0], expected)


def test_snr_takes_the_slots_as_they_stand():
    """The 2025 baseline: mean over all slots of minus SNR, zero in silent ones."""
    target = sources()
    target[1, 1:] = 0
    labels = torch.tensor([[6, 6, 2], [6, 18, 18]])
    estimate = noisy(target)[:, [1, 0, 2]]
    loss, permutation = snr(estimate, target, labels, 18)
    expected = [-sdr(estimate[0], target[0]).sum() / 3, -sdr(estimate[1, 0], target[1, 0]) / 3]
    torch.testing.assert_close(loss, torch.stack(expected))
    assert permutation.tolist() == [[0, 1, 2]] * 2
    by_sources = snr(estimate, target, labels, 18, normalize="n_sources")[0]
    torch.testing.assert_close(by_sources, loss * torch.tensor([1.0, 3.0]))


def test_pi_sdr_does_not_hide_a_bad_estimate_behind_a_silent_slot():
    """Zeros are 0 dB from any source: an estimate worse than that must not be exchanged for them."""
    target = sources(batch=1)
    target[:, 1:] = 0
    estimate = torch.zeros_like(target)
    estimate[:, 0] = -target[:, 0]
    estimate.requires_grad_()
    loss, permutation = pi_sdr(estimate, target, torch.tensor([[3, 18, 18]]), 18)
    loss.sum().backward()
    assert permutation[0, 0] == 0 and loss.item() == pytest.approx(20 * np.log10(2) / 3, abs=1e-4)
    assert estimate.grad[:, 0].any()


def test_pi_sdr_ignores_labels():
    target = sources()
    estimate = noisy(target)
    loss, permutation = pi_sdr(estimate[:, [1, 2, 0]], target, torch.tensor([[0, 1, 2]] * 2))
    assert torch.allclose(loss, pi_sdr(estimate, target)[0])
    assert permutation.tolist() == [[2, 0, 1]] * 2


def test_ca_sdr_draws_among_allowed_permutations_only_and_reproducibly():
    target, labels = sources(batch=1), torch.tensor([[6, 2, 6]])
    estimate = noisy(target)

    def draw(seed, n=40):
        generator = torch.Generator().manual_seed(seed)
        return [tuple(ca_sdr(estimate, target, labels, generator=generator)[1][0].tolist()) for _ in range(n)]

    assert set(draw(0)) == {(0, 1, 2), (2, 1, 0)}
    assert draw(3) == draw(3)


def test_ca_sdr_draws_every_allowed_permutation_equally_often_and_item_by_item():
    """Six permutations of three sources of one class: chi-squared of 3,000 draws with five degrees of freedom."""
    target = sources(batch=3000, samples=4)
    draws = ca_sdr(target, target, torch.full((3000, 3), 6), generator=torch.Generator().manual_seed(1))[1]
    counts = Counter(map(tuple, draws.tolist()))
    assert len(counts) == 6 and sum((n - 500) ** 2 / 500 for n in counts.values()) < 20.5  # p = 0.001


def test_ca_sdr_draws_anew_at_each_step():
    target, labels = sources(batch=64), torch.full((64, 3), 6)
    assert not torch.equal(ca_sdr(target, target, labels)[1], ca_sdr(target, target, labels)[1])


def test_ca_sdr_of_repeated_labels_is_at_best_ca_pi_sdr():
    target, labels = sources(batch=64), torch.full((64, 3), 6)
    estimate = noisy(target)
    random = ca_sdr(estimate, target, labels, generator=torch.Generator().manual_seed(0))[0]
    best = ca_pi_sdr(estimate, target, labels)[0]
    assert (random >= best - 1e-6).all()
    assert (random > best + 1).any()


def test_division_by_the_number_of_sources():
    """Eq. (3) divides by K; the official code by K_max: they differ by the ratio of both."""
    target = sources(batch=3)
    target[1, 2] = 0
    target[2, 1:] = 0
    labels = torch.tensor([[0, 1, 2], [0, 1, 18], [0, 18, 18]])
    estimate = noisy(target)
    by_slots = ca_pi_sdr(estimate, target, labels, 18)[0]
    by_sources = ca_pi_sdr(estimate, target, labels, 18, normalize="n_sources")[0]
    assert torch.allclose(by_sources * torch.tensor([3.0, 2.0, 1.0]), by_slots * 3)


@pytest.mark.parametrize("normalize", ["slots", "n_sources"])
@pytest.mark.parametrize("loss_function", [ca_pi_sdr, ca_sdr, pi_sdr, snr])
def test_silence_costs_nothing_whatever_the_estimate(loss_function, normalize):
    estimate = sources().requires_grad_()
    loss, _ = loss_function(estimate, torch.zeros(2, 3, 800), torch.full((2, 3), 18), 18, normalize)
    loss.sum().backward()
    assert loss.tolist() == [0.0, 0.0]
    assert not estimate.grad.any()


@pytest.mark.parametrize("estimate", [torch.zeros(1, 3, 50), 1e-3 * torch.ones(1, 3, 50), torch.ones(1, 3, 50)])
def test_active_slot_without_energy_is_finite(estimate):
    """Official data keeps sources that are all zero; with a label they pull the output towards zero."""
    estimate = estimate.clone().requires_grad_()
    loss, _ = ca_pi_sdr(estimate, torch.zeros(1, 3, 50), torch.tensor([[1, 1, 18]]), 18)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(estimate.grad).all()
    assert (estimate.grad[:, :2].abs().sum() > 0) == bool(estimate.detach().any())
    assert not estimate.grad[:, 2].any()


def test_perfect_estimate_has_a_finite_gradient():
    target = sources()
    estimate = target.clone().requires_grad_()
    loss, _ = ca_pi_sdr(estimate, target, torch.zeros(2, 3, dtype=torch.long))
    loss.sum().backward()
    assert (loss < -90).all()
    assert torch.isfinite(estimate.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    target, labels = sources(samples=8000), torch.tensor([[0, 0, 1], [2, 3, 4]])
    estimate, target = noisy(target, level=0.1).to(dtype), target.to(dtype)
    estimate.requires_grad_()
    for loss_function in (ca_pi_sdr, ca_sdr, pi_sdr, snr):
        torch.manual_seed(5)
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = loss_function(estimate, target, labels)
        assert loss.dtype == torch.float32
        torch.manual_seed(5)
        assert torch.equal(loss, loss_function(estimate.float(), target.float(), labels)[0])
        gradient = torch.autograd.grad(loss.sum(), estimate)[0]
        assert gradient.dtype == dtype and torch.isfinite(gradient).all() and gradient.any(-1).all()


def test_gradient_is_that_of_the_chosen_pairs_alone():
    target = sources(batch=1)
    estimate = noisy(target).requires_grad_()
    ca_pi_sdr(estimate[:, [1, 0, 2]], target, torch.tensor([[8, 8, 3]]))[0].sum().backward()
    alone = noisy(target).requires_grad_()
    (-pairwise_sdr(alone, target)[0].diagonal().mean()).backward()
    assert torch.allclose(estimate.grad, alone.grad, atol=1e-6)


def test_good_estimates_keep_their_precision():
    """80 dB: |s|^2 - 2<s, e> + |e|^2 in float32 would cancel here."""
    target = sources(batch=1, k=1, samples=16000)
    level = pairwise_sdr(target * (1 + 1e-4), target)
    assert level.item() == pytest.approx(80.0, abs=0.02)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"expected \[batch, K, samples\]"):
        ca_pi_sdr(torch.zeros(1, 2, 8), torch.zeros(1, 3, 8), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="label_index"):
        ca_pi_sdr(torch.zeros(1, 3, 8), torch.zeros(1, 3, 8), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="normalize"):
        ca_pi_sdr(torch.zeros(1, 3, 8), torch.zeros(1, 3, 8), torch.zeros(1, 3), normalize="mean")
