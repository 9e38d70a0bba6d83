"""Written matrices are read again; commands, objects and damaged bytes are refused."""

import pickle
import struct

import kaldiio
import numpy as np
import pytest

from s5.data.kaldi import check_posterior, read_ark, read_n_slots, read_scp
from s5.utils.errors import InputError

TABLE = {"a": np.full((3, 4), 0.25, np.float32), "b": np.eye(3, 4, dtype=np.float32)}


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kaldiio.save_ark("t.ark", TABLE, scp="t.scp")
    return tmp_path


def test_what_kaldiio_writes_is_read(table):
    for found in (dict(read_scp("t.scp", "x")), dict(read_ark("t.ark", "x"))):
        assert list(found) == ["a", "b"]
        for utt, matrix in TABLE.items():
            np.testing.assert_array_equal(found[utt], matrix)


NO_LINES = ("a touch ran |", "a | touch ran", "a", "", "a t.ark", "a t.ark:x", "a t.ark:-2", "a t.ark:٢", "a :2")
NO_MATRICES = ("a t.ark:2[0:1]", "a none.ark:2", "a .:2", "a t.ark:99999", "a t.ark:3", "a t.ark:0")


@pytest.mark.parametrize("line", [*NO_LINES, *NO_MATRICES, "a t.ark:2\na t.ark:2"])
def test_another_line_of_an_scp_file_is_named_and_nothing_runs(table, line):
    (table / "t.scp").write_text(f"{line}\n")
    with pytest.raises(InputError, match=r"t\.scp") as error:
        dict(read_scp("t.scp", "posteriors"))
    assert "\n" not in str(error.value) and not (table / "ran").exists()


class Evil:
    def __reduce__(self):
        return (open, ("ran", "w"))


def test_an_object_in_an_ark_is_not_unpickled(table):
    (table / "t.ark").write_bytes(b"a PKL" + pickle.dumps(Evil()))
    with pytest.raises(InputError, match="no matrix of a"):
        dict(read_ark("t.ark", "posteriors"))
    with pytest.raises(InputError, match="no matrix at"):
        dict(read_scp("t.scp", "posteriors"))
    assert not (table / "ran").exists()


def test_a_damaged_ark_is_named(table):
    whole = (table / "t.ark").read_bytes()
    sizes = whole.index(b"\4", 2)
    long = whole[: sizes + 1] + struct.pack("<i", 2**30) + whole[sizes + 5 :]
    for damaged in (whole[:-5], whole[:10], long, b"a \0BXX "):
        (table / "t.ark").write_bytes(damaged)
        with pytest.raises(InputError, match=r"t\.ark: found no matrix"):
            dict(read_ark("t.ark", "posteriors"))


SHAPES = (np.ones((3, 6)), np.ones(4), np.zeros((0, 4)), np.ones((2, 3)), (8000, np.ones(3)))


@pytest.mark.parametrize("found", [*SHAPES, -TABLE["a"], TABLE["a"] * np.nan, 8 * TABLE["a"], np.ones((3, 4), int)])
def test_what_is_no_posterior_is_refused(found):
    check_posterior(TABLE["a"], 3, "x")
    check_posterior(np.array([[0.9, 0.8, 0.1]]), 3, "x")
    with pytest.raises(InputError, match=r"^x: found .*, expected probabilities of 3 labels"):
        check_posterior(found, 3, "x")


@pytest.mark.parametrize("text", ["", "0", "-1", "3.0", "٣", "x", "1000"])
def test_the_number_of_slots_is_one(tmp_path, text):
    (tmp_path / "n").write_text("3\n")
    assert read_n_slots(tmp_path / "n") == 3
    (tmp_path / "n").write_text(text)
    with pytest.raises(InputError, match="expected the number of slots"):
        read_n_slots(tmp_path / "n")
