"""What scenes tell about mixtures: SNR, angles, rooms; and lists of scenes for the challenge's layout."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from s5.bin.score import main
from s5.data import write_audio
from s5.inference.scoring import angles_between, conditions
from s5.scene.spec import Scene
from s5.utils.errors import InputError

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "scenes"


@pytest.fixture(scope="module")
def scene():
    return Scene.load(GOLDEN / "scene_same_class.json")


def test_conditions_follow_the_scene():
    """Two of its sources have one class; the angle is that between them, whatever their distance."""
    scene = Scene.load(GOLDEN / "scene_same_class.json")
    same = [event for event in scene.targets if scene.labels.count(str(event.label)) > 1]
    for event, point in zip(same, ([2.0, 0.0, 0.0], [-0.5, 0.5 * 3**0.5, 0.0]), strict=True):
        event.event_position = [point]
    found = conditions(scene, scene.labels, "scene")
    assert found["snr"] == [event.snr for event in scene.targets]
    assert found["room"] == Path(scene.room.sofa_path).stem
    assert found["angle"] == 120.0


def test_references_in_another_order_keep_their_snr(scene):
    turned = sorted(scene.labels, reverse=True)
    found = conditions(scene, turned, "scene")
    by_label = {label: [e.snr for e in scene.targets if e.label == label] for label in turned}
    assert found["snr"] == [by_label[label].pop(0) for label in turned]


def test_scene_of_other_labels_is_refused(scene):
    with pytest.raises(InputError, match="scene of m0: found a scene of"):
        conditions(scene, scene.labels[:1], "scene of m0")


def test_no_target():
    scene = Scene.load(GOLDEN / "scene_zero_target.json")
    assert conditions(scene, scene.labels, "scene")["angle"] is None


def test_moving_sources_count_by_their_mean():
    assert angles_between([[[1, 1, 0], [1, -1, 0]], [[0, 1, 0]]]) == [90.0]
    assert angles_between([[[1, 0, 0]]]) == []


def test_list_of_scenes_for_the_challenges_layout(scene, tmp_path):
    """--metadata valid.json: entries in the order of the mixtures' names."""
    ref = np.random.default_rng(0).standard_normal((len(scene.labels), 400)).astype(np.float32)
    for folder in ("soundscape", "oracle_target", "estimates"):
        (tmp_path / folder).mkdir()
    for utt in ("soundscape_0000", "soundscape_0001"):
        write_audio(tmp_path / "soundscape" / f"{utt}.wav", np.stack([ref.sum(0)] * 4), 16000)
        for slot, (label, wave) in enumerate(zip(scene.labels, ref, strict=True)):
            for folder in ("oracle_target", "estimates"):
                write_audio(tmp_path / folder / f"{utt}_{slot}_{label}.wav", wave, 16000)
    (tmp_path / "valid").mkdir()
    shutil.copy(GOLDEN / "scene_same_class.json", tmp_path / "valid")
    entries = [{"metadata_path": "valid/scene_same_class.json"}] * 2
    (tmp_path / "valid.json").write_text(json.dumps(entries))
    files = ["--estimates", str(tmp_path / "estimates"), "--references", str(tmp_path)]
    call = [*files, "--metadata", str(tmp_path / "valid.json"), "--out", str(tmp_path / "scores.json")]
    main(call)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert sum(part["mixtures"] for part in scores["by_room"].values()) == 2
    assert scores["mixtures"][1]["scene"] == conditions(scene, scene.labels, "")
    (tmp_path / "valid.json").write_text(json.dumps(entries[:1]))
    with pytest.raises(InputError, match="found 1 scenes, expected 2"):
        main(call)
