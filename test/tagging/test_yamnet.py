"""YAMNet against TensorFlow's own, with the weights that the repository ships."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from s5.tagging import Tagger
from s5.tagging.yamnet import YAMNetEncoder
from s5.utils.config import ROOT
from s5.utils.errors import InputError

WEIGHTS = "pretrained/yamnet.safetensors"
TRACK = {"kind": "track", "track_dim": 8, "hidden_dim": 8}


def released(**changes):
    encoder = YAMNetEncoder(**{"weights": WEIGHTS, **changes}).eval()
    encoder.load_weights()
    return encoder


@pytest.fixture(scope="module")
def encoder():
    return released()


@pytest.fixture
def expected(golden):
    return np.load(golden / "yamnet.npz")


@pytest.fixture
def waveform(expected):
    return torch.from_numpy(expected["waveform"])[None]


def tone(rate, seconds=2.0):
    """Three partials that swell and fade, [1, T]."""
    time = torch.arange(round(rate * seconds)) / rate
    partials = sum(torch.sin(2 * torch.pi * f * time) / (k + 1) for k, f in enumerate((440, 880, 1320)))
    return (0.3 * partials * torch.sin(torch.pi * time / seconds))[None]


def test_the_patches_are_those_of_tensorflow(encoder, waveform, expected):
    patches = encoder.patches(waveform)[0]
    mel = torch.from_numpy(expected["log_mel"])
    torch.testing.assert_close(patches, mel.unfold(0, 96, 48).mT, rtol=0, atol=1e-4)


@pytest.mark.parametrize("output", ["embeddings", "scores"])
def test_equals_tensorflow_with_the_same_weights(waveform, expected, output):
    with torch.inference_mode():
        found = released(output=output)(waveform)[0].numpy()
    np.testing.assert_allclose(found, expected[f"{output}_of_file"], rtol=0, atol=1e-4)


def test_half_precision_of_the_weights_changes_little(waveform, expected):
    """Against TensorFlow with the release's float32 weights, whose embeddings go to 3.3."""
    with torch.inference_mode():
        np.testing.assert_allclose(released()(waveform)[0], expected["embeddings"], rtol=0, atol=0.02)
        np.testing.assert_allclose(released(output="scores")(waveform)[0], expected["scores"], rtol=0, atol=3e-3)


def test_the_shipped_file_is_small_and_says_where_it_is_from():
    path = ROOT / WEIGHTS
    assert path.stat().st_size < 7.6e6
    tensors = load_file(path)
    assert sum(value.numel() for value in tensors.values()) == 3_751_369
    assert tensors["layers.13.pointwise.conv.weight"].dtype == torch.float16
    text = (path.parent / "LICENSES.md").read_text()
    assert path.name in text and "Apache License 2.0" in text


@pytest.mark.parametrize("rate", [8000, 22050, 32000, 44100])
def test_any_sampling_rate(encoder, rate):
    with torch.inference_mode():
        found, as_if, expected = (
            x.mean(1) for x in (released(sampling_rate=rate)(tone(rate)), encoder(tone(rate)), encoder(tone(16000)))
        )
    assert torch.cosine_similarity(found, expected) > 0.97  # rounding shows in the bands of digital silence
    assert torch.cosine_similarity(as_if, expected) < 0.9


@pytest.mark.parametrize(("samples", "patches"), [(0, 1), (1, 1), (15600, 1), (15601, 2), (16000, 2), (48000, 6)])
def test_any_length_with_patches_as_in_the_release(encoder, samples, patches):
    with torch.inference_mode():
        features = encoder(torch.zeros(2, samples))
    assert features.shape == (2, patches, 1024) and features.isfinite().all()


def test_a_short_waveform_is_filled_with_silence(encoder):
    short = tone(16000, 0.4)
    with torch.inference_mode():
        torch.testing.assert_close(encoder(short), encoder(torch.nn.functional.pad(short, (0, 15600 - 6400))))


def test_the_hop_is_an_option(encoder):
    wave = tone(16000, 4.0)
    with torch.inference_mode():
        fine, coarse = encoder(wave), released(hop=0.96)(wave)
    torch.testing.assert_close(coarse[:, :4], fine[:, :8:2], rtol=0, atol=1e-4)
    assert YAMNetEncoder(hop=0.76).patches(wave).shape == (1, 5, 96, 64)
    for hop in (0.0, 0.004, 0.485):
        with pytest.raises(InputError, match=r"hop: found .*, expected a multiple of 0.01 s"):
            YAMNetEncoder(hop=hop)


def test_channels_and_items_are_encoded_apart():
    encoder = released(n_channels=2)
    mixture = torch.stack([torch.cat([tone(16000), 0.1 * tone(16000).flip(1), tone(16000)]) * g for g in (1.0, 0.5)])
    with torch.inference_mode():
        features = encoder(mixture)
        apart = torch.cat([encoder(mixture[:, channel]) for channel in range(2)], dim=-1)
        alone = encoder(mixture[1:])
    assert features.shape == (2, 4, encoder.dim) and encoder.dim == 2048
    torch.testing.assert_close(features, apart, rtol=0, atol=1e-4)
    torch.testing.assert_close(features[1:], alone, rtol=0, atol=1e-4)


def test_weights_of_another_model_are_refused(tmp_path):
    tensors = load_file(ROOT / WEIGHTS)
    del tensors["layers.3.pointwise.norm.bias"]
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"a.safetensors: found no key layers.3.pointwise.norm.bias"):
        released(weights=str(tmp_path / "a.safetensors"))


def tagger(trainable, **changes):
    torch.manual_seed(0)
    encoder = {"kind": "yamnet", "weights": WEIGHTS, **changes}
    tagger = Tagger(encoder=encoder, head=TRACK, n_labels=4, trainable=trainable)
    tagger.encoder.load_weights()
    return tagger.train()


@pytest.mark.parametrize(
    ("trainable", "moved"),
    [
        ("head", set()),
        ("1_blocks", {"encoder.layers.13"}),
        ("2_blocks", {"encoder.layers.12", "encoder.layers.13"}),
        ("all", {f"encoder.layers.{i}" for i in range(14)}),
    ],
)
def test_what_is_trained_moves_and_what_is_frozen_stays(trainable, moved):
    """Statistics of batch norms too; their scales, which the release does not have, stay one."""
    network = tagger(trainable)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(torch.cat([tone(16000), tone(16000).flip(1)])[:, None]).square().sum().backward()
    optimizer.step()
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert {".".join(key.split(".")[:3]) for key in changed if key.startswith("encoder")} == moved
    assert any(key.startswith("head") for key in changed)
    scales = [value for key, value in network.state_dict().items() if key.endswith("norm.weight") and "encoder" in key]
    assert len(scales) == 27 and all((scale == 1).all() for scale in scales)


@pytest.mark.parametrize("trainable", ["head", "1_blocks"])
def test_what_is_frozen_keeps_nothing_for_the_backward_pass(trainable):
    kept = []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    network = tagger(trainable)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(tone(16000)[:, None].expand(2, 1, -1))
    # Maps of the first layers have at least 96 x 64 x 8 values a patch, of which there are eight.
    assert max(kept) < 2e6 and sum(kept) < (2e6 if trainable == "head" else 8e6)


@pytest.mark.parametrize("trainable", ["head", "2_blocks", "all"])
def test_chunks_change_nothing(trainable, monkeypatch):
    """Patches that are worked on a few at a time; batch norms in training see all of them."""
    mixture = torch.cat([tone(16000), tone(16000).flip(1)])[:, None]
    found = []
    for size in (3, 100):
        monkeypatch.setattr("s5.tagging.yamnet.CHUNK", size)
        network = tagger(trainable)
        logits = network(mixture)
        logits.square().sum().backward()
        gradients = [parameter.grad for parameter in network.parameters() if parameter.requires_grad]
        found.append((logits.detach(), gradients))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)


def test_a_gradient_reaches_the_waveform(encoder):
    waveform = tone(16000).requires_grad_()
    encoder(waveform).sum().backward()
    assert waveform.grad.abs().max() > 0


def test_augmentation_is_of_trainings_alone():
    network = tagger("head", augment={"filter_db": 6.0, "mel_shift": 2})
    torch.manual_seed(1)
    patches, plain = network.encoder.patches(tone(16000)), released().patches(tone(16000))
    assert patches.min() >= np.log(0.001) - 1e-5
    assert (patches - plain).abs().mean() > 0.1
    network.eval()
    assert torch.equal(network.encoder.patches(tone(16000)), released().patches(tone(16000)))
