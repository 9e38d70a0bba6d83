import multiprocessing
import os
import pickle

import h5py
import numpy as np
import pytest
import sofar

from s5.errors import InputError
from s5.scene import room as module
from s5.scene.room import SofaRoom, open_room

RATE = 8000


def test_spherical_positions_become_cartesian(tmp_path, write_room):
    write_room(tmp_path / "a.sofa", [[90, 0, 2], [0, 90, 1], [180, -30, 2]], "spherical")
    room = SofaRoom(tmp_path / "a.sofa")
    np.testing.assert_allclose(room.positions, [[0, 2, 0], [0, 0, 1], [-np.sqrt(3), 0, -1]], atol=1e-12)
    assert (room.sampling_rate, room.n_positions, room.n_channels, room.rir_length) == (RATE, 3, 4, RATE // 10)


def test_cartesian_positions_stay(tmp_path, write_room):
    points = np.array([[1.0, 2, 3], [0, -1, 0.5]])
    rirs = write_room(tmp_path / "a.sofa", points, "cartesian", channels=2)
    room = SofaRoom(tmp_path / "a.sofa")
    np.testing.assert_array_equal(room.positions, points)
    np.testing.assert_array_equal(room.rir(room.index([0, -1 + 5e-6, 0.5])), rirs[1])


def test_a_position_that_is_not_there_is_refused_with_the_nearest_distance(tmp_path, write_room):
    write_room(tmp_path / "a.sofa", [[1, 0, 0], [0, 1, 0]], "cartesian")
    with pytest.raises(InputError, match=r"a.sofa: found no position \[1.0, 0.0, 0.25\].*0.25 m"):
        SofaRoom(tmp_path / "a.sofa").index([1, 0, 0.25])


def test_files_that_are_no_rooms_are_refused(tmp_path):
    (tmp_path / "text.sofa").write_text("hello")
    with pytest.raises(InputError, match=r"text.sofa: found a file that HDF5 cannot read"):
        SofaRoom(tmp_path / "text.sofa")
    with h5py.File(tmp_path / "other.sofa", "w") as f:
        f["x"] = 1
    with pytest.raises(InputError, match=r"other.sofa: found no readable Data.IR"):
        SofaRoom(tmp_path / "other.sofa")
    with pytest.raises(InputError, match=r"none.sofa"):
        open_room(tmp_path / "none.sofa")


def test_a_truncated_file_is_refused(tmp_path, write_room):
    write_room(tmp_path / "a.sofa")
    content = (tmp_path / "a.sofa").read_bytes()
    (tmp_path / "a.sofa").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"a.sofa"):
        SofaRoom(tmp_path / "a.sofa").rir(11)


def _child(room, out):
    out.send((room._pid, room.rir(3)))


def test_a_forked_process_opens_the_file_itself(tmp_path, write_room):
    rirs = write_room(tmp_path / "a.sofa")
    room = open_room(tmp_path / "a.sofa")
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_child, args=(room, theirs))
    child.start()
    pid, rir = ours.recv()
    child.join()
    np.testing.assert_array_equal(rir, rirs[3])
    np.testing.assert_array_equal(room.rir(4), rirs[4])
    assert pid == room._pid == os.getpid() != child.pid  # before the child read, it held the parent's handle


def test_a_room_can_be_pickled(tmp_path, write_room):
    rirs = write_room(tmp_path / "a.sofa")
    room = pickle.loads(pickle.dumps(open_room(tmp_path / "a.sofa")))
    np.testing.assert_array_equal(room.rir(0), rirs[0])


def test_few_rooms_stay_open_and_a_replaced_file_is_noticed(tmp_path, monkeypatch, write_room):
    monkeypatch.setattr(module, "MAX_OPEN", 2)
    for name in "abc":
        write_room(tmp_path / f"{name}.sofa", 4)
    rooms = [open_room(tmp_path / f"{name}.sofa") for name in "abc"]
    assert len(module._rooms) == 2 and rooms[0]._file is None
    assert open_room(tmp_path / "c.sofa") is rooms[2]
    write_room(tmp_path / "c.sofa", 8)
    assert open_room(tmp_path / "c.sofa").n_positions == 8


@pytest.mark.parametrize("budget", [0, 100_000, 1 << 20])
def test_compressed_and_plain_files_give_the_same(tmp_path, monkeypatch, write_room, budget):
    rirs = write_room(tmp_path / "a.sofa", 12)
    with h5py.File(tmp_path / "a.sofa", "a") as f:
        del f["Data.IR"]
        f.create_dataset("Data.IR", data=rirs, chunks=(5, 4, 100), compression=1)
    monkeypatch.setattr(module._chunks, "budget", budget)
    room = SofaRoom(tmp_path / "a.sofa")
    for index in (11, 0, 4, 5):
        np.testing.assert_allclose(room.rir(index), rirs[index], rtol=1e-7)


def test_a_binaural_file(tmp_path):
    sofa = sofar.Sofa("SimpleFreeFieldHRIR")
    sofa.Data_IR = rirs = np.random.default_rng(0).standard_normal((3, 2, 50))
    sofa.SourcePosition = np.array([[0.0, 0, 1], [0, 90, 2], [90, 0, 1]])
    sofar.write_sofa(str(tmp_path / "a.sofa"), sofa)
    room = SofaRoom(tmp_path / "a.sofa")
    assert (room.sampling_rate, room.n_channels) == (48000, 2)
    np.testing.assert_allclose(room.rir(room.index([0, 0, 2])), rirs[1], rtol=1e-6)


@pytest.mark.parametrize("text", [str, np.bytes_])
def test_a_file_without_netcdf_dimensions(tmp_path, text):
    rirs = np.random.default_rng(0).standard_normal((2, 4, 50)).astype(np.float32)
    with h5py.File(tmp_path / "a.sofa", "w") as f:
        f.attrs["SOFAConventions"] = text("SingleRoomSRIR")
        f["Data.IR"], f["Data.SamplingRate"] = rirs, 24000.0
        f["SourcePosition"] = np.array([[np.pi / 2, 0, 2], [0, np.pi / 2, 1]])
        f["SourcePosition"].attrs.update(Type=text("spherical"), Units=text("radian, radian, metre"))
    room = SofaRoom(tmp_path / "a.sofa")
    assert room.sampling_rate == 24000
    np.testing.assert_array_equal(room.rir(room.index([0, 2, 0])), rirs[0])
