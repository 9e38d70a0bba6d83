"""Masks onto spectra: the formula, and the same in pieces."""

import pytest
import torch

from s5.separation import masks as module
from s5.separation.masks import apply_masks


@pytest.fixture
def inputs():
    """Spectrum of two items with 3 channels, masks of two slots and two of the channels, weight, bias."""
    torch.manual_seed(0)
    return torch.randn(2, 2, 3, 7, 5), torch.randn(2, 12, 8, 4), torch.randn(2), torch.randn(1)


def formula(spectrum, masks, weight, bias):
    x = torch.complex(*spectrum[:, :, :2])[:, None, :, :, :-1]
    gain, real, imag = masks[:, :, :7].unflatten(1, (2, 2, 3)).unbind(3)
    rotation = torch.complex(real.tanh(), imag.tanh())
    out = (x * gain.sigmoid() * rotation / rotation.abs() * weight[:, None, None]).sum(2)
    return torch.nn.functional.pad(out, (0, 1)) + torch.complex(bias, bias)


@pytest.mark.parametrize("chunk", [2**21, 1, 150])
def test_the_formula_and_its_gradient_in_pieces_of_any_size(inputs, chunk, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    spectrum, *rest = inputs
    leaves = [x.requires_grad_() for x in rest]
    out, expected = apply_masks(spectrum, *leaves, n_slots=2), formula(spectrum, *leaves)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(apply_masks(spectrum, *(x.detach() for x in leaves), n_slots=2), expected.detach())
    outer = torch.randn_like(out)
    torch.testing.assert_close(torch.autograd.grad(out, leaves, outer), torch.autograd.grad(expected, leaves, outer))


def test_masks_of_bands_are_those_of_the_bins_that_they_reach(inputs):
    spectrum, masks, weight, bias = inputs
    to_bins = torch.rand(3, 4)
    bands = masks[..., :3].clone().requires_grad_()
    out = apply_masks(spectrum, bands, weight, bias, 2, to_bins)
    expected = formula(spectrum, bands @ to_bins, weight, bias)
    torch.testing.assert_close(out, expected)
    outer = torch.randn_like(out)
    torch.testing.assert_close(torch.autograd.grad(out, bands, outer), torch.autograd.grad(expected, bands, outer))


def test_queries_of_an_item_share_its_spectrum(inputs):
    spectrum, masks, weight, bias = inputs
    out = apply_masks(spectrum, torch.cat([masks, masks]), weight, bias, 2)
    twice = apply_masks(spectrum.repeat_interleave(2, dim=1), torch.cat([masks, masks]), weight, bias, 2)
    torch.testing.assert_close(out, twice)


def test_gain_is_at_most_one_and_zero_masks_are_finite(inputs):
    spectrum, masks, *_ = inputs
    one, none = torch.tensor([1.0]), torch.zeros(1)
    out = apply_masks(spectrum, masks[:, :6], one, none, 2)
    assert (out.abs() <= torch.complex(*spectrum[:, :, :1]).abs() + 1e-6).all()
    masks = torch.zeros(2, 6, 8, 4, requires_grad=True)
    apply_masks(spectrum, masks, one, none, 2).abs().sum().backward()
    assert torch.isfinite(masks.grad).all()
