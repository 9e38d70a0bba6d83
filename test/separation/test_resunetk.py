"""ResUNetK against the official network, and facts that hold at any size."""

import numpy as np
import pytest
import torch

from s5.checkpoints import load_official
from s5.errors import InputError
from s5.separation import ResUNetK
from s5.separation.resunetk import band_matrix

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


def test_official_parameters_less_the_unused_ones():
    # 26,740,971 official trainable parameters, of which the decoders' bn2 and their FiLM layers are used nowhere
    unused = sum(2 * c + 513 * c for c in (384, 384, 384, 256, 128, 64))
    assert sum(p.numel() for p in ResUNetK().parameters()) == 26_740_971 - unused


def test_silent_slots_are_exactly_zero_and_active_ones_are_not():
    network = small().eval()
    out = network(torch.randn(1, 4, 640), query(1, 3, 0))
    assert out[0, 1].abs().max() == 0
    assert out[0, 0].abs().max() > 0 and out[0, 2].abs().max() > 0


def test_masks_of_the_reference_channel_alone():
    network = small(mask_channels=1).eval()
    assert network(torch.randn(1, 4, 640), query(0, 1, 2)).shape == (1, 3, 640)
    with pytest.raises(InputError, match="mask_channels"):
        small(mask_channels=5)


@pytest.mark.parametrize("intensity", [False, True])
def test_silence_in_gives_finite_values_and_gradients(intensity):
    network = small(intensity=intensity, compression=0.3)
    out = network(torch.zeros(2, 4, 640), query(0, 1, 3).expand(2, 3, 3))
    out.square().sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_every_parameter_gets_a_gradient():
    network = small(intensity=True)
    network(torch.randn(2, 4, 640), query(0, 1, 2).expand(2, 3, 3)).square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("length", [641, 700, 1000])
def test_output_is_as_long_as_the_mixture(length):
    assert small().eval()(torch.randn(1, 4, length), query(0, 1, 2)).shape == (1, 3, length)


def test_checkpointing_changes_neither_output_nor_gradients():
    mixture, labels = torch.randn(2, 4, 640), query(0, 1, 2).expand(2, 3, 3)
    gradients = []
    for checkpointing in (False, True):
        network = small(checkpointing=checkpointing)
        network(mixture, labels).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_intensity_tells_left_from_right_where_magnitudes_do_not():
    source = torch.randn(1, 640)
    left = torch.stack([source, source, 0 * source, 0 * source], dim=1)
    right = torch.stack([source, -source, 0 * source, 0 * source], dim=1)
    blind, seeing = small().eval(), small(intensity=True).eval()

    def masks(network, mixture):
        return network._masks(network._stft(mixture), query(0, 1, 2))

    torch.testing.assert_close(masks(blind, left), masks(blind, right))
    assert (masks(seeing, left) - masks(seeing, right)).abs().max() > 1e-3


def test_refuses_sizes_that_do_not_go_together():
    with pytest.raises(InputError, match="pools"):
        small(pools=[(2, 2)])
    with pytest.raises(InputError, match="half of n_fft"):
        small(pools=[(2, 3), (2, 2)])
    with pytest.raises(InputError, match="2 channels, expected 4"):
        small()(torch.randn(1, 2, 640), query(0, 1, 2))


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
