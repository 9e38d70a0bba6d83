"""Model archives: a packed system is the system, here and from the hub; what is no archive is refused."""

import hashlib
import json
import shutil
import stat
import sys
import threading
import zipfile
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load

from s5 import S5System
from s5.bin import separate
from s5.inference.stages import separate_file
from s5.labels import LabelSet
from s5.system.archive import (
    FILE_ON_HUB,
    _as_archived,
    _weights,
    _yaml,
    check_folder,
    describe,
    pack,
    read_system,
    read_zip,
    unpack,
)
from s5.system.config import SystemConfig, system_name
from s5.system.hub import open_archive, upload
from s5.utils.config import ROOT
from s5.utils.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))
from hub import Hub

READY = sorted(p for p in (ROOT / "conf/systems").rglob("*.yaml") if p.parent.name != "parts")


@pytest.fixture(scope="module")
def archive(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    scores = {"set": "test", "oracle_labels": False, "by_class": {}, "mixtures": [{"utt": "a"}]}
    scores |= {"metrics": {"CAPI-SDRi": 1.25, "accuracy_mix": 50.0, "accuracy_src": None}, "counts": {"mixtures": 4}}
    (folder / "scores.json").write_text(json.dumps(scores))
    return pack(trained.parent / "system.yaml", trained, folder / "tiny.s5", [folder / "scores.json"], note="Tiny.")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("S5_CACHE", str(tmp_path / "cache"))


def noise():
    return 0.1 * np.random.default_rng(0).standard_normal((4, 8000)).astype(np.float32)


def outputs(system):
    posteriors = system.tag(noise())
    return posteriors["tagger"], system.separate(noise(), ["Cough", "Speech"])["separator"]


def test_a_packed_system_gives_the_same_outputs(trained, archive):
    before = S5System.from_yaml(trained.parent / "system.yaml", trained, "cpu")
    after = S5System.from_pretrained(archive, "cpu")
    for a, b in zip(outputs(before), outputs(after), strict=True):
        assert a.any() and np.array_equal(a, b)
    assert after.labels == before.labels and after.sampling_rate == before.sampling_rate


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_another_network_in_a_packed_system(recipe, trained, tmp_path, precision):
    """Locoformer: trained, packed, and taken from the archive through a long recording window by window."""
    from s5.tasks.launch import train_model

    networks = yaml.safe_load((ROOT / "test/tasks/networks.yaml").read_text())
    training = {**yaml.safe_load(Path("separator.yaml").read_text()), **networks["locoformer"], "max_epoch": 1}
    (tmp_path / "separator.yaml").write_text(yaml.safe_dump(training))
    (tmp_path / "system.yaml").write_text(
        "taggers: {tagger: {train: tagger.yaml, finetune: tagger_ft.yaml}}\n"
        f"separators: {{locoformer: {{train: {tmp_path}/separator.yaml}}}}\nprecision: {precision}\n"
    )
    shutil.copytree(trained, tmp_path / "exp")
    train_model(tmp_path / "system.yaml", "locoformer", "train", "data/train", "data/valid", tmp_path / "exp", 0)
    before = S5System.from_yaml(tmp_path / "system.yaml", tmp_path / "exp", "cpu")
    after = S5System.from_pretrained(pack(tmp_path / "system.yaml", tmp_path / "exp", tmp_path / "other.s5"), "cpu")
    one, other = (system.separate(noise(), ["Cough", "Speech"])["locoformer"] for system in (before, after))
    assert one[:2].any(axis=1).all() and not one[2:].any() and np.array_equal(one, other)
    recording = np.tile(noise(), 12)[:, :90000]  # more than a window of 10 s
    soundfile.write(tmp_path / "long.wav", recording.T, 8000)
    written = separate_file(after, tmp_path / "long.wav", tmp_path / "out", ["Cough", "Speech"])
    assert len(written) == 2
    for path in sorted((tmp_path / "out").glob("*.wav")):
        samples, _ = soundfile.read(path)
        assert len(samples) == 90000 and all(part.any() for part in np.split(samples, 9))


def test_an_archive_is_the_same_file_every_time_and_tells_about_itself(trained, archive, tmp_path):
    again = pack(
        trained.parent / "system.yaml", trained, tmp_path / "again.s5", [archive.parent / "scores.json"], note="Tiny."
    )
    assert again.read_bytes() == archive.read_bytes()
    with zipfile.ZipFile(archive) as contents:
        card = contents.read("README.md").decode()
        figures = json.loads(contents.read("scores.json"))
        assert contents.read("labels.txt").decode().split() == ["Cough", "Percussion", "Speech"]
        assert "Apache License" in contents.read("LICENSE").decode()
        assert str(trained) not in "".join(contents.read(n).decode() for n in contents.namelist() if n.endswith("yaml"))
    assert "| test | 1.25 | 50.00 | - | 4 |" in card and "Tiny." in card
    assert "mixtures" not in figures["test"]
    told = describe(archive)
    assert (told.name, told.note, told.size) == ("system", "Tiny.", archive.stat().st_size)
    assert told.figures["test"]["metrics"]["CAPI-SDRi"] == 1.25 and told.figures["test"]["counts"] == {"mixtures": 4}


@pytest.mark.parametrize("path", READY, ids=system_name)
def test_every_ready_system_can_be_written_down(path, tmp_path):
    config = SystemConfig.load(path)
    (tmp_path / "system.yaml").write_bytes(_yaml(_as_archived(config)))
    again = SystemConfig.load(tmp_path / "system.yaml")
    for part in ("vote", "fusion", "gate", "refine", "precision"):
        assert getattr(again, part) == getattr(config, part)
    assert again.weights() == config.weights()
    assert [m.folder() for m in again.separators] == [m.name for m in config.separators]


def test_half_the_size_in_16_bit(trained, archive, tmp_path):
    small = pack(trained.parent / "system.yaml", trained, tmp_path / "half.s5", half=True)

    def weights(path):
        with zipfile.ZipFile(path) as contents:
            return sum(i.file_size for i in contents.infolist() if i.filename.endswith("safetensors"))

    assert weights(small) < 0.7 * weights(archive)
    full = outputs(S5System.from_pretrained(archive, "cpu"))
    for a, b in zip(full, outputs(S5System.from_pretrained(small, "cpu")), strict=True):
        assert np.abs(a - b).max() < 0.01 * np.abs(a).max()


def test_what_16_bit_cannot_hold_stays_as_it_is():
    norm = torch.nn.BatchNorm1d(2)
    norm.running_var[0] = 1e6
    tensors = load(_weights(SimpleNamespace(network=norm), half=True))
    assert tensors["running_var"].tolist() == [1e6, 1] and tensors["weight"].dtype == torch.float16


def test_the_archive_of_the_repository_separates(tmp_path):
    archive = ROOT / "egs/mini_s5/mini_long.s5"
    assert archive.stat().st_size <= 10e6 and "epochs" in describe(archive).note
    system = S5System.from_pretrained(archive, "cpu")
    assert system.labels.names == LabelSet.load(ROOT / "egs/mini_s5/conf/labels.txt").names
    assert all(s.label in system.labels.names for s in system(noise(), 8000))
    (source,) = system(noise(), 8000, labels=["Speech"])
    assert source.waveform.shape == (8000,) and np.abs(source.waveform).max() > 0


@pytest.mark.parametrize("length", [16000 - 1, 31999])
def test_the_archive_of_the_repository_makes_no_click_at_the_end(length):
    system = S5System.from_pretrained(ROOT / "egs/mini_s5/mini_long.s5", "cpu")
    mixture = 0.1 * np.random.default_rng(0).standard_normal((4, length))
    for source in system(mixture, system.sampling_rate, labels=["Speech", "Typing"]):
        assert np.abs(source.waveform[-256:]).max() < np.abs(mixture).max()


def test_the_command_line_takes_an_archive_for_a_system(archive, tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", noise().T, 8000)
    separate.main(["--system", str(archive), str(tmp_path / "a.wav"), str(tmp_path / "out"), "--labels", "Cough Cough"])
    assert [p.name for p in sorted((tmp_path / "out").iterdir())] == ["a_0_Cough.wav", "a_1_Cough.wav"]
    assert "a_1_Cough.wav  Cough 1.00" in capsys.readouterr().out


def test_an_unpacked_archive_is_checked(archive, tmp_path):
    folder = unpack(archive, tmp_path / "tiny")
    assert open_archive(folder) == folder and unpack(archive, folder) == folder
    assert S5System.from_pretrained(folder, "cpu").config == check_folder(folder)
    weights = folder / "models/tagger/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"tagger/weights\.safetensors: found another content"):
        S5System.from_pretrained(folder)
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="other: found a folder, expected none of this name"):
        unpack(archive, tmp_path / "other")


def rewritten(archive, path, change):
    """A copy of an archive with its files changed: a function of {name: content}; sums are made to fit."""
    with zipfile.ZipFile(archive) as source:
        contents = {name: source.read(name) for name in source.namelist()}
    change(contents)
    if "archive.yaml" in contents:
        manifest = yaml.safe_load(contents["archive.yaml"])
        names = [n for n in contents if n != "archive.yaml"]
        manifest["files"] = {n: hashlib.sha256(contents[n]).hexdigest() for n in names}
        contents["archive.yaml"] = yaml.safe_dump(manifest).encode()
    with zipfile.ZipFile(path, "w") as target:
        for name, content in contents.items():
            target.writestr(name, content)
    return path


def _set(name, text):
    return lambda contents: contents.__setitem__(name, text)


def _replace(name, old, new):
    def change(contents):
        assert old in contents[name]
        contents[name] = contents[name].replace(old, new)

    return change


def test_an_archive_of_before_mappings_by_name_is_read(tmp_path):
    """Its models are lists of entries with names."""
    keys = yaml.safe_load(read_zip(ROOT / "egs/mini_s5/mini_long.s5")["system.yaml"])
    for kind in ("taggers", "separators"):
        keys[kind] = [{"name": name, **entry} for name, entry in keys[kind].items()]
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(keys))
    config = read_system(tmp_path)
    assert [(m.name, m.experiment) for m in config.taggers] == [("yamnet_tiny", "yamnet_tiny")]
    assert [m.name for m in config.separators] == ["locoformer_tiny_long"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("../evil.txt", b"x"), r"found a file '\.\./evil\.txt', expected the files of a model archive"),
        (_set("/tmp/evil.txt", b"x"), "found a file '/tmp/evil.txt'"),
        (_set("models/../../evil/config.yaml", b"x"), "found a file 'models/../../evil/config.yaml'"),
        (_set("models/tagger/weights.pth", b"x"), "found a file 'models/tagger/weights.pth'"),
        (_set("evil.py", b"x"), "found a file 'evil.py'"),
        (_replace("system.yaml", b"experiment: tagger", b"experiment: ../../tagger"), r"experiment \.\./\.\./tagger"),
        (_replace("system.yaml", b"experiment: tagger", b"checkpoint: /a.pth\n    experiment: tagger"), "model tagger"),
        (_replace("system.yaml", b"gate: null", b"inherit: /etc/passwd"), "key inherit: found a reference"),
        (_replace("system.yaml", b"gate: null", b"gates: null"), "key gates: found an unknown key, expected gate"),
        (_replace("archive.yaml", b"format: 1", b"format: 2"), "found format 2, expected 1"),
        (lambda contents: contents.pop("archive.yaml"), r"found no archive\.yaml"),
    ],
)
def test_what_is_no_archive_is_refused(archive, tmp_path, change, message):
    bad = rewritten(archive, tmp_path / "bad.s5", change)
    with pytest.raises(InputError, match=message) as error:
        unpack(bad, tmp_path / "in/tiny")
    assert "bad.s5" in str(error.value) and "\n" not in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) in (["bad.s5"], ["bad.s5", "in"])
    assert not list(tmp_path.glob("in/*")) and not (tmp_path.parent / "evil.txt").exists()


def test_links_compressed_files_and_cut_archives_are_refused(archive, tmp_path):
    link = zipfile.ZipInfo("labels.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.s5", "w") as bad:
        bad.writestr(link, "/etc/passwd")
    with zipfile.ZipFile(tmp_path / "bomb.s5", "w", zipfile.ZIP_DEFLATED) as bad:
        bad.writestr("README.md", b"0" * 10_000_000)
    (tmp_path / "cut.s5").write_bytes(archive.read_bytes()[:-1000])
    (tmp_path / "text.s5").write_text("hello")
    for name, message in (("link", "a link 'labels.txt'"), ("bomb", "README.md compressed"), ("cut", "a damaged file")):
        with pytest.raises(InputError, match=message):
            open_archive(tmp_path / f"{name}.s5")
    with pytest.raises(InputError, match="damaged file"):
        open_archive(tmp_path / "text.s5")
    with pytest.raises(InputError, match=r"none\.s5: found no such file"):
        open_archive("none.s5")


def test_an_archive_is_unpacked_inside_the_repository(archive, tmp_path, monkeypatch):
    repository, home = tmp_path / "repository", tmp_path / "home"
    for folder in (repository, home):
        folder.mkdir()
    for name in ("S5_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("s5.system.hub.ROOT", repository)
    assert open_archive(archive).parent == repository / ".cache/archives"
    assert not list(home.iterdir())


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(Hub, "files", {})
    yield Hub
    server.shutdown()
    server.server_close()


def test_an_archive_goes_to_the_hub_and_comes_back(archive, hub, tmp_path, monkeypatch):
    assert upload(archive, "somebody/tiny") == hub.commit
    assert hub.files[f"somebody/tiny/{FILE_ON_HUB}"] == archive.read_bytes()
    assert hub.files["somebody/tiny/README.md"].startswith(b"---\nlicense: apache-2.0\n")
    system = S5System.from_pretrained("somebody/tiny", "cpu")
    assert system.labels.names == ("Cough", "Percussion", "Speech")
    hub.files.clear()  # from the local cache now
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    shutil.rmtree(tmp_path / "cache")
    assert S5System.from_pretrained("somebody/tiny", "cpu").config == system.config


def test_a_name_that_the_hub_does_not_have_is_told_in_one_line(hub):
    with pytest.raises(InputError, match="somebody/nothing: found no such file, and none from the hub") as error:
        S5System.from_pretrained("somebody/nothing")
    assert "\n" not in str(error.value)
