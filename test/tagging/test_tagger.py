"""M2D taggers against the official ones; freezing."""

import numpy as np
import pytest
import torch

from s5.checkpoints import load_official
from s5.errors import InputError
from s5.tagging import M2DTagger

SMALL = {"sampling_rate": 16000, "input_size": (80, 101), "dim": 8, "depth": 3, "heads": 2}


def small(**changes):
    torch.manual_seed(0)
    head = {"track_dim": 8, "hidden_dim": 8}
    return M2DTagger(**{"n_labels": 4, "n_channels": 2, "encoder": SMALL, "head": head, **changes})


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


@pytest.mark.parametrize(
    ("trainable", "moved"),
    [
        ("head", {"head"}),
        ("1_blocks", {"head", "encoder.norm", "encoder.blocks.2"}),
        ("2_blocks", {"head", "encoder.norm", "encoder.blocks.1", "encoder.blocks.2"}),
    ],
)
def test_what_is_frozen_stays_as_it_was(trainable, moved):
    tagger = small(trainable=trainable).train()
    before = {k: v.clone() for k, v in tagger.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in tagger.parameters() if p.requires_grad], lr=0.1)
    tagger(torch.randn(4, 2, 16000)).square().sum().backward()
    optimizer.step()
    changed = {k for k, v in tagger.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and all(any(k.startswith(m) for m in moved) for k in changed)
    assert all(any(k.startswith(m) for k in changed) for m in moved)


def test_frozen_encoder_keeps_no_gradient_and_no_dropout():
    tagger = small(trainable="head", encoder={**SMALL, "dropout": 0.5}).train()
    mixture = torch.randn(2, 2, 16000)
    with torch.no_grad():
        first, second = tagger.encoder(mixture[:, 0]), tagger.encoder(mixture[:, 0])
    torch.testing.assert_close(first, second)
    assert not any(p.requires_grad for p in tagger.encoder.parameters())


def test_refusals():
    with pytest.raises(InputError, match=r"head, 0_blocks \.\. 3_blocks or all"):
        small(trainable="4_blocks")
    with pytest.raises(InputError, match="key dept: found an unknown key, expected depth"):
        small(encoder={"dept": 3})
    with pytest.raises(InputError, match="1 channels, expected at least 2"):
        small()(torch.randn(1, 1, 16000))
