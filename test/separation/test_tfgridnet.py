"""TF-GridNet with a query: shapes, silence, precision, and that it does what the query says."""

import subprocess
import sys

import pytest
import torch

from s5.separation import TFGridNet
from s5.separation.losses import ca_pi_sdr
from s5.utils.errors import InputError

SMALL = {
    "n_labels": 3,
    "n_fft": 64,
    "hop_length": 32,
    "n_blocks": 2,
    "emb_dim": 8,
    "hidden": 8,
    "n_heads": 2,
    "qk_dim": 32,
    "condition_dim": 8,
}
CONDITIONINGS = ["film", "concat"]


def small(**changes):
    torch.manual_seed(0)
    return TFGridNet(**{**SMALL, **changes})


def query(*labels):
    return torch.eye(4)[torch.tensor([labels])][..., :3]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("output", ["mapping", "mask"])
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_every_parameter_gets_a_gradient_and_silence_is_zero(conditioning, output, bf16):
    network = small(conditioning=conditioning, output=output)
    mixture = torch.randn(3, 4, 700)
    mixture[1] = 0
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = network(mixture, query(0, 3, 1).expand(3, 3, 3))
    out.square().sum().backward()
    assert out.shape == (3, 3, 700) and out.dtype == torch.float32
    assert torch.isfinite(out).all()
    assert not out[1].any() and not out[:, 1].any() and out[0, 0].any() and out[0, 2].any()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_zero_query_gives_zeros():
    assert not small()(torch.randn(1, 4, 640), query(3, 3, 3)).any()


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_output_scales_with_the_mixture(conditioning):
    network, mixture = small(conditioning=conditioning).eval(), torch.randn(1, 4, 640)
    loud, quiet = (network(gain * mixture, query(0, 1, 2)) for gain in (1.0, 1e-3))
    torch.testing.assert_close(quiet, 1e-3 * loud, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_bfloat16_agrees(conditioning):
    network, mixture = small(conditioning=conditioning).eval(), torch.randn(1, 4, 640)
    full = network(mixture, query(0, 1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        half = network(mixture, query(0, 1, 2))
    assert half.dtype == torch.float32
    assert 0 < (full - half).abs().max() < 0.05 * full.abs().max()


@pytest.mark.parametrize("bf16", [False, True])
def test_checkpointing_changes_neither_output_nor_gradients(bf16):
    gradients = []
    mixture = torch.randn(1, 4, 320, generator=torch.Generator().manual_seed(1))
    for checkpointing in (False, True):
        network = small(checkpointing=checkpointing)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = network(mixture, query(0, 1, 2))
        out.square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("length", [17, 640, 1001])
def test_output_is_as_long_as_the_mixture(length):
    assert small().eval()(torch.randn(1, 4, length), query(0, 1, 2)).shape == (1, 3, length)


def test_masks_start_from_a_share_of_the_reference_channel():
    mixture = torch.randn(1, 4, 640)
    out = small(output="mask").eval()(mixture, query(0, 1, 2))
    similarity = torch.nn.functional.cosine_similarity(out, mixture[:, :1].expand(-1, 3, -1), dim=-1)
    assert (similarity > 0.9).all()


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_the_order_of_the_query_is_the_order_of_the_sources(conditioning):
    """Two classes, low and high noise: after a few steps a swapped query swaps the outputs."""
    generator = torch.Generator().manual_seed(0)

    def scenes(batch=8):
        noise = torch.randn(batch, 2, 400, generator=generator)
        smooth = torch.nn.functional.avg_pool1d(noise, 9, 1, 4)
        sources = torch.stack((3 * smooth[:, 0], noise[:, 1] - smooth[:, 1]), dim=1)
        labels = torch.stack([torch.randperm(2, generator=generator) for _ in range(batch)])
        dry = sources.gather(1, labels[..., None].expand(-1, -1, 400))
        return dry.sum(1, keepdim=True).expand(-1, 4, -1), dry, labels

    network = small(n_labels=2, n_slots=2, n_blocks=1, conditioning=conditioning, output="mask")
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(40):
        mixture, dry, labels = scenes()
        loss = ca_pi_sdr(network(mixture, torch.eye(2)[labels]), dry, labels)[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mixture, dry, labels = scenes()
    right = ca_pi_sdr(network(mixture, torch.eye(2)[labels]), dry, labels)[0].mean()
    swapped = ca_pi_sdr(network(mixture, torch.eye(2)[labels.flip(1)]), dry.flip(1), labels.flip(1))[0].mean()
    assert right < -6 and swapped < -6


def test_refuses_sizes_that_do_not_go_together():
    with pytest.raises(InputError, match="emb_dim: found 9, expected a multiple of n_heads"):
        small(emb_dim=9)
    with pytest.raises(InputError, match="emb_hs: found 5"):
        small(emb_hs=5)
    with pytest.raises(InputError, match="hop_length"):
        small(hop_length=33)
    with pytest.raises(InputError, match="2 channels, expected 4"):
        small()(torch.randn(1, 2, 640), query(0, 1, 2))


def test_neither_package_nor_network_imports_what_it_does_not_need():
    code = """
import sys, s5, s5.separation
assert not [m for m in sys.modules if m.startswith("espnet")]
s5.separation.TFGridNet(3, 3, 4, 64, 32, 1, 8, hidden=8, n_heads=2, qk_dim=32)
s5.separation.ESPnetSeparator("tfgridnetv2_separator.TFGridNetV2", {"n_imics": 5, "n_layers": 1, "emb_dim": 8})
assert not [m for m in sys.modules if m.startswith(("espnet2.tasks", "espnet2.train", "transformers"))]
"""
    subprocess.run([sys.executable, "-W", "error::FutureWarning", "-c", code], check=True)
