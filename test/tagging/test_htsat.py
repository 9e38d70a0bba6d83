"""CLAP's HTS-AT: its front ends, its windows, and weights from LAION's and Microsoft's files."""

import numpy as np
import pytest
import torch

from s5.checkpoints import convert_htsat
from s5.tagging import Tagger
from s5.tagging.htsat import RELEASES, FrontEnd, HTSATEncoder, input_windows, log_mel_of
from s5.utils.errors import InputError

SIZES = {"image_size": 64, "dim": 8, "depths": (2, 2), "heads": (2, 4), "window_size": 4}
TINY = {
    **SIZES,
    "sampling_rate": 8000,
    "front_end": {"sampling_rate": 8000, "seconds": 2, "hop_length": 64, "n_mels": 16},
}
TINY["front_end"].update(n_fft=256, f_max=4000)


def tiny(**changes):
    torch.manual_seed(0)
    return HTSATEncoder(**{**TINY, **changes}).eval()


def noise(*shape):
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape)).float()


@pytest.fixture
def original(official_weights):
    """A miniature of Microsoft's released file: the keys of its HTS-AT, and some of the rest of CLAP."""
    computed = ("spectrogram_extractor", "melW", "relative_position_index", "attn_mask")
    weights = {
        key: torch.from_numpy(value)
        for key, value in official_weights("htsat").items()
        if not any(part in key for part in computed)
    }
    return {**weights, "logit_scale": torch.ones(()), "caption_encoder.base.h.0.attn.bias": torch.zeros(2)}


def test_equals_the_original_code_on_its_weights(golden, original, tmp_path):
    """Golden values of Microsoft's code, its front end included; 1e-3 dB and 1e-4."""
    expected = np.load(golden / "htsat.npz")
    torch.save({"model": original}, tmp_path / "CLAP_weights_2023.pth")
    encoder = HTSATEncoder(
        sampling_rate=44100,
        release="microsoft",
        front_end={"hop_length": 1280, "n_mels": 16},
        weights=str(tmp_path / "CLAP_weights_2023.pth"),
        **SIZES,
    ).eval()
    encoder.load_weights()
    waveform = 0.1 * np.random.RandomState(int(expected["seed"])).standard_normal((2, 7 * 44100))
    waveform[1] = np.cumsum(waveform[1])
    waveform[1] -= waveform[1].mean()
    waveform[1] *= 0.1 / np.abs(waveform[1]).max()
    with torch.inference_mode():
        mel = encoder.log_mel(torch.from_numpy(waveform).float()).mT[:, 100:103]
        features = encoder(torch.from_numpy(waveform).float())
    np.testing.assert_allclose(mel, expected["log_mel"], atol=1e-3)
    np.testing.assert_allclose(features.mean(1), expected["embedding"], atol=1e-4)


@pytest.mark.parametrize("prefix", ["module.audio_branch.", "audio_branch.", ""])
def test_files_of_other_code_bases_have_other_prefixes(original, prefix):
    theirs = "audio_encoder.base.htsat."
    renamed = {key.replace(theirs, prefix): value for key, value in original.items() if key.startswith(theirs)}
    expected, converted = convert_htsat(original)[0], convert_htsat(renamed)[0]
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[key], expected[key]) for key in expected)


def test_mel_filters_in_the_file_replace_ours(original, tmp_path):
    name = "audio_encoder.base.htsat.logmel_extractor.melW"
    torch.save({**original, name: torch.full((129, 16), 0.5)}, tmp_path / "a.pth")
    encoder = tiny(weights=str(tmp_path / "a.pth"))
    encoder.load_weights()
    assert (encoder.log_mel.filters == 0.5).all()
    assert (tiny().state_dict()["log_mel.filters"] != 0.5).any()  # saved with a trained model
    torch.save({**original, name: torch.zeros(513, 16)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"mel filters: found \[513, 16\], expected \[129, 16\]"):
        encoder.load_weights()


@pytest.mark.parametrize("seconds", [10.0, 3.2])
def test_front_end_equals_the_feature_extractor_of_transformers(seconds):
    """Within 0.01 dB where there is more than -60 dB of the loudest band, for noise with a steep spectrum; short inputs
    are repeated and padded."""
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(frequency_min=50, frequency_max=14000, truncation="rand_trunc")
    waveform = np.cumsum(np.random.default_rng(0).standard_normal(round(seconds * 48000)))
    waveform = (0.1 * waveform / np.abs(waveform).max()).astype(np.float32)
    expected = extractor(waveform, sampling_rate=48000, return_tensors="np")["input_features"][0, 0]
    window = input_windows(torch.from_numpy(waveform)[None], FrontEnd())[0]
    found = log_mel_of(FrontEnd())(window)[0].T.numpy()
    assert found.shape == expected.shape == (1001, 64)
    loud = expected > expected.max() - 60
    assert loud.mean() > 0.5
    np.testing.assert_allclose(found[loud], expected[loud], atol=0.01)


def test_average_over_time_is_the_embedding_of_clap():
    encoder = tiny()
    with torch.inference_mode():
        features = encoder(noise(2, 1, 16000))
        image = encoder.log_mel(noise(2, 1, 16000)[:, 0]).mT[:, None]
        pooled = encoder.network(input_features=image).pooler_output
    assert features.shape == (2, 32, 16)
    torch.testing.assert_close(features.mean(1), pooled)


def test_longer_inputs_are_windows_evenly_spread_and_averaged():
    encoder, waveform = tiny(), noise(2, 28000)  # 3.5 s for windows of 2 s
    with torch.inference_mode():
        features = encoder(waveform)
        first, last = encoder(waveform[:, :16000]), encoder(waveform[:, -16000:])
        assert encoder(waveform[:, :16050]).shape[1] == 32  # less than a frame too long
    torch.testing.assert_close(features.mean(1), (first + last).mean(1) / 2)


def test_the_microsoft_release_hears_ten_seconds_in_two_windows():
    windows = input_windows(noise(1, 441000), RELEASES["microsoft"])
    assert windows.shape == (1, 2, 7 * 44100)
    torch.testing.assert_close(windows[0, 1], noise(1, 441000)[0, 3 * 44100 :])
    assert input_windows(torch.ones(1, 100000), RELEASES["microsoft"]).all()  # repeated until full


def test_a_tone_keeps_its_pitch_when_resampled():
    encoder = tiny(sampling_rate=32000)
    seconds = torch.arange(32000) / 32000
    resampled = encoder.resampler(torch.sin(2 * torch.pi * 440 * seconds)[None])[0]
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(8000) / 8000)
    torch.testing.assert_close(resampled[100:-100], expected[100:-100], atol=2e-3, rtol=0)


def test_channels_are_encoded_apart():
    encoder, mixture = tiny(n_channels=2), noise(2, 3, 9000)
    with torch.inference_mode():
        features = encoder(mixture)
        apart = [encoder(mixture[:, channel]) for channel in range(2)]
    assert features.shape[-1] == encoder.dim == 32
    torch.testing.assert_close(features, torch.cat(apart, dim=-1))
    with pytest.raises(InputError, match="1 channels, expected at least 2"):
        encoder(mixture[:, :1])


@pytest.mark.parametrize("whole", [False, True])
def test_weights_of_transformers_from_a_folder(tmp_path, whole):
    from safetensors.torch import save_file

    saved = {key: torch.randn_like(value.float()) for key, value in tiny().network.state_dict().items()}
    saved = {key: value for key, value in saved.items() if not key.endswith("relative_position_index")}
    prefix = "audio_model." if whole else ""  # as ClapModel or as ClapAudioModel saves
    more = {"text_model.a": torch.zeros(1), "audio_projection.a": torch.zeros(1)} if whole else {}
    save_file({**{prefix + key: value for key, value in saved.items()}, **more}, tmp_path / "model.safetensors")
    encoder = tiny(weights=str(tmp_path))
    encoder.load_weights()
    state = encoder.network.state_dict()
    assert all(torch.equal(state[key].float(), value.to(state[key].dtype).float()) for key, value in saved.items())


def test_weights_that_cannot_be_loaded_are_refused(tmp_path, monkeypatch, original):
    import huggingface_hub

    with pytest.raises(InputError, match=r"found neither file, expected model\.safetensors or pytorch_model\.bin"):
        tiny(weights=str(tmp_path)).load_weights()
    with pytest.raises(InputError, match="no such file"):
        tiny(weights="downloads/CLAP_weights_2023.pth").load_weights()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"weights: laion/clap-htsat-unfused: .*none from the hub"):
        tiny(weights="laion/clap-htsat-unfused").load_weights()
    torch.save(original, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"key audio_encoder.*expected \[\d"):
        tiny(weights=str(tmp_path / "a.pth"), dim=16).load_weights()
    torch.save({"blocks.0.attn.qkv.weight": torch.zeros(6, 2)}, tmp_path / "m2d.pth")
    with pytest.raises(InputError, match=r"m2d.pth: found keys blocks.0.attn.qkv.weight, expected HTS-AT's"):
        tiny(weights=str(tmp_path / "m2d.pth")).load_weights()


def test_top_layers_are_the_last_stages_and_the_norm():
    encoder = tiny()
    network = encoder.network.audio_encoder
    assert encoder.n_layers == 2
    assert encoder.top_layers(1) == [network.layers[1], network.norm]
    with pytest.raises(InputError, match=r"found 3, expected 0 \.\. 2"):
        encoder.top_layers(3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"release": "laoin"}, "release: found laoin, expected laion"),
        ({"front_end": {"n_mel": 4}}, "key n_mel: found an unknown key, expected n_mels"),
        ({"heads": (2,)}, "heads: found 1 numbers"),
        ({"heads": (2, 5)}, "divisors of the stages' widths"),
        ({"image_size": 72}, "72 for 16 mel bands"),
        ({"image_size": 32}, "32 for 251 frames"),
        ({"window_size": 3}, "3 for 8 patches"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        tiny(**wrong)


@pytest.mark.parametrize(
    ("trainable", "moved"),
    [
        ("head", set()),
        ("1_blocks", {"norm", "layers.1"}),
        ("all", {"norm", "layers.0", "layers.1", "patch_embed", "batch_norm"}),
    ],
)
def test_which_parameters_and_statistics_move(trainable, moved):
    """The encoder's batch norm over the mel bands stays as in evaluation where it is frozen; dropout does too."""
    torch.manual_seed(0)
    head = {"kind": "track", "track_dim": 8, "hidden_dim": 8}
    tagger = Tagger({"kind": "htsat", "dropout": 0.5, **TINY}, head, n_labels=4, trainable=trainable).train()
    before = {key: value.clone() for key, value in tagger.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in tagger.parameters() if p.requires_grad], lr=0.1)
    tagger(noise(4, 1, 16000)).square().sum().backward()
    assert all(p.grad is not None for p in tagger.parameters() if p.requires_grad)
    optimizer.step()
    changed = {key for key, value in tagger.state_dict().items() if not torch.equal(value, before[key])}
    moved = {"head"} | {f"encoder.network.audio_encoder.{part}" for part in moved}
    assert all(any(key.startswith(f"{part}.") for part in moved) for key in changed)
    assert all(any(key.startswith(f"{part}.") for key in changed) for part in moved)
    statistics = {key for key in changed if "running" in key and key.startswith("encoder")}
    assert bool(statistics) == (trainable == "all")
    torch.nn.SyncBatchNorm.convert_sync_batchnorm(tagger)  # as several processes train: other modules
    assert tagger.train().encoder.network.audio_encoder.batch_norm.training == (trainable == "all")
    dropouts = [m for m in tagger.encoder.modules() if isinstance(m, torch.nn.Dropout)]
    assert any(m.training for m in dropouts) == (trainable != "head")


def test_an_average_of_checkpoints_is_one_of_the_weights():
    """ESPnet's average divides numbers with a point alone: integers, the indices of positions, come as a sum."""
    head = {"kind": "track", "track_dim": 8, "hidden_dim": 8}
    conf = {"kind": "htsat", **TINY}
    epochs = [Tagger(conf, head, n_labels=4).eval() for _ in range(2)]
    states = [tagger.state_dict() for tagger in epochs]
    summed = {key: value + states[1][key] for key, value in states[0].items()}
    average = {key: value / 2 if value.is_floating_point() else value for key, value in summed.items()}
    assert any(key.endswith("relative_position_index") for key in average)
    tagger, expected = (Tagger(conf, head, n_labels=4).eval() for _ in range(2))
    tagger.load_state_dict(average)
    expected.load_state_dict({key: states[0][key] if "index" in key else value for key, value in average.items()})
    with torch.inference_mode():
        assert torch.equal(tagger(noise(1, 1, 16000)), expected(noise(1, 1, 16000)))
    tagger.load_state_dict(states[0])
    assert all(torch.equal(value, states[0][key]) for key, value in tagger.state_dict().items())
