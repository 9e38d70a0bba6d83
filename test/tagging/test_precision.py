"""bfloat16 on processors that are slow in it: float32, or 8-bit linear layers where no gradient is wanted."""

import copy

import pytest
import torch

from s5.tagging import precision
from s5.tagging.m2d import M2DEncoder
from s5.tagging.precision import Linear, cpu_precision

CPU = torch.device("cpu")


@pytest.fixture
def slow(monkeypatch):
    """A CPU without AMX, whichever this is."""
    if not precision.cpu_multiplies_eight_bit():
        pytest.skip("needs AVX-512 VNNI")
    monkeypatch.setattr(precision, "cpu_is_slow_in_bfloat16", lambda: True)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return Linear(512, 256)


def rough(layer, x, **options):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), cpu_precision(CPU, **options):
        return layer(x)


def test_eight_bits_are_near_and_float32_is_exact(slow, layer):
    x = torch.randn(3, 7, 512)
    exact = layer(x).detach()
    error = (rough(layer, x) - exact).square().mean() / exact.square().mean()
    assert 0 < error < 1e-3
    assert torch.equal(rough(layer, x, eight_bit=False), exact)


def test_where_a_gradient_is_wanted_it_is_float32(slow, layer):
    x = torch.randn(3, 512)
    with torch.autocast("cpu", torch.bfloat16), cpu_precision(CPU):
        y = layer(x)
    assert y.dtype == torch.float32 and y.requires_grad
    assert torch.equal(y, layer(x))


def test_without_autocast_nothing_changes(slow, layer):
    x = torch.randn(3, 512)
    with torch.no_grad(), cpu_precision(CPU):
        assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))


def test_fast_bfloat16_stays_bfloat16(monkeypatch, layer):
    monkeypatch.setattr(precision, "cpu_is_slow_in_bfloat16", lambda: False)
    assert rough(layer, torch.randn(3, 512)).dtype == torch.bfloat16


def test_changed_weights_are_followed(slow, layer):
    x = torch.randn(3, 512)
    before = rough(layer, x)
    with torch.no_grad():
        layer.weight.mul_(2)
        layer.bias.mul_(2)
    torch.testing.assert_close(rough(layer, x), 2 * before)
    layer.load_state_dict({key: value / 2 for key, value in layer.state_dict().items()})
    torch.testing.assert_close(rough(layer, x), before)
    other = copy.deepcopy(layer)
    other.weight.data = -other.weight.data
    other.bias.data = -other.bias.data
    torch.testing.assert_close(rough(other, x), -before)


def test_an_encoder_in_bfloat16(slow):
    torch.manual_seed(0)
    sizes = {"sampling_rate": 8000, "input_size": (32, 65), "dim": 256, "depth": 2, "heads": 4}
    encoder = M2DEncoder(**sizes).eval()
    mixture = torch.randn(2, 1, 5000)
    with torch.no_grad():
        exact = encoder(mixture)
        with torch.autocast("cpu", torch.bfloat16):
            features = encoder(mixture)
            assert torch.equal(features[1:], encoder(mixture[1:]))  # whatever else is in the batch
            encoder.eight_bit = False
            assert torch.equal(encoder(mixture), exact)
    assert 0 < (features - exact).square().mean() < 1e-3 * exact.square().mean()
