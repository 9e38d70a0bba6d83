"""A set's YAML may name a list of scenes instead of the rules to draw them."""

import json

import pytest
import yaml

from s5.bin.simulate import main
from s5.data import DataDir
from s5.scene import Sampler, Scene
from s5.utils.errors import InputError


@pytest.fixture
def listed(material, config, tmp_path, monkeypatch):
    """A list of two scenes and the YAML that names it."""
    monkeypatch.chdir(tmp_path)
    sampler = Sampler(config, material)
    for i in range(2):
        sampler.scene(0, i).save(f"{i}.json")
    (tmp_path / "list.json").write_text(json.dumps([{"metadata_path": f"{i}.json"} for i in range(2)]))
    (tmp_path / "valid.yaml").write_text(yaml.safe_dump({"scenes": "list.json", "root": str(material)}))
    return material


def test_list_by_configuration_and_by_option_are_the_same(listed, tmp_path):
    main(["--config", "valid.yaml", "--out", "a/valid"])
    main(["--scenes", "list.json", "--root", str(listed), "--out", "b/valid"])
    for name in ("wav/valid_0001.wav", "scene/valid_0000.json", "labels"):
        assert (tmp_path / "a/valid" / name).read_bytes() == (tmp_path / "b/valid" / name).read_bytes()


def test_the_rest_is_the_option_s_or_the_list_s(listed, tmp_path):
    (tmp_path / "valid.yaml").write_text(yaml.safe_dump({"scenes": "list.json", "root": str(listed), "rest": "noise"}))
    main(["--config", "valid.yaml", "--out", "valid"])
    assert len((tmp_path / "valid/noise.scp").read_text().splitlines()) == 2
    main(["--scenes", "list.json", "--root", str(listed), "--out", "other", "--rest", "residual"])
    data = DataDir.load("other")
    assert data.has_rest() and data.n_interference == max(len(Scene.load(f"{i}.json").int_events) for i in range(2))
    data.check()
    main(["--config", "valid.yaml", "--out", "valid", "--rest", "none"])
    assert not (tmp_path / "valid/noise.scp").exists()


def test_number_of_scenes_is_the_option_s_or_the_list_s(listed, tmp_path):
    main(["--config", "valid.yaml", "--out", "valid", "--num_scenes", "1"])
    assert len((tmp_path / "valid/wav.scp").read_text().splitlines()) == 1


def test_keys_of_a_sampler_are_refused_beside_a_list(listed, tmp_path):
    (tmp_path / "valid.yaml").write_text("scenes: list.json\nseed: 3\n")
    with pytest.raises(InputError, match=r"valid\.yaml: key seed: found an unknown key"):
        main(["--config", "valid.yaml", "--out", "valid"])
