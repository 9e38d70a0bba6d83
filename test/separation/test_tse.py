"""TSE: shapes, silence, the equality of slots, what clues change, and start weights of USS."""

import pytest
import torch
from torch import nn

from s5.separation import memory_format
from s5.separation.losses import ca_pi_sdr, sdr
from s5.separation.tse import TSE
from s5.utils.errors import InputError

SMALL = {
    "n_labels": 3,
    "n_fft": 64,
    "hop_length": 32,
    "bands": [[4, 2], [3, 8]],
    "frames": 2,
    "dim": 8,
    "n_blocks": 1,
    "heads": 2,
    "attention_dim": 8,
    "ffn_dim": 8,
    "condition_dim": 8,
}
KINDS = {
    "joint": {"slot_blocks": 1},
    "joint, sfc": {"encoder": "sfc", "enrolment_blocks": 0, "enrolment_planes": ["magnitude"]},
    "single": {"joint": False, "slot_blocks": 1},
    "single, bins": {"joint": False, "encoder": "bins", "frames": 1, "output": "both"},
}


def small(**changes):
    torch.manual_seed(0)
    return memory_format(TSE(**{**SMALL, **changes}))


def busy(**changes):
    """A network whose conditioning is no longer what it starts as, which is none."""
    network = small(**changes)
    for name, value in network.named_parameters():
        if "film" in name or "to_clue" in name:
            nn.init.normal_(value, std=0.3)
    return network.eval()


def query(*labels):
    return torch.eye(4)[torch.tensor([labels])][..., :3]


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def enrolments(*given):
    return noise(1, 3, 640, seed=2) * torch.tensor(given)[:, None]


@pytest.mark.parametrize("kind", KINDS)
def test_slots_with_neither_label_nor_enrolment_are_zero(kind):
    network, mixture = busy(**KINDS[kind]), noise(1, 4, 640)
    for labels, given, active in (
        ((0, 3, 3), (0.0, 1.0, 0.0), [True, True, False]),
        ((0, 3, 3), (0.0, 0.0, 0.0), [True, False, False]),
        ((3, 3, 3), (0.0, 0.0, 0.0), [False] * 3),
    ):
        out = network(mixture, query(*labels), enrolments(*given))
        assert out.shape == (1, 3, 640) and out.dtype == torch.float32
        assert out.ne(0).any(-1)[0].tolist() == active
    assert not network(torch.zeros(1, 4, 640), query(0, 1, 2), enrolments(0.0, 0.0, 0.0)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_no_enrolment_is_an_enrolment_of_zeros(kind):
    network, mixture = busy(**KINDS[kind]), noise(1, 4, 640)
    torch.testing.assert_close(
        network(mixture, query(0, 1, 3)), network(mixture, query(0, 1, 3), torch.zeros(1, 3, 640))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_permutation_of_the_slots_permutes_the_outputs(kind):
    network, mixture, enrolled = busy(**KINDS[kind]), noise(1, 4, 640), enrolments(1.0, 1.0, 0.0)
    out = network(mixture, query(0, 3, 2), enrolled)
    scale = float(out.detach().abs().max())
    assert (out[:, 0] - out[:, 2]).abs().max() > 0.01 * scale
    for order in ([2, 1, 0], [1, 0, 2], [1, 2, 0]):
        found = network(mixture, query(0, 3, 2)[:, order], enrolled[:, order])
        torch.testing.assert_close(found, out[:, order], rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_in_a_batch_is_what_it_is_alone(kind):
    network, mixture = busy(**KINDS[kind]), noise(3, 4, 640)
    labels = torch.cat((query(0, 3, 2), query(3, 3, 3), query(1, 1, 3)))
    enrolled = noise(3, 3, 640, seed=2) * torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 0]])[..., None]
    out = network(mixture, labels, enrolled)
    for i in range(3):
        alone = network(mixture[i : i + 1], labels[i : i + 1], enrolled[i : i + 1])
        torch.testing.assert_close(out[i : i + 1], alone, rtol=1e-3, atol=1e-5 * float(out.detach().abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_gain_scales_the_output_if_the_enrolment_follows(kind):
    network, mixture, enrolled = busy(**KINDS[kind]), noise(1, 4, 640), enrolments(1.0, 0.0, 1.0)
    out = network(mixture, query(0, 1, 3), enrolled)
    loud = network(100 * mixture, query(0, 1, 3), 100 * enrolled)
    torch.testing.assert_close(100 * out, loud, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_both_clues_matter(kind):
    network, mixture, enrolled = busy(**KINDS[kind]), noise(1, 4, 640), enrolments(1.0, 1.0, 1.0)
    out = network(mixture, query(0, 1, 2), enrolled)
    for other in (network(mixture, query(1, 1, 2), enrolled), network(mixture, query(0, 1, 2), enrolled[:, [1, 0, 2]])):
        assert (out[:, 0] - other[:, 0]).abs().max() > 1e-3 * out.abs().max()


def test_slots_alone_do_not_know_of_each_other_and_slots_together_do():
    mixture, enrolled = noise(1, 4, 640), enrolments(1.0, 0.0, 1.0)
    for joint in (False, True):
        network = busy(joint=joint)
        one, other = (network(mixture, query(0, 1, label), enrolled)[:, 0] for label in (2, 3))
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5) is not joint


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [1.0, 0.0])
def test_the_same_weights_train_with_and_without_enrolments(kind, given):
    network, mixture = small(**KINDS[kind], checkpointing=True).train(), noise(2, 4, 640)
    enrolled = given * noise(2, 3, 640, seed=2)
    out = network(mixture, query(0, 1, 0).expand(2, 3, 3), enrolled)
    loss, _ = ca_pi_sdr(out, noise(2, 3, 640, seed=3), torch.tensor([[0, 1, 0]] * 2))
    loss.mean().backward()
    for name, value in network.named_parameters():
        assert value.grad is not None and torch.isfinite(value.grad).all(), name
        fed = "enrolment" in name or name.startswith(("pooling", "to_embedding"))
        assert value.grad.any() or (fed and not given) or not name.startswith(("backbone", "decoder")), name


def test_bfloat16():
    network, mixture = busy(), noise(1, 4, 640)
    full = network(mixture, query(0, 1, 2), enrolments(1.0, 0.0, 1.0))
    with torch.autocast("cpu", torch.bfloat16):
        half = network(mixture, query(0, 1, 2), enrolments(1.0, 0.0, 1.0))
    assert half.dtype == torch.float32 and sdr(half, full).min() > 20


@pytest.mark.parametrize("joint", [True, False])
def test_clues_in_time(joint):
    mixture, labels = noise(1, 4, 640), query(0, 1, 3)
    network, frames = busy(joint=joint, time_film=True), torch.rand(1, 7, 3, generator=torch.Generator().manual_seed(0))
    out = network(mixture, labels, frames=frames)
    first, other = frames.clone(), frames.clone()
    first[..., 0] += 1
    other[..., 2] += 1  # nobody asks for this class
    changed = (network(mixture, labels, frames=first) - out).abs().amax((0, 2))
    assert changed[0] > 1e-3 * out.abs().max()
    assert joint or not changed[1]  # slot by slot, a slot sees its own class alone
    assert torch.equal(network(mixture, labels, frames=other), out)
    with pytest.raises(InputError, match=r"frames: found none, expected \[1, frames, 3\]"):
        network(mixture, labels)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((noise(1, 2, 640), query(0, 1, 2)), "mixture: found 2 channels, expected 4"),
        ((noise(1, 4, 640), query(0, 1)), "label_vector: found 2 slots"),
        ((noise(1, 4, 640), query(0, 1, 2), noise(1, 3, 600)), "enrolment: found shape"),
    ],
)
def test_inputs_of_other_sizes_are_refused(inputs, message):
    with pytest.raises(InputError, match=message):
        small()(*inputs)


def test_planes_of_an_enrolment_have_one_channel():
    with pytest.raises(InputError, match="enrolment_planes"):
        small(enrolment_planes=["intensity"])
