"""The training log: what is written is what is read, and what the trainer writes is what its checkpoint knows."""

import json
import math
from datetime import timedelta

import pytest

from s5.system.training_log import FILE, read_epochs, write_epochs
from s5.utils.errors import InputError

STATS = {
    2: {"train": {"loss": 1.5, "time": timedelta(seconds=3)}, "valid": {"loss": math.nan}},
    1: {"train": {"loss": 2, "time": timedelta(seconds=4)}, "valid": {"loss": 0.5, "time": timedelta(seconds=1)}},
}


def test_epochs_come_back_in_order(tmp_path):
    write_epochs(tmp_path, STATS, 20, 10)
    first, second = read_epochs(tmp_path)
    assert (first.epoch, first.parameters, first.trainable_parameters) == (1, 20, 10)
    assert first.train == {"loss": 2.0, "seconds": 4.0} and first.valid == {"loss": 0.5, "seconds": 1.0}
    assert first.time == timedelta(seconds=5)
    assert math.isnan(second.valid["loss"]) and second.time == timedelta(seconds=3)


def test_every_line_is_strict_json(tmp_path):
    write_epochs(tmp_path, STATS, 20, 10)

    def refuse(name):
        raise AssertionError(name)

    lines = (tmp_path / FILE).read_text().splitlines()
    assert [json.loads(line, parse_constant=refuse)["valid"]["loss"] for line in lines] == [0.5, None]


def test_a_folder_without_a_training_has_no_epochs(tmp_path):
    assert read_epochs(tmp_path) == []


def test_a_damaged_line_is_named(tmp_path):
    write_epochs(tmp_path, STATS, 20, 10)
    with (tmp_path / FILE).open("a") as file:
        file.write("{\n")
    with pytest.raises(InputError, match=f"{FILE}:3"):
        read_epochs(tmp_path)
