"""Taggers: M2D's against the official ones, parts combined by name, freezing."""

import numpy as np
import pytest
import torch

from s5.checkpoints import load_official
from s5.tagging import M2DTagger, Tagger
from s5.utils.errors import InputError

SMALL = {"sampling_rate": 16000, "input_size": (80, 101), "dim": 8, "depth": 3, "heads": 2}


def small(**changes):
    torch.manual_seed(0)
    head = {"track_dim": 8, "hidden_dim": 8}
    return M2DTagger(**{"n_labels": 4, "n_channels": 2, "encoder": SMALL, "head": head, **changes})


@pytest.mark.slow
@pytest.mark.parametrize("n_channels", [1, 4])
def test_equals_the_official_tagger(golden, official_weights, n_channels):
    expected = np.load(golden / "m2dat.npz")
    tagger = M2DTagger(n_channels=n_channels).eval()
    load_official(tagger, official_weights(f"m2dat_{n_channels}c"))
    for seconds in (10, 4):
        random = np.random.RandomState(int(expected["seed"]) + seconds)
        mixture = torch.from_numpy(0.1 * random.standard_normal((2, 4, seconds * 32000))).float()
        with torch.inference_mode():
            logits = tagger(mixture).numpy()
            embedding = tagger.encoder(mixture[:1, 0]).mean(1)[0, :64].numpy()
        name = f"m2dat_{n_channels}c_{seconds}s"
        np.testing.assert_allclose(logits, expected[f"{name}_logits"], atol=1e-3)
        np.testing.assert_allclose(embedding, expected[f"{name}_embedding_mean"], atol=1e-3)


@pytest.mark.parametrize("seconds", [0.3, 1.0, 1.02, 2.5])
def test_any_length_of_more_than_a_patch(seconds):
    steps = small().eval().encoder(torch.randn(1, int(16000 * seconds))).shape[1]
    assert steps == pytest.approx(seconds / 0.16, abs=2)


PARTS = {
    "fc": ([], {"kind": "track", "track_dim": 8, "hidden_dim": 8}),
    "bigru": ([], {"kind": "bigru", "rnn_dim": 8, "track_dim": 8, "hidden_dim": 8}),
    "multihot": ([], {"kind": "multihot"}),
    "both": ([{"kind": "rolloff", "width": 8}, {"kind": "chroma", "width": 8}], {"kind": "dual_path", "width": 8}),
    "fc_chroma": ([{"kind": "chroma", "width": 8}], {"kind": "track", "track_dim": 8, "hidden_dim": 8}),
}


def combined(name="both", **changes):
    torch.manual_seed(0)
    features, head = PARTS[name]
    encoder = {"kind": "m2d", "n_channels": 2, **SMALL}
    return Tagger(**{"encoder": encoder, "features": features, "head": head, "n_labels": 4, **changes})


@pytest.mark.parametrize("name", PARTS)
def test_parts_make_a_tagger(name):
    tagger = combined(name).eval()
    with torch.inference_mode():
        logits = tagger(0.1 * torch.randn(2, 4, 16000))
    assert logits.shape == ((2, 4) if tagger.multi_hot else (2, 3, 5))


def test_a_combined_tagger_with_the_baselines_parts_is_the_m2d_tagger():
    parts, whole = combined("fc").eval(), small().eval()
    mixture = 0.1 * torch.randn(2, 4, 16000)
    assert list(parts.state_dict()) == list(whole.state_dict())
    parts.load_state_dict(whole.state_dict())
    assert torch.equal(parts(mixture), whole(mixture))


def test_auxiliary_features_hear_the_reference_channel():
    tagger = combined().eval()
    mixture = 0.1 * torch.randn(1, 4, 16000)
    seen = []
    tagger.features[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    tagger(mixture)
    assert torch.equal(seen[0], mixture[:, 0])


def test_the_2025_baselines_names_load():
    """Its backbone is that of 2026; BatchNorm and linear layer are called head_norm and head."""
    tagger = combined("multihot").eval()
    names = {"encoder.": "model.backbone.", "head.norm.": "model.head_norm.", "head.linear.": "model.head."}
    official = {}
    for key, value in tagger.state_dict().items():
        ours = next(prefix for prefix in names if key.startswith(prefix))
        official[names[ours] + key.removeprefix(ours)] = torch.randn_like(value) if value.is_floating_point() else value
    load_official(tagger, official)
    loaded = tagger.state_dict()
    assert torch.equal(loaded["head.linear.weight"], official["model.head.weight"])
    assert torch.equal(loaded["head.norm.running_mean"], official["model.head_norm.running_mean"])
    assert torch.equal(loaded["encoder.blocks.0.norm1.weight"], official["model.backbone.blocks.0.norm1.weight"])


def step(tagger, mixture):
    """One step of training; keys of the state that it moved."""
    before = {k: v.clone() for k, v in tagger.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in tagger.parameters() if p.requires_grad], lr=0.1)
    tagger(mixture).square().sum().backward()
    optimizer.step()
    return {k for k, v in tagger.state_dict().items() if not torch.equal(v, before[k])}


STEM = {**SMALL, "stem": [4, 4], "contrast": True, "dropout": 0.5}


@pytest.mark.parametrize(
    ("trainable", "moved"),
    [
        ("head", set()),
        ("0_blocks", {"encoder.norm"}),
        ("1_blocks", {"encoder.norm", "encoder.blocks.2"}),
        ("2_blocks", {"encoder.norm", "encoder.blocks.1", "encoder.blocks.2"}),
        (
            "all",
            {"encoder.norm", "encoder.patch_embed", "encoder.cls_token", "encoder.pos_embed"}
            | {f"encoder.blocks.{i}" for i in range(3)},
        ),
    ],
)
def test_which_parameters_and_statistics_move(trainable, moved):
    """The encoder has batch norms (in the stem) and dropout: both stay as in evaluation where it is frozen."""
    moved = moved | {"head.mlp", "head.classifier", "head.norm", "features.0.mlp", "features.1.cnn"}
    tagger = combined(encoder={"kind": "m2d", "n_channels": 2, **STEM}, trainable=trainable).train()
    changed = step(tagger, 0.1 * torch.randn(4, 2, 16000))
    assert all(any(k.startswith(m + ".") or k == m for m in moved) for k in changed)
    assert all(any(k.startswith(m) for k in changed) for m in moved)
    statistics = {k for k in changed if "running" in k and k.startswith("encoder")}
    assert bool(statistics) == (trainable == "all")


def saved(tagger, mixture):
    """Bytes that a training step keeps for the backward pass, weights left out."""
    kept, weights = {}, {p.data_ptr() for p in tagger.parameters()}

    def pack(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        tagger(mixture)
    return sum(kept.values())


def test_a_frozen_encoder_keeps_no_graph():
    mixture = 0.1 * torch.randn(4, 2, 16000)
    tagger = combined("fc", trainable="head").train()
    with torch.no_grad():
        features = tagger.encoder(mixture)
    assert saved(tagger, mixture) == saved(tagger.head, features)
    assert not any(p.requires_grad for p in tagger.encoder.parameters())
    one, two, whole = (saved(combined("fc", trainable=t).train(), mixture) for t in ("1_blocks", "2_blocks", "all"))
    block = two - one
    assert one < 1.3 * block + saved(tagger, mixture) and whole > 2.9 * block


def test_a_frozen_encoder_has_no_dropout_but_its_augmentation():
    changes = {"dropout": 0.5, "augment": {"filter_db": 6}}
    tagger = combined("fc", encoder={"kind": "m2d", "n_channels": 2, **SMALL, **changes}, trainable="head").train()
    mixture = 0.1 * torch.randn(2, 2, 16000)
    assert tagger.encoder.augment.training and not tagger.encoder.blocks[0].dropout.training
    assert not torch.equal(tagger.encoder(mixture), tagger.encoder(mixture))
    tagger.encoder.augment.eval()
    assert torch.equal(tagger.encoder(mixture), tagger.encoder(mixture))
    assert not tagger.eval().encoder.augment.training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": {"kind": "bigrus"}}, r"head: key kind: found bigrus, expected bigru"),
        ({"head": {}}, r"head: key kind: found nothing, expected one of track, bigru, multihot, dual_path"),
        ({"encoder": {"kind": "m3d"}}, r"encoder: key kind: found m3d, expected m2d"),
        ({"head": {"kind": "track", "rnn_dim": 3}}, r"head: key rnn_dim: found an unknown key"),
        ({"head": {"kind": "track", "n_classes": 3}}, r"head: key n_classes: found an unknown key"),
        ({"features": [{"kind": "chroma", "n_fft": "long"}]}, r"features\.0: key n_fft: found 'long'"),
        ({"features": [{"kind": "chroma"}, {"roll_percent": 0.9}]}, r"features\.1: key kind: found nothing, expected"),
        ({"trainable": "2_block"}, r"trainable: found 2_block, expected head, 0_blocks \.\. 3_blocks or all"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(InputError, match=message):
        combined(**changes)


def test_refusals():
    with pytest.raises(InputError, match=r"head, 0_blocks \.\. 3_blocks or all"):
        small(trainable="4_blocks")
    with pytest.raises(InputError, match="key dept: found an unknown key, expected depth"):
        small(encoder={"dept": 3})
    with pytest.raises(InputError, match="1 channels, expected at least 2"):
        small()(torch.randn(1, 1, 16000))


def test_an_official_tagger_of_other_labels_or_channels_is_refused():
    """One line that names the key and both shapes."""
    official = {
        f"model.{k}".replace("encoder.", "m2d.backbone."): v for k, v in small(n_labels=18).state_dict().items()
    }
    load_official(small(n_labels=18), official)
    with pytest.raises(InputError) as refused:
        load_official(small(), official)
    assert str(refused.value) == "checkpoint: key head.tracks.0.3.weight: found [19, 8], expected [5, 8]"
    with pytest.raises(InputError, match=r"key head\.m2d_out_norm\.running_mean: found \[80\], expected \[40\]"):
        load_official(small(n_labels=18, n_channels=1), official)


def test_frame_posteriors():
    torch.manual_seed(0)
    mixture = 0.1 * torch.randn(2, 4, 16000)
    conf = {"encoder": {"kind": "m2d", **SMALL}, "n_labels": 4, "features": [{"kind": "chroma"}]}
    linear = Tagger(head={"kind": "multihot"}, **conf).eval()
    torch.nn.init.normal_(linear.head.linear.weight)
    with torch.inference_mode():
        frames = linear.frame_posterior(mixture)
        assert frames.shape == (2, 6, 4)
        # The mean of a linear head's frames is what it says of the recording.
        torch.testing.assert_close(frames.logit().mean(1), linear(mixture), rtol=1e-4, atol=1e-4)
        tracks, short = small().eval(), mixture[..., :2400]  # one frame
        expected = tracks(short).softmax(-1)[..., :4].amax(1)
        torch.testing.assert_close(tracks.frame_posterior(short), expected[:, None])
