"""Locoformer: equality with TF-Locoformer, shapes, silence, permutations, precision, and that it does what the query
says."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from s5.separation import Locoformer, memory_format
from s5.separation.locoformer import TFDualPath
from s5.separation.locoformer.blocks import PathConfig, RMSGroupNorm, rotations
from s5.separation.locoformer.front_ends import BinDecoder, band_edges, input_planes
from s5.separation.locoformer.network import occurrence
from s5.separation.losses import ca_pi_sdr
from s5.separation.stft import istft
from s5.utils.errors import InputError

SMALL = {
    "n_labels": 3,
    "n_fft": 64,
    "hop_length": 32,
    "bands": [[4, 2], [3, 8]],
    "frames": 2,
    "dim": 8,
    "n_blocks": 2,
    "heads": 2,
    "attention_dim": 8,
    "ffn_dim": 8,
    "condition_dim": 8,
}
TINY = {"path": ["ffn", "attention"], "kernel": 3, "ffn": "glu", "norm": "layer"}
KINDS = {
    "bands": {},
    "bands, glu": TINY,
    "sfc": {"encoder": "sfc", "output": "both"},
    "bins": {"encoder": "bins", "frames": 1, "output": "mapping"},
    "prompt": {"conditioning": "prompt", "slot_blocks": 1},
    "passes": {"passes": 3},
    "passes, sfc, prompt": {"passes": 2, "encoder": "sfc", "conditioning": "prompt"},
    "passes, bins": {"passes": 2, "encoder": "bins", "frames": 1},
    "film, slot blocks": {"slot_blocks": 1, "decoder_dim": 12, "planes": ["magnitude", "intensity"]},
}


def small(**changes):
    torch.manual_seed(0)
    return memory_format(Locoformer(**{**SMALL, **changes}))


def busy(**changes):
    """A network whose conditioning is no longer what it starts as, which is none."""
    network = small(**changes)
    for name, value in network.named_parameters():
        if "film" in name or "to_slot" in name or "to_estimate" in name:
            nn.init.normal_(value, std=0.3)
    return network.eval()


def query(*labels):
    return torch.eye(4)[torch.tensor([labels])][..., :3]


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def public_names(state):
    """TF-Locoformer's weights by the names that they have here."""
    ours = {}
    for name, value in state.items():
        for old, new in (
            *(("freq_path.", "frequency."), ("frame_path.", "time."), ("conv1d", "conv"), ("deconv1d", "back")),
            *(("ffn_norm.1", "norms.0"), ("attn_norm", "norms.1"), ("ffn_norm.0", "norms.2")),
            *(("ffn.1", "parts.0"), ("attn.", "parts.1."), ("ffn.0", "parts.2"), ("aggregate_heads.0", "out")),
        ):
            name = name.replace("deconv1d", "back").replace(old, new)
        name = name.replace("conv.0.", "encoder.conv.").replace("conv.1.", "encoder.norm.")
        ours[name] = value.unsqueeze(2) if value.dim() == 3 else value
    return ours


def test_the_blocks_are_those_of_tf_locoformer(golden, official_weights):
    known = np.load(golden / "locoformer.npz")
    state = public_names({k: torch.from_numpy(v) for k, v in official_weights("locoformer").items()})
    path = PathConfig(("ffn", "attention", "ffn"), heads=2, attention_dim=8, ffn_dim=12, kernel=4)
    backbone = TFDualPath(2, list(range(10)), 8, 2, path, "bins").eval()
    decoder = BinDecoder(8, 4).eval()
    decoder.load_state_dict({k: state.pop(k) for k in ("deconv.weight", "deconv.bias")})
    backbone.load_state_dict(state)
    planes = torch.from_numpy(np.random.RandomState(0).standard_normal((2, 11, 9, 2)).astype(np.float32))
    found = []
    backbone.blocks[0].register_forward_hook(lambda *args: found.append(args[-1]))
    with torch.no_grad():
        output = decoder(backbone(planes)[0]).unflatten(-1, (2, 2)).permute(0, 3, 1, 2, 4)
    for name, value in (("block1", found[0]), ("output", output)):
        assert np.abs(value.numpy() - known[name]).max() < 1e-4 * np.abs(known[name]).max(), name


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient_and_silence_is_zero(kind, bf16):
    network = busy(**KINDS[kind]).train()
    mixture = noise(3, 4, 700)
    mixture[1] = 0
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = network(mixture, query(0, 3, 1).expand(3, 3, 3))
    out.square().sum().backward()
    assert out.shape == (3, 3, 700) and out.dtype == torch.float32
    assert torch.isfinite(out).all()
    assert not out[1].any() and not out[:, 1].any() and out[0, 0].any() and out[0, 2].any()
    for name, value in network.named_parameters():
        assert value.grad is not None and torch.isfinite(value.grad).all(), name
        assert value.grad.any() or name.startswith("estimate_encoder"), name  # there is none in the first pass


@pytest.mark.parametrize("conditioning", ["film", "prompt"])
def test_a_batch_without_sources_gives_zeros_and_trains(conditioning):
    network = small(conditioning=conditioning, slot_blocks=1)
    out = network(noise(2, 4, 640), query(3, 3, 3).expand(2, 3, 3))
    assert not out.any()
    out.sum().backward()
    assert not any(p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("length", [1, 17, 640, 1001])
@pytest.mark.parametrize("kind", KINDS)
def test_output_is_as_long_as_the_mixture(kind, length):
    out = busy(**KINDS[kind])(noise(1, 4, length), query(0, 1, 2))
    assert out.shape == (1, 3, length) and torch.isfinite(out).all()


@pytest.mark.parametrize("n_channels", [1, 2, 6])
@pytest.mark.parametrize("encoder", ["bands", "sfc", "bins"])
def test_any_number_of_channels(n_channels, encoder):
    network = busy(n_channels=n_channels, encoder=encoder, frames=1)
    mixture = noise(2, n_channels, 640)
    out = network(mixture, query(0, 1, 2).expand(2, 3, 3))
    assert out.shape == (2, 3, 640)
    for channel in range(n_channels):  # every one takes part
        other = mixture.clone()
        other[:, channel] += noise(2, 640, seed=2)
        assert not torch.allclose(network(other, query(0, 1, 2).expand(2, 3, 3)), out, rtol=1e-3)
    with pytest.raises(InputError, match=f"mixture: found 3 channels, expected {n_channels}"):
        network(noise(1, 3, 640), query(0, 1, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_permuted_queries_permute_the_outputs(kind):
    network, mixture = busy(**KINDS[kind]), noise(1, 4, 640)
    out = network(mixture, query(0, 3, 2))
    scale = float(out.detach().abs().max())
    assert (out[:, 0] - out[:, 2]).abs().max() > 0.01 * scale
    for order in ([2, 1, 0], [1, 0, 2], [1, 2, 0]):
        found = network(mixture, query(0, 3, 2)[:, order])
        torch.testing.assert_close(found, out[:, order], rtol=0, atol=1e-5 * scale)


def test_two_sources_of_one_label_are_told_apart_by_their_order():
    network, mixture = busy(), noise(1, 4, 640)
    out = network(mixture, query(0, 1, 0))
    assert (out[:, 0] - out[:, 2]).abs().max() > 0.01 * out.abs().max()
    found = network(mixture, query(1, 0, 0))  # first and second of the label stay in their order
    torch.testing.assert_close(found, out[:, [1, 0, 2]], rtol=0, atol=1e-5 * float(out.detach().abs().max()))
    assert occurrence(query(0, 3, 0))[0].tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_in_a_batch_is_what_it_is_alone(kind):
    network, mixture = busy(**KINDS[kind]), noise(3, 4, 640)
    labels = torch.cat((query(0, 3, 2), query(3, 3, 3), query(1, 1, 3)))
    out = network(mixture, labels)
    for i in range(3):
        torch.testing.assert_close(network(mixture[i : i + 1], labels[i : i + 1])[0], out[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_output_scales_with_the_mixture(kind):
    network, mixture = busy(**KINDS[kind]), noise(1, 4, 640)
    loud, quiet = (network(gain * mixture, query(0, 1, 2)) for gain in (1.0, 1e-3))
    torch.testing.assert_close(quiet, 1e-3 * loud, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_inference_and_bfloat16_agree(kind, monkeypatch):
    network, mixture = busy(**KINDS[kind]), noise(1, 4, 640)
    full = network(mixture, query(0, 1, 2)).detach()
    monkeypatch.setattr("s5.separation.locoformer.blocks._CHUNK", 500)  # rows a few at a time
    with torch.inference_mode():
        torch.testing.assert_close(network(mixture, query(0, 1, 2)), full, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(mixture, query(0, 1, 2))
    assert half.dtype == torch.float32
    assert 0 < (full - half).abs().max() < 0.1 * full.abs().max()


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["bands", "prompt"])
def test_checkpointing_changes_neither_output_nor_gradients(kind, bf16):
    gradients = []
    for checkpointing in (False, True):
        network = small(**KINDS[kind], checkpointing=checkpointing)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = network(noise(1, 4, 320), query(0, 1, 2))
        out.square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("kind", ["bands", "sfc", "bins", "prompt"])
def test_clues_in_time_reach_the_frames_that_they_belong_to(kind):
    network = busy(**{**KINDS[kind], "output": "mask"}, time_film=True)
    mixture, labels, clues = noise(1, 4, 2048), query(0, 3, 1), torch.zeros(1, 16, 3)
    plain = network(mixture, labels, clues)
    clues[:, :, 2] = 1  # nobody asks for this class
    assert torch.equal(network(mixture, labels, clues), plain)
    clues[:, 12:] = 3
    changed = (network(mixture, labels, clues) - plain).square().sum(1)[0]
    assert changed[1700:].mean() > 2 * changed[:1000].mean() > 0
    with pytest.raises(InputError, match=r"frames: found none, expected \[1, frames, 3\]"):
        network(mixture, labels)
    with pytest.raises(InputError, match=r"frames: found shape \[1, 16, 3\], expected none, without time_film"):
        busy()(mixture, labels, clues)


def test_conditioning_starts_from_the_identity():
    network, mixture = small(time_film=True).eval(), noise(1, 4, 640)
    first = network(mixture, query(0, 1, 2), torch.zeros(1, 4, 3))
    assert torch.equal(first[:, 0], first[:, 1])
    assert torch.equal(first, network(mixture, query(2, 0, 1), torch.ones(1, 4, 3)))


@pytest.mark.parametrize("output", ["mask", "both"])
def test_masks_start_from_half_of_the_reference_channel(output):
    network, mixture = small(output=output).eval(), noise(1, 4, 640)
    for name, value in network.decoder.named_parameters():
        if "bias" not in name:
            nn.init.zeros_(value)
    out = network(mixture, query(0, 1, 2))
    torch.testing.assert_close(out, 0.5 * mixture[:, :1].expand(-1, 3, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoder", ["bands", "sfc", "bins"])
def test_each_pass_sees_what_the_one_before_it_made(encoder, monkeypatch):
    network, mixture = busy(passes=3, encoder=encoder, frames=1), noise(1, 4, 640)
    run, seen, outputs = network._features, [], []

    def watched(*args):
        seen.append((args[-1], torch.is_grad_enabled()))
        return run(*args)

    monkeypatch.setattr(network, "_features", watched)
    for n in (1, 2, 3):
        monkeypatch.setattr(network.passes, "draw", lambda n=n: n)
        seen.clear()
        outputs.append(network(mixture, query(0, 3, 1)).detach())
        assert [gradients for _, gradients in seen] == [False] * (n - 1) + [True]
    assert [estimate is None for estimate, _ in seen] == [True, False, False]
    first = istft(seen[1][0], 64, 32, 640) * network.window.norm() * mixture.square().mean().sqrt()
    torch.testing.assert_close(first, outputs[0][0, [0, 2]], rtol=1e-4, atol=1e-5)
    assert not any(torch.allclose(a, b, rtol=1e-3) for a, b in pairwise(outputs))


def test_bands_choose_their_own_bins_at_first():
    """Spectral feature compression: a change of one bin reaches the token of its band more than the others."""
    network = busy(encoder="sfc")
    edges = band_edges(SMALL["bands"], 33)
    assert edges == [0, 2, 4, 6, 8, 16, 24, 33]
    encoder, planes = network.backbone.encoder, noise(1, 2, 33, 15)
    for band, (start, stop) in enumerate(pairwise(edges)):
        other = planes.clone()
        other[:, :, start:stop] += 1
        assert (encoder(other) - encoder(planes)).square().sum((0, 1, 3)).argmax() == band


def test_planes_are_magnitudes_and_sides():
    spectrum = torch.complex(noise(1, 3, 5, 4), noise(1, 3, 5, 4, seed=2))
    spectrum[:, 2] = 2 * spectrum[:, 0]
    both = input_planes(spectrum, ["magnitude", "intensity"], 0.5)
    assert both.shape == (1, 5, 4, 5)
    torch.testing.assert_close(both[..., :3], spectrum.abs().sqrt().permute(0, 2, 3, 1))
    assert (both[..., 4] > 0).all() and both[..., 3].abs().max() <= 2  # the last comes from where the first does
    parts = input_planes(spectrum, ["complex"], 0.5)
    made = torch.complex(parts[..., :3], parts[..., 3:]).permute(0, 3, 1, 2)
    torch.testing.assert_close(made.abs(), spectrum.abs().sqrt())
    torch.testing.assert_close(made.angle(), spectrum.angle())
    assert torch.isfinite(input_planes(0 * spectrum, ["complex", "magnitude", "intensity"], 0.3)).all()


def test_rotary_positions_are_relative():
    query_, key = noise(1, 8), noise(1, 8, seed=2)
    turn = rotations(12, 8, torch.device("cpu"))

    def product(m, n):
        a, b = (torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn[i] for x, i in ((query_, m), (key, n)))
        return float((a * b.conj()).real.sum())

    assert product(3, 1) == pytest.approx(product(11, 9), rel=1e-4) and product(3, 1) != pytest.approx(product(3, 2))
    assert torch.equal(rotations(6, 8, torch.device("cpu"), still=2)[:3], torch.ones(3, 4, dtype=torch.cfloat))


def test_rms_group_norm_divides_each_group_by_its_root_mean_square():
    x = torch.tensor([[3.0, -3.0, 1.0, 1.0, 0.1, 0.1, 0.0, 0.0]])
    expected = torch.tensor([[1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(RMSGroupNorm(8)(x), expected, atol=1e-3, rtol=0)


def test_weights_and_inputs_that_do_not_fit_are_refused():
    for changes, message in (
        ({"hop_length": 33}, "n_fft, hop_length: found 64, 33"),
        ({"bands": [[4, 2], [3, 7]]}, "bands: found 29 bins in all, expected 32"),
        ({"encoder": "bins"}, "frames: found 2, expected 1, for encoder bins"),
        ({"attention_dim": 6}, r"attention_dim: found 6, expected a multiple of twice the heads \(4\)"),
        ({"ffn": "glu"}, "kernel: found 4, expected an odd number, for ffn glu"),
        ({"dim": 10}, "dim: found 10, expected a multiple of 4"),
        ({"path": []}, "path: found 0 parts"),
        ({"frames": 0}, "frames: found 0, expected at least 1"),
        ({"encoder": "sfc", "decoder_dim": 9}, "dim: found 9, expected a multiple of heads"),
    ):
        with pytest.raises(InputError, match=message):
            small(**changes)
    with pytest.raises(InputError, match="label_vector: found 2 slots, 3 labels, expected 3 and 3"):
        small()(noise(1, 4, 640), query(0, 1))


@pytest.mark.parametrize("kind", ["bands, glu", "sfc", "prompt"])
def test_a_few_steps_of_training_separate_what_the_query_names(kind):
    """Two classes, low and high noise: the loss falls, and a swapped query swaps the outputs."""
    generator = torch.Generator().manual_seed(0)

    def scenes(batch=8):
        sound = torch.randn(batch, 2, 512, generator=generator)
        smooth = torch.nn.functional.avg_pool1d(sound, 9, 1, 4)
        sources = torch.stack((3 * smooth[:, 0], sound[:, 1] - smooth[:, 1]), dim=1)
        labels = torch.stack([torch.randperm(2, generator=generator) for _ in range(batch)])
        dry = sources.gather(1, labels[..., None].expand(-1, -1, 512))
        return dry.sum(1, keepdim=True).expand(-1, 4, -1), dry, labels

    def loss_of(mixture, dry, labels):
        return ca_pi_sdr(network(mixture, torch.eye(2)[labels]), dry, labels)[0].mean()

    network = small(**{**KINDS[kind], "output": "mask"}, n_labels=2, n_slots=2, n_blocks=1)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    first = float(loss_of(*scenes()).detach())
    for _ in range(60):
        loss = loss_of(*scenes())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mixture, dry, labels = scenes()
    right, swapped = loss_of(mixture, dry, labels), loss_of(mixture, dry.flip(1), labels.flip(1))
    assert right < first - 2 and right < -5 and swapped < -5
