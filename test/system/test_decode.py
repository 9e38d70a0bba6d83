"""conf/decode.yaml: what it says, what overrides it, and what older systems say of precision."""

import argparse
from pathlib import Path

import pytest

from s5 import DecodeConfig, S5System
from s5.bin.command import add_decoding, decode_config
from s5.system.config import SystemConfig
from s5.system.sizes import resolve_system
from s5.utils.errors import InputError

REPO = Path(__file__).resolve().parents[2]
SYSTEM = "taggers: {t: {train: t.yaml}}\nseparators: {s: {train: s.yaml}}\n"


def options(*words):
    parser = argparse.ArgumentParser()
    add_decoding(parser)
    return decode_config(parser.parse_args(words))


def test_the_repository_says_what_is_the_default():
    assert options() == DecodeConfig.load(REPO / "conf/decode.yaml") == DecodeConfig()


def test_a_recipe_folder_may_say_otherwise_and_options_override_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/decode.yaml").write_text("batch_size: 4\nprecision: bf16\nwindow: 6\n")
    assert options() == DecodeConfig(batch_size=4, precision="bf16", window=6.0)
    assert options("--precision", "fp32", "--batch_size", "2") == DecodeConfig(2, 6.0, 2.0, "fp32")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch: 4", r"decode.yaml: key batch: found an unknown key, expected .*batch_size"),
        ("precision: int8", r"decode.yaml: key precision: found 'int8'"),
        ("overlap: 6", r"overlap: found 6 s of windows of 10 s, expected more than 0, at most half a window"),
        ("batch_size: 0", r"batch_size: found 0, expected 1 or more"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, text, message):
    (tmp_path / "decode.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        DecodeConfig.load(tmp_path / "decode.yaml")


def test_a_system_says_its_precision_and_older_ones_are_read(tmp_path):
    path = tmp_path / "system.yaml"
    for line, precision in (("", "fp32"), ("precision: bf16", "bf16"), ("bf16: true", "bf16"), ("bf16: false", "fp32")):
        path.write_text(SYSTEM + line)
        assert SystemConfig.load(path).precision == precision
        assert S5System.from_yaml(path).precision == precision
        assert ("precision" in resolve_system(path).files) == bool(line)
        for asked in ("fp32", "bf16"):
            assert S5System.from_yaml(path, decode=DecodeConfig(precision=asked)).precision == asked


def test_the_shipped_archive_is_read():
    """It was made when systems said bf16."""
    system = S5System.from_pretrained(REPO / "egs/mini_s5/mini_long.s5", "cpu")
    assert system.precision == "fp32" and system.batch_size == 1 and system.n_channels == 4
