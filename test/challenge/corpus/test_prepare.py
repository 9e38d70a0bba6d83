"""Stage 1 on a replica of the published layout: from the user's folder, and from archives of a web server."""

import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
import soundfile
import yaml

from s5.bin import download as download_command
from s5.bin import prepare as prepare_command
from s5.bin import verify as verify_command
from s5.challenge.corpus.config import Corpus, expand
from s5.challenge.corpus.paths import CorpusPaths, read_mirrors
from s5.challenge.corpus.verify import verify
from s5.data import DataDir
from s5.labels import LabelSet
from s5.scene import Sampler
from s5.utils.errors import InputError

PARTS = ["dev_set", "eval_set", "semantic_hearing", "ears"]


def recipe_in(folder, replicas, monkeypatch, year=2026):
    """A recipe folder with the configuration of a year, as the working directory."""
    for name in ("dcase2025_task4", "dcase2026_task4"):
        shutil.copytree(replicas.RECIPES / name / "conf", folder / "egs" / name / "conf")
    shutil.copytree(replicas.RECIPES.parent / "conf/scenes", folder / "conf/scenes")
    monkeypatch.chdir(folder / f"egs/dcase{year}_task4")
    return Path.cwd()


def snapshot(folder):
    """Names, sizes and times of everything below a folder."""
    found = {}
    for parent, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            stat = os.lstat(os.path.join(parent, name))
            found[os.path.join(parent, name)] = (stat.st_size, stat.st_mtime_ns, stat.st_mode)
    return found


@pytest.fixture(scope="module")
def made(replicas, replica, tmp_path_factory):
    """A recipe folder after stage 1 on the replica, and the replica's state before."""
    with pytest.MonkeyPatch.context() as patch:
        folder = recipe_in(tmp_path_factory.mktemp("made"), replicas, patch)
        before = snapshot(replica)
        prepare_command.main(["--data_root", str(replica)])
        return folder, before


def copy_of(folder, tmp_path, monkeypatch):
    """A copy of a recipe folder to spoil, as the working directory; its links point into itself and to the replica."""
    copy = tmp_path / "recipes" / folder.name
    shutil.copytree(folder, copy, symlinks=True)
    monkeypatch.chdir(copy)
    return copy


def places(replica, **more):
    return CorpusPaths(Corpus.load("conf/data.yaml"), data_root=replica, **more)


def test_users_folder_is_only_read(made, replica):
    assert snapshot(replica) == made[1]


def test_development_set_has_everything(made, monkeypatch):
    monkeypatch.chdir(made[0])
    dev = Path("data/dev_set")
    for name in ("config", "metadata", "noise", "room_ir", "synthesized"):
        assert (dev / name).is_dir()
    assert soundfile.info(dev / "sound_event/train/Speech/source0/0.wav").samplerate == 32000  # a file of the set
    assert soundfile.info(dev / "sound_event/train/Speech/p107/1.wav").samplerate == 32000  # a file of EARS
    assert not (dev / "sound_event/train/Speech/p107/2.wav").exists()  # too short
    assert (dev / "interference/valid/Rain/a.wav").is_file()


def test_made_set_is_what_the_sampler_and_the_scenes_need(made, replica, monkeypatch):
    monkeypatch.chdir(made[0])
    sampler = Sampler.from_yaml("conf/scenes/train.yaml")
    assert sampler.config.num_scenes == 25088
    assert len({e.label for i in range(30) for e in sampler.scene(1, i).fg_events}) > 8
    findings = verify(places(replica), PARTS)
    assert (findings.missing, findings.unexpected) == ([], [])


def test_data_directories(made, monkeypatch):
    monkeypatch.chdir(made[0])
    test = DataDir.load("data/test", LabelSet())
    assert [len(test.labels[utt]) for utt in test.utts] == [0, 1, 2, 3, 0, 1]
    assert len(set(test.labels["soundscape_0003"])) == 1  # a class may occur three times
    test.check(32000, 4)
    evaluation = DataDir.load("data/eval", LabelSet())
    assert (len(evaluation.utts), evaluation.labels) == (2567, {})


def test_second_run_changes_nothing(made, replica, monkeypatch):
    monkeypatch.chdir(made[0])
    files = {p: p.stat().st_mtime_ns for p in Path("data/raw/added").rglob("*.wav")}
    scps = {p: p.read_bytes() for p in Path("data").glob("*/*.scp")}
    prepare_command.main(["--data_root", str(replica)])
    assert {p: p.stat().st_mtime_ns for p in Path("data/raw/added").rglob("*.wav")} == files
    assert {p: p.read_bytes() for p in Path("data").glob("*/*.scp")} == scps
    assert sorted(p.name for p in Path("data/raw").iterdir()) == [
        ".content",
        ".sources",
        "added",
        "dev_set",
        "eval_set",
    ]


@pytest.mark.slow
def test_what_scenes_are_made_of_does_not_depend_on_where_it_lies_or_on_other_parts(
    made, replica, replicas, tmp_path, monkeypatch
):
    content = (made[0] / "data/raw/.content").read_text()
    shutil.copytree(replica, tmp_path / "moved", symlinks=True)
    recipe_in(tmp_path, replicas, monkeypatch)
    these = ["--data_root", str(tmp_path / "moved"), "--parts", "dev_set,semantic_hearing,ears"]
    prepare_command.main([*these, "--nj", "2"])
    assert Path("data/raw/.content").read_text() == content
    prepare_command.main([*these, "--refine", "conf/curation/park2025.yaml"])
    assert Path("data/raw/.content").read_text() != content  # fewer events
    prepare_command.main(these)
    assert Path("data/raw/.content").read_text() == content
    (tmp_path / "moved/dev_set/synthesized/test/soundscape/more.wav").touch()  # no scene uses it
    os.utime(tmp_path / "moved/dev_set/noise/train/a.wav", (1, 1))
    prepare_command.main(these)
    assert Path("data/raw/.content").read_text() != content  # another recording, perhaps
    os.utime(tmp_path / "moved/dev_set/noise/train/a.wav", (1, 1))
    content = Path("data/raw/.content").read_text()
    with soundfile.SoundFile(tmp_path / "moved/dev_set/noise/train/a.wav", "r+") as sound:
        sound.seek(0, soundfile.SEEK_END)
        sound.write(sound.frames * [[0.0] * 4])
    prepare_command.main(these)
    assert Path("data/raw/.content").read_text() != content  # a longer background


def test_what_is_missing_or_unexpected_is_named(made, replica, tmp_path, monkeypatch, capsys):
    copy = copy_of(made[0], tmp_path, monkeypatch)
    events = Path("data/raw/dev_set/sound_event")
    shutil.rmtree(events / "valid/Cough")
    (events / "train/Cow").mkdir()
    (events / "train/Speech/notes.txt").write_text("x")
    (events / "train/Speech/empty.wav").touch()
    Path("data/raw/added/interference/valid/Rain/a.wav").unlink()
    shutil.rmtree("data/raw/dev_set/interference/train/Wind")
    Path("data/raw/dev_set/noise").unlink()
    lines = Path("data/eval/wav.scp").read_text().splitlines()
    Path("data/eval/wav.scp").write_text("\n".join([*lines[1:], lines[0].replace("eval_0000", "eval_x", 1)]) + "\n")
    findings = verify(places(replica), PARTS)
    top = "data/dev_set"
    missing = [path for path, _ in findings.missing]
    assert {path for path, _ in findings.unexpected} == {
        *(f"{top}/sound_event/train/Cow", f"{top}/sound_event/train/Speech/notes.txt"),
        "data/eval_set/synthesized/eval/soundscape/eval_x.wav",
    }
    for path in (
        *(f"{top}/sound_event/valid/Cough", f"{top}/sound_event/train/Speech/empty.wav", f"{top}/noise/train"),
        *(f"{top}/interference/valid/Rain/a.wav", f"{top}/interference/train/Wind", f"{top}/noise/valid/a.wav"),
        "data/eval_set/synthesized/eval/soundscape/eval_0000.wav",
    ):
        assert path in missing, path
    with pytest.raises(InputError, match=r"and \d+ more in data/raw/verify\.tsv: found"):
        verify_command.main(["--data_root", str(replica)])
    assert f"unexpected: {top}/sound_event/train/Cow (no label)" in capsys.readouterr().out
    assert len((copy / "data/raw/verify.tsv").read_text().splitlines()) == len(missing) + 3
    verify_command.main(["--data_root", str(replica), "--on_missing", "warn"])


def test_refinement_changes_the_training_events_alone(made, replica, tmp_path, monkeypatch):
    copy_of(made[0], tmp_path, monkeypatch)
    Path("drop.txt").write_text("Speech/source0/1.wav\ta dog\n")
    Path("clips.csv").write_text("id,start,label\nabc,10,Doorbell\nquiet,0,Doorbell\n")
    Path("clips").mkdir()
    source = replica / "dev_set/sound_event/train/Speech/source1/1.wav"
    shutil.copy(source, "clips/abc_10.wav")
    audio, rate = soundfile.read(source)
    soundfile.write("clips/quiet_0.wav", audio / 100, rate)
    external = [{"manifest": "clips.csv", "audio": "clips"}]
    rules = {"inherit": "conf/curation/park2025.yaml", "drop": ["drop.txt"], "external": external}
    Path("mine.yaml").write_text(yaml.safe_dump(rules))
    valid = sorted(Path("data/dev_set/sound_event/valid").rglob("*.wav"))
    prepare_command.main(["--data_root", str(replica), "--refine", "mine.yaml"])
    assert sorted(Path("data/dev_set/sound_event/valid").rglob("*.wav")) == valid
    train = Path("data/dev_set/sound_event/train")
    names = sorted(str(p.relative_to(train / "Doorbell")) for p in (train / "Doorbell").rglob("*.wav"))
    assert names == ["clips_abc_10.wav", "source0/1.wav", "source1/1.wav"]
    assert sorted(p.parent.name for p in (train / "Speech").rglob("*.wav")) == ["source1"]
    table = Path("data/raw/refinement.md").read_text().splitlines()
    # Two of the set's four files and all six of EARS are short; none of FSD50K has this label.
    assert "| Speech | 10 | 8 | 1 | 0 | 1 |" in table
    assert "| Doorbell | 4 | 2 | 0 | 1 | 3 |" in table
    findings = verify(places(replica), PARTS)
    assert [path for path, _ in findings.missing] == []
    # Without the option all files return.
    prepare_command.main(["--data_root", str(replica)])
    assert len(list((train / "Speech").rglob("*.wav"))) == 10


def test_additions_that_the_official_scripts_made_are_taken(replica, made, replicas, tmp_path, monkeypatch):
    recipe_in(tmp_path, replicas, monkeypatch)
    root = tmp_path / "official"
    shutil.copytree(made[0] / "data/raw/dev_set", root / "dev_set")  # follows the links
    corpus = Corpus.load("conf/data.yaml")
    assert CorpusPaths(corpus, data_root=root).needed(PARTS) == ["eval_set"]
    prepare_command.main(["--data_root", str(root), "--parts", "dev_set,semantic_hearing,ears"])
    assert not Path("data/raw/added").exists()
    assert Path("data/dev_set/sound_event/train/Speech/p001/0.wav").is_file()
    findings = verify(CorpusPaths(corpus, data_root=root), ["dev_set", "semantic_hearing", "ears"])
    assert findings.missing == []
    assert "EARS: 6 of 9 picked files are there" in findings.notes


def test_additions_may_be_left_out(replica, replicas, tmp_path, monkeypatch):
    recipe_in(tmp_path, replicas, monkeypatch)
    prepare_command.main(["--data_root", str(replica), "--parts", "dev_set"])
    findings = verify(places(replica), ["dev_set"])
    assert findings.missing == []
    (note,) = findings.notes
    assert note.startswith("data/dev_set/metadata/valid.json cannot be rendered: 1 files of data/dev_set/interference")
    assert not Path("data/eval").exists()


def test_data_of_2025(replicas, tmp_path, monkeypatch):
    recipe_in(tmp_path, replicas, monkeypatch, 2025)
    root = replicas.make_replica(tmp_path / "data25", 2025)
    prepare_command.main(["--data_root", str(root)])
    assert verify(places(root), PARTS).missing == []
    test = DataDir.load("data/test", LabelSet())
    assert test.labels["soundscape_0002"] == ("Blender", "Buzzer")
    assert test._sources[1]["soundscape_0002"].endswith("test/oracle_target/soundscape_0002_Buzzer.wav")
    assert Sampler.from_yaml("conf/scenes/train.yaml").config.rules == "dcase2025"
    # The list of files that this year's data bring is checked, too.
    (root / "dev_set/noise/train/a.wav").unlink()
    assert ("data/dev_set/noise/train/a.wav", "filelist.json names it") in verify(places(root), PARTS).missing


# --- from the network ---------------------------------------------------------------------------------------------


@pytest.fixture
def small(replicas, replica, tmp_path, monkeypatch, server):
    """A recipe whose parts are small archives on a server: the split one, zips of speakers, a tar."""
    import hashlib

    folder = recipe_in(tmp_path, replicas, monkeypatch)
    data = yaml.safe_load(Path("conf/data.yaml").read_text())
    data["additions"][-1]["classes"] = ["Rain", "Wind"]
    data["sets"].pop("eval")
    data["parts"].pop("eval_set")
    data["folders"] = [name for name in data["folders"] if not name.startswith("eval_set")]
    shutil.copytree(replica / "dev_set", "content/DCASE2026Task4Dataset/data/dev_set")
    for name in Path("content").rglob("soundscape_*.wav"):  # shorter ones
        audio, rate = soundfile.read(name, stop=3200)
        soundfile.write(name, audio, rate)
    with zipfile.ZipFile("whole.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(Path("content").rglob("*")):
            archive.write(path, path.relative_to("content"))
    split = _cut(Path("whole.zip"), Path("split"), 1_500_000)
    names = [p.name.replace("a.", "DCASE2026Task4Dataset.") for p in split]
    data["parts"]["dev_set"]["files"] = names
    record = []
    for path, name in zip(split, names, strict=True):
        content = path.read_bytes()
        server.files[f"/dev/{name}"] = content
        checksum = f"md5:{hashlib.md5(content).hexdigest()}"
        record.append({"key": name, "size": len(content), "checksum": checksum})
    server.files["/record"] = json.dumps({"files": record}).encode()
    with tarfile.open("b.tar", "w") as archive:
        for top in ("FSD50K", "bg_scaper_fmt/train/Rain", "bg_scaper_fmt/train/Wind", "bg_scaper_fmt/val/Rain"):
            archive.add(replica / "BinauralCuratedDataset" / top, f"BinauralCuratedDataset/{top}")
        archive.add(
            replica / "BinauralCuratedDataset/bg_scaper_fmt/val/Wind", "BinauralCuratedDataset/bg_scaper_fmt/val/Wind"
        )
    server.files["/semhear/BinauralCuratedDataset.tar"] = Path("b.tar").read_bytes()
    for speaker in ("p001", "p002", "p107"):
        with zipfile.ZipFile("s.zip", "w") as archive:
            for path in sorted((replica / "EARS" / speaker).iterdir()):
                archive.write(path, f"{speaker}/{path.name}")
        server.files[f"/ears/{speaker}.zip"] = Path("s.zip").read_bytes()
    data["parts"]["ears"]["files"] = ["p001.zip", "p002.zip", "p107.zip"]
    for name, place in (("dev_set", "dev"), ("semantic_hearing", "semhear"), ("ears", "ears")):
        data["parts"][name]["urls"] = [f"{server.url}/{place}"]
    data["parts"]["dev_set"]["record"] = f"{server.url}/record"
    Path("conf/data.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return folder


def _cut(archive, folder, size):
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("s5_test_archives", Path(__file__).with_name("test_archives.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    last = module.cut(archive, folder, size, True)
    return [*sorted(folder.glob("a.z[0-9]*")), last]


def test_from_the_network_to_data_directories(small, server, capsys):
    (first, *_) = sorted(path for path in server.files if path.startswith("/dev/"))
    server.faults[first] = [("truncate", 700_000), 503]
    server.faults["/ears/p002.zip"] = [("truncate", 1000)]
    download_command.main(["--list"])
    listing = capsys.readouterr().out
    assert "dev_set" in listing and "MB, from http://127.0.0.1" in listing and "size not published" in listing
    download_command.main(["--timeout", "1", "--retries", "2"])
    prepare_command.main([])
    verify_command.main([])
    out = capsys.readouterr().out
    assert out.endswith("0 missing, 0 unexpected\n")
    assert DataDir.load("data/test", LabelSet()).has_sources
    # Only the picked files of EARS were unpacked.
    assert not list(Path("data/raw/unpacked/ears").rglob("not_picked.wav"))
    assert os.readlink("data/raw/dev_set/noise") == "../unpacked/dev_set/DCASE2026Task4Dataset/data/dev_set/noise"
    # Nothing is downloaded twice, even when the archives are gone.
    n = len(server.requests)
    prepare_command.main(["--remove_archives"])
    shutil.rmtree("data/download")
    download_command.main([])
    prepare_command.main([])
    assert len(server.requests) == n
    # Unpacked files are compared with their archive.
    Path("data/raw/unpacked/dev_set/DCASE2026Task4Dataset/data/dev_set/noise/train/a.wav").write_bytes(b"x")
    with pytest.raises(InputError, match=r"noise/train/a\.wav.*found 1 bytes instead of"):
        verify_command.main([])


def test_mirror_goes_first_and_archives_at_hand_are_used(small, server, tmp_path):
    server.files["/mirror/p001.zip"] = server.files.pop("/ears/p001.zip")
    (small / "data/download/semantic_hearing").mkdir(parents=True)
    shutil.copy("b.tar", small / "data/download/semantic_hearing/BinauralCuratedDataset.tar")
    download_command.main(["--mirrors", f"ears={server.url}/mirror", "--parts", "ears,semantic_hearing"])
    asked = [path for path, _ in server.requests]
    assert "/mirror/p001.zip" in asked and "/ears/p002.zip" in asked
    assert not any("semhear" in path for path in asked)


def test_archive_that_is_not_there_is_named(replicas, tmp_path, monkeypatch):
    recipe_in(tmp_path, replicas, monkeypatch)
    with pytest.raises(
        InputError, match=r"data/download/dev_set/\S+\.zip: found no file, expected the download of dev_set"
    ):
        prepare_command.main([])
    assert not Path("data/dev_set").exists()


# --- options --------------------------------------------------------------------------------------------------------


def test_bad_places_are_one_line(replicas, replica, tmp_path, monkeypatch):
    recipe_in(tmp_path, replicas, monkeypatch)
    for arguments, complaint in (
        (["--data_root", "nowhere"], "--data_root: found no folder nowhere"),
        (["--data_root", str(tmp_path)], "found no part of the data set, expected dev_set"),
        (["--paths", "ear=x"], "--paths: found ear, expected ears"),
        (["--paths", "dev_set"], "--paths: found dev_set, expected PART=VALUE"),
        (["--paths", f"dev_set={tmp_path}"], "expected the content of dev_set"),
        (["--data_root", str(replica), "--parts", "devset"], "--parts: found devset, expected dev_set"),
        (["--config", "conf/none.yaml"], "conf/none.yaml: found No such file"),
    ):
        with pytest.raises(InputError) as e:
            prepare_command.main(arguments)
        assert complaint in str(e.value)


def test_folder_in_the_way_is_kept(replicas, replica, tmp_path, monkeypatch):
    recipe_in(tmp_path, replicas, monkeypatch)
    Path("data/dev_set").mkdir(parents=True)
    Path("data/dev_set/mine").touch()
    with pytest.raises(InputError, match="data/dev_set: found a folder or file, expected nothing, or a link"):
        prepare_command.main(["--data_root", str(replica), "--parts", "dev_set"])
    assert Path("data/dev_set/mine").exists()


def test_mirrors_option():
    corpus = Corpus.load(Path(__file__).parents[3] / "egs/dcase2026_task4/conf/data.yaml")
    assert read_mirrors("https://m.org/d/", corpus)["ears"] == ["https://m.org/d/ears"]
    assert read_mirrors("ears=https://m.org/e?x=1", corpus) == {"ears": ["https://m.org/e?x=1"]}
    with pytest.raises(InputError, match="--mirrors: found eras, expected ears"):
        read_mirrors("eras=https://m.org", corpus)


def test_published_names():
    for year, (dev, evaluation) in {2025: (18, 10), 2026: (12, 5)}.items():
        corpus = Corpus.load(Path(__file__).parents[3] / f"egs/dcase{year}_task4/conf/data.yaml")
        assert [len(corpus.parts[name].files) for name in PARTS] == [dev, evaluation, 1, 107]
        assert corpus.parts["ears"].files[-1] == "p107.zip"
        assert corpus.parts["dev_set"].files[0] == f"DCASE{year}Task4Dataset.z01"
    assert expand("a{8..10}") == ["a8", "a9", "a10"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"parts": {"dev_set": {"url": []}}}, r"key parts\.dev_set\.url: found an unknown key"),
        ({"parts": {"ears": {"files": ["../x.zip"]}}}, "found '../x.zip', expected a file name"),
        ({"sets": {"test": {"part": "dev"}}}, r"sets\.test: found part dev, expected dev_set"),
    ],
)
def test_bad_descriptions_are_one_line(tmp_path, change, complaint):
    path = Path(__file__).parents[3] / "egs/dcase2026_task4/conf/data.yaml"
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"inherit": str(path), **change}))
    with pytest.raises(InputError, match=complaint):
        Corpus.load(tmp_path / "data.yaml")
