import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from s5.errors import InputError
from s5.scene import Sampler, SamplerConfig, render, scene_seed
from s5.scene.sampler import _onset

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
    assert Sampler(config | {"event_snr": [5, 21]}, material).fingerprint != fingerprint
    assert Sampler(config | {"labels": ["Speech", "Cough"]}, material).fingerprint != fingerprint


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


def test_onsets_are_uniform_over_all_that_the_limit_allows(material, config):
    class Sounding:
        def __init__(self, start, duration):
            self.event_time, self.event_duration = start, duration

    rng = np.random.default_rng(0)
    others = [Sounding(2.0, 2.0), Sounding(3.0, 2.0)]  # the limit of 2 is reached from 3 to 4
    onsets = np.array([_onset(rng, 10.0, 1.0, others, 2) for _ in range(4000)])
    assert onsets.max() <= 9 and not ((onsets > 2) & (onsets < 4)).any()
    assert abs((onsets < 2).mean() - 2 / 7) < 0.03
    assert abs(onsets[onsets >= 4].mean() - 6.5) < 0.1


def test_a_file_directly_in_its_label_folder_excludes_only_itself(material, config):
    sampler = Sampler(config | {"labels": ["Cough"], "n_events": [2, 2], "same_class_probability": 1.0}, material)
    pairs = {frozenset(event.source_file for event in sampler.sample(seed).fg_events) for seed in range(60)}
    assert len(pairs) == 6  # of 4 files


def test_impossible_requests_are_refused_with_the_reason(material, config):
    def refused(reason, **keys):
        sampler = Sampler(config | {"n_events": [3, 3], "interference": [0, 0]} | keys, material)
        with pytest.raises(InputError, match=rf"found no scene of 3 events .*\({reason}") as e:
            for seed in range(100):
                assert len(sampler.sample(seed).fg_events) == 3
        assert "\n" not in str(e.value)

    refused("3 different labels out of 2", labels=["Cough", "Speech"], same_class_probability=0.0)
    refused("no other source folder of Percussion", labels=["Percussion"], same_class_probability=1.0, n_events=[3, 3])
    refused("no onset for 0.4 s", labels=["Cough", "Speech", "Percussion"], duration=1.0, max_event_duration=0.4,
            max_event_overlap=1, same_class_probability=0.0)  # fmt: skip
    refused(".*no position 170 degrees away", same_class_min_angle=170, same_class_probability=1.0, labels=["Speech"])


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"n_event": [0, 3]}, r"key n_event: found an unknown key, expected n_events"),
        ({"dirs": {"sound_event": "x", "room_ir": "y", "noises": "z"}}, r"key dirs.noises: found an unknown key"),
        ({"n_events": [2, 1]}, r"key n_events: found \[2, 1\]"),
        ({"n_events": [0, 4]}, r"key n_events: .*at most n_slots \(3\)"),
        ({"max_event_duration": 3.0}, r"key max_event_duration: found 3.0, expected at most duration \(2.0\)"),
        ({"sampling_rate": "fast"}, r"key sampling_rate: found 'fast'"),
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


def test_the_mini_recipes_configurations_are_whole():
    from s5.config import load_yaml, parse

    folder = Path(__file__).parents[2] / "egs/mini_s5/conf/scenes"
    configs = {path.stem: parse(SamplerConfig, load_yaml(path), path) for path in folder.glob("*.yaml")}
    assert set(configs) >= {"train", "valid", "test"}
    assert len({config.seed for config in configs.values()}) == len(configs)
    for name, config in configs.items():
        assert all(str(path).endswith(f"/{name}") for path in vars(config.dirs).values())
