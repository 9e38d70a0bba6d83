"""W&B by ESPnet's options: a line where the package is missing; where it is there, what an offline run holds."""

import importlib.util
import json
import os
import signal
import struct

import pytest

from s5.tasks.launch import train_model
from s5.tasks.preemption import REQUEUE
from s5.utils.errors import InputError

INSTALLED = importlib.util.find_spec("wandb") is not None
installed = pytest.mark.skipif(not INSTALLED, reason="W&B is not installed (tools/installers/install_wandb.sh)")
OPTIONS = ("--use_wandb", "true", "--wandb_project", "s5", "--wandb_name", "small", "--num_examples", "1")


def run(expdir, *extra):
    train_model("system.yaml", "separator", "train", "data/train", "data/valid", expdir, 0, (*OPTIONS, *extra))
    return expdir / "separator"


@pytest.mark.skipif(INSTALLED, reason="W&B is installed")
def test_a_missing_package_is_said_in_one_line_before_anything_is_trained(recipe, tmp_path):
    with pytest.raises(InputError) as error:
        run(tmp_path)
    text = str(error.value)
    assert "\n" not in text and text.startswith("--use_wandb: found no package wandb, expected it")
    assert "install_wandb.sh" in text
    assert not list((tmp_path / "separator").glob("*.pth"))


@pytest.fixture
def offline(recipe, monkeypatch):
    """Nothing leaves this machine."""
    import wandb

    wandb.teardown()  # what an earlier test has told it
    for name in ("WANDB_RUN_ID", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def leveldb_log(data):
    """The records of a .wandb file: LevelDB's log format, blocks of 32 KiB that hold records or parts of them."""
    assert data[:4] == b":W&B"
    position, record = 7, b""
    while position + 7 <= len(data):
        if (left := -position % 32768) and left < 7:
            position += left
        _, length, kind = struct.unpack_from("<IHB", data, position)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def records(folder):
    """What the offline runs of an experiment hold, in order: history rows, the name, exit codes, whether preempted."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # or its process may still be writing
    found = {"history": [], "name": set(), "project": set(), "exit": [], "preempted": False, "artifacts": []}
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        for data in leveldb_log(path.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "history":
                row = {}
                for item in record.history.item:
                    *above, last = item.nested_key or [item.key]
                    (row.setdefault(above[0], {}) if above else row)[last] = json.loads(item.value_json)
                found["history"].append(row)
            elif kind == "run":
                found["name"].add(record.run.display_name)
                found["project"].add(record.run.project)
            elif kind == "exit":
                found["exit"].append(record.exit.exit_code)
            elif kind == "preempting":
                found["preempted"] = True
            elif kind == "artifact":
                found["artifacts"] += list(record.artifact.aliases)
    return found


@installed
def test_an_offline_run_holds_curves_audio_and_spectrograms(offline, tmp_path, state, assert_same):
    folder = run(tmp_path, "--examples_interval", "1", "--wandb_model_log_interval", "2", "--log_interval", "1")
    found = records(folder)
    assert (found["name"], found["project"], found["exit"]) == ({"small"}, {"s5"}, [0])
    epochs = [row for row in found["history"] if "epoch" in row]
    assert [row["epoch"] for row in epochs] == [1, 2]
    stats = state(folder)["reporter"]["stats"]
    for row in epochs:
        for part in ("train", "valid"):
            for name in ("loss", "sdri") if part == "valid" else ("loss",):
                assert row[f"{part}/{part}_{name}_epoch"] == pytest.approx(stats[row["epoch"]][part][name])
    steps = [row["iteration"] for row in found["history"] if "iteration" in row]
    assert steps == [1, 2, 3, 4]
    kinds = {key: value["_type"] for row in epochs for key, value in row.items() if isinstance(value, dict)}
    assert {key.rpartition("/")[2]: kind for key, kind in kinds.items()} == {
        "mixture": "audio-file",
        "reference": "audio-file",
        "estimate": "audio-file",
        "spectrograms": "image-file",
        "about": "html-file",
    }
    given = [key for key, value in epochs[1].items() if isinstance(value, dict)]
    assert not [key for key in given if key.endswith(("/mixture", "/reference", "/about"))]  # once
    files = next((folder / "wandb").glob("offline-run-*")) / "files"
    for row in epochs:
        for value in row.values():
            if isinstance(value, dict):
                assert (files / value["path"]).stat().st_size == value["size"]
    assert "epoch-2" in found["artifacts"]
    without = tmp_path / "without"
    train_model("system.yaml", "separator", "train", "data/train", "data/valid", without, 0, ("--log_interval", "1"))
    assert_same(state(folder), state(without / "separator"))


@installed
def test_a_stopped_training_leaves_its_run_open(offline, tmp_path, at):
    """The next start goes on with the same run, also with other options."""
    with at("1epoch results", lambda: os.kill(os.getpid(), signal.SIGTERM)), pytest.raises(SystemExit) as end:
        run(tmp_path)
    assert end.value.code == REQUEUE
    folder = tmp_path / "separator"
    found = records(folder)
    assert found["exit"] == [REQUEUE] and found["preempted"]
    resume = folder / "wandb/wandb-resume.json"
    run_id = json.loads(resume.read_text())["run_id"]
    run(tmp_path, "--max_epoch", "3")
    names = [path.name for path in (folder / "wandb").glob("offline-run-*")]
    assert len(names) == 2 and all(name.endswith(f"-{run_id}") for name in names)
    assert [row["epoch"] for row in records(folder)["history"] if "epoch" in row] == [1, 2, 3]
    assert not resume.exists()


@installed
def test_of_several_processes_the_first_one_has_a_run(offline, tmp_path, forked):
    # The first one's curves are those of all: no more than one run.
    statuses = forked(2, tmp_path, lambda rank: run(tmp_path, "--max_epoch", "1")).wait()
    assert statuses == [0, 0]
    assert [row["epoch"] for row in records(tmp_path / "separator")["history"] if "epoch" in row] == [1]
    assert len(list((tmp_path / "separator/wandb").glob("offline-run-*"))) == 1


@installed
def test_a_missing_key_is_said_in_one_line(offline, tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(InputError, match=r"--use_wandb: found no API key, expected one .*WANDB_MODE=offline"):
        run(tmp_path)
