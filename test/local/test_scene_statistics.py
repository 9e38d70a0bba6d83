"""Our scenes against SpAudSyn's: counts and histograms of 5,000 of its scenes from the folders that are made here."""

import importlib.util
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

TEST = Path(__file__).parents[1]
GOLDEN = TEST / "golden/scene_statistics"
RATE = 8000
P_VALUE = 1e-4

spec = importlib.util.spec_from_file_location("scene_statistics", TEST.parent / "local/studies/scene_statistics.py")
statistics = importlib.util.module_from_spec(spec)
spec.loader.exec_module(statistics)


def make_material(root: Path, write_room) -> Path:
    """Three labels with files directly below them and in folders, of 0.4 to 3 s; rooms without positions 60 degrees
    apart, where rounding would decide."""
    names = [f"sound_event/Cough/{i}.wav" for i in range(6)]
    names += [f"sound_event/Speech/voice{i // 2}/{i}.wav" for i in range(8)]
    names += [f"sound_event/Percussion/kit{i}/{i}.wav" for i in range(3)] + ["sound_event/Percussion/3.wav"]
    names += [f"interference/{label}/{i}.wav" for label in ("Rain", "Cart") for i in range(3)]
    for i, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, np.full(int((0.4 + 0.37 * (i % 8)) * RATE), 0.1), RATE)
    (root / "noise").mkdir()
    for name, seconds in (("long.wav", 7.3), ("short.wav", 1.5), ("other.wav", 4.9)):
        soundfile.write(root / "noise" / name, np.full((int(seconds * RATE), 4), 0.01), RATE)
    azimuth = 40.0 * np.arange(9)
    write_room(root / "room_ir/a.sofa", np.stack([azimuth, 10 * (azimuth % 3), 0 * azimuth + 1.5], axis=1))
    write_room(root / "room_ir/b.sofa", [[1, 0, 0], [0, 1, 0], [-1, 0, 0.5], [0, -1, -0.5], [0.3, 0.3, 1]], "cartesian")
    return root


@pytest.fixture(scope="module")
def folders(tmp_path_factory, write_room):
    return make_material(tmp_path_factory.mktemp("statistics"), write_room)


def p_values(folders: Path, name: str, n: int, **changes) -> dict[str, float]:
    """Chance of our counts where our scenes were SpAudSyn's, by quantity."""
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    scenes = statistics.draw_ours(folders, n, golden["settings"] | changes, seed=1)
    counts, values = statistics.measure(scenes)
    assert counts.keys() == golden["counts"].keys() and values.keys() == golden["histograms"].keys()
    p = {key: statistics.chi_square(counts[key], Counter(golden["counts"][key])) for key in counts}
    edges = {key: histogram["edges"] for key, histogram in golden["histograms"].items()}
    for key, ours in statistics.histograms(values, edges).items():
        theirs = golden["histograms"][key]["counts"]
        p[key] = statistics.chi_square(Counter(dict(enumerate(ours["counts"]))), Counter(dict(enumerate(theirs))))
    return p


@pytest.mark.parametrize("name", ["plain", "limited"])
def test_our_scenes_are_distributed_as_spaudsyns(folders, name):
    """``plain``: the challenge's rules; ``limited``: two events that may not overlap."""
    p = p_values(folders, name, 2500)
    assert len(p) == {"plain": 23, "limited": 12}[name]
    assert {key: value for key, value in p.items() if value < P_VALUE} == {}


@pytest.mark.parametrize(
    ("name", "changes", "quantity"),
    [
        ("plain", {"same_class_probability": 0.2}, "label repeats of 2 events"),
        ("plain", {"event_snr": [5, 19]}, "event's snr"),
        ("plain", {"interference": [0, 1]}, "interferers"),
        ("plain", {"same_class_min_angle": 100.0}, "angle of a label's events"),
        ("limited", {"max_event_overlap": 2}, "event's event_time"),
    ],
)
def test_other_rules_would_be_noticed(folders, name, changes, quantity):
    assert p_values(folders, name, 1000, **changes)[quantity] < P_VALUE
