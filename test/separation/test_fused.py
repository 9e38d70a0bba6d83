"""Fused steps against what they fuse."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from s5.processor import cpu_multiplies_eight_bit
from s5.separation import fused

needs_eight_bit = pytest.mark.skipif(not cpu_multiplies_eight_bit(), reason="needs AVX-512 VNNI")


def rand(*shape, layout=torch.channels_last, **options):
    return torch.randn(*shape, **options).contiguous(memory_format=layout)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("items", [1, 2])
def test_affine_leaky(items, layout):
    x, scale, shift = rand(2, 6, 5, 4, layout=layout), torch.randn(6), torch.randn(items, 6)
    expected = F.leaky_relu(x * scale[None, :, None, None] + shift[:, :, None, None], 0.01)
    out = fused.affine_leaky(x, scale, shift)
    torch.testing.assert_close(out, expected)
    assert out.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("items", [0, 1, 2])
def test_convolution_with_bias_leaky_and_sum(items, size):
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
def test_bfloat16_where_it_is_slow_is_float32_between_maps_in_bfloat16(conv, monkeypatch):
    """Half of the memory, and no more error than the rounding of what goes in, comes out and comes back."""
    conv, bn = conv(), norm(6)
    x, beta = rand(2, 6, 5, 4).requires_grad_(), torch.randn(2, 6, 1, 1, requires_grad=True)
    leaves = [x, beta, conv.weight, bn.weight, bn.bias]
    results, kept = [], []
    for slow in (None, True, False):  # float32 without autocast first
        monkeypatch.setattr(fused, "cpu_is_slow_in_bfloat16", lambda slow=slow: slow)
        saved = []
        bf16 = torch.autocast("cpu", torch.bfloat16, enabled=slow is not None)
        with bf16, torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: (s.append(t), t)[1], lambda t: t):
            out = fused.norm_film_conv(x, bn, beta, conv)
        outer = torch.sin(torch.arange(out.numel())).reshape(out.shape)
        results.append([out.float(), *torch.autograd.grad(out, leaves, outer.to(out.dtype))])
        kept.append({out.dtype, *(t.dtype for t in saved if t.shape == x.shape)})
    assert kept == [{torch.float32}, {torch.bfloat16}, {torch.bfloat16}]
    assert all(value.dtype == torch.float32 for value in results[1])

    def error(found):
        return [(a - b).square().sum() / b.square().sum() for a, b in zip(found, results[0], strict=True)]

    assert max(error(results[1])) < 1e-4
    assert sum(error(results[1])) < sum(error(results[2]))


@needs_eight_bit
@pytest.mark.parametrize("with_norm", [False, True])
def test_eight_bit_convolution(with_norm):
    conv, bn = nn.Conv2d(32, 40, 3, padding=1, bias=False), norm(40).eval()
    nn.init.uniform_(bn.running_var, 0.5, 1.5)
    x, bias = F.leaky_relu(3 * rand(2, 32, 9, 11), 0.01), torch.randn(40)
    with torch.no_grad():
        for _ in range(2):  # changed weights are noticed
            plain = conv(x) * (fused.film_scale_shift(bn)[0][:, None, None] if with_norm else 1)
            for b in (None, bias):
                out = fused.EightBitConv(conv, bn if with_norm else None, b)(x)
                expected = plain if b is None else plain + b[:, None, None]
                assert out.shape == expected.shape and out.is_contiguous(memory_format=torch.channels_last)
                assert (out - expected).square().sum() < 1e-3 * expected.square().sum()
            conv.weight.mul_(torch.rand(40, 1, 1, 1) * 5)
            bn.running_var.mul_(3.0)
        assert not fused.EightBitConv(conv)(0 * x).any()
        assert torch.isfinite(fused.EightBitConv(conv)(-x.abs())).all()


def test_precision_of_inference(monkeypatch):
    cpu = torch.device("cpu")
    assert fused.inference_precision(cpu) == (torch.float32, False)
    with torch.autocast("cpu", torch.bfloat16):
        for slow, eight_bit, expected in (
            (False, True, (torch.bfloat16, False)),
            (True, True, (torch.float32, True)),
            (True, False, (torch.float32, False)),
        ):
            monkeypatch.setattr(fused, "cpu_is_slow_in_bfloat16", lambda slow=slow: slow)
            monkeypatch.setattr(fused, "cpu_multiplies_eight_bit", lambda eight_bit=eight_bit: eight_bit)
            assert fused.inference_precision(cpu) == expected


@pytest.mark.parametrize("pool", [(2, 2), (1, 3)])
def test_average_pooling(pool):
    x = rand(2, 3, 4, 6).requires_grad_()
    out, expected = fused.avg_pool2d(x, pool), F.avg_pool2d(x, pool)
    torch.testing.assert_close(out, expected)
    outer = torch.randn_like(out)
    torch.testing.assert_close(torch.autograd.grad(out, x, outer), torch.autograd.grad(expected, x, outer))
