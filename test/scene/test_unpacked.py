"""Compressed rooms are decompressed once."""

import logging
import os

import h5py
import numpy as np
import pytest

from s5.scene import room as rooms
from s5.scene import unpacked
from s5.scene.room import SofaRoom

SHAPE = (10, 4, 300)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The cache, empty; no chunk is too small for it."""
    monkeypatch.setattr(rooms, "SMALL_CHUNK", 0)
    monkeypatch.setenv("S5_CACHE", str(tmp_path / "cache"))
    unpacked._complain.cache_clear()
    rooms._chunks.resize(0)
    yield tmp_path / "cache/rooms"
    rooms._chunks.resize(128 << 20)


@pytest.fixture
def compressed(tmp_path, write_room):
    """Writes a room in chunks of 4 positions, 2 channels and 128 samples; its responses."""

    def make(seed=0):
        path = tmp_path / "room.sofa"
        path.unlink(missing_ok=True)
        rirs = np.random.default_rng(seed).standard_normal(SHAPE)
        write_room(path, SHAPE[0], rirs=rirs)
        with h5py.File(path, "r+") as file:
            del file["Data.IR"]
            file.create_dataset("Data.IR", data=rirs, chunks=(4, 2, 128), compression=4, shuffle=True)
        return path, rirs

    return make


def test_responses_are_those_of_the_file(folder, compressed):
    path, rirs = compressed()
    for _ in range(2):
        room = SofaRoom(path)
        for index in (9, 0, 5, 3):
            np.testing.assert_array_equal(room.rir(index), rirs[index].astype(np.float32))
    assert [file.stat().st_size for file in folder.iterdir()].count(4 * 4 * 4 * 300) == 2
    assert len(list(folder.iterdir())) == 3


def test_a_chunk_is_decompressed_once_for_all_processes(folder, compressed, monkeypatch):
    path, rirs = compressed()
    SofaRoom(path).rir(1)
    monkeypatch.setattr(SofaRoom, "_read", lambda *_, **__: pytest.fail("read again"))
    np.testing.assert_array_equal(SofaRoom(path).rir(2), rirs[2].astype(np.float32))


def test_a_changed_file_is_unpacked_again(folder, compressed):
    path, _ = compressed()
    first = SofaRoom(path).rir(1)
    path, rirs = compressed(seed=1)
    os.utime(path, ns=(1, 1))
    second = SofaRoom(path).rir(1)
    np.testing.assert_array_equal(second, rirs[1].astype(np.float32))
    assert not np.array_equal(first, second)


def test_the_least_recently_used_leave(folder, compressed, monkeypatch):
    path, rirs = compressed()
    monkeypatch.setenv("S5_CACHE_GB", str(2.2 * 4 * 4 * 4 * 300 / 2**30))
    room = SofaRoom(path)
    room.rir(0)
    first = next(folder.iterdir())
    os.utime(first, (1, 1))
    room.rir(4)
    room.rir(8)
    assert not first.exists() and len(list(folder.iterdir())) == 2
    np.testing.assert_array_equal(room.rir(0), rirs[0].astype(np.float32))


@pytest.mark.parametrize("why", ["off", "too small", "no folder"])
def test_without_a_place_it_goes_on(folder, compressed, monkeypatch, tmp_path, caplog, why):
    path, rirs = compressed()
    if why == "off":
        monkeypatch.setenv("S5_CACHE", "off")
    elif why == "too small":
        monkeypatch.setenv("S5_CACHE_GB", "0")
    else:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("S5_CACHE", str(tmp_path / "file/below"))
    caplog.set_level(logging.WARNING)
    room = SofaRoom(path)
    for index in (0, 1):
        np.testing.assert_allclose(room.rir(index), rirs[index], rtol=1e-6)
    assert caplog.text.count("S5_CACHE may name another folder") == (why != "off")
    assert not folder.exists() or not list(folder.iterdir())
