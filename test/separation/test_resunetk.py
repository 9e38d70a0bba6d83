"""ResUNetK against the official network, and facts that hold at any size."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from s5.checkpoints import load_official
from s5.separation import ResUNetK
from s5.separation.resunetk import band_matrix
from s5.utils.errors import InputError

SMALL = {"n_labels": 3, "n_fft": 64, "hop_length": 32, "widths": (4, 6), "condition_dim": 8}


def small(**changes):
    torch.manual_seed(0)
    return ResUNetK(**{**SMALL, **changes})


def query(*labels):
    return torch.eye(4)[torch.tensor([labels])][..., :3]


def test_equals_the_official_network(golden, official_weights):
    expected = np.load(golden / "resunetk.npz")
    network = ResUNetK().eval()
    load_official(network, official_weights("resunetk"))
    mixture = 0.1 * np.random.RandomState(int(expected["seed"])).standard_normal((2, 4, int(expected["n"])))
    label_vector = torch.eye(19)[torch.from_numpy(expected["label_index"])][..., :18]
    with torch.inference_mode():
        waveform = network(torch.from_numpy(mixture).float(), label_vector).numpy()
    peak = np.abs(expected["waveform"]).max()
    assert np.abs(waveform - expected["waveform"]).max() < 1e-4 * peak


def test_equals_the_official_single_query_network_of_2025(golden, official_weights, caplog):
    expected = np.load(golden / "resunet_2025.npz")
    network = ResUNetK(single_query=True).eval()
    load_official(network, official_weights("resunet_2025"))
    assert caplog.records == []  # no key of theirs is left over
    mixture = 0.1 * np.random.RandomState(int(expected["seed"])).standard_normal((2, 4, int(expected["n"])))
    label_vector = torch.eye(19)[torch.from_numpy(expected["label_index"])][..., :18]
    with torch.inference_mode():
        waveform = network(torch.from_numpy(mixture).float(), label_vector).numpy()
    assert np.abs(waveform - expected["waveform"]).max() < 1e-4 * np.abs(expected["waveform"]).max()


def test_official_parameters_less_the_unused_ones():
    # 26,740,971 official trainable parameters, of which the decoders' bn2 and their FiLM layers are used nowhere
    unused = sum(2 * c + 513 * c for c in (384, 384, 384, 256, 128, 64))
    assert sum(p.numel() for p in ResUNetK().parameters()) == 26_740_971 - unused


def test_silent_slots_are_exactly_zero_and_active_ones_are_not():
    network = small().eval()
    out = network(torch.randn(1, 4, 640), query(1, 3, 0))
    assert out[0, 1].abs().max() == 0
    assert out[0, 0].abs().max() > 0 and out[0, 2].abs().max() > 0


@pytest.mark.parametrize("single_query", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_silent_slots_differ_from_item_to_item(single_query, grad):
    labels = torch.cat([query(1, 3, 0), query(3, 3, 3), query(3, 2, 2)])
    with torch.set_grad_enabled(grad):
        out = small(single_query=single_query).eval()(torch.randn(3, 4, 640), labels)
    silent = torch.tensor([[False, True, False], [True, True, True], [True, False, False]])
    torch.testing.assert_close(out.abs().amax(-1) == 0, silent)


def test_silence_alone_is_silence():
    with torch.inference_mode():
        assert small().eval()(torch.randn(2, 4, 640), query(3, 3, 3).expand(2, 3, 3)).abs().max() == 0


def test_a_silent_slot_is_zero_even_where_the_network_is_not_finite():
    network = small()
    torch.nn.init.constant_(network.base.after_conv.weight, torch.nan)
    assert network(torch.randn(1, 4, 640), query(3, 3, 3)).abs().max() == 0


def test_masks_of_the_reference_channel_alone():
    """The other channels only tell the masks: where the reference channel is silent, so are the sources."""
    mixture, labels = torch.randn(1, 4, 640), query(0, 1, 2)
    silent = torch.cat((torch.zeros(1, 1, 640), mixture[:, 1:]), dim=1)
    network, all_channels = small(mask_channels=1).eval(), small().eval()
    assert network(silent, labels).abs().max() < 1e-6
    assert all_channels(silent, labels).abs().max() > 1e-3
    other = torch.cat((mixture[:, :1], torch.randn(1, 3, 640)), dim=1)
    assert (network(mixture, labels) - network(other, labels)).abs().max() > 1e-6
    with pytest.raises(InputError, match="mask_channels"):
        small(mask_channels=5)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("intensity", [False, True])
def test_silence_in_gives_finite_values_and_gradients(intensity, bf16):
    network = small(intensity=intensity, compression=0.3)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = network(torch.zeros(2, 4, 640), query(0, 1, 3).expand(2, 3, 3))
        with torch.inference_mode():
            assert torch.isfinite(network.eval()(torch.zeros(1, 4, 640), query(0, 1, 3))).all()
    out.square().sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_every_parameter_gets_a_gradient():
    network = small(intensity=True)
    network(torch.randn(2, 4, 640), query(0, 1, 2).expand(2, 3, 3)).square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("length", [20, 641, 700, 1000])
def test_output_is_as_long_as_the_mixture(length):
    assert small().eval()(torch.randn(1, 4, length), query(0, 1, 2)).shape == (1, 3, length)


@pytest.mark.parametrize("hop_length", [32, 16, 10])
@pytest.mark.parametrize("grad", [False, True])
def test_no_length_makes_a_click_at_the_end(grad, hop_length):
    """Untrained, with phases at random: the end of every source is about as loud as the rest, in training as well."""
    network, mixture = small(hop_length=hop_length).eval(), torch.randn(1, 4, 640 + 32)
    for length in range(640, 640 + hop_length):
        with torch.set_grad_enabled(grad):
            sources = network(mixture[..., :length], query(0, 1, 2)).abs()
        assert sources[..., -hop_length:].max() < 2 * sources[..., :-hop_length].max(), length


OPTIONS = {
    "official": {},
    "options": {"compression": 0.3, "intensity": True, "n_bands": 16, "mask_channels": 2, "pass_through": True},
    "single query": {"single_query": True},
    "two channels, 24 kHz": {"n_channels": 2, "n_fft": 768, "hop_length": 240, "widths": (3, 5, 7)},
    "deep": {"widths": (2, 2, 3, 3), "pools": [[1, 2], [2, 2], [2, 1], [1, 2]], "n_fft": 96, "hop_length": 24},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("n_slots", [2, 3])
def test_inference_is_the_network_in_fewer_steps(options, n_slots):
    network = small(n_slots=n_slots, **options)
    labels = torch.eye(4)[torch.tensor([[1, 0, 1], [3, 2, 0]])][:, :n_slots, :3]
    mixture = torch.randn(2, network.n_channels, 1111)
    network(mixture, labels)  # a training step moves the running statistics from where they cancel
    network.eval()
    plain = network(mixture, labels)
    assert plain.requires_grad and plain.shape == (2, n_slots, 1111)
    with torch.inference_mode():
        torch.testing.assert_close(network(mixture, labels), plain.detach(), rtol=1e-4, atol=1e-5)
        network = network.to(memory_format=torch.channels_last)
        torch.testing.assert_close(network(mixture, labels), plain.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["inference", "evaluation", "training"])
def test_bfloat16_agrees_with_float32(mode):
    network = small(widths=(32, 48), n_fft=128).to(memory_format=torch.channels_last)
    mixture, labels = torch.randn(1, 4, 4000), query(0, 1, 2)
    network(mixture, labels)  # moves the running statistics
    network.train(mode == "training")
    outputs = []
    for bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16), torch.set_grad_enabled(mode != "inference"):
            outputs.append(network(mixture, labels))
    assert outputs[1].dtype == torch.float32
    error = (outputs[0] - outputs[1]).square().sum() / outputs[0].square().sum()
    assert 0 < error < 10 ** (-3.5 if mode != "training" else -3)


def test_single_queries_in_a_batch_are_queries_one_by_one():
    network = small(single_query=True).eval()
    mixture, labels = torch.randn(2, 4, 640), torch.cat([query(0, 2, 1), query(1, 3, 1)])
    with torch.inference_mode():
        together = network(mixture, labels)
        for slot in range(3):
            alone = network(mixture, labels[:, slot : slot + 1])
            torch.testing.assert_close(alone, together[:, slot : slot + 1], rtol=1e-4, atol=1e-6)
        assert network(mixture, labels.repeat(1, 2, 1)).shape == (2, 6, 640)
    torch.testing.assert_close(together[1, 0], together[1, 2])  # the same query, the same answer


def test_single_query_trains_with_one_slot():
    network = small(single_query=True)
    network(torch.randn(2, 4, 640), query(2).expand(2, 1, 3)).square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("bf16", [False, True])
def test_checkpointing_changes_neither_gradients_nor_statistics(bf16):
    mixture, labels = torch.randn(2, 4, 640), query(0, 1, 2).expand(2, 3, 3)
    gradients, buffers = [], []
    for checkpointing in (False, True):
        network = small(checkpointing=checkpointing)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = network(mixture, labels)
        out.square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
        buffers.append(dict(network.named_buffers()))
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(buffers[0], buffers[1])  # running statistics move once


def test_intensity_tells_left_from_right_where_magnitudes_do_not():
    source = torch.randn(1, 640)
    left = torch.stack([source, source, 0 * source, 0 * source], dim=1)
    right = torch.stack([source, -source, 0 * source, 0 * source], dim=1)
    blind, seeing = small().eval(), small(intensity=True).eval()

    def features(network, mixture):
        return network._features(network._stft(mixture))

    torch.testing.assert_close(features(blind, left), features(blind, right))
    assert (features(seeing, left) - features(seeing, right)).abs().max() > 0.1


def test_refuses_sizes_that_do_not_go_together():
    with pytest.raises(InputError, match="pools"):
        small(pools=[(2, 2)])
    with pytest.raises(InputError, match="hop_length: found 33, expected 1 to 32"):
        small(hop_length=33)
    with pytest.raises(InputError, match="half of n_fft: found"):
        small(pools=[(2, 3), (2, 2)])
    with pytest.raises(InputError, match="2 channels, expected 4"):
        small()(torch.randn(1, 2, 640), query(0, 1, 2))
    with pytest.raises(InputError, match="2 slots, 3 labels, expected 3 and 3"):
        small()(torch.randn(1, 4, 640), query(0, 1))


def test_pass_through_starts_as_half_of_the_reference_channel():
    torch.manual_seed(1)
    mixture = torch.randn(1, 4, 640)
    network = small(pass_through=True).eval()
    out = network(mixture, query(0, 1, 2))
    reference = mixture[:, :1].expand(-1, 3, -1)
    correlation = torch.nn.functional.cosine_similarity(out, reference, dim=-1)
    assert (correlation > 0.9).all()
    assert (
        torch.nn.functional.cosine_similarity(small().eval()(mixture, query(0, 1, 2)), reference, dim=-1).abs().max()
        < 0.9
    )


def test_bands_cover_all_bins_and_sit_where_they_should():
    matrix = band_matrix(64, 256)
    torch.testing.assert_close(matrix.sum(0), torch.ones(256))
    assert (matrix >= 0).all() and (matrix.sum(1) > 0.5).all()
    centre = (matrix @ torch.arange(256.0)) / matrix.sum(1)
    assert (centre.diff() > 0.5).all() and centre.diff()[-5:].min() > 3 * centre.diff()[:5].max()


def test_as_many_bands_as_bins_are_the_bins():
    torch.testing.assert_close(band_matrix(32, 32), torch.eye(32))
    mixture = torch.randn(1, 4, 640)
    bins, bands = small(intensity=True).eval(), small(intensity=True, n_bands=32).eval()
    features = bins._features(bins._stft(mixture))
    torch.testing.assert_close(bands._features(bands._stft(mixture)), features, atol=1e-5, rtol=1e-5)


FED_BACK = {
    "bins": {},
    "bands": {"n_bands": 16, "compression": 0.3, "intensity": True, "checkpointing": True},
    "one query": {"single_query": True},
}


@pytest.mark.parametrize("kind", FED_BACK)
def test_estimates_are_fed_back(kind, monkeypatch):
    network, mixture = small(passes=3, **FED_BACK[kind]).eval(), torch.randn(2, 4, 640)
    torch.nn.init.normal_(network.base.pre_conv.weight)  # planes that are fed back count as much as the others
    labels = torch.cat((query(1, 3, 0), query(2, 2, 1)))
    outputs, run = [], network._with_estimate
    for n in (1, 2, 3):
        seen = []

        def watched(features, sources, *args, seen=seen):
            seen.append((sources is None, torch.is_grad_enabled()))
            return run(features, sources, *args)

        monkeypatch.setattr(network, "_with_estimate", watched)
        monkeypatch.setattr(network.passes, "draw", lambda n=n: n)
        out = network(mixture, labels)
        assert seen == [(i == 0, i == n - 1) for i in range(n)]
        out.sum().backward()
        with torch.inference_mode():
            torch.testing.assert_close(network(mixture, labels), out, rtol=1e-3, atol=1e-4)
        assert not out[0, 1].any() and out[0, [0, 2]].any(-1).all()
        outputs.append(out.detach())
    assert not any(torch.allclose(a, b, rtol=1e-2) for a, b in pairwise(outputs))


@pytest.mark.parametrize("kind", FED_BACK)
def test_a_step_with_several_passes_trains_every_weight(kind):
    network = small(passes=2, **FED_BACK[kind]).train()
    network(torch.randn(2, 4, 640), query(1, 3, 0).expand(2, 3, 3)).square().sum().backward()
    assert int(network.passes.steps) == 1
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    assert network.estimate_norm.num_batches_tracked == 1  # two passes, one estimate


def test_one_pass_adds_no_weights():
    assert set(small().state_dict()) == set(small(passes=1).state_dict()) < set(small(passes=2).state_dict())


@pytest.mark.parametrize("conf", [{}, {"single_query": True}, {"passes": 2, "n_bands": 16}], ids=str)
def test_clues_in_time_start_from_none_and_then_shift_the_frames_that_they_belong_to(conf):
    network, plain = small(time_film=True, **conf).eval(), small(**conf).eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if k in plain.state_dict()})
    mixture, labels = 0.1 * torch.randn(2, 4, 2000), query(0, 1, 3).expand(2, 3, 3)
    clues = torch.zeros(2, 16, 3)
    clues[:, 12:, 0] = 1
    with torch.no_grad():
        expected = plain(mixture, labels)
        assert torch.equal(network(mixture, labels, clues), expected)
        for weight in network.to_shifts.parameters():
            torch.nn.init.normal_(weight)
        assert torch.equal(network(mixture, labels, 0 * clues), expected)
        shifted = network(mixture, labels, clues)
        clues[..., 2] = 1  # nobody asks for this class
        assert torch.equal(network(mixture, labels, clues), shifted)
    changed = (shifted - expected).square().sum((0, 1))
    assert changed[1700:].mean() > 2 * changed[:1000].mean()
    if "single_query" in conf:  # a query sees its own class alone
        assert torch.equal(shifted[:, 1], expected[:, 1])
    trained = network(mixture, labels, clues)  # the path of training, with gradients
    torch.testing.assert_close(trained, shifted, rtol=1e-4, atol=1e-5)
    trained.square().sum().backward()
    assert all(weight.grad.any() for weight in network.to_shifts.parameters())
    with pytest.raises(InputError, match=r"frames: found none, expected \[2, frames, 3\]"):
        network(mixture, labels)
    with pytest.raises(InputError, match="expected none, without time_film"):
        plain(mixture, labels, clues)
