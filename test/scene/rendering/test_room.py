import multiprocessing
import os
import pickle
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import sofar

from s5.scene.rendering import room as module
from s5.scene.rendering.room import SofaRoom, open_room
from s5.utils.errors import InputError

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


@pytest.mark.parametrize(
    ("rate", "units", "hertz"),
    [(16, "kilohertz", 16000), (44.1, "kHz", 44100), (8000, "Hertz", 8000), (8000, "", 8000)],
)
def test_the_sampling_rate_is_in_the_files_units(tmp_path, write_room, rate, units, hertz):
    write_room(tmp_path / "a.sofa")
    with h5py.File(tmp_path / "a.sofa", "r+") as file:
        file["Data.SamplingRate"][...] = rate
        file["Data.SamplingRate"].attrs["Units"] = np.bytes_(units)
    assert SofaRoom(tmp_path / "a.sofa").sampling_rate == hertz


@pytest.mark.parametrize(
    ("rate", "units", "complaint"),
    [
        (16, "hertz", r"\[16.0\] hertz, expected one number of hertz from 100"),
        (8000, "seconds", "units seconds, expected hertz or kilohertz"),
        (np.nan, "hertz", r"\[nan\] hertz"),
        (np.inf, "hertz", r"\[inf\] hertz"),
    ],
)
def test_a_sampling_rate_that_cannot_be_is_refused(tmp_path, write_room, rate, units, complaint):
    write_room(tmp_path / "a.sofa")
    with h5py.File(tmp_path / "a.sofa", "r+") as file:
        file["Data.SamplingRate"][...] = rate
        file["Data.SamplingRate"].attrs["Units"] = np.bytes_(units)
    with pytest.raises(InputError, match=f"Data.SamplingRate: found {complaint}"):
        SofaRoom(tmp_path / "a.sofa")


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


def test_compressed_and_plain_files_give_the_same(tmp_path, write_room):
    rirs = write_room(tmp_path / "a.sofa", 12)
    with h5py.File(tmp_path / "a.sofa", "a") as f:
        del f["Data.IR"]
        f.create_dataset("Data.IR", data=rirs, chunks=(5, 4, 100), compression=1)
    room = SofaRoom(tmp_path / "a.sofa")
    for index in (11, 0, 4, 5):
        np.testing.assert_array_equal(room.rir(index), rirs[index])
    np.testing.assert_array_equal([rir for _, rir in room.responses()], rirs)
    energies = np.array([energy for _, energy in room.energies()])
    np.testing.assert_allclose(energies, np.square(rirs).sum(axis=2))


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


def write_sofa(path, convention: str, rirs: np.ndarray, **values) -> None:
    """A SOFA file of a convention, written by sofar; other variables have the convention's defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old conventions are deprecated
        sofa = sofar.Sofa(convention, version="0.3" if convention == "SingleRoomDRIR" else "latest")
    sofa.Data_IR = rirs
    for name in ("ReceiverDescriptions", "EmitterDescriptions", "MeasurementDate", "ReceiverView", "ReceiverUp",
                 "EmitterView", "EmitterUp"):  # fmt: skip
        if hasattr(sofa, name):
            sofa.delete(name)
    channels = rirs.shape[1]
    sofa.ReceiverPosition = np.zeros((channels, 3) if convention.startswith("General") else (channels, 3, 1))
    sofa.Data_Delay = np.zeros((1, channels))
    for name, value in values.items():
        setattr(sofa, name, value)
    deprecated = convention in ("SingleRoomDRIR", "GeneralFIRE")
    sofa.verify(issue_handling="ignore" if deprecated else "raise")
    sofar.io._write_sofa(str(path), sofa, compression=4, verify=False)


def random_rirs(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


POINTS = np.array([[1.5, 0, 0], [0, 2.0, 0.5], [-1, -1, -0.3]])
SPHERICAL = np.array([[0, 0, 1.5], [90, 30, 2.0], [200, -10, 1.0]])


def cartesian(spherical: np.ndarray) -> np.ndarray:
    azimuth, elevation = np.radians(spherical[:, :2]).T
    unit = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    return np.stack(unit, axis=1) * spherical[:, 2:]


@pytest.mark.parametrize("convention", ["SingleRoomSRIR", "SingleRoomDRIR", "GeneralFIR"])
@pytest.mark.parametrize("kind", ["cartesian", "spherical"])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_conventions_whose_source_moves(tmp_path, convention, kind, rate):
    rirs = random_rirs(3, 4, 60)
    given, units = (POINTS, "metre") if kind == "cartesian" else (SPHERICAL, "degree, degree, metre")
    listener = np.broadcast_to([3.0, 2.0, 1.2], (3, 3))  # where the microphone stands in the room does not matter
    write_sofa(tmp_path / "a.sofa", convention, rirs, SourcePosition=given, SourcePosition_Type=kind,
               SourcePosition_Units=units, ListenerPosition=listener, Data_SamplingRate=rate)  # fmt: skip
    room = SofaRoom(tmp_path / "a.sofa")
    expected = POINTS if kind == "cartesian" else cartesian(SPHERICAL)
    np.testing.assert_allclose(room.positions, expected, atol=1e-12)
    np.testing.assert_array_equal(room.own_positions, given)
    assert (room.sampling_rate, room.n_positions, room.n_channels, room.rir_length) == (rate, 3, 4, 60)
    for i in (2, 0):
        np.testing.assert_array_equal(room.rir(room.index(expected[i])), rirs[i])
        assert room.nearest(given[i] + 0.01) == i


@pytest.mark.parametrize("convention", ["SingleRoomDRIR", "GeneralFIR"])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_listener_that_moves_round_one_source(tmp_path, convention, rows):
    rirs = random_rirs(3, 2, 30)
    source = np.broadcast_to([2.0, 1.0, 1.5], (rows, 3))
    write_sofa(tmp_path / "a.sofa", convention, rirs, SourcePosition=source, SourcePosition_Type="cartesian",
               SourcePosition_Units="metre", ListenerPosition=np.array([2.0, 1.0, 1.5]) - POINTS)  # fmt: skip
    room = SofaRoom(tmp_path / "a.sofa")
    np.testing.assert_allclose(room.positions, POINTS, atol=1e-12)
    np.testing.assert_array_equal(room.rir(room.index(POINTS[1])), rirs[1])
    np.testing.assert_array_equal(room.own_positions, room.positions)


def test_a_listener_that_turns(tmp_path):
    rirs = random_rirs(4, 2, 30)
    views = np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, 0, 2.0]])
    ups = np.array([[0.0, 0, 1], [0, 0, 1], [0, 0, 1], [-1, 0, 0]])
    write_sofa(tmp_path / "a.sofa", "SingleRoomDRIR", rirs, SourcePosition=np.array([[3.0, 0, 0.5]]),
               SourcePosition_Type="cartesian", SourcePosition_Units="metre", ListenerView=views, ListenerUp=ups,
               ListenerPosition=np.array([[1.0, 0, 0]]))  # fmt: skip
    # x is what lies in front of the listener, y to its left, z above it.
    expected = [[2, 0, 0.5], [0, -2, 0.5], [-2, 0, 0.5], [0.5, 0, -2]]
    np.testing.assert_allclose(SofaRoom(tmp_path / "a.sofa").positions, expected, atol=1e-12)
    with h5py.File(tmp_path / "a.sofa", "r+") as f:  # the same directions, given as angles
        f["ListenerView"][...] = [[0, 0, 1], [90, 0, 1], [180, 0, 1], [0, 90, 1]]
        f["ListenerUp"][...] = [[0, 90, 1], [0, 90, 1], [0, 90, 1], [180, 0, 1]]
        f["ListenerView"].attrs.update(Type="spherical", Units="degree, degree, metre")
        f["ListenerUp"].attrs.pop("Type", None)
    np.testing.assert_allclose(SofaRoom(tmp_path / "a.sofa").positions, expected, atol=1e-12)


@pytest.mark.parametrize("convention", ["GeneralFIR-E", "SingleRoomMIMOSRIR", "GeneralFIRE"])
def test_conventions_with_emitters(tmp_path, convention):
    """Two measurements of three loudspeakers; GeneralFIRE (AES69-2015) has the emitters before the samples."""
    rirs = random_rirs(2, 4, 30, 3)
    stored = np.moveaxis(rirs, 3, 2) if convention == "GeneralFIRE" else rirs
    emitters = POINTS if convention == "GeneralFIR-E" else POINTS[:, :, None]
    source = np.array([[0.0, 0, 0], [0, 0, 5]])
    write_sofa(tmp_path / "a.sofa", convention, stored, SourcePosition=source, SourcePosition_Type="cartesian",
               SourcePosition_Units="metre", EmitterPosition=emitters, EmitterPosition_Type="cartesian",
               EmitterPosition_Units="metre", ListenerPosition=np.zeros((2, 3)),
               Data_Delay=np.zeros((1, 4, 1 if convention == "SingleRoomMIMOSRIR" else 3)))  # fmt: skip
    room = SofaRoom(tmp_path / "a.sofa")
    assert (room.n_positions, room.n_channels, room.rir_length) == (6, 4, 30)
    np.testing.assert_allclose(room.positions, np.concatenate([POINTS, POINTS + np.array([0, 0, 5])]))
    np.testing.assert_array_equal(room.rir(room.index(POINTS[1])), rirs[0, :, :, 1])
    np.testing.assert_array_equal(room.rir(5), rirs[1, :, :, 2])


def test_a_file_that_spatialscaper_wrote():
    """The listener is at [2, 1, 1.5], but the source positions are relative to the microphone."""
    folder = Path(__file__).parents[2] / "golden/scenes/assets/room_ir_2025"
    place0, place1 = (SofaRoom(folder / f"place{i}.sofa") for i in (0, 1))
    np.testing.assert_array_equal(place0.positions, [[1.5, 0, 0], [0, 1.2, 0.3], [-1, -1, 0]])
    np.testing.assert_allclose(place1.positions, cartesian(place1.own_positions), atol=1e-12)
    assert place1.own_positions[2].tolist() == [340, 20, 0.75]
    assert (place0.sampling_rate, place0.n_channels, place0.rir_length) == (16000, 4, 1100)
    rir = place0.rir(1)
    assert np.abs(rir[0]).argmax() == 80 and rir[0, 80] == -0.9
    for room in (place0, place1):
        room.close()


def test_the_nearest_position_is_sought_in_the_files_own_coordinates(tmp_path, write_room):
    write_room(tmp_path / "a.sofa", [[350, 0, 1], [90, 0, 1], [180, 0, 1]], "spherical")
    room = SofaRoom(tmp_path / "a.sofa")
    assert room.nearest([5, 0, 1]) == 1  # by the numbers, as the 2025 baseline does; 350 degrees would be nearer by ear
    assert room.nearest([349, 2, 1.2]) == 0


@pytest.mark.parametrize("layout", ["contiguous", "chunked"])
def test_only_the_responses_that_are_asked_for_are_read(tmp_path, layout):
    """A room of 16 GB, hardly any of it on the disk."""
    n = 500_000
    path = tmp_path / "a.sofa"
    with h5py.File(path, "w") as f:
        chunks = (1, 1, 50_000) if layout == "chunked" else None
        data = f.create_dataset("Data.IR", (1000, 4, n), dtype=np.float64, chunks=chunks)
        f["Data.SamplingRate"], f["SourcePosition"] = [32000.0], np.arange(3000.0).reshape(1000, 3)
        f["SourcePosition"].attrs["Type"] = "cartesian"
        if layout == "chunked":
            data[997, 2, 77] = 0.5
    if layout == "contiguous":
        assert path.stat().st_size < 1e6
        with h5py.File(path, "r+") as f:
            f["Data.IR"][0, 2, 77] = 0.5  # lays out the whole dataset: a sparse file
    index = 997 if layout == "chunked" else 0
    before = Path("/proc/self/io").read_text() if Path("/proc/self/io").exists() else ""
    rir = SofaRoom(path).rir(index)
    assert rir.shape == (4, n) and rir[2, 77] == 0.5
    if before:
        read = int(Path("/proc/self/io").read_text().split()[1]) - int(before.split()[1])
        assert read < 3 * 4 * n * 8  # of 16e9 bytes


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"SourcePosition": np.zeros((1, 3))}, r"SourcePosition: found 1 for 3 impulse responses"),
        ({"SourcePosition": np.zeros((2, 3))}, r"SourcePosition: found shape \[2, 3\], expected \[3, 3\]"),
        ({"Data.SamplingRate": [8000.0, 16000.0]}, r"Data.SamplingRate: found \[8000.0, 16000.0\]"),
        ({"Data.IR": np.zeros((3, 4))}, r"Data.IR: found shape \[3, 4\]"),
        ({"kind": "interaural"}, "type interaural, expected cartesian or spherical"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, complaint):
    values = {"Data.IR": np.zeros((3, 4, 50)), "Data.SamplingRate": [8000.0], "SourcePosition": POINTS} | change
    with h5py.File(tmp_path / "a.sofa", "w") as f:
        kind = values.pop("kind", "cartesian")
        for name, value in values.items():
            f[name] = value
        f["SourcePosition"].attrs["Type"] = kind
    with pytest.raises(InputError, match=rf"a.sofa: .*{complaint}"):
        SofaRoom(tmp_path / "a.sofa")


@pytest.mark.parametrize("name", ["Data.IR", "Data.SamplingRate", "SourcePosition"])
@pytest.mark.parametrize("kind", ["group", "S4", "V8"])
def test_a_field_that_holds_no_numbers_is_named(tmp_path, write_room, name, kind):
    write_room(tmp_path / "a.sofa")
    with h5py.File(tmp_path / "a.sofa", "r+") as file:
        shape = file[name].shape
        del file[name]
        if kind == "group":
            file.create_group(name)
        else:
            file[name] = np.zeros(shape, kind)
    with pytest.raises(InputError, match=r"a\.sofa: (found no readable|Data\.IR: found values of type)") as error:
        SofaRoom(tmp_path / "a.sofa")
    assert "\n" not in str(error.value)


def test_a_type_that_is_no_text_is_named(tmp_path, write_room):
    write_room(tmp_path / "a.sofa")
    with h5py.File(tmp_path / "a.sofa", "r+") as file:
        file["SourcePosition"].attrs["Type"] = np.bytes_(b"\xff")
    with pytest.raises(InputError, match=r"SourcePosition: found type .*, expected cartesian or spherical") as error:
        SofaRoom(tmp_path / "a.sofa")
    assert str(error.value).encode()
