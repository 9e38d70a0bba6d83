"""Items on the fly: what a scene depends on, and what it does not."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import yaml

from s5.bin.simulate import main
from s5.labels import LabelSet
from s5.scene.rendering.gpu import DeviceRenderer
from s5.tasks.data import FixedScenes, SceneIterFactory, VirtualScenes
from s5.tasks.separation import SeparationTask
from s5.utils.errors import InputError

LABELS = LabelSet(("Cough", "Percussion", "Speech"))


def collect(recipe, epoch, batch_size=2, num_workers=0, **changes):
    dataset = VirtualScenes(recipe / "data/train", **{"seed": 5, "num_scenes": 4, **changes})
    names, batches = [], []
    for name, batch in SceneIterFactory(dataset, batch_size, num_workers).build_iter(epoch):
        names += name
        batches.append(batch)
    return names, {key: torch.cat([b[key] for b in batches]) for key in batches[0]}


def test_scenes_depend_on_seed_epoch_and_item_alone(recipe):
    names, first = collect(recipe, epoch=3)
    again, second = collect(recipe, epoch=3, batch_size=1, num_workers=2)
    assert names == again
    for key in first:
        assert torch.equal(first[key], second[key])
    assert not torch.equal(first["mixture"], collect(recipe, epoch=4)[1]["mixture"])
    assert not torch.equal(first["mixture"], collect(recipe, epoch=3, seed=6)[1]["mixture"])


def test_a_model_of_one_channel_gets_one(recipe):
    _, whole = collect(recipe, epoch=1, with_sources=False)
    _, first = collect(recipe, epoch=1, with_sources=False, n_channels=1)
    assert first["mixture"].shape[1] == 1 and torch.equal(first["label_index"], whole["label_index"])
    assert (first["mixture"] - whole["mixture"][:, :1]).abs().max() < 1e-5 * whole["mixture"].abs().max()


def test_workers_outlive_an_epoch_and_see_the_next_one(recipe):
    factory = SceneIterFactory(VirtualScenes(recipe / "data/train", num_scenes=2), 2, num_workers=1)
    (_, first), (_, second) = (next(iter(factory.build_iter(epoch))) for epoch in (1, 2))
    assert not torch.equal(first["mixture"], second["mixture"])


def test_slots_are_shuffled_with_silence_last_and_keep_their_sources(recipe):
    _, data = collect(recipe, epoch=1, num_scenes=40)
    active = data["label_index"] != 3
    assert (active.int().diff(dim=1) <= 0).all()
    assert (data["dry"].abs().amax(-1) > 0).eq(active).all()
    dataset = VirtualScenes(recipe / "data/train", seed=5, num_scenes=40)
    from s5.scene import render, scene_seed

    orders = set()
    for item in range(40):
        rendered = render(dataset.sampler.sample(scene_seed(dataset.fingerprint, 5, 1, item)))
        index = [int(np.flatnonzero((dry == data["dry"][item].numpy()).all(1))[0]) for dry in rendered.dry]
        for onset, slot in enumerate(index):
            assert LABELS.index(rendered.labels[onset]) == data["label_index"][item, slot]
        orders.add(tuple(index))
    assert {(1, 0), (0, 1)} <= orders and len([o for o in orders if len(o) == 3]) > 2


def test_slots_of_the_rules_of_2025_are_in_class_order(recipe, tmp_path):
    for label in LABELS.names:
        (tmp_path / label).mkdir()
        soundfile.write(tmp_path / label / "a.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 4000), 8000)
    dirs = yaml.safe_load((recipe / "data/train/sampler.yaml").read_text())["dirs"] | {"sound_event": str(tmp_path)}
    rules = {"rules": "dcase2025", "same_class_probability": 0, "n_events": [2, 3], "dirs": dirs}
    _, data = collect(recipe, epoch=1, num_scenes=10, overrides=rules)
    assert (data["label_index"].diff(dim=1) > 0).all()  # silence, the last class, last
    assert (data["dry"].abs().amax(-1) > 0).eq(data["label_index"] != 3).all()


def test_overrides_reach_the_sampler(recipe):
    _, data = collect(recipe, epoch=1, num_scenes=10, overrides={"n_events": [2, 2]})
    assert ((data["label_index"] != 3).sum(1) == 2).all()
    with pytest.raises(InputError, match="key n_event: found an unknown key, expected n_events"):
        VirtualScenes(recipe / "data/train", {"n_event": [1, 2]})


def test_processes_share_every_batch(recipe):
    dataset = FixedScenes(recipe / "data/valid", LABELS, 3)
    shares = [SceneIterFactory(dataset, 3, rank=rank, world_size=2) for rank in range(2)]
    names = [[name for name, _ in share.build_iter(1)] for share in shares]
    assert [len(n) for n in names] == [1, 1]  # the rest of one item joined the batch before it
    assert sorted(name for batch in names[0] + names[1] for name in batch) == dataset.data.utts


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_corrupt_file_ends_in_one_line_that_names_it(recipe, tmp_path, num_workers):
    folder = tmp_path / "valid"
    folder.mkdir()
    for file in ("wav.scp", "labels"):
        (folder / file).write_text((recipe / "data/valid" / file).read_text())
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF nothing")
    lines = (folder / "wav.scp").read_text().splitlines()
    (folder / "wav.scp").write_text("\n".join([f"{lines[0].split()[0]} {broken}", *lines[1:]]) + "\n")
    factory = SceneIterFactory(FixedScenes(folder, LABELS, 3, with_sources=False), 2, num_workers)
    with pytest.raises(InputError, match=r"broken\.wav") as error:
        list(factory.build_iter(1))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("num_workers", "with_sources"), [(0, True), (1, False)])
def test_the_device_renders_what_the_workers_would(recipe, num_workers, with_sources):
    names, expected = collect(recipe, epoch=2, num_scenes=7, with_sources=with_sources)
    dataset = VirtualScenes(recipe / "data/train", seed=5, num_scenes=7, with_sources=with_sources, planned=True)
    factory = SceneIterFactory(dataset, 2, num_workers, renderer=DeviceRenderer("cpu", 64))
    for epoch in (1, 2):
        batches = list(factory.build_iter(epoch))
    assert [name for some, _ in batches for name in some] == names
    assert all(list(batch) == list(batches[0][1]) for _, batch in batches)
    found = {key: torch.cat([batch[key] for _, batch in batches]) for key in batches[0][1]}
    assert found.keys() == expected.keys() and torch.equal(found["label_index"], expected["label_index"])
    for key in expected.keys() - {"label_index"}:
        peak = expected["mixture"].abs().amax((1, 2), keepdim=True)
        assert ((found[key] - expected[key]).abs() <= 1e-4 * peak).all()


@pytest.mark.parametrize("rest", ["residual", "noise"])
def test_batches_with_dry_interference_and_the_rest(recipe, rest):
    _, plain = collect(recipe, epoch=1, num_scenes=10)
    names, found = collect(recipe, epoch=1, num_scenes=10, num_workers=1, rest=rest)
    assert found.keys() == plain.keys() | {"dry_interference", "rest"}
    assert all(torch.equal(found[key], plain[key]) for key in plain)
    n = found["mixture"].shape[-1]
    assert found["dry_interference"].shape == (10, 2, n) and found["rest"].shape == (10, 1, n)
    silent = found["dry_interference"].abs().amax(-1) == 0
    assert silent.any() and not silent.all() and (silent.int().diff(dim=1) >= 0).all()
    if rest == "residual":
        parts = torch.cat([found["dry"], found["dry_interference"], found["rest"]], dim=1)
        peak = found["mixture"].abs().amax()
        torch.testing.assert_close(parts.sum(1), found["mixture"][:, 0], rtol=0, atol=1e-6 * float(peak))
    dataset = VirtualScenes(recipe / "data/train", seed=5, num_scenes=10, planned=True, rest=rest)
    batches = list(SceneIterFactory(dataset, 2, renderer=DeviceRenderer("cpu", 64)).build_iter(1))
    assert [name for some, _ in batches for name in some] == names
    for key in ("mixture", "dry", "dry_interference", "rest"):
        rendered = torch.cat([batch[key] for _, batch in batches])
        peak = found["mixture"].abs().amax((1, 2), keepdim=True)
        assert ((rendered - found[key]).abs() <= 1e-4 * peak).all()


def test_the_dry_interference_and_the_rest_of_a_fixed_set(recipe, tmp_path):
    main(["--config", "scenes.yaml", "--out", str(tmp_path / "valid"), "--rest", "residual"])
    without = FixedScenes(recipe / "data/valid", LABELS, 3, rest="residual")  # which has no such targets
    _, plain = next(iter(SceneIterFactory(without, 4).build_iter(1)))
    assert plain.keys() == {"mixture", "dry", "label_index"}
    dataset = FixedScenes(tmp_path / "valid", LABELS, 3, rest="residual")
    _, found = next(iter(SceneIterFactory(dataset, 4).build_iter(1)))
    assert found.keys() == plain.keys() | {"dry_interference", "rest"}
    assert all(torch.equal(found[key], plain[key]) for key in plain)
    parts = torch.cat([found["dry"], found["dry_interference"], found["rest"]], dim=1)
    assert parts.shape[1] == 6
    torch.testing.assert_close(parts.sum(1), found["mixture"][:, 0], rtol=0, atol=1e-6)


def test_a_training_asks_for_the_rest_by_its_own_key(recipe, tmp_path):
    options = ["--output_dir", str(tmp_path), "--num_workers", "0", "--ngpu", "0", "--labels", *LABELS.names]
    options += ["--train_data", "data/train", "--valid_data", "data/valid", "--seed", "5"]
    shape = SimpleNamespace(batch_size=2, distributed=False)
    for extra, keys in ((["--rest", "noise"], {"dry_interference", "rest"}), ([], set())):
        args = SeparationTask.get_parser().parse_args([*options, *extra])
        factory = SeparationTask.build_task_iter_factory(args, shape, "train")
        assert next(iter(factory.build_iter(1)))[1].keys() == {"mixture", "dry", "label_index"} | keys
    args = SeparationTask.get_parser().parse_args([*options, "--rest", "noise"])
    factory = SeparationTask.build_task_iter_factory(args, shape, "valid")  # it has no such targets, and needs none
    assert next(iter(factory.build_iter(1)))[1].keys() == {"mixture", "dry", "label_index"}
    args = SeparationTask.get_parser().parse_args([*options, "--scene_conf", "rest=noise"])
    with pytest.raises(
        InputError, match="scene_conf: key rest: found a key of fixed sets, expected the training's own"
    ):
        SeparationTask.build_task_iter_factory(args, shape, "train")


@pytest.mark.parametrize("planned", [False, True])
def test_bad_audio_that_turns_up_in_training_ends_in_one_line(recipe, tmp_path, planned):
    sampler = VirtualScenes(recipe / "data/train").sampler
    for file in (*sampler.material.backgrounds(), *dict(sampler.material.sources())):
        if "/noise/" in file or "/interference/" in file or "Cough" in file:
            copy = tmp_path / Path(file).relative_to(Path(sampler.config.dirs.noise).parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(Path(file).read_bytes())
    dirs = {name: str(tmp_path / name) for name in ("sound_event", "interference", "noise")}
    overrides = {"labels": ["Cough"], "n_events": [1, 1], "dirs": {**dirs, "room_ir": sampler.config.dirs.room_ir}}
    dataset = VirtualScenes(recipe / "data/train", overrides, num_scenes=8, planned=planned)
    for file in (tmp_path / "sound_event/Cough").iterdir():
        file.write_bytes(file.read_bytes()[:-3000])
    factory = SceneIterFactory(dataset, 4, renderer=DeviceRenderer("cpu", 64) if planned else None)
    with pytest.raises(InputError, match=r"sound_event/Cough/\d.ogg: found") as error:
        list(factory.build_iter(1))
    assert "\n" not in str(error.value)
