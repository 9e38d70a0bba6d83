"""Tests that published checkpoints become our models, with replicas of the official keys from a local server."""

import json
import re
import threading
import zipfile
import zlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import yaml

from s5.challenge.baselines import Published, _build, download_models
from s5.challenge.corpus.download import Patience
from s5.checkpoints import load_official
from s5.system.config import SystemConfig
from s5.system.model import load_model
from s5.system.sizes import training_keys
from s5.system.system import S5System
from s5.system.trained import read_meta
from s5.utils.config import ROOT, load_inherited
from s5.utils.errors import InputError

SYSTEMS = ("official_2026_1c", "official_2026_4c", "official_2025_resunetk", "official_2025_resunet")
KEYS = {
    "m2dat_1c.ckpt": "m2dat_1c",
    "m2dat_4c.ckpt": "m2dat_4c",
    "resunetk.ckpt": "resunetk",
    "resunet.ckpt": "resunet_2025",
}
IMPATIENT = Patience(timeout=5, retries=1, first_wait=0.01)


def value_of(key):
    return 0.5 + zlib.crc32(key.encode()) % 1000 / 1000


def lightning(golden, name, drop=()):
    """A Lightning file with the official keys and shapes; each tensor is one number, which makes it small."""
    shapes = json.loads((golden / f"{name}_state.json").read_text())
    state = {f"model.{key}": torch.tensor(value_of(key)).expand(shape) for key, shape in shapes.items()}
    return {
        "epoch": 12,
        "global_step": 34_567,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": {key: value for key, value in state.items() if key not in drop},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'epoch_val/loss'}": {"best_model_score": torch.tensor(1.5)}},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 1e-4, "params": [0]}]}],
        "lr_schedulers": [],
    }


def pack(golden, path, members, folder="", **options):
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            with archive.open(folder + member, "w") as file:
                torch.save(lightning(golden, KEYS[member], **options), file)
    return path


@pytest.fixture
def server(tmp_path):
    """A served folder, its address, and the requested paths."""
    (tmp_path / "served").mkdir()
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    serving = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path / "served"))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield tmp_path / "served", f"http://127.0.0.1:{serving.server_address[1]}", asked
    serving.shutdown()
    serving.server_close()


def table_at(path, address, **about):
    """conf/official.yaml with a file at another address."""
    data = yaml.safe_load((ROOT / "conf/official.yaml").read_text())
    data["files"]["baseline_2026"] = {"url": f"{address}/baseline_checkpoint.zip", **about}
    path.write_text(yaml.safe_dump(data))
    return path


def test_the_separator_is_fetched_converted_and_loads(golden, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    served, address, asked = server
    # The tagger is four times as large as the separator; its keys are checked below without files.
    (tmp_path / "system.yaml").write_text(
        "taggers: {t: {train: t.yaml}}\nseparators: {s: {experiment: official_2026_resunetk}}\n"
    )
    members = ["m2dat_1c.ckpt", "m2dat_4c.ckpt", "resunetk.ckpt"]
    pack(golden, served / "baseline_checkpoint.zip", members, folder="baseline_checkpoint/")
    table = table_at(tmp_path / "official.yaml", address)
    arguments = {"downloads": "downloads", "published": table, "patience": IMPATIENT}
    (folder,) = download_models("system.yaml", "exp", **arguments)
    assert read_meta(folder).sampling_rate == 32000 and len(read_meta(folder).labels) == 18
    network = load_model(folder, None, "separator").network
    for key, value in network.state_dict().items():
        assert value.dtype != torch.float32 or bool((value == torch.tensor(value_of(key))).all()), key
    assert [p.name for p in (tmp_path / "exp").iterdir()] == ["official_2026_resunetk"]
    asked.clear()
    assert download_models("system.yaml", "exp", **arguments) == [folder] and not asked
    (folder / "weights.safetensors").unlink()
    download_models("system.yaml", "exp", file=tmp_path / "downloads/baseline_2026.zip", published=table)
    assert (folder / "weights.safetensors").is_file() and not asked


@pytest.mark.parametrize("name", [n for n in Published.load().models if n != "official_2025_m2dat"])
def test_every_published_model_has_a_network_with_its_keys(name, golden, caplog):
    model = Published.load().models[name]
    with torch.device("meta"):
        network = _build(model)
        shapes = json.loads((golden / f"{KEYS[model.member]}_state.json").read_text())
        load_official(network, {f"model.{key}": torch.empty(shape) for key, shape in shapes.items()})
    assert "not used" not in caplog.text


def test_the_2025_tagger_is_the_backbone_with_a_linear_layer(golden, caplog):
    shapes = json.loads((golden / "m2dat_1c_state.json").read_text())
    shapes = {key: shape for key, shape in shapes.items() if key.startswith(("backbone.", "to_spec."))}
    shapes |= {f"head_norm.running_{part}": [3840] for part in ("mean", "var")}
    shapes |= {"head_norm.num_batches_tracked": [], "head.weight": [18, 3840], "head.bias": [18]}
    with torch.device("meta"):
        network = _build(Published.load().models["official_2025_m2dat"])
        load_official(network, {f"model.{key}": torch.empty(shape) for key, shape in shapes.items()})
    assert network.multi_hot and "not used" not in caplog.text


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_systems_name_published_models_and_train_nothing(name):
    config = SystemConfig.load(ROOT / f"conf/systems/{name}.yaml")
    models = Published.load().models
    for kind in ("tagger", "separator"):
        for model in config.models(kind):
            assert models[model.experiment].kind == kind and model.folder() == model.experiment and not model.phases()
    if "2025" in name:
        assert (config.vote.rule, config.vote.threshold, config.vote.n_min) == ("average", 0.5, 1)


def bad(golden, tmp_path, change, **about):
    (tmp_path / "system.yaml").write_text(
        "taggers: {t: {train: t.yaml}}\nseparators: {s: {experiment: official_2026_resunetk}}\n"
    )
    path = tmp_path / "a.zip"
    change(path)
    table = table_at(tmp_path / "official.yaml", "http://127.0.0.1:9", **about)
    with pytest.raises(InputError) as error:
        download_models(tmp_path / "system.yaml", tmp_path / "exp", file=path, published=table)
    assert "\n" not in str(error.value) and not list((tmp_path / "exp").glob("*"))
    return str(error.value)


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_files_that_are_not_the_published_ones_leave_nothing(golden, tmp_path, capsys):
    def evil(path):
        with zipfile.ZipFile(path, "w") as archive, archive.open("resunetk.ckpt", "w") as file:
            torch.save({"state_dict": {"model.a": torch.ones(1)}, "hyper_parameters": Evil()}, file)

    drop = ("model.base.bn0.weight",)
    assert "no key base.bn0.weight" in bad(golden, tmp_path, lambda p: pack(golden, p, ["resunetk.ckpt"], drop=drop))
    assert "found 0 files resunetk.ckpt" in bad(golden, tmp_path, lambda p: pack(golden, p, ["resunet.ckpt"]))
    assert "a damaged file" in bad(golden, tmp_path, lambda p: p.write_bytes(b"PK"))
    assert "unreadable checkpoint" in bad(golden, tmp_path, evil)
    assert "code ran" not in capsys.readouterr().out
    assert "no such file" in bad(golden, tmp_path, lambda p: p.unlink())


def test_another_size_or_no_connection_is_told(golden, server, tmp_path):
    served, address, _ = server
    (served / "baseline_checkpoint.zip").write_bytes(b"x" * 100)
    for about, at in (({"size": 101}, address), ({"checksum": "md5:" + "0" * 32}, address), ({}, f"{address}/none")):
        table = table_at(tmp_path / "official.yaml", at, **about)
        with pytest.raises(InputError) as error:
            options = {"downloads": tmp_path / "in", "published": table, "patience": IMPATIENT}
            download_models("official_2026_1c", tmp_path / "exp", **options)
        assert "baseline_2026.zip" in str(error.value)
    assert not list((tmp_path / "exp").glob("*"))


def test_an_experiment_of_ones_own_is_not_overwritten(tmp_path):
    folder = tmp_path / "exp/official_2026_m2dat_1c"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("network: m2d\n")
    with pytest.raises(InputError, match="official_2026_m2dat_1c: found another experiment"):
        download_models("official_2026_1c", tmp_path / "exp", file=tmp_path / "none.zip")
    assert S5System.from_yaml(ROOT / "conf/systems/official_2026_1c.yaml", tmp_path / "exp").config.taggers


def test_the_table_of_memory_and_time_has_every_training_at_official_settings():
    text = (ROOT / "docs/challenge.md").read_text()
    rows = re.findall(r"^\| `((?:tagger|separator)_\w+)` \|(.*)\|$", text, re.M)
    trainings = {"separator_resunet_2025": load_inherited(ROOT / "conf/tuning/separator_resunet_2025.yaml")}
    for path in (ROOT / "conf/systems").rglob("*.yaml"):
        if path.parent.name != "parts" and not path.stem.startswith(("mini", "smoke", "yamnet")):
            config = SystemConfig.load(path)
            for kind in ("tagger", "separator"):
                for model in config.models(kind):
                    folders = {phase: f"{kind}_{model.folder(phase)}" for phase in model.phases()}
                    trainings |= {folder: training_keys(model.files(phase)) for phase, folder in folders.items()}
    assert {name for name, _ in rows} == set(trainings) and len(rows) == len(trainings)
    for name, cells in rows:
        conf = trainings[name]
        _, _, batch, _, _, scenes, _, _ = (cell.strip() for cell in cells.split("|"))
        n_gpus, on_gpu = map(int, batch.split(" x "))
        assert n_gpus * on_gpu == conf["batch_size"], name
        assert scenes.replace(",", "") == f"{conf['num_scenes']} x {conf['max_epoch']}", name
