"""Items on the fly: what a scene depends on, and what it does not."""

import numpy as np
import pytest
import torch

from s5.errors import InputError
from s5.labels import LabelSet
from s5.tasks.data import FixedScenes, SceneIterFactory, VirtualScenes

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
