"""USS: shapes, silence, consistency, gradients, precision, and its loss."""

import math
from itertools import permutations

import pytest
import torch
from torchmetrics.functional.audio import source_aggregated_signal_distortion_ratio

from s5.separation import memory_format
from s5.separation.losses import sa_sdr, sdr
from s5.separation.uss import USS, Objects
from s5.separation.uss_loss import USSLoss, USSTargets
from s5.utils.errors import InputError

SMALL = {
    "n_labels": 4,
    "n_fft": 64,
    "hop_length": 32,
    "bands": [[4, 2], [3, 8]],
    "frames": 2,
    "dim": 8,
    "n_blocks": 1,
    "slot_blocks": 1,
    "heads": 2,
    "attention_dim": 8,
    "ffn_dim": 8,
}


def small(**changes):
    torch.manual_seed(0)
    return memory_format(USS(**{**SMALL, **changes}))


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "conf",
    [{}, {"foreground": 4, "interference": 1, "rest": 0}, {"interference": 0, "rest": 0, "encoder": "sfc"}],
)
def test_shapes(conf):
    network = small(**conf)
    foreground = conf.get("foreground", 3)
    slots = foreground + conf.get("interference", 2) + conf.get("rest", 1)
    out = network(noise(2, 4, 1001))
    assert out.waveform.shape == (2, slots, 1001)
    assert out.object.shape == (2, slots, 8, 17, 7)  # 33 frames, two a token
    assert out.class_logits.shape == (2, foreground, 4) and out.active_logit.shape == (2, foreground)


@pytest.mark.parametrize("output", ["mask", "mapping", "both"])
@pytest.mark.parametrize("consistency", ["rest", "energy"])
def test_consistent_slots_sum_to_the_reference_channel(consistency, output):
    mixture = noise(2, 4, 1001)
    out = small(consistency=consistency, output=output)(mixture).waveform
    torch.testing.assert_close(out.sum(1), mixture[:, 0], rtol=0, atol=1e-4)
    assert (small(output=output)(mixture).waveform.sum(1) - mixture[:, 0]).abs().max() > 0.1


def test_gain_and_silence():
    network, mixture = small(consistency="energy").eval(), noise(1, 4, 1001)
    one, loud = network(mixture), network(100 * mixture)
    torch.testing.assert_close(100 * one.waveform, loud.waveform, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(one.class_logits, loud.class_logits, rtol=1e-3, atol=1e-4)
    quiet = network(torch.zeros(1, 4, 1001))
    assert not quiet.waveform.any() and torch.isfinite(quiet.class_logits).all()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_bfloat16_checkpointing_and_gradients(checkpointing):
    network, mixture = small(checkpointing=checkpointing), noise(2, 4, 1001)
    full = network.eval()(mixture)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(mixture)
    assert half.waveform.dtype == torch.float32 and sdr(half.waveform, full.waveform).min() > 20
    out = network.train()(mixture)
    target = USSTargets(noise(2, 3, 1001), torch.tensor([[0, 1, 4], [2, 2, 4]]), noise(2, 2, 1001), noise(2, 1, 1001))
    USSLoss()(out, target, mixture[:, 0])[0]["loss"].mean().backward()
    for name, value in network.named_parameters():
        assert value.grad is not None and torch.isfinite(value.grad).all() and value.grad.any(), name


@pytest.mark.parametrize(
    "conf", [{"foreground": 2}, {"interference": -1}, {"rest": 2}, {"rest": 0, "consistency": "rest"}, {"n_fft": 65}]
)
def test_impossible_sizes_are_refused(conf):
    with pytest.raises(InputError, match="USS: "):
        small(**conf)


def test_sa_sdr_is_that_of_torchmetrics_under_the_best_permutation():
    target = noise(3, 3, 400) * torch.tensor([[1, 1, 1], [1, 0.1, 0], [0.5, 0, 0]])[..., None]
    estimate = target[:, [2, 0, 1]] + 0.2 * noise(3, 3, 400, seed=2)
    loss, permutation = sa_sdr(estimate, target)
    every = torch.stack(
        [
            source_aggregated_signal_distortion_ratio(estimate[:, list(p)], target, scale_invariant=False)
            for p in permutations(range(3))
        ]
    )
    torch.testing.assert_close(-loss, every.max(0).values, rtol=1e-4, atol=1e-4)
    assert permutation[0].tolist() == [1, 2, 0]


def test_sa_sdr_is_limited_and_defined_without_sources():
    target, power = noise(2, 2, 400) * torch.tensor([1.0, 0.0])[:, None, None], torch.full((2,), 800.0)
    loss, _ = sa_sdr(target.clone(), target, power, 1e-3)
    assert loss[0] == pytest.approx(-30, abs=0.2)  # both sources together have the energy of the mixture
    assert loss[1] == pytest.approx(-30, abs=1e-3)
    wrong, _ = sa_sdr(torch.ones(2, 2, 400), torch.zeros(2, 2, 400), power, 1e-3)
    assert wrong.tolist() == pytest.approx([0.0043] * 2, abs=1e-3)  # all of the mixture's energy


def item(permutation, logits=None, n=400):
    """One mixture of two sources with a slot order, and its output."""
    dry = noise(1, 2, n) * torch.tensor([1.0, 0.5])[:, None]
    target = USSTargets(
        torch.cat((dry, torch.zeros(1, 1, n)), 1),
        torch.tensor([[1, 2, 4]]),
        noise(1, 2, n, seed=2) * torch.tensor([1.0, 0.0])[:, None],
        noise(1, 1, n, seed=3),
    )
    parts = (target.foreground[:, permutation], target.interference[:, [1, 0]], target.rest)
    logits = torch.zeros(1, 3, 4) if logits is None else logits
    waveform = torch.cat(parts, 1)
    return Objects(waveform, torch.zeros(1, 6, 1, 1, 1), logits, torch.zeros(1, 3)), target, waveform.sum(1)


def test_loss_of_perfect_estimates_is_the_limit_whatever_their_order():
    for order in permutations(range(3)):
        output, target, reference = item(list(order))
        terms, permutation = USSLoss()(output, target, reference)
        assert [order[i] for i in permutation[0]] == [0, 1, 2]
        limit = 10 * torch.log10(1e-3 * reference.square().sum() / target.foreground.square().sum())
        assert terms["foreground"].item() == pytest.approx(limit.item(), abs=0.05)
        assert terms["silence"].item() == pytest.approx(-30, abs=0.01)
        assert terms["label"].item() == pytest.approx(math.log(4), abs=1e-5)
        assert terms["each"].item() == pytest.approx(-30, abs=0.01)
        weights = {
            "foreground": 1,
            "each": 0,
            "interference": 0.3,
            "rest": 0.3,
            "label": 0.1,
            "active": 0.1,
            "silence": 0.1,
        }
        assert terms.keys() == weights.keys() | {"loss"}
        assert terms["loss"].item() == pytest.approx(
            sum(w * terms[name].item() for name, w in weights.items()), rel=1e-5
        )


def test_interference_is_no_foreground():
    """A swap of a foreground and an interference source costs, as permutations stay in their group."""
    output, target, reference = item([0, 1, 2])
    good = USSLoss()(output, target, reference)[0]["loss"]
    swapped = output._replace(waveform=output.waveform[:, [4, 1, 2, 3, 0, 5]])
    assert USSLoss()(swapped, target, reference)[0]["loss"] > good + 20


def test_classes_break_ties_and_follow_the_waveforms():
    logits = 8 * torch.eye(4)[[2, 1, 0]][None]  # slots 0 and 1 have the labels of targets 1 and 0
    output, target, reference = item([0, 1, 2], logits)
    terms, permutation = USSLoss()(output, target, reference)
    assert permutation.tolist() == [[0, 1, 2]] and terms["label"] > 7  # the waveforms decide
    equal = output._replace(waveform=torch.zeros_like(output.waveform))
    terms, permutation = USSLoss()(equal, target, reference)
    assert permutation[0, :2].tolist() == [1, 0] and terms["label"] < 0.01


def test_presence_is_asked_of_the_slots_that_hold_a_source():
    output, target, reference = item([2, 0, 1])
    right = output._replace(active_logit=torch.tensor([[-9.0, 9, 9]]))
    wrong = output._replace(active_logit=torch.tensor([[9.0, 9, -9]]))
    assert USSLoss()(right, target, reference)[0]["active"] < 0.01
    assert USSLoss()(wrong, target, reference)[0]["active"] > 5


def test_silent_mixtures_and_targets_that_are_not_known():
    output, _, _ = item([0, 1, 2])
    none = USSTargets(torch.zeros(1, 3, 400), torch.full((1, 3), 4))
    terms, _ = USSLoss()(output._replace(waveform=torch.zeros(1, 6, 400)), none, torch.zeros(1, 400))
    assert terms.keys() == {"loss", "foreground", "each", "label", "active", "silence"}
    assert all(torch.isfinite(value).all() for value in terms.values())


@pytest.mark.parametrize("key", ["rest", "tau"])
def test_weights_are_checked(key):
    with pytest.raises(InputError, match=f"key {key}"):
        USSLoss(**{key: -1.0})
