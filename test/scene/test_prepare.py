"""Prepared material gives the same samples without decoding; it is made once, below the data folder."""

import logging
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
import yaml

from s5.bin.simulate import main
from s5.scene import Sampler, Scene, audio, render
from s5.scene import prepare as module
from s5.scene.prepare import of_sampler, of_scenes, prepare
from s5.scene.ready import folder_of
from s5.scene.rendering.gpu import DeviceRenderer
from s5.scene.rendering.plan import plan
from s5.scene.rendering.room import SofaRoom
from s5.tasks.data import VirtualScenes


@pytest.fixture
def compressed(material, tmp_path):
    """The material with rooms in compressed chunks of 5 positions; one response ends in zeros."""
    shutil.copytree(material / "raw", tmp_path / "data/raw")
    for path in (tmp_path / "data/raw/room_ir").iterdir():
        with h5py.File(path, "r+") as file:
            rirs = file["Data.IR"][()]
            rirs[2, :, 500:] = 0
            del file["Data.IR"]
            chunks = (min(5, len(rirs)), 2, 300)
            file.create_dataset("Data.IR", data=rirs, chunks=chunks, compression=4, shuffle=True)
    return tmp_path


@pytest.fixture
def recipe(compressed, config, monkeypatch):
    """A recipe folder as the working directory."""
    monkeypatch.chdir(compressed)
    config["dirs"] = {name: f"data/{path}" for name, path in config["dirs"].items()}
    Path("a.yaml").write_text(yaml.safe_dump(config | {"num_scenes": 6}))
    return compressed


def nothing_decoded(monkeypatch):
    """Makes every read of a compressed file or a room fail."""
    real = audio.decode

    def plain(wanted):
        assert wanted.path.endswith(".wav")
        return real(wanted)

    monkeypatch.setattr(audio, "decode", plain)
    monkeypatch.setattr(SofaRoom, "_read", lambda room, *_, **__: pytest.fail(f"{room.path} read"))


@pytest.mark.parametrize("rate", [8000, 12000])
def test_scenes_sound_the_same(recipe, rate, monkeypatch):
    config = yaml.safe_load(Path("a.yaml").read_text()) | {"sampling_rate": rate}
    sampler = Sampler(config)
    scenes = [sampler.scene(0, item) for item in range(12)]
    before = [render(scene) for scene in scenes]
    ready = prepare(of_sampler(sampler), rate, "data")
    assert ready == folder_of("data", rate) == f"data/.material/{rate}"
    if rate == 8000:
        nothing_decoded(monkeypatch)  # of another rate, cuts and backgrounds are resampled when they are drawn
    for scene, old in zip(scenes, before, strict=True):
        new = render(scene, ready=ready)
        np.testing.assert_array_equal(new.mixture, old.mixture)
        np.testing.assert_array_equal(new.dry, old.dry)
    device = DeviceRenderer("cpu", 64).render([plan(scene, ready=ready) for scene in scenes])
    for made, old in zip(device.mixture, before, strict=True):
        np.testing.assert_allclose(made, old.mixture, atol=1e-4 * np.abs(old.mixture).max())


def test_only_what_is_costly_to_read_is_written(recipe):
    sampler = Sampler.from_yaml("a.yaml")
    wanted = set(of_sampler(sampler))
    at_their_rate = {Path(one.path).name for one in wanted if one.form == "frames"}
    assert "long.flac" in at_their_rate and not any(name.endswith(".wav") for name in at_their_rate)
    assert {one.form for one in wanted} == {"frames", "room"}
    other = {(Path(one.path).name, one.form) for one in of_sampler(Sampler.from_yaml("a.yaml")) if one.form == "room"}
    assert other == {("a.sofa", "room"), ("b.sofa", "room")}
    scenes = [sampler.scene(0, item) for item in range(40)]
    assert list(of_scenes(scenes, ".")) == [8000] and of_scenes(scenes, ".")[8000] <= {*wanted}


def test_a_set_prepares_its_material_and_says_how_much_it_is(recipe, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    home = recipe / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    main(["--config", "a.yaml", "--out", "data/test"])
    main(["--config", "a.yaml", "--out", "data/train", "--virtual"])
    written = "data/.material/8000: writing 21 prepared recordings and rooms for scenes at 8000 Hz ("
    assert caplog.text.count(written) == 1
    assert not list(home.iterdir())
    nothing_decoded(monkeypatch)
    items = [VirtualScenes("data/train")[1, item] for item in range(6)]
    assert all(not isinstance(item, Exception) for item in items)
    for scene in map(Scene.load, sorted(Path("data/test/scene").iterdir())):
        render(scene, ready="data/.material/8000")


def test_a_moved_recipe_keeps_its_material_and_a_changed_file_is_prepared_again(recipe, tmp_path, monkeypatch):
    sampler = Sampler.from_yaml("a.yaml")
    prepare(of_sampler(sampler), 8000, "data")
    names = {path.name: path.stat().st_mtime_ns for path in Path("data/.material/8000").iterdir()}
    shutil.move("data", tmp_path / "moved/data")
    monkeypatch.chdir(tmp_path / "moved")
    prepare(of_sampler(sampler), 8000, "data")
    folder = Path("data/.material/8000")
    assert names == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    changed = Path("data/raw/sound_event/Speech/voice0/0.flac")
    soundfile.write(changed, 0.1 * np.ones(2000), 8000)
    os.utime(changed, ns=(1, 1))
    prepare(of_sampler(sampler), 8000, "data")
    after = {path.name for path in folder.iterdir()}
    assert len(after - names.keys()) == len(names.keys() - after) == 1


def test_without_room_on_the_disk_scenes_take_longer(recipe, monkeypatch, caplog):
    monkeypatch.setattr(module, "KEPT_FREE", 1 << 60)
    main(["--config", "a.yaml", "--out", "data/test"])
    assert "data/.material/8000: no disk space for 21 prepared recordings and rooms" in caplog.text
    assert not list(Path("data/.material/8000").iterdir()) and Path("data/test/wav.scp").exists()


def test_what_was_cut_off_is_read_from_the_file(recipe):
    sampler = Sampler.from_yaml("a.yaml")
    ready = prepare(of_sampler(sampler), 8000, "data")
    before = [render(sampler.scene(0, item)).mixture for item in range(6)]
    for path in Path(ready).iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for item, old in enumerate(before):
        np.testing.assert_array_equal(render(sampler.scene(0, item), ready=ready).mixture, old)
