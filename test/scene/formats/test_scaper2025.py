import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from s5.scene import Scene, render
from s5.scene.formats.lists import MetadataList, load_scenes
from s5.scene.rendering.rules import DCASE2025
from s5.utils.errors import InputError

GOLDEN = Path(__file__).parents[2] / "golden"
FOLDER = GOLDEN / "scenes_2025"
NAMES = ("0000", "0001", "0002")


@pytest.mark.parametrize("name", NAMES)
def test_what_the_2025_baseline_renders(name):
    golden = np.load(FOLDER / f"{name}.npz")
    scene = MetadataList.load(FOLDER / "valid.json")[int(name)]
    rendered = render(scene, GOLDEN / "scenes")
    onset_order = list(golden["labels"])
    assert rendered.labels == scene.labels and sorted(rendered.labels) == sorted(onset_order)
    tolerance = 2e-6 * np.abs(golden["mixture"]).max()
    np.testing.assert_allclose(rendered.mixture, golden["mixture"], rtol=0, atol=tolerance)
    for slot, label in enumerate(rendered.labels):
        k = onset_order.index(label)
        np.testing.assert_allclose(rendered.dry[slot], golden[f"dry{k}"], rtol=0, atol=tolerance)
        np.testing.assert_allclose(rendered.wet[slot], golden[f"wet{k}"], rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("0000", {"direct_peak": "absolute"}),
        ("0000", {"direct_end": True}),
        ("0001", {"cut_source": False}),
        ("0001", {"short_background": "tile"}),
        ("0001", {"reference_channel": 0}),
    ],
)
def test_every_rule_of_2025_is_heard(name, change):
    golden = np.load(FOLDER / f"{name}.npz")
    scene = Scene.load(FOLDER / "valid" / f"{name}.json")
    rendered = render(replace(scene, rules=replace(scene.rules, **change)), GOLDEN / "scenes")
    far = [np.abs(rendered.mixture - golden["mixture"]).max()]
    far += [np.abs(dry - golden[f"dry{k}"]).max() for k, dry in enumerate(rendered.dry)]
    assert max(far) > 1e-5 * np.abs(golden["mixture"]).max()


def test_the_position_need_not_be_one_of_the_rooms():
    scene = Scene.load(FOLDER / "valid/0001.json")
    with pytest.raises(InputError, match=r"found no position \[0.1, 1.0, 0.2\]"):
        render(replace(scene, rules=replace(scene.rules, position="equal")), GOLDEN / "scenes")
    with pytest.raises(InputError, match=r"place0.sofa: found 4 channels, expected a reference channel 4"):
        render(replace(scene, rules=replace(scene.rules, reference_channel=4)), GOLDEN / "scenes")


@pytest.mark.parametrize("name", NAMES)
def test_metadata_come_out_as_they_went_in(name, tmp_path):
    source = FOLDER / "valid" / f"{name}.json"
    Scene.load(source).save(tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text() == source.read_text()


def test_both_versions_and_both_names_of_the_configuration():
    first, second = Scene.load(FOLDER / "valid/0002.json"), Scene.load(FOLDER / "valid/0000.json")
    assert "init_args" in first.extra and not first.int_events and len(second.int_events) == 2
    assert first.rules == second.rules == DCASE2025
    assert (first.config.ref_db, first.config.max_event_dur) == (-50, 10.0)  # the Scaper's default where none is given
    assert first.room.sofa_path == "assets/room_ir_2025/place0.sofa"


def test_ref_event_is_the_order_of_the_slots(tmp_path):
    scenes = MetadataList.load(FOLDER / "valid.json")
    plain = Scene.load(FOLDER / "valid/0001.json")
    assert plain.labels == ["Speech", "Dishes"] and scenes[1].labels == ["Dishes", "Speech"]
    scenes[1].save(tmp_path / "x.json")  # then it stands in the scene itself
    assert Scene.load(tmp_path / "x.json") == scenes[1]
    assert json.loads((tmp_path / "x.json").read_text())["ref_event"] == ["Dishes", "Speech"]
    wrong = json.loads((FOLDER / "valid.json").read_text())
    wrong[1]["metadata_path"] = str(FOLDER / "valid/0001.json")
    for slots in (["Dishes"], ["Dishes", "Cough"], ["Dishes", "Dishes", "Speech"]):
        wrong[1]["ref_event"] = slots
        (tmp_path / "valid.json").write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=r"0001.json: ref_event: found .*the scene's labels \(Speech, Dishes\)"):
            MetadataList.load(tmp_path / "valid.json")[1]


def test_what_changes_is_written(tmp_path):
    scene = Scene.load(FOLDER / "valid/0000.json")
    changed = replace(scene, config=replace(scene.config, duration=2.0, ref_db=-40), int_events=scene.int_events[:1])
    changed.save(tmp_path / "x.json")
    again = Scene.load(tmp_path / "x.json")
    assert again == replace(changed, extra=again.extra) and again.config.duration == 2.0 and len(again.int_events) == 1


def test_pitch_and_stretch_are_kept_but_not_applied(tmp_path, caplog):
    data = json.loads((FOLDER / "valid/0002.json").read_text())
    data["fg_events"][0]["pitch_shift"] = 2.0
    scene = Scene.from_dict(data, "x.json")
    assert "x.json: fg_events[0].pitch_shift is 2.0: not applied" in caplog.text
    assert scene.to_dict() == data
    plain = render(Scene.load(FOLDER / "valid/0002.json"), GOLDEN / "scenes")
    np.testing.assert_array_equal(render(scene, GOLDEN / "scenes").mixture, plain.mixture)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d["config"].pop("rir_dir"), "config: found no key rir_dir"),
        (lambda d: d.pop("config"), "found no key config"),
        (lambda d: d["fg_events"][0].pop("pitch_shift"), r"fg_events\[0\]: found no key pitch_shift"),
        (lambda d: d["int_events"][1].update(snr=None), r"int_events\[1\]\.snr: found None"),
        (lambda d: d["config"].update(ref_channel="W"), "ref_channel: found .W."),
        (lambda d: d["config"].update(spatialize_direct_path_time_ms=[6]), r"time_ms: found \[6\]"),
    ],
)
def test_a_bad_scene_is_refused_by_file_and_key(tmp_path, change, complaint):
    data = json.loads((FOLDER / "valid/0000.json").read_text())
    change(data)
    (tmp_path / "bad.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=f"bad.json.*{complaint}") as e:
        Scene.load(tmp_path / "bad.json")
    assert "\n" not in str(e.value)


def test_one_front_door_for_lists_and_scenes_of_both_years():
    assert [scene.rules.name for scene in load_scenes(FOLDER / "valid.json")] == ["dcase2025"] * 3
    assert [scene.rules.name for scene in load_scenes(FOLDER / "valid/0001.json")] == ["dcase2025"]
    assert [scene.rules.name for scene in load_scenes(GOLDEN / "scenes/scene_same_class.json")] == ["dcase2026"]
