"""Trained models out of their folders: what does not fit is one line that names the file and the key."""

import shutil

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from s5.system.model import build_network, load_model
from s5.system.trained import best_checkpoint, read_config, read_meta
from s5.utils.errors import InputError


@pytest.fixture
def folder(trained, tmp_path):
    for name in ("config.yaml", "valid.sdri.best.pth"):
        shutil.copy(trained / "separator" / name, tmp_path / name)
    return tmp_path


def test_what_was_trained_is_read(folder):
    assert read_meta(folder)[1:] == (3, 8000) and read_config(folder).network == "resunetk"
    assert best_checkpoint(folder).name == "valid.sdri.best.pth"
    assert load_model(folder, None, "separator").labels.names == ("Cough", "Percussion", "Speech")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": True}, r"config\.yaml: key labels: found True"),
        ({"labels": ["Cough", "a b"]}, "label set: found 'a b'"),
        ({"labels": [1, 2, 3]}, r"key labels\.0: found 1"),
        ({"n_slots": 0}, "key n_slots: found 0, expected 1 or more"),
        ({"sampling_rate": "fast"}, "key sampling_rate: found 'fast'"),
        ({"network": ["m2d"]}, "key network: found"),
        ({"network": "resunet"}, "key network: found resunet, expected resunetk"),
        ({"network_conf": None}, "key network_conf: found None"),
        ({"best_model_criterion": [["valid"]]}, "key best_model_criterion"),
        ({"network_conf": {"widths": "23"}}, "network_conf: key widths"),
        ({"network_conf": {"n_fft": 128.0}}, "network_conf: key n_fft: found 128.0, expected values of type int"),
        ({"network_conf": {"widths": [-2, 3]}}, "network_conf: found .*, expected arguments that ResUNetK accepts"),
        ({"network_conf": {"widths": [2, 10**6]}}, r"best\.pth: key .*: found \[.*\], expected \[.*1000000.*\]"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(folder, change, message):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    if isinstance(change.get("network_conf"), dict):
        change = {"network_conf": {**config["network_conf"], **change["network_conf"]}}
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, **change}))
    with pytest.raises(InputError, match=message) as error:
        load_model(folder, None, "separator")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * float("nan"), "found numbers that are not finite, expected weights"),
        (lambda x: x.double() * 1e300, "found numbers that are not finite"),
        (lambda x: x.cfloat(), "found torch.complex64, expected torch.float32"),
        (lambda x: x.to_sparse(), "found a sparse, quantized or empty tensor"),
        (lambda x: x.to("meta"), "found a sparse, quantized or empty tensor"),
        (lambda x: x[:1], r"found \[1.*\], expected"),
        (lambda x: 3, "found nothing"),
    ],
)
def test_weights_that_are_none_are_named(folder, change, message):
    state = torch.load(folder / "valid.sdri.best.pth")
    key = next(key for key, value in state.items() if value.ndim == 4 and value.is_floating_point())
    torch.save({**state, key: change(state[key])}, folder / "valid.sdri.best.pth")
    with pytest.raises(InputError, match=message) as error:
        load_model(folder, None, "separator")
    assert key.removeprefix("network.") in str(error.value)


def test_outputs_that_are_not_finite_are_told(folder):
    """Weights that are finite, and too large."""
    state = torch.load(folder / "valid.sdri.best.pth")
    large = {
        key: value * 1e30 if value.ndim == 4 and value.is_floating_point() else value for key, value in state.items()
    }
    torch.save(large, folder / "valid.sdri.best.pth")
    model = load_model(folder, None, "separator")
    with pytest.raises(InputError, match="outputs: found numbers that are not finite") as error:
        model.separate(np.random.default_rng(0).standard_normal((4, 8000)).astype(np.float32), ["Cough"])
    assert str(error.value).startswith(str(folder))


class Deep(nn.Module):
    def __init__(self, n_labels: int, n_slots: int = 3, depth: int = 1) -> None:
        super().__init__()
        layers = []
        while len(layers) < depth:
            layers.append(nn.Linear(1, 1))


def test_a_network_without_end_is_refused_in_time():
    assert build_network(Deep, {"depth": 3}, "x", 3, 3)
    with pytest.raises(InputError, match=r"x: found more than \d+ tensors of weights"):
        build_network(Deep, {"depth": 10**12}, "x", 3, 3)
