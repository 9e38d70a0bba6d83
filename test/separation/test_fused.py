"""Fused steps against what they fuse."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from s5.separation import fused


def rand(*shape, layout=torch.channels_last, **options):
    return torch.randn(*shape, **options).contiguous(memory_format=layout)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(params=["oneDNN", "public operators alone"])
def operators(request, monkeypatch):
    """With oneDNN's operator, which torch may take away, and without."""
    if request.param != "oneDNN":
        monkeypatch.setattr(fused, "_onednn", lambda x: None)
    else:
        assert fused._onednn(rand(1, 2, 3, 4)) is not None


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("items", [1, 2])
def test_affine_leaky(items, layout, operators):
    x, scale, shift = rand(2, 6, 5, 4, layout=layout), torch.randn(6), torch.randn(items, 6)
    expected = F.leaky_relu(x * scale[None, :, None, None] + shift[:, :, None, None], 0.01)
    out = fused.affine_leaky(x, scale, shift)
    torch.testing.assert_close(out, expected)
    assert out.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("items", [0, 1, 2])
def test_convolution_with_bias_leaky_and_sum(items, size, operators):
    x, weight, add = rand(2, 6, 5, 4), torch.randn(8, 6, size, size), rand(2, 8, 5, 4)
    bias = torch.randn(items, 8) if items else None
    expected = F.conv2d(x, weight, padding=size // 2) + (bias[:, :, None, None] if items else 0)
    before = add.clone()
    torch.testing.assert_close(fused.conv2d(x, weight, bias), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        fused.conv2d(x, weight, bias, leaky=True), F.leaky_relu(expected, 0.01), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(fused.conv2d(x, weight, bias, add=add), expected + add, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(add, before)


CONVOLUTIONS = {
    "plain": lambda: nn.Conv2d(6, 8, 3, padding=1, bias=False),
    "transposed": lambda: nn.ConvTranspose2d(6, 8, (1, 2), stride=(1, 2), bias=False),
}


def norm(channels):
    bn = nn.BatchNorm2d(channels, momentum=0.1)
    nn.init.normal_(bn.weight)
    nn.init.normal_(bn.bias)
    return bn


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("conv", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_norm_film_conv_is_its_three_steps(conv, batch):
    conv, bn, twin = conv(), norm(6), norm(6)
    twin.load_state_dict(bn.state_dict())
    x, beta = rand(batch, 6, 5, 4).requires_grad_(), torch.randn(batch, 6, 1, 1, requires_grad=True)
    leaves = [x, beta, conv.weight]
    out = fused.norm_film_conv(x, bn, beta, conv)
    expected = conv(F.leaky_relu(twin(x) + beta, 0.01))
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dict(bn.named_buffers()), dict(twin.named_buffers()))
    outer = torch.randn_like(out)
    ours = torch.autograd.grad(out, [*leaves, bn.weight, bn.bias], outer)
    theirs = torch.autograd.grad(expected, [*leaves, twin.weight, twin.bias], outer)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_norm_film_conv_in_evaluation_takes_the_running_statistics():
    conv, bn = CONVOLUTIONS["plain"](), norm(6)
    nn.init.uniform_(bn.running_var, 0.5, 1.5)
    x, beta = rand(2, 6, 5, 4), torch.randn(2, 6, 1, 1)
    bn.eval()
    expected = conv(F.leaky_relu(bn(x) + beta, 0.01))
    torch.testing.assert_close(fused.norm_film_conv(x, bn, beta, conv), expected)
    scale, shift = fused.film_scale_shift(bn, beta)
    torch.testing.assert_close(conv(fused.affine_leaky(x, scale, shift)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frozen_statistics_change_nothing_but_the_statistics(dtype):
    conv, bn = CONVOLUTIONS["plain"](), norm(6)
    x, beta, before = rand(2, 6, 5, 4), torch.randn(2, 6, 1, 1), bn.running_mean.clone()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        with fused.frozen_statistics():
            frozen = fused.norm_film_conv(x, bn, beta, conv)
        assert torch.equal(bn.running_mean, before) and bn.num_batches_tracked == 0
        out = fused.norm_film_conv(x, bn, beta, conv)
    assert out.dtype == dtype and torch.equal(out, frozen)
    assert not torch.equal(bn.running_mean, before) and bn.num_batches_tracked == 1


@pytest.mark.parametrize("conv", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_bfloat16_keeps_maps_in_bfloat16_and_gives_the_gradients_of_float32_to_rounding(conv):
    conv, bn = conv(), norm(6)
    x, beta = rand(2, 6, 5, 4).requires_grad_(), torch.randn(2, 6, 1, 1, requires_grad=True)
    leaves = [x, beta, conv.weight, bn.weight, bn.bias]
    results, kept = [], []
    for bf16 in (False, True):
        saved = []
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
        with autocast, torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: (s.append(t), t)[1], lambda t: t):
            out = fused.norm_film_conv(x, bn, beta, conv)
        outer = torch.sin(torch.arange(out.numel())).reshape(out.shape)
        results.append([out.float(), *torch.autograd.grad(out, leaves, outer.to(out.dtype))])
        kept.append({out.dtype, *(t.dtype for t in saved if t.shape == x.shape)})
    assert kept == [{torch.float32}, {torch.bfloat16}]
    assert all(value.dtype == torch.float32 for value in results[1])
    errors = [(a - b).square().sum() / b.square().sum() for a, b in zip(results[1], results[0], strict=True)]
    assert 0 < max(errors) < 1e-3


def test_precision_of_inference_is_that_of_autocast():
    cpu = torch.device("cpu")
    assert fused.inference_dtype(cpu) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert fused.inference_dtype(cpu) == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert fused.inference_dtype(cpu) == torch.float32


@pytest.mark.parametrize("pool", [(2, 2), (1, 3)])
def test_average_pooling(pool):
    x = rand(2, 3, 4, 6).requires_grad_()
    out, expected = fused.avg_pool2d(x, pool), F.avg_pool2d(x, pool)
    torch.testing.assert_close(out, expected)
    outer = torch.randn_like(out)
    torch.testing.assert_close(torch.autograd.grad(out, x, outer), torch.autograd.grad(expected, x, outer))
