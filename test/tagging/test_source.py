"""Source taggers: one label or silence for one waveform, with or without object features."""

import pytest
import torch

from s5.tagging.source import AttentiveStatistics, SourceTagger
from s5.utils.errors import InputError

ENCODER = {"kind": "m2d", "sampling_rate": 16000, "input_size": [80, 101], "dim": 8, "depth": 2, "heads": 2}


def small(**changes):
    torch.manual_seed(0)
    return SourceTagger(**{"encoder": ENCODER, "n_labels": 4, "embedding_dim": 8, "scale": 20.0, **changes}).eval()


def noise(*shape):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_logits_are_cosines_times_the_scale():
    tags = small()(noise(3, 16000))
    embedding, weight = (torch.nn.functional.normalize(x) for x in (tags.embedding, small().weight))
    assert tags.logits.shape == (3, 4) and tags.active.shape == (3,)
    torch.testing.assert_close(tags.logits, 20 * embedding @ weight.T)


def test_the_posterior_shares_what_is_active_among_the_classes():
    tags = small()(noise(3, 16000))
    posterior = tags.posterior()
    torch.testing.assert_close(posterior.sum(-1), torch.ones(3))
    torch.testing.assert_close(posterior[:, -1], 1 - tags.active.sigmoid())
    torch.testing.assert_close(posterior[:, :-1].log().diff(), tags.logits.diff())


def test_a_frozen_encoder_stays_in_evaluation_without_a_gradient():
    network = small().train()
    network(noise(3, 16000)).logits.sum().backward()
    assert not network.encoder.training and network.waveform_path.training
    assert all(p.grad is None for p in network.encoder.parameters())
    network = small(trainable="1_blocks").train()
    network(noise(3, 16000)).logits.sum().backward()
    assert 0 < sum(p.grad is not None for p in network.encoder.parameters()) < len([*network.encoder.parameters()])


def test_object_features_change_the_tags_of_a_network_with_a_path_for_them():
    network = small(object_dim=5, object_embedding_dim=6)
    waveform, objects = noise(2, 16000), noise(2, 5, 7, 3)
    tags = network(waveform, objects)
    assert tags.embedding.shape == (2, 14) and not torch.equal(tags.logits, network(waveform, -objects).logits)
    # They are a set: a permutation of frames and bands is the same object.
    order = torch.randperm(21, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        tags.logits, network(waveform, objects.flatten(2)[..., order].unflatten(2, (7, 3))).logits
    )
    with pytest.raises(InputError, match="objects: found none"):
        network(waveform)


def test_equal_weights_give_mean_and_standard_deviation():
    pool = AttentiveStatistics(3, 2)
    torch.nn.init.zeros_(pool.weight[-1].weight)
    features = noise(2, 9, 3)
    mean, deviation = pool(features).chunk(2, dim=-1)
    torch.testing.assert_close(mean, features.mean(1))
    torch.testing.assert_close(deviation, features.std(1, correction=0))


def test_the_class_does_not_depend_on_the_level_but_silence_may():
    network, waveform = small(), noise(2, 16000)
    loud, soft = network(waveform), network(0.01 * waveform)
    torch.testing.assert_close(loud.logits, soft.logits, atol=1e-4, rtol=1e-4)
    step = (soft.active - loud.active).detach()
    torch.testing.assert_close(step, (-40 * network.active.weight[0, -1]).detach().expand(2), atol=0.02, rtol=0.01)
    assert torch.isfinite(torch.stack([*network(torch.zeros(1, 16000)).posterior()])).all()


def test_an_encoder_of_several_channels_is_refused():
    with pytest.raises(InputError, match="encoder: n_channels: found 2"):
        small(encoder={**ENCODER, "n_channels": 2})
