"""Text files with a byte order mark, as editors on Windows write them, are read as those without one."""

import json

import numpy as np
import pytest
import soundfile

from s5.data import DataDir
from s5.inference.results import read_rows
from s5.labels import LabelSet
from s5.scene import Sampler, Scene
from s5.scene.formats.lists import MetadataList
from s5.utils.config import load_inherited
from s5.utils.errors import InputError
from s5.utils.text import read_json, read_text

MARK = b"\xef\xbb\xbf"


def mark(*paths):
    for path in paths:
        path.write_bytes(MARK + path.read_bytes())


def test_labels(tmp_path):
    (tmp_path / "labels.txt").write_bytes(MARK + b"Cough\r\nSpeech\r\n")
    assert LabelSet.load(tmp_path / "labels.txt").names == ("Cough", "Speech")


def test_yaml(tmp_path):
    (tmp_path / "a.yaml").write_bytes(MARK + b"inherit: b.yaml\r\nx: 1\r\n")
    (tmp_path / "b.yaml").write_bytes(MARK + b"y: 2\n")
    assert load_inherited(tmp_path / "a.yaml") == {"x": 1, "y": 2}


def test_data_directory(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((80, 4)), 8000)
    soundfile.write(tmp_path / "s.wav", np.zeros(80), 8000)
    for name, line in (("wav.scp", "a a.wav"), ("labels", "a Cough"), ("source0.scp", "a s.wav"), ("n_slots", "4")):
        value = line.replace(" a.wav", f" {tmp_path}/a.wav").replace(" s.wav", f" {tmp_path}/s.wav")
        (tmp_path / name).write_bytes(MARK + f"{value}\n".encode())
    data = DataDir.load(tmp_path, LabelSet(("Cough",)))
    assert data.utts == ["a"] and data.labels == {"a": ("Cough",)} and data.n_slots == 4
    assert read_rows(tmp_path / "labels") == {"a": ["Cough"]}


def test_scenes(material, config, tmp_path):
    scene = Sampler(config, material).scene(0, 0)
    scene.save(tmp_path / "0.json")
    (tmp_path / "list.json").write_text(json.dumps([{"metadata_path": "0.json"}]))
    mark(tmp_path / "0.json", tmp_path / "list.json")
    assert Scene.load(tmp_path / "0.json") == scene
    assert list(MetadataList.load(tmp_path / "list.json")) == [scene]


def test_what_is_no_text_is_named_in_one_line(tmp_path):
    (tmp_path / "a").write_bytes("Cough".encode("utf-16"))
    with pytest.raises(InputError, match=r"a: found no text in UTF-8, expected labels$"):
        read_text(tmp_path / "a", "labels")
    with pytest.raises(InputError, match=r"b: found No such file or directory, expected labels$"):
        read_text(tmp_path / "b", "labels")
    with pytest.raises(InputError, match=r"found embedded null byte, expected labels$"):
        read_text("a\0b", "labels")
    (tmp_path / "c").write_text(r'["\ud83d\ude00"]')
    assert read_json(tmp_path / "c", "a list") == ["\U0001f600"]
    (tmp_path / "c").write_text(r'["half \ud83d"]')
    with pytest.raises(InputError, match=r"c: found no JSON \(.*surrogates not allowed\), expected a list$"):
        read_json(tmp_path / "c", "a list")
    (tmp_path / "c").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"c: found no JSON \(nested too deeply\), expected a list$"):
        read_json(tmp_path / "c", "a list")
