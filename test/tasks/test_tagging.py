"""The tagging task: losses by head, figures in ESPnet's reporter, freezing by name, and starts that fit."""

import kaldiio
import numpy as np
import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file

from s5.data import DataDir
from s5.inference.stages import tag
from s5.labels import LabelSet
from s5.system.model import load_model
from s5.system.system import S5System
from s5.system.trained import best_checkpoint
from s5.tagging.decision import decide_multihot
from s5.tagging.losses import multi_hot_bce, pit_cross_entropy
from s5.tagging.m2d import M2DEncoder
from s5.tasks.launch import train
from s5.tasks.models import TaggingModel
from s5.tasks.valid_metrics import FIGURES, batch_counts, figures
from s5.utils.config import ROOT, load_inherited
from s5.utils.errors import InputError

ENCODER = {"kind": "m2d", "sampling_rate": 8000, "input_size": [80, 201], "dim": 8, "depth": 2, "heads": 2}
FEATURES = [{"kind": k, "n_fft": 200, "hop_length": 80, "width": 4} for k in ("rolloff", "chroma")]
MULTI_HOT = {"encoder": ENCODER, "features": FEATURES, "head": {"kind": "dual_path", "width": 4}}
TRACKS = {"encoder": ENCODER, "head": {"kind": "bigru", "rnn_dim": 4, "track_dim": 4, "hidden_dim": 4}}


def config(path, **changes):
    """A training YAML of the recipe's tagger with changes."""
    path.write_text(yaml.safe_dump({**load_inherited("tagger.yaml"), "network": "tagger", **changes}))
    return path


def run(path, folder, *extra):
    train("tagging", path, "data/train", "data/valid", folder, 0, extra)
    return folder


def test_multi_hot_tagger_trains_and_reports_exact_figures(recipe, tmp_path):
    """What ESPnet's reporter holds, and selects by, equals the decisions on the stored model's own posteriors."""
    changes = {
        "network_conf": MULTI_HOT,
        "decision": {"threshold": 0.45, "n_min": 0, "n_max": 2},
        "best_model_criterion": [["valid", "accuracy_src", "max"]],
        "valid_batch_size": 3,
        "max_epoch": 1,
    }
    path = config(tmp_path / "tagger.yaml", **changes)
    folder = run(path, tmp_path / "exp")
    assert best_checkpoint(folder).name == "valid.accuracy_src.ave.pth"
    stats = torch.load(folder / "checkpoint.pth", weights_only=False)["reporter"]["stats"][1]["valid"]
    experiment = load_model(folder, "1epoch.pth", "tagger")
    data, labels = DataDir.load("data/valid"), experiment.labels
    predicted, truth = [], []
    for utt in data.utts:
        posterior = experiment.posterior(data.mixture(utt)[0])
        assert posterior.shape == (1, len(labels)) and posterior.min() > 0 and posterior.max() < 1
        index = decide_multihot(posterior, 0.45, 0, 2)[0]
        predicted.append(np.pad(index, (0, 2 - len(index)), constant_values=len(labels)))
        truth.append(labels.indices(data.labels[utt], 3))
    counts = batch_counts(torch.tensor(np.array(predicted)), torch.tensor(np.array(truth)), len(labels))
    expected = figures({name: value.item() for name, value in counts.items()})
    assert {name: stats[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert set(stats) - {"loss", "time", "total_count"} == set(expected) <= set(FIGURES)
    # stage 7 writes the same posteriors, 1 x C
    model = {"train": str(path), "experiment": "exp"}
    system = {"taggers": {"multi_hot": model}, "separators": {"none": {"train": "separator.yaml"}}}
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(system))
    tag(S5System.from_yaml(tmp_path / "system.yaml", tmp_path), data, tmp_path / "out")
    archive = kaldiio.load_scp(str(tmp_path / "out/posteriors/multi_hot.scp"))
    for utt in data.utts:
        np.testing.assert_allclose(archive[utt], experiment.posterior(data.mixture(utt)[0]), atol=1e-6)


def test_the_model_can_be_selected_by_any_figure(recipe, tmp_path):
    """ESPnet keeps a best checkpoint for each of them; validation mixtures of both subsets."""
    write_valid(tmp_path / "valid", ["Cough Cough", "Speech", "", "Speech Percussion Speech"])
    criteria = [["valid", figure, "max"] for figure in FIGURES]
    changes = {"max_epoch": 1, "best_model_criterion": criteria, "keep_nbest_models": 1}
    path = config(tmp_path / "tagger.yaml", network_conf=TRACKS, **changes)
    train("tagging", path, "data/train", tmp_path / "valid", tmp_path / "exp", 0)
    assert {p.name for p in (tmp_path / "exp").glob("valid.*.best.pth")} == {f"valid.{f}.best.pth" for f in FIGURES}


@pytest.mark.parametrize(("labels", "figure"), [("Cough Speech", "acc3_dup"), ("Cough Cough", "accuracy_mix_nodup")])
def test_a_figure_of_an_empty_subset_selects_nothing(recipe, tmp_path, labels, figure):
    write_valid(tmp_path / "valid", [labels, ""])
    path = config(tmp_path / "tagger.yaml", network_conf=TRACKS, best_model_criterion=[["valid", figure, "max"]])
    with pytest.raises(InputError, match=rf"valid/labels: found no mixture .*, expected one at least, .* {figure}$"):
        train("tagging", path, "data/train", tmp_path / "valid", tmp_path / "exp", 0)
    assert not (tmp_path / "exp/config.yaml").exists()


def write_valid(path, labels):
    """A validation set of noise with these labels."""
    noise = np.random.default_rng(0).standard_normal((len(labels), 16000, 4)) * 0.1
    path.mkdir()
    for i, mixture in enumerate(noise):
        soundfile.write(path / f"{i}.wav", mixture, 8000)
    (path / "wav.scp").write_text("".join(f"{i} {path / f'{i}.wav'}\n" for i in range(len(labels))))
    (path / "labels").write_text("".join(f"{i} {text}".strip() + "\n" for i, text in enumerate(labels)))


def test_head_stage_then_top_block(recipe, tmp_path):
    """The second training starts from the first one's best; the encoder's first block and patches never move."""
    head = {"network_conf": {**TRACKS, "trainable": "head"}, "max_epoch": 1}
    first = run(config(tmp_path / "head.yaml", **head), tmp_path / "head")
    start = best_checkpoint(first)
    tune = {"network_conf": {**TRACKS, "trainable": "1_blocks"}, "max_epoch": 1}
    init = ("--init_param", f"{start}:network:network")
    second = run(config(tmp_path / "ft.yaml", **tune), tmp_path / "ft", *init)
    begun, ended = (torch.load(p, weights_only=True) for p in (start, second / "1epoch.pth"))
    moved = {key for key in begun if not torch.equal(begun[key], ended[key])}
    encoder = {key for key in moved if key.startswith("network.encoder")}
    assert encoder and all(k.startswith(("network.encoder.blocks.1.", "network.encoder.norm.")) for k in encoder)
    assert any(k.startswith("network.head.rnn") for k in moved)


def test_pretrained_weights_are_read_when_a_training_starts_and_never_again(recipe, tmp_path):
    """The second training, resuming and decoding do without the file."""
    file = tmp_path / "m2d-80x201p16x16p8k/weights.pth"
    file.parent.mkdir()
    sizes = {"dim": 8, "depth": 2, "heads": 2}
    encoder = M2DEncoder(weights=str(file), norm_stats=(-5.0, 2.0), **sizes)  # the other sizes are in the file's name
    released = {key: torch.randn_like(value) for key, value in encoder.state_dict().items()}
    torch.save({f"module.ar.runtime.backbone.{key}": value for key, value in released.items()}, file)
    network = {**TRACKS, "encoder": {"kind": "m2d", "weights": str(file), **sizes}}
    head = config(tmp_path / "head.yaml", network_conf={**network, "trainable": "head"}, max_epoch=1)
    first = run(head, tmp_path / "head")
    stored = torch.load(best_checkpoint(first), weights_only=True)
    assert all(torch.equal(stored[f"network.encoder.{key}"], value) for key, value in released.items())
    file.unlink()
    with pytest.raises(InputError, match=r"weights\.pth: found no such file"):
        run(head, tmp_path / "anew")
    run(head, first, "--max_epoch", "2")
    tune = config(tmp_path / "ft.yaml", network_conf={**network, "trainable": "1_blocks"}, max_epoch=1)
    second = run(tune, tmp_path / "ft", "--init_param", f"{best_checkpoint(first)}:network:network")
    tuned = load_model(second, None, "tagger").network.state_dict()
    assert torch.equal(tuned["encoder.norm_stats"], released["norm_stats"])
    assert torch.equal(tuned["encoder.blocks.0.attn.qkv.weight"], released["blocks.0.attn.qkv.weight"])


def test_yamnet_keeps_its_release_below_the_layers_that_are_trained(recipe, tmp_path):
    """A head on the frozen encoder, then the last layer with it; a trained model needs no file of weights."""
    release = load_file(ROOT / "pretrained/yamnet.safetensors")
    encoder = {"kind": "yamnet", "sampling_rate": 8000, "weights": "pretrained/yamnet.safetensors"}
    network = {"encoder": encoder, "head": {"kind": "track", "track_dim": 4, "hidden_dim": 4}}
    folders, init = [], ()
    for trainable in ("head", "1_blocks"):
        conf = {"network_conf": {**network, "trainable": trainable}, "max_epoch": 1}
        folders.append(run(config(tmp_path / f"{trainable}.yaml", **conf), tmp_path / trainable, *init))
        init = ("--init_param", f"{best_checkpoint(folders[0])}:network:network")
    for folder, n_kept in zip(folders, (14, 13), strict=True):
        tensors = load_model(folder, None, "tagger").network.encoder.state_dict()
        same = {key for key in release if key in tensors and torch.equal(tensors[key], release[key].float())}
        kept = {key for key in release if key.startswith("layers.") and int(key.split(".")[1]) < n_kept}
        assert same == kept and not any(key.startswith("classifier") for key in tensors)


class Fixed(torch.nn.Module):
    """A network whose output is given."""

    def __init__(self, output, multi_hot=False):
        super().__init__()
        self.output, self.multi_hot = torch.nn.Parameter(output), multi_hot

    def forward(self, mixture):
        return self.output


def test_the_loss_follows_from_the_head():
    truth, mixture = torch.tensor([[0, 0, 1], [2, 2, 2]]), torch.randn(2, 4, 10)
    tracks, classes = torch.randn(2, 3, 3), torch.randn(2, 2)
    weight = torch.tensor([1.0, 2.0, 0.5])
    plain, weighted = TaggingModel(Fixed(tracks), 2), TaggingModel(Fixed(tracks), 2, class_weight=weight)
    assert plain(mixture, truth)[0] == pit_cross_entropy(tracks, truth)[0].mean()
    assert weighted(mixture, truth)[0] == pit_cross_entropy(tracks, truth, weight)[0].mean()
    assert "class_weight" not in weighted.state_dict()
    model = TaggingModel(Fixed(classes, multi_hot=True), 2)
    assert model(mixture, truth)[0] == multi_hot_bce(classes, truth).mean()


def test_a_frozen_part_by_name_keeps_weights_statistics_and_mode(recipe, tmp_path):
    """Two trainings that differ in the learning rate alone: what is the same after them has not moved."""
    frozen = ("--freeze_param", "network.features.1", "network.encoder.cls_token", "--optim_conf")
    path = config(tmp_path / "tagger.yaml", network_conf=MULTI_HOT, max_epoch=1)
    folders = [run(path, tmp_path / rate, *frozen, f"lr={rate}") for rate in ("0.001", "0.01")]
    slow, fast = (torch.load(folder / "1epoch.pth", weights_only=True) for folder in folders)
    same = {key for key in slow if torch.equal(slow[key], fast[key])}
    assert {key for key in slow if key.startswith("network.features.1.")} | {"network.encoder.cls_token"} <= same
    assert not any(key.startswith("network.features.0.") for key in same)
    assert slow["network.features.1.cnn.1.num_batches_tracked"] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze_param": ["network.encodr"]}, r"--freeze_param: found network\.encodr, expected network\.encoder"),
        ({"loss": "multi_hot_bce"}, r"loss: found multi_hot_bce, expected pit_cross_entropy for a track-based head"),
        ({"network_conf": MULTI_HOT, "loss": "pit_cross_entropy"}, r"expected multi_hot_bce for a multi-hot head"),
        ({"loss_conf": {"class_weight": {"Couch": 2.0}}}, r"class_weight: found label Couch, expected Cough"),
        ({"loss_conf": {"class_weight": {"Cough": -2.0}}}, r"Cough: found -2\.0, expected a finite number above 0"),
        ({"loss_conf": {"class_weight": {"Cough": float("inf")}}}, r"Cough: found inf, expected a finite number"),
        ({"loss_conf": {"class_weights": {}}}, r"key class_weights: found an unknown key, expected class_weight"),
        ({"network_conf": MULTI_HOT, "loss_conf": {"class_weight": {"Cough": 2.0}}}, r"expected a track-based head"),
        ({"decision": {"threshhold": 0.5}}, r"decision: key threshhold: found an unknown key, expected threshold"),
        ({"decision": {"n_min": 3, "n_max": 2}}, r"decision: found n_min 3, n_max 2"),
        ({"best_model_criterion": [["valid", "acc4", "max"]]}, r"best_model_criterion: found acc4, expected acc"),
        ({"network_conf": {**TRACKS, "encoder": {**ENCODER, "sampling_rate": 16000}}}, r"found 16000, expected 8000"),
        ({"network_conf": {**TRACKS, "head": {"kind": "gru"}}}, r"head: key kind: found gru, expected bigru"),
    ],
)
def test_what_does_not_fit_is_named_before_training(recipe, tmp_path, changes, message):
    path = config(tmp_path / "bad.yaml", **{"network_conf": TRACKS, **changes})
    with pytest.raises(InputError, match=message) as error:
        run(path, tmp_path / "exp")
    assert "bad.yaml" in str(error.value) and not (tmp_path / "exp/config.yaml").exists()


def test_a_start_with_other_labels_keys_or_shapes_is_refused(trained, recipe, tmp_path):
    whole = str(best_checkpoint(trained / "tagger"))
    other = config(tmp_path / "other.yaml", network_conf=TRACKS)
    with pytest.raises(InputError, match=r"key head\..* found a key that the model lacks \(\d+ in all\)"):
        run(other, tmp_path / "exp", "--init_param", f"{whole}:network:network")
    wide = load_inherited("tagger.yaml")["network_conf"]
    wide["head"]["track_dim"] = 16
    path = config(tmp_path / "wide.yaml", network="m2d", network_conf=wide)
    with pytest.raises(InputError, match=r"head\.linear\.0\.weight: found \[24, 40\], expected \[48, 40\]"):
        run(path, tmp_path / "exp", "--init_param", whole)
    # the encoder alone fits another head
    run(other, tmp_path / "part", "--init_param", f"{whole}:network.encoder:network.encoder", "--max_epoch", "1")
    (tmp_path / "1epoch.pth").write_bytes((trained / "tagger/1epoch.pth").read_bytes())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"labels": ["Percussion", "Cough", "Speech"]}))
    with pytest.raises(InputError, match=r"config\.yaml: key labels: found Percussion Cough Speech, expected those"):
        run("tagger.yaml", tmp_path / "exp", "--init_param", str(tmp_path / "1epoch.pth"))
    assert LabelSet(("Cough", "Percussion", "Speech")) == load_model(trained / "tagger", None, "tagger").labels
