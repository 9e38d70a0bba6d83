"""Sizes that follow from the scenes: what a YAML leaves out is filled in, what it says stays."""

from pathlib import Path

import pytest
import yaml

from s5.system.derived import derived_sizes, with_derived
from s5.system.sizes import Keys


@pytest.mark.parametrize(
    ("rate", "n_fft"), [(4000, 256), (8000, 256), (16000, 512), (22050, 1024), (32000, 1024), (44100, 2048)]
)
def test_windows_last_32_ms_or_a_little_more(rate, n_fft):
    for network in ("resunetk", "tfgridnet", "espnet"):
        found = derived_sizes({"network": network, "network_conf": {}}, rate, 10)
        assert found == {"network_conf": {"n_fft": n_fft, "hop_length": n_fft // 2}}


def test_a_value_of_the_yaml_wins():
    separator = {"network": "resunetk", "network_conf": {"n_fft": 1024}}
    assert derived_sizes(separator, 16000, 4) == {}  # the hop is the network's own then
    separator = {"network": "resunetk", "network_conf": {"hop_length": 160}}
    assert derived_sizes(separator, 32000, 4) == {"network_conf": {"n_fft": 1024}}
    assert derived_sizes({"network": "resunetk", "network_conf": None}, 16000, 4) == {}  # refused elsewhere
    tagger = {"network": "m2d", "network_conf": {"encoder": {"sampling_rate": 8000, "input_size": [80, 201]}}}
    assert derived_sizes(tagger, 16000, 4) == {}


def test_encoders_take_rate_and_length_of_the_scenes():
    sizes = {"sampling_rate": 16000, "input_size": [80, 251]}
    for tagger in (
        {"network": "m2d", "network_conf": {}},
        {"network": "tagger", "network_conf": {"encoder": {"kind": "m2d"}}},
    ):
        assert derived_sizes(tagger, 16000, 2.5) == {"network_conf": {"encoder": sizes}}
    released = {"network": "m2d", "network_conf": {"encoder": {"weights": "m2d-80x1001p16x16p32k/weights.pth"}}}
    assert derived_sizes(released, 16000, 2.5) == {}  # its name says them
    clap = {"network": "tagger", "network_conf": {"encoder": {"kind": "htsat"}}}
    assert derived_sizes(clap, 16000, 2.5) == {"network_conf": {"encoder": {"sampling_rate": 16000}}}
    assert derived_sizes(clap, 32000, 2.5) == {}  # its default


def test_they_come_from_the_sampler_of_the_training_data_and_say_so(tmp_path):
    keys = Keys({"network": "resunetk", "network_conf": {"widths": [4]}}, {"network": Path("a"), "network_conf": {}})
    assert with_derived(keys, tmp_path) == keys
    (tmp_path / "sampler.yaml").write_text(yaml.safe_dump({"sampling_rate": 16000, "duration": 4.0}))
    found = with_derived(keys, tmp_path)
    assert found.values["network_conf"] == {"widths": [4], "n_fft": 512, "hop_length": 256}
    assert found.files["network_conf"]["n_fft"] == tmp_path / "sampler.yaml"
    for odd in ({"sampling_rate": 0}, {"sampling_rate": "8k"}, {"duration": float("inf")}):  # refused elsewhere
        wrong = Keys({**keys.values, "scene_conf": odd}, {})
        assert with_derived(wrong, tmp_path) == wrong
    longer = Keys({"network": "m2d", "scene_conf": {"duration": 10.0}}, {})
    assert with_derived(longer, tmp_path).values["network_conf"]["encoder"]["input_size"] == [80, 1001]
