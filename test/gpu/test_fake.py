"""What a GPU would find first, without one: a tensor left on the CPU, a type that does not fit. A training step and a
decoding of every network, with every loss, on fake tensors (fake.py).

They need a process of their own: torch counts its devices at the first gradient, and a process that has counted a GPU
must not fork trainings any more. ``python -m pytest -m fake`` is one."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from s5.labels import LabelSet
from s5.separation import SEPARATORS
from s5.system.model import TrainedModel
from s5.tagging.features import FEATURES
from s5.tagging.heads import HEADS
from s5.tagging.tagger import ENCODERS, TAGGERS
from s5.tasks.models import SeparationModel, TaggingModel
from s5.tasks.separation import LOSSES

sys.path.insert(0, str(Path(__file__).parent))
import fake

pytestmark = pytest.mark.fake
OTHERS = yaml.safe_load((Path(__file__).parents[1] / "tasks/networks.yaml").read_text())
LOCOFORMER = OTHERS["locoformer"]["network_conf"]
RESUNETK = {"n_fft": 64, "hop_length": 32, "widths": [4, 6], "condition_dim": 8}
SEPARATION = {
    "resunetk": ("resunetk", RESUNETK),
    "resunetk with options": (
        "resunetk",
        {**RESUNETK, "compression": 0.3, "intensity": True, "n_bands": 16, "mask_channels": 2, "checkpointing": True},
    ),
    "resunetk, passes": ("resunetk", {**RESUNETK, "n_bands": 16, "passes": 3}),
    "resunetk, one query": ("resunetk", {**RESUNETK, "single_query": True}),
    **{name: (name, conf["network_conf"]) for name, conf in OTHERS.items()},
    "locoformer, small steps": (
        "locoformer",
        {**LOCOFORMER, "path": ["ffn", "attention"], "ffn": "glu", "kernel": 3, "norm": "layer", "output": "both"},
    ),
    "locoformer, passes": ("locoformer", {**LOCOFORMER, "passes": 3}),
    "locoformer, bins": ("locoformer", {**LOCOFORMER, "encoder": "bins", "frames": 1, "checkpointing": True}),
    "locoformer, sfc and prompts": (
        "locoformer",
        {**LOCOFORMER, "encoder": "sfc", "conditioning": "prompt", "slot_blocks": 1, "output": "mapping"},
    ),
}
M2D = {"kind": "m2d", "sampling_rate": 16000, "input_size": [80, 101], "dim": 8, "depth": 2, "heads": 2}
HTSAT = {
    **{"kind": "htsat", "image_size": 64, "dim": 8, "depths": [2, 2], "heads": [2, 4], "window_size": 4},
    **{"sampling_rate": 8000},
    "front_end": {"sampling_rate": 8000, "seconds": 2, "hop_length": 64, "n_mels": 16, "n_fft": 256, "f_max": 4000},
}
YAMNET = {"kind": "yamnet", "sampling_rate": 8000, "n_channels": 2}
AUGMENT = {"filter_db": 6.0, "mel_shift": 2}
TRACK = {"kind": "track", "track_dim": 8, "hidden_dim": 8}
BOTH = [{"kind": "rolloff", "width": 8}, {"kind": "chroma", "width": 8}]
TAGGING = {
    "m2d": ("m2d", {"n_channels": 4, "encoder": M2D, "head": {"track_dim": 8, "hidden_dim": 8}}),
    "m2d, augmented": ("tagger", {"encoder": {**M2D, "augment": AUGMENT}, "head": TRACK}),
    "m2d, two blocks": ("tagger", {"encoder": M2D, "head": TRACK, "trainable": "1_blocks"}),
    "htsat": ("tagger", {"encoder": HTSAT, "head": TRACK}),
    "yamnet": ("tagger", {"encoder": YAMNET, "head": TRACK, "trainable": "head"}),
    "yamnet, top layers": (
        "tagger",
        {"encoder": {**YAMNET, "augment": AUGMENT}, "head": TRACK, "trainable": "2_blocks"},
    ),
    "yamnet, scores": ("tagger", {"encoder": {**YAMNET, "output": "scores"}, "head": TRACK}),
    "bigru": ("tagger", {"encoder": M2D, "head": {"kind": "bigru", "rnn_dim": 8, "track_dim": 8, "hidden_dim": 8}}),
    "multihot": ("tagger", {"encoder": M2D, "head": {"kind": "multihot"}}),
    "dual_path": ("tagger", {"encoder": M2D, "features": BOTH, "head": {"kind": "dual_path", "width": 8}}),
    "dual_path, multi-hot": ("tagger", {"encoder": M2D, "head": {"kind": "dual_path", "output": "multi_hot"}}),
}
N = 8000


def network_of(kind, name, conf):
    table = SEPARATORS if kind == "separator" else TAGGERS
    return table[name](**conf, n_labels=3, n_slots=3)


def separation(name, loss="ca_pi_sdr", bf16=False):
    network = network_of("separator", *SEPARATION[name])
    one_query = getattr(network, "single_query", False)
    return SeparationModel(network, 3, LOSSES[loss], bf16, ema_decay=0.9, one_query=one_query)


def step(model, device, *batch):
    """Two steps of training as the trainer does them, and a validation."""
    fake.move(model, device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    for _ in range(2):
        loss, stats, weight = model.train()(*batch)
        assert {loss.device.type, weight.device.type, *(value.device.type for value in stats.values())} == {device}
        optimizer.zero_grad()
        loss.sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        model.update_average()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert {(g.device.type, g.dtype) for g in gradients if g is not None} == {(device, torch.float32)}
    with torch.no_grad():
        loss, *_ = model.eval()(*batch)
    assert loss.dtype == torch.float32


def batch_of(device, with_sources):
    mixture, labels = torch.zeros(2, 4, N, device=device), torch.zeros(2, 3, dtype=torch.long, device=device)
    return (mixture, torch.zeros(2, 3, N, device=device), labels) if with_sources else (mixture, labels)


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", SEPARATION)
def test_a_separator_trains(name, bf16):
    model = separation(name, bf16=bf16)
    with fake.gpu() as device:
        step(model, device, *batch_of(device, True))


@pytest.mark.parametrize("normalize", ["slots", "n_sources"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_of_separation(loss, normalize):
    model = separation("resunetk", loss)
    model.loss = partial(model.loss, normalize=normalize)
    with fake.gpu() as device:
        step(model, device, *batch_of(device, True))


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", TAGGING)
def test_a_tagger_trains(name, bf16):
    network = network_of("tagger", *TAGGING[name])
    weight = None if network.multi_hot else torch.ones(4)
    model = TaggingModel(network, 3, bf16, ema_decay=0.9, class_weight=weight)
    with fake.gpu() as device:
        step(model, device, *batch_of(device, False))


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("kind", "name"), [("separator", n) for n in SEPARATION] + [("tagger", n) for n in TAGGING])
def test_a_network_decodes(kind, name, bf16):
    network = network_of(kind, *(SEPARATION if kind == "separator" else TAGGING)[name]).eval()
    with fake.gpu() as device:
        fake.move(network, device)
        model = TrainedModel(network, LabelSet(("a", "b", "c")), 3, 8000, "model")
        mixture = fake.array(2, 4, N)
        if kind == "separator":
            assert model.separate(mixture, [["a"], ["b", "b", "c"]], bf16).shape == (2, 3, N)
        else:
            assert model.posterior(mixture, bf16).shape == ((2, 1, 3) if network.multi_hot else (2, 3, 4))


def test_every_network_is_there():
    assert {name for name, _ in SEPARATION.values()} == set(SEPARATORS)
    assert {name for name, _ in TAGGING.values()} == set(TAGGERS)
    parts = [conf for name, conf in TAGGING.values() if name == "tagger"]
    assert {conf["encoder"]["kind"] for conf in parts} == set(ENCODERS)
    assert {conf["head"]["kind"] for conf in parts} == set(HEADS)
    assert {feature["kind"] for conf in parts for feature in conf.get("features", ())} == set(FEATURES)


class Planted(torch.nn.Module):
    """A separator with a fault that no CPU finds."""

    def __init__(self, fault):
        super().__init__()
        self.fault, self.gain, self.plain = fault, torch.nn.Parameter(torch.ones(3, 4)), torch.ones(3, 1)

    def forward(self, mixture, label_vector):
        x = self.gain @ mixture
        if self.fault == "no buffer":
            x = x * self.plain
        if self.fault == "made on the CPU":
            x = x * torch.ones(3, 1)
        if self.fault == "an index on the CPU":
            x = x.gather(1, torch.zeros(2, 3, N, dtype=torch.long))
        if self.fault == "a type":
            x = self.gain.new_ones(3, 3, dtype=torch.float64) @ x
        if self.fault == "a type under autocast":
            with torch.autocast(x.device.type, enabled=False):
                x = self.gain[:, :3] @ x
        return x


FAULTS = {
    "no buffer": "non-?fake|FakeTensor",
    "made on the CPU": "device",
    "an index on the CPU": "device",
    "a type": "expected one type",
    "a type under autocast": "bfloat16.*expected one type",
}


@pytest.mark.parametrize(("fault", "message"), FAULTS.items(), ids=FAULTS)
def test_a_planted_fault_is_found(fault, message):
    model = SeparationModel(Planted(fault), 3, LOSSES["snr"], bf16="autocast" in fault)
    with fake.gpu() as device, pytest.raises((RuntimeError, AssertionError), match=message):
        step(model, device, *batch_of(device, True))


def test_without_a_fault_it_passes():
    with fake.gpu() as device:
        step(SeparationModel(Planted(""), 3, LOSSES["snr"]), device, *batch_of(device, True))
