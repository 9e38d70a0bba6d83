"""What a training shows of a few validation mixtures: read back from tensorboard's files, compared with the data."""

import io
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from torch import nn

from s5.data import DataDir
from s5.labels import LabelSet
from s5.separation.losses import snr
from s5.system.model import load_model
from s5.tasks.data import FixedScenes, VirtualScenes
from s5.tasks.launch import train
from s5.tasks.logging.boards import Tensorboard
from s5.tasks.logging.examples import CANDIDATES, PEAK, Examples, choose, load_examples
from s5.tasks.models import SeparationModel
from s5.tasks.preemption import REQUEUE
from s5.utils.config import load_inherited

LABELS = LabelSet(("Cough", "Percussion", "Speech"))
NETWORKS = yaml.safe_load((Path(__file__).parents[1] / "networks.yaml").read_text())
SINGLE_QUERY = {"single_query": True}


def config(folder, kind="separation", **changes):
    """Writes the small training of the recipe, with changes and two examples, beside its folder."""
    base = load_inherited("separator.yaml" if kind == "separation" else "tagger.yaml")
    if "network" in changes:
        base.pop("network_conf")
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(
        yaml.safe_dump({**base, "keep_nbest_models": 1, "num_examples": 2, "examples_interval": 1, **changes})
    )
    return path


def run(folder, *extra, kind="separation", path=None, valid="data/valid", **changes):
    """Trains it."""
    path = path or config(folder, kind, **changes)
    train(kind, path, "data/train", valid, folder, 0, extra)
    return folder


class Shown:
    """What tensorboard's files of the validation hold."""

    def __init__(self, folder):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        self.events = EventAccumulator(str(folder), size_guidance={"audio": 0, "images": 0, "tensors": 0})
        self.events.Reload()
        self.tags = self.events.Tags()

    def audio(self, tag):
        """Steps, and the last waveform as it is played."""
        found = self.events.Audio(tag)
        waveform, fs = soundfile.read(io.BytesIO(found[-1].encoded_audio_string), dtype="float32")
        assert fs == found[-1].sample_rate == 8000
        return [event.step for event in found], waveform

    def mixtures(self):
        """Names of the mixtures that are shown."""
        return [tag.removesuffix("/mixture") for tag in self.tags["audio"] if tag.endswith("/mixture")]

    def images(self, tag):
        """Steps, and pictures as arrays."""
        from PIL import Image

        found = self.events.Images(tag)
        return [e.step for e in found], [np.asarray(Image.open(io.BytesIO(e.encoded_image_string))) for e in found]

    def text(self, tag):
        """The last text."""
        return self.events.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode()


def shown(folder):
    return Shown(folder / "tensorboard/valid")


def test_mixtures_are_spread_over_the_set_and_have_most_sources():
    labels = [("Cough",), ("Cough", "Speech"), ("Cough", "Cough"), (), ("Speech", "Cough"), ("Speech", "Percussion")]
    assert choose(labels, 2) == [1, 5]  # of the second half, that with a label which the first one lacks
    assert choose(labels, 3) == [1, 2, 5]
    assert choose(labels, 100) == [0, 1, 2, 3, 4, 5]
    assert choose([()], 1) == [0]


def test_examples_of_a_virtual_set_are_scenes_of_its_first_epoch(recipe):
    dataset = VirtualScenes("data/train", {"n_events": [0, 3]}, seed=5, num_scenes=40)
    found = load_examples(dataset, 2)
    for i, example in enumerate(found):
        part = [dataset[1, n][1]["label_index"] for n in range(CANDIDATES * i, CANDIDATES * (i + 1))]
        assert len(example.labels) == max(int((index < 3).sum()) for index in part)
        item = dataset[1, int(example.name.rpartition("_")[2])][1]
        np.testing.assert_array_equal(example.mixture, item["mixture"])
        np.testing.assert_array_equal(example.dry, item["dry"])
    planned = VirtualScenes("data/train", {"n_events": [0, 3]}, seed=5, num_scenes=40, planned=True)
    for example, other in zip(found, load_examples(planned, 2), strict=True):  # of a renderer on the device
        assert example.name == other.name and example.gain == other.gain and planned.planned


@pytest.mark.slow
def test_audio_of_a_separator_is_that_of_the_data_and_of_the_model(recipe, tmp_path):
    """Mixture, references and estimates with one gain; the first two are written once, estimates after each epoch."""
    folder = run(tmp_path / "exp")
    data = DataDir.load("data/valid", LABELS)
    found = shown(folder)
    mixtures = found.mixtures()
    assert len(mixtures) == 2
    separator = load_model(folder, folder / "2epoch.pth", "separator")
    expected = set()
    for utt in mixtures:
        labels = data.labels[utt]
        assert labels
        mixture, sources = data.mixture(utt)[0], data.sources(utt)[: len(labels)]
        gain = PEAK / np.abs([mixture[0], *sources]).max()
        steps, waveform = found.audio(f"{utt}/mixture")
        assert steps == [1]
        np.testing.assert_allclose(waveform, gain * mixture[0], atol=1e-4)
        estimates = separator.separate(mixture, labels)
        names = [f"{utt}/{slot}_{label}" for slot, label in enumerate(labels)]
        for name, source in zip(names, sources, strict=True):
            steps, waveform = found.audio(f"{name}/reference")
            assert steps == [1]
            np.testing.assert_allclose(waveform, gain * source, atol=1e-4)
        heard = []
        for name in names:
            steps, waveform = found.audio(f"{name}/estimate")
            assert steps == [1, 2]
            heard.append(waveform)
        for label in set(labels):  # those of one class are in the order of the references
            slots = [slot for slot, other in enumerate(labels) if other == label]
            sums = [sum(np.asarray(all_)[slots]) for all_ in (heard, gain * estimates)]
            np.testing.assert_allclose(*sums, atol=3e-4)
        expected |= {f"{utt}/mixture", *(f"{n}/{what}" for n in names for what in ("reference", "estimate"))}
        steps, pictures = found.images(f"{utt}/spectrograms")
        assert steps == [1, 2] and (pictures[0] != pictures[1]).any()
        assert (pictures[0][:, :400] == pictures[1][:, :400]).all()  # mixture and references stay
        assert f"{20 * np.log10(gain):+.1f} dB" in found.text(f"{utt}/about")
    assert set(found.tags["audio"]) == expected


class Louder(nn.Module):
    """Gives the mixture a hundred times as loud in each slot, or no numbers."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, mixture, label_vector):
        return self.factor * mixture[:, :1].expand(-1, label_vector.shape[1], -1)


@pytest.mark.parametrize("factor", [100.0, float("nan")])
def test_estimates_that_would_clip_are_softer_and_no_numbers_are_silence(recipe, tmp_path, capsys, factor):
    from torch.utils.tensorboard import SummaryWriter

    model = SeparationModel(Louder(factor), 3, snr).train()
    with SummaryWriter(str(tmp_path)) as writer:
        Examples(model, FixedScenes("data/valid", LABELS, 3), 1, 0, 1).show([Tensorboard(writer)], 1)
    assert model.training
    found = Shown(tmp_path)
    estimates = [tag for tag in found.tags["audio"] if tag.endswith("/estimate")]
    mixture = next(found.audio(tag)[1] for tag in found.tags["audio"] if tag.endswith("/mixture"))
    assert estimates
    for tag in estimates:
        waveform = found.audio(tag)[1]
        if factor == 100:
            np.testing.assert_allclose(waveform, mixture / np.abs(mixture).max(), atol=1e-3)
        else:
            assert not waveform.any()
    assert "clipped" not in capsys.readouterr().out


@pytest.mark.parametrize("head", ["tracks", "multi_hot"])
def test_a_tagger_shows_its_probabilities(recipe, tmp_path, head):
    changes = {}
    if head == "multi_hot":
        conf = load_inherited("tagger.yaml")["network_conf"]
        changes = {"network_conf": {**conf, "head": {"kind": "multi_hot"}}, "network": "m2d"}
    folder = run(tmp_path / "exp", kind="tagging", **changes)
    found, data = shown(folder), DataDir.load("data/valid", LABELS)
    assert set(found.tags["audio"]) == {f"{utt}/mixture" for utt in found.mixtures()}
    for utt in found.mixtures():
        assert found.audio(f"{utt}/mixture")[0] == [1]
        steps, pictures = found.images(f"{utt}/probabilities")
        assert steps == [1, 2] and (pictures[0] != pictures[1]).any()
        assert f"Reference: {', '.join(data.labels[utt])}." in found.text(f"{utt}/labels")


OTHERS = {
    "average": {"ema_decay": 0.9},
    "single_query": {"queries": "one", "loss": "snr", "network_conf": SINGLE_QUERY},
    "tfgridnet": NETWORKS["tfgridnet"],
    "espnet": NETWORKS["espnet"],
    "tagger": {"kind": "tagging"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_a_training_is_the_same_with_and_without_examples(recipe, tmp_path, state, assert_same, name):
    changes = dict(OTHERS[name])
    if name == "single_query":
        changes["network_conf"] = {**load_inherited("separator.yaml")["network_conf"], **SINGLE_QUERY}
    changes |= {"num_scenes": 2}
    without = run(tmp_path / "without", "--num_examples", "0", **changes)
    with_ = run(tmp_path / "with", **changes)
    assert_same(state(with_), state(without))
    assert shown(with_).tags["images"] and not shown(without).tags["images"]


@pytest.mark.slow
def test_a_resumed_training_writes_estimates_once_an_epoch(recipe, tmp_path, at, state, assert_same):
    options = ("--accum_grad", "2", "--ema_decay", "0.9", "--log_interval", "1", "--num_scenes", "6")
    whole = run(tmp_path / "whole", *options, "--num_examples", "0")
    for text in ("1epoch:train:1-1batch", "1epoch results", "2epoch:train:2-2batch"):
        with at(text, lambda: os.kill(os.getpid(), signal.SIGTERM)), pytest.raises(SystemExit) as end:
            run(tmp_path / "parts", *options)
        assert end.value.code == REQUEUE
    parts = run(tmp_path / "parts", *options)
    assert_same(state(parts), state(whole))
    found = shown(parts)
    for tag in found.tags["audio"]:  # mixture and references: once a start
        assert found.audio(tag)[0] == [1, 2], tag


def test_estimates_come_at_the_first_the_last_and_each_nth_epoch(recipe, tmp_path):
    """Without an interval not so often that it takes more than a hundredth of the time."""
    dataset = FixedScenes("data/valid", LABELS, 3)
    model = SeparationModel(Louder(1.0), 3, snr)

    def epochs(examples):
        return [epoch for epoch in range(1, examples.max_epoch + 1) if examples.due(epoch)]

    assert epochs(Examples(model, dataset, 1, 3, 8)) == [1, 3, 6, 8]
    assert epochs(Examples(model, dataset, 1, 0, 8)) == [1, 2, 3, 4, 5, 6, 7, 8]
    long, each = Examples(model, dataset, 1, 0, 500), Examples(model, dataset, 1, 1, 8)
    assert epochs(long) == [1, *range(25, 501, 25)]
    for examples in (long, each):
        examples.show([], 1)
    assert epochs(long) == [1, 500] and epochs(each) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_without_tensorboard_nothing_is_shown(recipe, tmp_path):
    folder = run(tmp_path / "exp", "--use_tensorboard", "false", num_scenes=2, max_epoch=1)
    assert not (folder / "tensorboard").exists()


def test_of_several_processes_the_first_one_shows(recipe, tmp_path, state, forked):
    options = ("--num_scenes", "4", "--max_epoch", "1")
    path = config(tmp_path / "exp")
    statuses = forked(2, tmp_path, lambda rank: run(tmp_path / "exp", *options, path=path)).wait()
    assert statuses == [0, 0]
    assert len(list((tmp_path / "exp/tensorboard/valid").glob("events.*"))) == 1
    found = shown(tmp_path / "exp")
    assert len([tag for tag in found.tags["audio"] if tag.endswith("/mixture")]) == 2
    assert state(tmp_path / "exp")["position"]["epoch"] == 2


def test_a_mixture_that_is_lost_ends_all_processes_and_one_says_why(recipe, tmp_path, at, forked):
    """Examples are read after the first validation: the files go in between."""
    valid = tmp_path / "valid"
    shutil.copytree("data/valid", valid)
    wavs = {utt: valid / f"{utt}.wav" for utt in DataDir.load(valid).utts}
    for utt, path in wavs.items():
        shutil.copy(DataDir.load("data/valid").mixture_path(utt), path)
    (valid / "wav.scp").write_text("".join(f"{utt} {path}\n" for utt, path in wavs.items()))
    path = config(tmp_path / "exp")

    def train_and_lose(rank):
        with at("1epoch results", lambda: [wav.unlink() for wav in wavs.values()]):
            run(tmp_path / "exp", "--num_scenes", "2", path=path, valid=valid)

    processes = forked(2, tmp_path, train_and_lose)
    assert processes.wait() == [1, 1]
    first, second = (log.read_text() for log in processes.logs)
    assert "InputError" in first and str(valid) in first and "Error" not in second
