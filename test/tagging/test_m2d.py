"""M2D's encoder against the official one: released files, channels, inputs of any length."""

import numpy as np
import pytest
import torch

from s5.tagging.m2d import M2DEncoder, release_sizes
from s5.utils.errors import InputError

SMALL = {"sampling_rate": 16000, "input_size": (32, 65), "dim": 8, "depth": 3, "heads": 2}


def small(**changes):
    torch.manual_seed(0)
    return M2DEncoder(**{**SMALL, **changes}).eval()


def noise(*shape):
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape)).float()


@pytest.mark.slow
def test_more_than_ten_seconds_equals_the_official_encoder(golden, official_weights, tmp_path):
    weights = {
        key.replace("backbone.", "module.ar.runtime.backbone."): torch.from_numpy(value)
        for key, value in official_weights("m2dat_1c").items()
        if key.startswith("backbone.")
    }
    file = tmp_path / "m2d_as_vit_base-80x1001p16x16p32k-240413_AS-FT_enconly/weights_ep69it3124-0.47998.pth"
    file.parent.mkdir()
    torch.save({"model": weights}, file)
    encoder = M2DEncoder(weights=str(file)).eval()
    encoder.load_weights()
    expected = np.load(golden / "m2d_long.npz")
    for samples in (410000, 330000):
        random = np.random.RandomState(int(expected["seed"]))
        with torch.inference_mode():
            features = encoder(torch.from_numpy(0.1 * random.standard_normal((1, samples))).float())[0]
        assert len(features) == expected[f"steps_{samples}"]
        np.testing.assert_allclose(features.mean(0)[:64], expected[f"embedding_{samples}"], atol=1e-4)


def test_a_tail_of_less_than_a_patch_is_dropped():
    # 65 frames fill a window; the official encoder fails on a second one of fewer than 16
    encoder, hop = small(), 160
    steps = [encoder(noise(1, (frames - 1) * hop)).shape[1] for frames in (65, 66, 80, 81, 96)]
    assert steps == [4, 4, 4, 5, 5]


def test_short_inputs_take_the_first_columns_of_the_position_embedding():
    encoder = small()
    with torch.no_grad():
        encoder.pos_embed[:, 1:].unflatten(1, (2, 4))[:, :, 2:] = 1e6
    assert encoder(noise(1, 16 * 160 * 2 - 160)).abs().max() < 100


def test_channels_are_encoded_apart_and_stand_side_by_side():
    single, mixture = small(), noise(2, 4, 9000)
    encoder = small(n_channels=3)
    features = encoder(mixture)
    assert encoder.dim == features.shape[-1] == 3 * encoder.feature_dim
    for channel, part in enumerate(features.split(encoder.feature_dim, dim=-1)):
        torch.testing.assert_close(part, single(mixture[:, channel]))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("m2d_as_vit_base-80x1001p16x16p32k-240413_AS-FT_enconly/w.pth", ((80, 1001), (16, 16), 32000)),
        ("x/m2d_vit_base-80x608p16x16-221006-mr7_enconly/checkpoint-300.pth", ((80, 608), (16, 16), 16000)),
        ("m2d_vit_base-80x200p80x4p32k.pth", ((80, 200), (80, 4), 32000)),
        ("weights_ep69it3124-0.47998.pth", None),
    ],
)
def test_sizes_from_the_name_of_a_release(name, sizes):
    assert release_sizes(name) == sizes


def test_yaml_wins_over_the_name_and_the_name_over_the_defaults():
    encoder = M2DEncoder(weights="m2d-32x64p16x16p16k/w.pth", patch_size=(8, 8), dim=8, depth=1, heads=1)
    assert (encoder.rows, encoder.window_frames, encoder.sampling_rate) == (4, 64, 16000)


@pytest.fixture
def release(tmp_path):
    """A miniature file of the release's layout, and what is in it."""
    tensors = {key: torch.randn_like(value) for key, value in small().state_dict().items()}
    file = tmp_path / "weights.pth"

    def save(drop=(), **more):
        kept = {f"module.ar.runtime.backbone.{k}": v for k, v in tensors.items() if k not in drop}
        torch.save({**kept, **more}, file)
        return str(file)

    return tensors, save


def test_release_weights_and_their_statistics_are_loaded(release, caplog):
    tensors, save = release
    encoder = small(weights=save(**{"module.head.mlp.mlp.0.weight": torch.zeros(3)}))
    assert not torch.equal(encoder.norm_stats, tensors["norm_stats"])  # building alone reads nothing
    encoder.load_weights()
    assert all(torch.equal(value, tensors[key]) for key, value in encoder.state_dict().items())
    assert "1 keys not used: module.head.mlp.mlp.0.weight" in caplog.text


def test_weights_are_looked_up_in_the_repository_too(release, tmp_path, monkeypatch):
    tensors, save = release
    save()
    monkeypatch.setattr("s5.utils.config.ROOT", tmp_path)
    encoder = small(weights="weights.pth")
    encoder.load_weights()
    assert torch.equal(encoder.cls_token, tensors["cls_token"])


def test_files_of_2022_have_no_statistics(release):
    _, save = release
    encoder = small(weights=save(drop=("norm_stats",)))
    encoder.load_weights()
    assert encoder.norm_stats.tolist() == pytest.approx([-7.1, 4.2])


def test_weights_of_another_model_are_refused(release, tmp_path):
    _, save = release
    with pytest.raises(InputError, match=r"key pos_embed: found \[1, 9, 8\], expected \[1, 19, 8\]"):
        small(weights=save(), input_size=(32, 150)).load_weights()
    torch.save({"bn0.weight": torch.zeros(4)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"no key cls_token, pos_embed, .*in all\) but bn0.weight, expected .*M2DEnc"):
        small(weights=str(tmp_path / "other.pth")).load_weights()
    with pytest.raises(InputError, match="no such file"):
        small(weights=str(tmp_path / "none.pth")).load_weights()


def test_top_layers_are_the_last_blocks_and_the_norm():
    encoder = small()
    assert encoder.top_layers(2) == [encoder.blocks[1], encoder.blocks[2], encoder.norm]
    assert encoder.top_layers(0) == [encoder.norm]
    with pytest.raises(InputError, match=r"found 4, expected 0 \.\. 3"):
        encoder.top_layers(4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bad_mixtures_are_refused(value):
    encoder = small(n_channels=2)
    with pytest.raises(InputError, match="1 channels, expected at least 2"):
        encoder(noise(1, 1, 4000))
    mixture = noise(2, 4, 4000)
    mixture[1, 1, 7] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        encoder(mixture)
    mixture[1, 1, 7], mixture[0, 3, 5] = 0, value  # a channel that is not encoded
    encoder(mixture)
    with pytest.raises(InputError, match="found 200 samples, expected at least 201"):
        encoder(noise(1, 2, 200))


def test_bfloat16_changes_features_little():
    encoder, mixture = small(dim=64, heads=4), noise(2, 1, 9000)
    with torch.inference_mode():
        exact = encoder(mixture)
        with torch.autocast("cpu", torch.bfloat16):
            rough = encoder(mixture).float()
    assert (rough - exact).square().mean() < 1e-3 * exact.square().mean()
