import hashlib
import itertools
import json
import math
import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from s5.scene import Sampler, SamplerConfig, Scene, render, scene_seed
from s5.scene.config import Subset
from s5.scene.sampler import fingerprint
from s5.utils.config import load_inherited, parse
from s5.utils.errors import InputError

N = 400


@pytest.fixture
def scenes(material, config):
    sampler = Sampler(config, material)
    return [sampler.scene(0, item) for item in range(N)]


def events_of(scenes):
    return [event for scene in scenes for event in scene.fg_events]


def test_the_seed_alone_decides(material, config):
    one, other = Sampler(config, material), Sampler(config, material)
    for seed in range(20):
        assert one.sample(seed) == other.sample(seed)
    other.sample(99)  # what was drawn before does not matter
    assert one.sample(3) == other.sample(3)
    distinct = {str(one.sample(seed).to_dict()) for seed in range(50)}
    assert len(distinct) == 50


def test_seeds_of_scenes_differ_in_every_argument():
    seed = scene_seed("a", 0, 1, 2)
    assert seed == 5948952847594175649  # on any machine, in any release
    others = [scene_seed("b", 0, 1, 2), scene_seed("a", 1, 1, 2), scene_seed("a", 0, 2, 2), scene_seed("a", 0, 1, 3)]
    assert len({seed, *others}) == 5


def test_the_fingerprint_is_that_of_the_rules(material, config, tmp_path):
    fingerprint = Sampler(config, material).fingerprint
    absolute = {name: str(material / path) for name, path in config["dirs"].items()}
    assert Sampler(config | {"dirs": absolute}).fingerprint == fingerprint
    assert Sampler(config | {"seed": 5, "num_scenes": 7}, material).fingerprint == fingerprint
    assert Sampler(config | {"event_snr": [5, 20]}, material).fingerprint == fingerprint
    (tmp_path / "labels.txt").write_text("Cough\nPercussion\nSpeech\n")
    assert Sampler(config | {"labels": str(tmp_path / "labels.txt")}, material).fingerprint == fingerprint
    assert Sampler(config | {"rules": "dcase2026", "same_class_folder_depth": 1}, material).fingerprint == fingerprint
    assert Sampler(config | {"same_class_folder_depth": 0}, material).fingerprint != fingerprint
    assert Sampler(config | {"event_snr": [5, 21]}, material).fingerprint != fingerprint
    assert Sampler(config | {"labels": ["Speech", "Cough"]}, material).fingerprint != fingerprint


def test_the_rest_changes_no_scene(material, config):
    plain, other = Sampler(config, material), Sampler(config | {"rest": "residual"}, material)
    assert plain.fingerprint == other.fingerprint and plain.to_dict() == other.to_dict()
    assert all(plain.scene(0, item) == other.scene(0, item) for item in range(5))
    assert "rest" not in plain.to_dict()
    with pytest.raises(InputError, match="key rest: found 'all', expected"):
        Sampler(config | {"rest": "all"}, material)


def test_numbers_of_events_repeats_and_interferers_are_uniform(scenes):
    sizes = Counter(len(scene.fg_events) for scene in scenes)
    interferers = Counter(len(scene.int_events) for scene in scenes)
    assert set(sizes) == {0, 1, 2, 3} and all(abs(n - N / 4) < 4 * math.sqrt(N * 3 / 16) for n in sizes.values())
    assert set(interferers) == {0, 1, 2} and all(
        abs(n - N / 3) < 4 * math.sqrt(N * 2 / 9) for n in interferers.values()
    )
    several = [scene for scene in scenes if len(scene.fg_events) > 1]
    repeated = sum(len(set(scene.labels)) < len(scene.labels) for scene in several)
    assert abs(repeated - len(several) / 2) < 4 * math.sqrt(len(several) / 4)
    triples = [scene for scene in scenes if len(scene.labels) == 3]
    assert {len(set(scene.labels)) for scene in triples} == {1, 2, 3}


def test_no_repeats_where_none_are_wanted(material, config):
    sampler = Sampler(config | {"n_events": [3, 3], "same_class_probability": 0.0}, material)
    assert all(len(set(sampler.sample(seed).labels)) == 3 for seed in range(50))


def folder_of(event):
    parts = event.source_file.split("/")
    return parts[1] if len(parts) > 2 else event.source_file


def test_repeats_come_from_another_source_folder_and_direction(scenes):
    pairs = 0
    for scene in scenes:
        for a, b in itertools.combinations(scene.fg_events, 2):
            if a.label == b.label:
                x, y = np.array(a.event_position[0]), np.array(b.event_position[0])
                angle = np.degrees(np.arccos(np.clip(x @ y / np.linalg.norm(x) / np.linalg.norm(y), -1, 1)))
                assert angle > 60
                assert folder_of(a) != folder_of(b)
                pairs += 1
    assert pairs > 50
    assert {event.label for event in events_of(scenes)} == {"Cough", "Percussion", "Speech"}


def test_levels_and_times_lie_in_their_ranges(scenes):
    snrs = np.array([event.snr for event in events_of(scenes)])
    assert 5 <= snrs.min() < 6 and 19 < snrs.max() <= 20
    others = np.array([event.snr for scene in scenes for event in scene.int_events])
    assert 0 <= others.min() < 1 and 14 < others.max() <= 15
    for scene in scenes:
        for events in (scene.fg_events, scene.int_events):
            assert [e.event_time for e in events] == sorted(e.event_time for e in events)
            for event in events:
                assert 0 <= event.event_time <= scene.config.duration - event.event_duration
                assert 0 < event.event_duration <= 1.5


def test_long_files_are_cut_at_a_random_start(scenes):
    cut = [event for event in events_of(scenes) if event.source_file == "Speech/voice2/long.wav"]
    assert len(cut) > 5
    assert all(event.event_duration == 1.5 and 0 <= event.source_time <= 3.5 for event in cut)
    assert len({event.source_time for event in cut}) == len(cut)
    rest = [event for event in events_of(scenes) if event.source_file != "Speech/voice2/long.wav"]
    assert all(event.source_time == 0 for event in rest)


def test_backgrounds_start_at_a_whole_second_or_are_repeated(scenes):
    found = {(event.source_file, event.source_time) for scene in scenes for event in scene.bg_events}
    assert found == {("short.flac", None), *(("long.flac", second) for second in range(4))}
    assert all(len(scene.bg_events) == 1 and scene.bg_events[0].snr == 0 for scene in scenes)


def overlap(events) -> int:
    """Most events that sound at one time."""
    starts = [event.event_time for event in events]
    return max((sum(e.event_time <= t < e.event_time + e.event_duration for e in events) for t in starts), default=0)


def test_the_overlap_limit_holds_for_foreground_and_interference_apart(material, config):
    limits = {"max_event_overlap": 1, "max_event_duration": 0.6, "n_events": [2, 3], "interference": [1, 2]}
    sampler = Sampler(config | limits, material)
    found = [sampler.scene(0, item) for item in range(100)]
    assert all(overlap(scene.fg_events) <= 1 and overlap(scene.int_events) <= 1 for scene in found)
    assert any(overlap([*scene.fg_events, *scene.int_events]) == 2 for scene in found)


def test_a_file_directly_in_its_label_folder_excludes_only_itself(material, config):
    sampler = Sampler(config | {"labels": ["Cough"], "n_events": [2, 2], "same_class_probability": 1.0}, material)
    pairs = {frozenset(event.source_file for event in sampler.sample(seed).fg_events) for seed in range(60)}
    assert len(pairs) == 6  # of 4 files


@pytest.mark.parametrize(("depth", "other_folders"), [(0, False), (1, True), (2, False)])
def test_the_depth_of_source_folders_is_an_option(material, config, depth, other_folders):
    """Speech lies in voice<k>/: at depth 2 all of its files lie above what is compared, and exclude only themselves."""
    keys = {"labels": ["Speech"], "n_events": [2, 2], "same_class_probability": 1.0, "same_class_folder_depth": depth}
    sampler = Sampler(config | keys, material)
    pairs = [sampler.sample(seed).fg_events for seed in range(60)]
    assert all(a.source_file != b.source_file for a, b in pairs)
    assert all(folder_of(a) != folder_of(b) for a, b in pairs) == other_folders


def test_impossible_requests_are_refused_with_the_reason(material, config):
    def refused(reason, **keys):
        sampler = Sampler(config | {"n_events": [3, 3], "interference": [0, 0]} | keys, material)
        with pytest.raises(InputError, match=rf"found no scene of 3 events .*\({reason}") as e:
            for seed in range(100):
                assert len(sampler.sample(seed).fg_events) == 3
        assert "\n" not in str(e.value)

    refused("3 different labels out of 2", labels=["Cough", "Speech"], same_class_probability=0.0)
    refused("no other source folder of Percussion", labels=["Percussion"], same_class_probability=1.0)
    refused("no other file of Percussion", labels=["Percussion"], same_class_probability=1.0, same_class_folder_depth=0)
    refused("no onset for 0.4 s", labels=["Cough", "Speech", "Percussion"], duration=1.0, max_event_duration=0.4,
            max_event_overlap=1, same_class_probability=0.0)  # fmt: skip
    refused(".*no position 170 degrees away", same_class_min_angle=170, same_class_probability=1.0, labels=["Speech"])


def test_where_labels_run_out_events_repeat_one(material, config):
    config |= {"labels": ["Cough", "Speech"], "n_events": [3, 3], "same_class_probability": 0.1}
    for seed in range(30):
        assert len(Sampler(config, material).sample(seed).fg_events) == 3
    sampler = Sampler(config | {"labels": ["Cough"]}, material)
    sampler.check_requests()
    assert sampler.sample(0).labels == ["Cough"] * 3
    with pytest.raises(InputError, match=r"3 events .*3 different labels out of 1"):
        Sampler(config | {"labels": ["Cough"], "max_same_class": 1}, material).sample(0)


def test_every_number_of_events_is_checked(material, config):
    config |= {"labels": ["Percussion", "Speech"], "same_class_probability": 0.001, "max_event_overlap": 4}
    with pytest.raises(InputError, match=r"no scene of 3 events \(2 of a repeated class\).*Percussion"):
        Sampler(config | {"labels": ["Percussion"], "same_class_folder_depth": 0}, material).check_requests()
    with pytest.raises(InputError, match=r"no scene of 3 events .*3 different labels out of 2"):
        config |= {"n_events": [1, 4], "n_slots": 4, "same_class_probability": 0.0}
        Sampler(config, material).check_requests()


NO_EVENT = {"name": "x", "num_scenes": 5, "n_events": [0, 0]}


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"n_event": [0, 3]}, r"key n_event: found an unknown key, expected n_events"),
        ({"dirs": {"sound_event": "x", "room_ir": "y", "noises": "z"}}, r"key dirs.noises: found an unknown key"),
        ({"n_events": [2, 1]}, r"key n_events: found \[2, 1\]"),
        ({"n_events": [0, 4]}, r"key n_events: .*at most n_slots \(3\)"),
        ({"max_event_duration": 3.0}, r"key max_event_duration: found 3.0, expected at most duration \(2.0\)"),
        ({"sampling_rate": "fast"}, r"key sampling_rate: found 'fast'"),
        ({"sampling_rate": 10**8}, r"key sampling_rate: found 100000000 Hz, expected 100 to 1000000"),
        ({"duration": float("nan")}, r"key duration: found nan, expected a finite number"),
        ({"duration": 1e9}, r"key duration: found 1e\+09 s, expected a sample or more, at most 16777 s at 8000 Hz"),
        ({"event_snr": [0, float("inf")]}, r"key event_snr.1: found inf"),
        ({"ref_db": 1e5}, r"key ref_db: found 100000.0, expected a number of at most 200"),
        ({"rules": "dcase2024"}, r"key rules: found 'dcase2024'"),
        ({"rules": "dcase2025"}, r"key same_class_probability: found 0.5, expected 0, as rules is dcase2025"),
        ({"same_class_folder_depth": -1}, r"key same_class_folder_depth: found -1"),
        ({"num_scenes": None}, r"key num_scenes: found None"),
        ({"num_scenes": 0}, r"key num_scenes: found 0, expected more than 0"),
        ({"subsets": []}, r"key subsets: found \[\]"),
        ({"subsets": [{"name": "x", "num_scenes": 5}]}, r"key subsets.0.n_events: found nothing"),
        ({"subsets": [NO_EVENT, NO_EVENT | {"num_scenes": 0}]}, r"key subsets\[1\].num_scenes: found 0"),
        (
            {"subsets": [{"name": "x", "num_scenes": 5, "n_events": [4, 4]}]},
            r"key subsets\[0\].n_events: .*at most n_sl",
        ),
        ({"labels": ["Cough", "Cow"]}, r"sound_event/Cow: found no folder"),
        ({"labels": "none.txt"}, r"none.txt: found No such file"),
    ],
)
def test_a_bad_configuration_is_refused_by_key(material, config, keys, complaint):
    (material / "bad.yaml").write_text(yaml.safe_dump(config | keys))
    with pytest.raises(InputError, match=complaint) as e:
        Sampler.from_yaml(material / "bad.yaml", material)
    assert "\n" not in str(e.value)


def test_bad_folders_are_refused(material, config, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, expected in (
        ("sound_event", "no folder"),
        ("interference", "no folder"),
        ("noise", "no audio"),
        ("room_ir", "no SOFA"),
    ):
        dirs = {key: str(material / path) for key, path in config["dirs"].items()} | {name: str(tmp_path / "empty")}
        with pytest.raises(InputError, match=rf"empty.*: found {expected}"):
            Sampler(config | {"dirs": dirs})
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise/x.wav").write_bytes(b"not audio")
    dirs["room_ir"], dirs["noise"] = str(material / "raw/room_ir"), str(tmp_path / "noise")
    with pytest.raises(InputError, match=r"x.wav: found a file that libsndfile cannot read"):
        Sampler(config | {"dirs": dirs})
    soundfile.write(tmp_path / "noise/x.wav", np.ones((100, 2)), 8000)
    with pytest.raises(InputError, match=r"x.wav: found 2 channels, expected 4"):
        Sampler(config | {"dirs": dirs}).sample(0)


def test_no_interference_and_no_background_where_there_is_no_folder(material, config):
    dirs = {name: config["dirs"][name] for name in ("sound_event", "room_ir")}
    scene = Sampler(config | {"dirs": dirs, "n_events": [1, 1]}, material).sample(0)
    assert not scene.int_events and not scene.bg_events
    assert render(scene, material).mixture.any()


def test_one_sofa_file_in_place_of_a_folder(material, config):
    config["dirs"]["room_ir"] = "raw/room_ir/b.sofa"
    assert Sampler(config, material).sample(0).room.sofa_path == "raw/room_ir/b.sofa"


def test_its_configuration_can_be_written_and_read(material, config, tmp_path):
    sampler = Sampler(config, material)
    (tmp_path / "sampler.yaml").write_text(yaml.safe_dump(sampler.to_dict()))
    again = Sampler.from_yaml(tmp_path / "sampler.yaml", material)
    assert again.config == sampler.config and again.fingerprint == sampler.fingerprint
    assert again.scene(3, 4) == sampler.scene(3, 4)


DUP_NODUP = [
    {"name": "DupSet 2", "num_scenes": 6, "n_events": [2, 2], "same_class_probability": 1.0},
    {"name": "DupSet 3", "num_scenes": 6, "n_events": [3, 3], "same_class_probability": 1.0},
    *({"name": f"NoDupSet {n}", "num_scenes": 6, "n_events": [n, n]} for n in (1, 2, 3)),
]


def test_subsets_have_their_scenes_and_rules(material, config):
    sampler = Sampler(config | {"subsets": DUP_NODUP}, material)
    assert sampler.config.num_scenes == 30
    labels = [sampler.scene(0, item).labels for item in range(30)]
    assert [len(found) for found in labels] == [2] * 6 + [3] * 6 + [1] * 6 + [2] * 6 + [3] * 6
    assert [len(set(found)) < len(found) for found in labels] == [True] * 12 + [False] * 18
    twice = Counter(max(Counter(sampler.sample(seed, Subset(**DUP_NODUP[1])).labels).values()) for seed in range(300))
    assert set(twice) == {2, 3} and abs(twice[2] - 150) < 4 * math.sqrt(75)  # a class 2 or 3 times, equally often


def test_subsets_scale_with_the_number_of_scenes(material, config):
    sampler = Sampler(config | {"subsets": DUP_NODUP, "num_scenes": 10}, material)
    names = [sampler.subset(item).name for item in range(10)]
    assert Counter(names) == dict.fromkeys((subset["name"] for subset in DUP_NODUP), 2)
    drawn = Counter(len(sampler.sample(seed).fg_events) for seed in range(500))  # without an item: by their shares
    assert abs(drawn[1] - 100) < 40 and abs(drawn[2] - 200) < 45 and abs(drawn[3] - 200) < 45
    assert Sampler(config, material).subset(3) is None


def test_the_rules_of_2025(material, config, tmp_path):
    for i, label in enumerate(config["labels"]):
        folder = tmp_path / "event" / label
        (folder / "deeper").mkdir(parents=True)
        for name in ("a.wav", "b.wav", "deeper/c.wav"):
            soundfile.write(folder / name, 0.1 * np.random.default_rng(i).standard_normal(4000 + 1000 * i), 8000)
    dirs = {name: str(material / path) for name, path in config["dirs"].items()} | {
        "sound_event": str(tmp_path / "event")
    }
    keys = {
        "rules": "dcase2025",
        "same_class_probability": 0,
        "ref_db": -50,
        "n_events": [1, 3],
        "interference": [1, 2],
    }
    sampler = Sampler(config | keys | {"dirs": dirs})
    scenes = [sampler.scene(0, item) for item in range(100)]
    order = config["labels"].index
    for scene in scenes:
        assert scene.rules.name == "dcase2025" and 1 <= len(scene.labels) <= 3 and 1 <= len(scene.int_events) <= 2
        assert scene.labels == sorted(set(scene.labels), key=order)  # distinct, in class order
        onsets = [event.event_time for event in scene.fg_events]
        assert onsets == sorted(onsets)
        assert all("deeper" not in event.source_file for event in scene.fg_events)
    assert any([e.label for e in scene.fg_events] != scene.labels for scene in scenes)
    spherical = [s for s in scenes if s.room.sofa_path.endswith("a.sofa")]
    azimuths = {event.event_position[0][0] for scene in spherical for event in scene.fg_events}
    assert azimuths == {30.0 * k for k in range(12)}  # positions in the file's own coordinates
    scenes[0].save(tmp_path / "scene.json")
    assert Scene.load(tmp_path / "scene.json") == scenes[0]
    rendered = render(scenes[0])
    assert rendered.labels == scenes[0].labels and all(dry.any() for dry in rendered.dry)


def files_of(sampler):
    return {*sampler.material.backgrounds(), *dict(sampler.material.sources())}


def test_drawn_scenes_stay(material, config):
    """Scenes of a release are those of the next one; the digest is that of 28 November 2026."""
    sampler = Sampler(config, material)
    documents = [json.dumps(sampler.scene(0, item).to_dict()) for item in range(20)]
    rounded = [json.loads(text, parse_float=lambda x: round(float(x), 6)) for text in documents]
    assert hashlib.sha256(json.dumps(rounded).encode()).hexdigest()[:16] == "43d57a22920a18a2"


def test_excluded_files_are_not_used(material, config):
    paths = files_of(Sampler(config, material))
    exclude = {path for path in paths if "/voice0/" in path or path.endswith("short.flac")}
    sampler = Sampler(config, material, exclude=[*exclude, str(material / "raw/room_ir/a.sofa")])
    assert sampler.excluded >= exclude and files_of(sampler) == paths - exclude
    scenes = [sampler.scene(0, item) for item in range(100)]
    assert not any("voice0" in event.source_file for event in events_of(scenes))
    assert {scene.room.sofa_path for scene in scenes} == {"raw/room_ir/b.sofa"}
    with pytest.raises(InputError, match=r"sound_event/Cough: found only excluded audio \(4 files\)"):
        Sampler(config, material, exclude=[path for path in paths if "/Cough/" in path])


def test_scenes_do_not_depend_on_the_process_nor_on_what_was_drawn_before(material, config):
    """An epoch split over workers, and one that a training resumes at, holds the same scenes."""
    epochs, items = [1] * 6 + [2] * 6, [*range(6)] * 2
    alone = list(map(Sampler(config, material).scene, epochs, items))
    resumed = Sampler(config, material)
    assert [resumed.scene(2, item) for item in range(6)] == alone[6:]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(resumed.scene, epochs[::-1], items[::-1])) == alone[::-1]


def test_a_configuration_inherits(material, config, tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(config | {"event_snr": [1, 2]}))
    (tmp_path / "top.yaml").write_text("inherit: base.yaml\nseed: 7\ndirs: {noise: null}\n")
    sampler = Sampler.from_yaml(tmp_path / "top.yaml", material)
    assert (sampler.config.seed, sampler.config.event_snr) == (7, (1.0, 2.0))
    assert sampler.config.dirs.noise is None and sampler.config.dirs.room_ir == "raw/room_ir"


def test_the_fingerprint_of_older_configurations_stays():
    """A key that was added later does not enter the fingerprint at its default, so older scenes and results stay."""
    dirs = {kind: f"data/raw/{kind}/train" for kind in ("sound_event", "interference", "noise", "room_ir")}
    labels = ["Clapping", "Cough"]
    config = parse(SamplerConfig, {"labels": labels, "sampling_rate": 16000, "duration": 4.0, "dirs": dirs}, "x")
    assert fingerprint(config) == "389ba47872e1e86d"


def test_the_challenges_configurations_are_whole():
    folder = Path(__file__).parents[2] / "conf/scenes"
    configs = {path.stem: parse(SamplerConfig, load_inherited(path), path) for path in folder.glob("*.yaml")}
    tagger, separator, old = (configs[name] for name in ("dcase2026_tagger", "dcase2026_separator", "dcase2025"))
    assert (tagger.n_events, tagger.num_scenes) == ((0, 3), 25088)
    assert (separator.n_events, separator.num_scenes) == ((1, 3), 10112)
    assert replace(separator, n_events=(0, 3), num_scenes=25088, seed=tagger.seed) == tagger
    assert tagger.same_class_min_angle == 60 and tagger.ref_db == -55
    assert (old.rules, old.ref_db, old.n_events, old.interference) == ("dcase2025", -50, (1, 3), (1, 2))
    test_set = configs["ntt_test_set"]
    assert [subset.num_scenes for subset in test_set.subsets] == [600] * 5 and test_set.num_scenes == 3000
    for config in configs.values():
        assert (config.sampling_rate, config.duration, config.n_slots) == (32000, 10, 3)


def test_the_mini_recipes_configurations_are_whole():
    folder = Path(__file__).parents[2] / "egs/mini_s5/conf/scenes"
    configs = {path.stem: parse(SamplerConfig, load_inherited(path), path) for path in folder.glob("*.yaml")}
    assert set(configs) >= {"train", "valid", "test"}
    assert len({config.seed for config in configs.values()}) == len(configs)
    for name, config in configs.items():
        assert all(str(path).endswith(f"/{name}") for path in vars(config.dirs).values())
