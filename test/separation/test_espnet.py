"""ESPnet's separators behind the adapter: TFGridNetV2 and iFaSNet on waveforms, USES on spectra, with four channels."""

import pytest
import torch

from s5.separation import ESPnetSeparator
from s5.utils.errors import InputError

TFGRIDNET = {
    "separator": "tfgridnetv2_separator.TFGridNetV2",
    "separator_conf": {
        "n_imics": 5,
        "n_fft": 64,
        "stride": 32,
        "n_layers": 1,
        "lstm_hidden_units": 8,
        "attn_n_head": 2,
        "attn_approx_qk_dim": 32,
        "emb_dim": 8,
        "emb_hs": 4,
    },
}
USES = {
    "separator": "uses_separator.USESSeparator",
    "domain": "spectrum",
    "n_fft": 64,
    "hop_length": 32,
    "separator_conf": {
        "enc_channels": 8,
        "bottleneck_size": 8,
        "num_blocks": 2,
        "num_spatial_blocks": 1,
        "segment_size": 8,
        "memory_size": 2,
        "hidden_size": 8,
        "att_heads": 2,
        "ch_att_dim": 8,
        "ref_channel": 0,
    },
}
IFASNET = {
    "separator": "fasnet_separator.FaSNetSeparator",
    "separator_conf": {
        "enc_dim": 8,
        "feature_dim": 8,
        "hidden_dim": 8,
        "layer": 1,
        "segment_size": 8,
        "win_len": 4,
        "context_len": 4,
        "fasnet_type": "ifasnet",
        "sr": 8000,
    },
}


def four_microphones(conf):
    return {**conf, "separator_conf": {**conf["separator_conf"], "n_imics": 4}, "conditioning": "film"}


CASES = [TFGRIDNET, four_microphones(TFGRIDNET), USES, {**USES, "conditioning": "film"}, IFASNET]


def build(conf, **changes):
    torch.manual_seed(0)
    return ESPnetSeparator(**{"n_labels": 3, "period": 16, "condition_dim": 8, **conf, **changes})


def query(*labels):
    return torch.eye(4)[torch.tensor([labels])][..., :3]


@pytest.mark.parametrize("conf", CASES)
def test_separators_of_espnet_take_a_query(conf):
    network = build(conf)
    mixture = torch.randn(3, 4, 700)
    mixture[1] = 0
    mixture[2] = 0.3  # a constant: its deviation is zero
    out = network(mixture, query(0, 3, 1).expand(3, 3, 3))
    out.square().sum().backward()
    assert out.shape == (3, 3, 700) and torch.isfinite(out).all()
    assert not out[1].any() and not out[:, 1].any() and out[0, 0].any() and out[0, 2].any()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    assert network.label_embedding[0].weight.grad.any() and network.filter.weight.grad.any()
    with torch.no_grad():
        other = network(mixture[:1], query(1, 3, 0))
    assert (other[0, 0] - out[0, 0]).abs().max() > 1e-4 * out[0, 0].abs().max()


@pytest.mark.parametrize("conf", [TFGRIDNET, USES, IFASNET])
def test_bfloat16_agrees(conf):
    network, mixture = build(conf).eval(), torch.randn(1, 4, 700)
    with torch.no_grad():
        full = network(mixture, query(0, 1, 2))
        with torch.autocast("cpu", torch.bfloat16):
            half = network(mixture, query(0, 1, 2))
    assert half.dtype == torch.float32
    assert 0 < (full - half).abs().max() < 0.1 * full.abs().max()


@pytest.mark.slow
def test_order_of_the_query_reaches_the_outputs_in_training():
    """Low and high noise, in the order of the labels: the loss falls below what a fixed order could reach (-3 dB)."""
    from s5.separation.losses import ca_pi_sdr

    generator = torch.Generator().manual_seed(0)
    network = build(four_microphones(TFGRIDNET), n_labels=2, n_slots=2, condition_dim=16)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(50):
        noise = torch.randn(8, 2, 400, generator=generator)
        smooth = torch.nn.functional.avg_pool1d(noise, 9, 1, 4)
        sources = torch.stack((3 * smooth[:, 0], noise[:, 1] - smooth[:, 1]), dim=1)
        labels = torch.stack([torch.randperm(2, generator=generator) for _ in range(8)])
        dry = sources.gather(1, labels[..., None].expand(-1, -1, 400))
        estimate = network(dry.sum(1, keepdim=True).expand(-1, 4, -1), torch.eye(2)[labels])
        losses.append(ca_pi_sdr(estimate, dry, labels)[0].mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert torch.stack(losses[-5:]).mean() < -5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"separator": "tfgridnetv2_separator.TFGridNetV3"}, r"separator: found .*V3, expected .*TFGridNetV2"),
        ({"separator": "tfgridnet"}, r"separator: found tfgridnet, expected"),
        ({"separator": "abs_separator.AbsSeparator"}, r"separator: found abs_separator"),
        ({"separator": "os.path"}, r"separator: found os\.path"),
        ({"separator_conf": {"n_layer": 2}}, r"separator_conf: key n_layer: found an unknown key, expected n_layers"),
        ({"separator_conf": {"n_srcs": 2}}, r"key n_srcs: found an unknown key"),
        ({"separator_conf": {"activation": "relu"}}, r"separator_conf: found AssertionError, expected arguments"),
        ({"n_cues": 0}, "n_cues: found 0"),
        ({"n_fft": 64, "hop_length": 40}, "hop_length: found 40, expected 1 to 32"),
    ],
)
def test_bad_configurations_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        build(TFGRIDNET, **changes)


def test_channels_and_outputs_that_do_not_fit_are_named():
    with pytest.raises(InputError, match="2 channels, expected 4"):
        build(TFGRIDNET)(torch.randn(1, 2, 700), query(0, 1, 2))
    with pytest.raises(InputError, match="domain: found spectrum, expected only support input shape"):
        build({**IFASNET, "domain": "spectrum", "n_fft": 64, "hop_length": 32})(torch.randn(1, 4, 700), query(0, 1, 2))
    network = build(TFGRIDNET)
    network.separator.n_srcs = 1  # as a separator would that gives fewer outputs than it was asked for
    network.separator.deconv = torch.nn.ConvTranspose2d(8, 2, 3, padding=1)
    with pytest.raises(InputError, match=r"outputs: found \[1, 700\], expected 3 of \[1, 700\]"):
        network(torch.randn(1, 4, 700), query(0, 1, 2))
