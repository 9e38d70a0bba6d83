"""The mini data set: the committed archive, its table of sources, the rooms and the unpacking."""

import hashlib
import importlib.util
import io
import re
import subprocess
import sys
import tarfile
from collections import defaultdict
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile as sf
import yaml

from s5.labels import DCASE_LABELS, LabelSet
from s5.utils.errors import InputError

RECIPE = Path(__file__).resolve().parents[2] / "egs" / "mini_s5"
ARCHIVE = RECIPE / "local" / "mini_s5.tar.gz"
SPLITS = ("train", "valid", "test")


def load(name):
    spec = importlib.util.spec_from_file_location(f"mini_s5_{name}", RECIPE / "local" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


unpack, rooms, noise, archive = (load(f) for f in ("unpack", "make_rooms", "make_noise", "build_archive"))


@pytest.fixture(scope="module")
def files():
    return unpack.members(ARCHIVE)


@pytest.fixture(scope="module")
def decoded(files):
    """(waveform int16, sampling rate) by member name."""
    return {name: sf.read(io.BytesIO(data), dtype="int16") for name, data in files.items()}


@pytest.fixture(scope="module")
def sources(files):
    """Files of each (split, label, source folder) of the sound events."""
    out = defaultdict(list)
    for name in files:
        if name.startswith("sound_event/"):
            _, split, label, source, _ = name.split("/")
            out[split, label, source].append(name)
    return out


def test_archive_is_small():
    assert ARCHIVE.stat().st_size <= 24_000_000


def test_labels_are_those_of_the_folders(sources):
    labels = LabelSet.load(RECIPE / "conf" / "labels.txt").names
    assert len(labels) >= 7
    assert [name for name in DCASE_LABELS if name in labels] == list(labels)
    for split in SPLITS:
        assert {label for s, label, _ in sources if s == split} == set(labels)


def test_every_label_has_sources_enough_in_every_split(sources):
    labels = LabelSet.load(RECIPE / "conf" / "labels.txt").names
    for split in SPLITS:
        for label in labels:
            found = [names for (s, name, _), names in sources.items() if (s, name) == (split, label)]
            assert len(found) >= 2, (split, label)
            assert sum(map(len, found)) >= (40 if split == "train" else 10), (split, label)


def test_splits_share_no_source_and_no_content(decoded, sources):
    seen = {}
    for split, label, source in sources:
        assert seen.setdefault((label, source), split) == split
    contents = defaultdict(set)
    for name, (wav, _) in decoded.items():
        # The files themselves always differ: their page heads hold a serial number made of the name.
        contents[hashlib.sha256(wav.tobytes()).hexdigest()].add(name)
    assert [names for names in contents.values() if len(names) > 1] == []


def test_sound_events_are_clean(decoded):
    for name, (pcm, fs) in decoded.items():
        wav = pcm / 32768
        assert (fs, wav.ndim) == (16000, 1), name
        assert np.max(np.abs(wav)) >= 0.02, name
        if name.startswith("sound_event/"):
            assert 0.3 <= len(wav) / fs <= 4.0, name
            loud = np.flatnonzero(np.abs(wav) > 0.01 * np.max(np.abs(wav)))
            gaps = np.diff(np.concatenate([[0], loud, [len(wav) - 1]]))
            assert gaps.max() <= 1.2 * fs, name


def test_interference_and_ambiences(files):
    kinds = {name.split("/")[2] for name in files if name.startswith("interference/")}
    assert len(kinds) >= 4
    assert not kinds & set(DCASE_LABELS)
    for split in SPLITS:
        assert len({n.split("/")[2] for n in files if n.startswith(f"interference/{split}/")}) >= 4
        assert sum(n.startswith(f"noise/{split}/") for n in files) >= 2


def test_table_of_sources_matches_archive_and_licenses(sources):
    table = yaml.safe_load((RECIPE / "local" / "sources.yaml").read_text(encoding="utf-8"))
    dealt = {
        label: archive.deal_out(label, [e["name"] for e in entries], table["held_out"], table["kept"])
        for label, entries in table["sound_event"].items()
    }
    listed = {(split, label, name) for label, splits in dealt.items() for name, split in splits.items()}
    assert listed == set(sources)
    named = re.findall(r"package: (\[[^\]]*\]|[^,}]+)", (RECIPE / "local" / "sources.yaml").read_text(encoding="utf-8"))
    used = {p.strip() for entry in named for p in entry.strip("[]").split(",")}
    assert used == set(table["packages"])
    licenses = (RECIPE / "LICENSES.md").read_text(encoding="utf-8")
    for package, facts in table["packages"].items():
        assert f"| {package} | {facts['version']} |" in licenses
        assert not re.search(r"\bNC\b|NonCommercial|non-free", facts["licence"])
    for split, label, source in listed:
        assert f"| {split} | {label} | {source} |" in licenses
    for picture in (RECIPE.parents[1] / "docs/images").iterdir():
        assert f"| `docs/images/{picture.name}` |" in licenses and picture.stat().st_size < 200_000


def test_sources_are_dealt_out_by_their_names_alone():
    names, held_out = [f"voice{i}" for i in range(20)], {"test": 0.2, "valid": 0.15}
    splits = archive.deal_out("Speech", names, held_out, {})
    assert splits == archive.deal_out("Speech", names[::-1], held_out, {})
    assert [list(splits.values()).count(s) for s in SPLITS] == [13, 3, 4]
    few = archive.deal_out("Speech", names[:6], held_out, {})
    assert [list(few.values()).count(s) for s in SPLITS] == [2, 2, 2]
    assert splits != archive.deal_out("Typing", names, held_out, {})


def test_kept_sources_stay_held_out_and_count_in_the_share():
    names, held_out = [f"voice{i}" for i in range(20)], {"test": 0.2, "valid": 0.15}
    free = archive.deal_out("Speech", names, held_out, {})
    trained = [name for name, split in free.items() if split == "train"]
    kept = {"test": {"Speech": trained[:3]}, "valid": {"Speech": trained[3:7], "Typing": ["voice0"]}}
    splits = archive.deal_out("Speech", names, held_out, kept)
    assert {splits[name] for name in trained[:3]} == {"test"} and {splits[name] for name in trained[3:7]} == {"valid"}
    # Three of four test sources are kept; valid keeps more than its share.
    assert [list(splits.values()).count(s) for s in SPLITS] == [12, 4, 4]


def write_tar(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("../evil.ogg"),
        member("/sound_event/train/Speech/a/evil.ogg"),
        member("sound_event/train/../../../evil.ogg"),
        member("sound_event/train/Speech/a/evil.sh"),
        member("sound_event/train/Speech/a/00.ogg", tarfile.SYMTYPE, "/etc/passwd"),
        member("sound_event/train/Speech/a/00.ogg", tarfile.LNKTYPE, "../evil.ogg"),
    ],
)
def test_unpacking_refuses_what_leaves_the_folder(tmp_path, bad):
    good = member("sound_event/train/Speech/a/01.ogg")
    write_tar(tmp_path / "a.tar.gz", [(good, b"OggS"), (bad, b"" if not bad.isreg() else b"OggS")])
    out = tmp_path / "raw"
    with pytest.raises(InputError) as e:
        unpack.unpack(tmp_path / "a.tar.gz", out)
    assert "\n" not in str(e.value)
    assert not out.exists()
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("cut", [100, 1_000_000, -2000])
def test_unpacking_refuses_a_damaged_archive(tmp_path, cut):
    damaged = tmp_path / "mini_s5.tar.gz"
    damaged.write_bytes(ARCHIVE.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"mini_s5\.tar\.gz"):
        unpack.unpack(damaged, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_unpacking_is_done_once_and_replaces_older_content(tmp_path):
    out = tmp_path / "raw"
    old = out / "sound_event" / "train" / "Speech" / "old" / "00.ogg"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"OggS")
    first = [
        (member("sound_event/train/Speech/a/00.ogg"), b"OggS1"),
        (member("interference/train/Fire/a_00.ogg"), b"OggS"),
        (member("noise/train/wind.ogg"), b"OggS"),
    ]
    write_tar(tmp_path / "a.tar.gz", first)
    assert unpack.unpack(tmp_path / "a.tar.gz", out)
    assert not old.exists()
    assert (out / "sound_event/train/Speech/a/00.ogg").read_bytes() == b"OggS1"
    assert (out / "ambience/train/wind.ogg").exists()
    assert not unpack.unpack(tmp_path / "a.tar.gz", out)
    (out / "sound_event/train/Speech/a/00.ogg").unlink()
    (out / "ambience/train/wind.ogg").write_bytes(b"Ogg?")
    (out / "sound_event/train/Speech/a/00_sp0.92.flac").write_bytes(b"made of it")
    assert unpack.unpack(tmp_path / "a.tar.gz", out)  # what is missing or another file, and that alone
    assert (out / "sound_event/train/Speech/a/00.ogg").read_bytes() == b"OggS1"
    assert (out / "ambience/train/wind.ogg").read_bytes() == b"OggS"
    assert (out / "sound_event/train/Speech/a/00_sp0.92.flac").exists()
    assert sorted(p.name for p in out.iterdir()) == [".unpacked", "ambience", "interference", "sound_event"]


def test_the_content_is_what_scenes_are_made_of_not_when_it_was_made(tmp_path, write_room):
    raw = tmp_path / "raw"
    event = raw / "sound_event/train/Speech/a/00.ogg"
    event.parent.mkdir(parents=True)
    event.write_bytes(b"OggS1")
    room = raw / "room_ir/train/a.sofa"
    write_room(room, channels=4, rate=16000)
    before = unpack.content(raw)
    event.touch()
    with h5py.File(room, "r+") as file:
        file.attrs["DateModified"] = np.bytes_("2001-01-01 00:00:00")
    assert unpack.content(raw) == before
    with h5py.File(room, "r+") as file:
        file["Data.IR"][0, 0, 0] += 1
    assert unpack.content(raw) != before
    event.write_bytes(b"OggS2")
    assert unpack.content(raw) != before


def test_direct_sound_has_the_direction_of_the_source():
    listener = np.array([2.0, 1.6, 1.3])
    positions = np.array([[0.0, 1.0, 0.0], [1.2, 0.0, 0.0], [0.0, 0.0, 0.8], [-0.6, -0.6, 0.3]])
    for position, response in zip(
        positions, rooms.image_sources([4.0, 3.2, 2.5], 0.4, 2, listener, positions), strict=True
    ):
        distance = np.linalg.norm(position)
        peak = int(np.argmax(np.abs(response[0, : int((distance / 343 + 0.002) * 16000)])))
        assert peak == pytest.approx(distance / 343 * 16000, abs=1)
        # W, Y, Z, X: a source on the left (+Y) has Y in phase with W and nothing in X.
        direct = response[1:, peak - 8 : peak + 9] @ response[0, peak - 8 : peak + 9]
        direct /= np.sum(response[0, peak - 8 : peak + 9] ** 2)
        np.testing.assert_allclose(direct, position[[1, 2, 0]] / distance, atol=0.05)


def test_a_room_decays_with_its_rt60_and_is_the_same_each_time():
    import pyroomacoustics as pra

    room = rooms.Room("train", "small", [3.0, 2.6, 2.4], 0.25, 3, 5)
    responses, positions = rooms.impulse_responses(room)
    assert responses.dtype == np.float32
    assert responses.shape[:2] == (3, 4)
    for response in responses:
        measured = pra.experimental.measure_rt60(response[0].astype(float), fs=16000, decay_db=30)
        assert measured == pytest.approx(0.25, rel=0.15)
    again, same = rooms.impulse_responses(room)
    np.testing.assert_array_equal(again, responses)
    np.testing.assert_array_equal(same, positions)


def test_sofa_file_is_read_by_the_renderer(tmp_path):
    from s5.scene.rendering.room import SofaRoom

    room = rooms.Room("train", "small", [3.0, 2.6, 2.4], 0.25, 2, 5)
    responses = np.zeros((2, 4, 40), np.float32)
    responses[1, 2, 7] = 0.25
    positions = np.array([[1.0, 0.5, 0.0], [0.0, -1.0, 0.25]])
    rooms.write_sofa(tmp_path / "small.sofa", room, responses, positions)
    sofa = SofaRoom(tmp_path / "small.sofa")
    assert (sofa.sampling_rate, sofa.n_channels, sofa.rir_length) == (16000, 4, 40)
    assert sofa.index([0.0, -1.0, 0.25]) == 1
    np.testing.assert_array_equal(sofa.rir(1), responses[1])


def test_configured_rooms():
    configured = rooms.parse(rooms.Rooms, rooms.load_yaml(RECIPE / "conf" / "rooms.yaml"), "rooms.yaml").rooms
    for split, least in (("train", 6), ("valid", 2), ("test", 2)):
        assert sum(r.split == split for r in configured) >= least
    assert len({(*r.size, r.rt60) for r in configured}) == len(configured)
    for room in configured:
        assert 0.2 <= room.rt60 <= 0.8
        assert room.positions >= 36
        listener, positions = rooms.place(room)
        assert (positions + listener > 0.2).all()
        assert (positions + listener < np.array(room.size) - 0.2).all()
        azimuth = np.sort(np.arctan2(positions[:, 1], positions[:, 0]))
        assert np.diff(np.append(azimuth, azimuth[0] + 2 * np.pi)).max() < np.deg2rad(25)


def test_background_noise_is_diffuse():
    rng = np.random.default_rng(0)
    wav = noise.diffuse(rng.standard_normal(16000 * 4), 3.0, rng)
    assert wav.shape == (4, 48000)
    assert 10 * np.log10(np.mean(wav**2)) == pytest.approx(noise.LEVEL_DB, abs=0.1)
    energy = np.mean(wav**2, axis=1)
    np.testing.assert_allclose(energy[1:] / energy[0], 1 / 3, atol=0.08)
    assert np.max(np.abs(np.corrcoef(wav) - np.eye(4))) < 0.12


@pytest.mark.parametrize("args", [["--nj", "0"], ["--nj"], ["--jobs", "2"]])
def test_data_script_refuses_wrong_options(tmp_path, args):
    result = subprocess.run(
        ["bash", RECIPE / "local" / "data.sh", *args], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_impossible_room_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"room vault: rt60: found 0\.05 s"):
        rooms.impulse_responses(rooms.Room("train", "vault", [9.0, 9.0, 4.0], 0.05, 2, 1))


def test_perturbation_changes_length_pitch_and_colour_of_training_files_once(tmp_path):
    perturb = load("perturb")
    folder = tmp_path / "train/Speech/a"
    folder.mkdir(parents=True)
    tone = 0.25 * sum(np.sin(2 * np.pi * f * np.arange(16000) / 16000) for f in (440, 4400))
    sf.write(folder / "00.flac", tone, 16000)

    def copies(*options):
        perturb.main([str(tmp_path / "train"), "--speeds", "0.8", "1.25", "--nj", "1", *options])
        names = ["00.flac", "00_sp0.8.flac", "00_sp1.25.flac"]
        assert sorted(p.name for p in folder.iterdir()) == names  # the copies are not perturbed again
        return {name: (folder / name).read_bytes() for name in names}

    def balance(name, speed):
        wav, fs = sf.read(folder / name)
        assert len(wav) == pytest.approx(16000 / speed, abs=2)
        spectrum = np.abs(np.fft.rfft(wav))
        peaks = [round(f * speed * len(wav) / fs) for f in (440, 4400)]
        assert np.argmax(spectrum[: len(spectrum) // 8]) == pytest.approx(peaks[0], abs=1)
        return spectrum[peaks[1] - 2 : peaks[1] + 3].max() / spectrum[peaks[0] - 2 : peaks[0] + 3].max()

    coloured = copies()
    assert copies() == coloured
    ratios = [balance("00_sp0.8.flac", 0.8), balance("00_sp1.25.flac", 1.25)]
    plain = copies("--filter_db", "0")  # another way: made anew
    assert plain != coloured
    for before, name, speed in zip(ratios, ("00_sp0.8.flac", "00_sp1.25.flac"), (0.8, 1.25), strict=True):
        assert abs(balance(name, speed) - 1) < 0.05 < abs(before - 1)
    assert copies() == coloured


def test_training_backgrounds_are_coloured_and_keep_their_level():
    rng = np.random.default_rng(0)
    white = rng.standard_normal((4, 32000))
    coloured = noise.colour(white, rng)
    assert np.mean(coloured**2) == pytest.approx(np.mean(white**2))
    power = np.abs(np.fft.rfft(coloured[0])) ** 2
    bands = [power[a:b].mean() for a, b in ((200, 800), (800, 3200), (3200, 12000))]
    assert max(bands) / min(bands) > 2
    # one filter for all channels: what lies between them, the field, stays
    assert np.corrcoef(coloured)[0, 1:] == pytest.approx(np.corrcoef(white)[0, 1:], abs=0.05)
