"""Heads: shapes, what they depend on, and the statistics that they take."""

import pytest
import torch

from s5.tagging.heads import HEADS, BiGRUHead, DualPathHead, MultiHotHead, TrackHead

SMALL = {
    "track": {"track_dim": 8, "hidden_dim": 8},
    "bigru": {"rnn_dim": 8, "track_dim": 8, "hidden_dim": 8},
    "multihot": {},
    "dual_path": {"width": 8},
}
SHAPES = {"track": (4, 3, 6), "bigru": (4, 3, 6), "multihot": (4, 5), "dual_path": (4, 5)}


def head(kind, auxiliary_dim=0, **conf):
    torch.manual_seed(0)
    return HEADS[kind](feature_dim=12, n_slots=3, n_classes=6, auxiliary_dim=auxiliary_dim, **{**SMALL[kind], **conf})


@pytest.mark.parametrize("auxiliary_dim", [0, 7])
@pytest.mark.parametrize("kind", HEADS)
def test_shapes_and_gradients_with_and_without_auxiliary_features(kind, auxiliary_dim):
    network = head(kind, auxiliary_dim)
    features = torch.randn(4, 10, 12)
    auxiliary = torch.randn(4, 7, requires_grad=True) if auxiliary_dim else None
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(features, auxiliary)
    assert logits.shape == SHAPES[kind] and network.multi_hot == (logits.dim() == 2)
    logits.float().square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert auxiliary is None or auxiliary.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", HEADS)
def test_only_the_bigru_hears_the_order_of_time(kind):
    network, features = head(kind).eval(), torch.randn(4, 10, 12)
    with torch.inference_mode():
        same = torch.allclose(network(features), network(features.flip(1)), atol=1e-5)
    assert same == (kind != "bigru")


@pytest.mark.parametrize("kind", HEADS)
def test_features_are_normalised_without_parameters_of_their_own(kind):
    network = head(kind)
    norm = network.m2d_out_norm if kind == "track" else network.norm
    assert norm.weight is None and norm.bias is None
    features = 5 + 3 * torch.randn(64, 10, 12)
    network.train()(features)
    assert norm.running_mean.mean() == pytest.approx(0.5, abs=0.1)  # a tenth of the way to 5


def test_dual_path_can_give_tracks():
    logits = head("dual_path", 7, output="tracks")(torch.randn(4, 10, 12), torch.randn(4, 7))
    assert logits.shape == (4, 3, 6)


def test_sizes_of_the_reports():
    def count(network):
        return sum(p.numel() for p in network.parameters())

    # 2026 baseline, four channels: Linear 15360 -> 3 x 1024 and three tracks
    track = 3 * (1024 * 512 + 512 + 2 * 512 + 512 * 19 + 19)
    assert count(TrackHead(4 * 3840, 3, 19)) == 4 * 3840 * 3072 + 3 * 3072 + track
    assert count(MultiHotHead(3840, 3, 19)) == 3840 * 18 + 18
    assert count(DualPathHead(3840, 3, 19)) == 3840 * 256 + 256 + 256 * 256 + 256 + 256 * 18 + 18
    assert DualPathHead(3840, 3, 19, auxiliary_dim=512).classifier.in_features == 768
    assert BiGRUHead(4 * 3840, 3, 19).rnn.bidirectional
