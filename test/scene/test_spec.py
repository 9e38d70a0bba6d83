import json
import math
from pathlib import Path

import pytest

from s5.scene import Scene
from s5.utils.errors import InputError

GOLDEN = Path(__file__).parents[1] / "golden" / "scenes"
SCENES = sorted(GOLDEN.glob("*.json"))


@pytest.mark.parametrize("path", SCENES, ids=lambda path: path.stem)
def test_official_metadata_come_out_as_they_went_in(path, tmp_path):
    Scene.load(path).save(tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text() == path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


def test_unknown_keys_are_kept_where_they_stand():
    data = json.loads(SCENES[2].read_text())
    for part in (data, data["config"], data["fg_events"][0], data["room"], data["room"]["args"]["metadata"]):
        part["note"] = ["x", 1]
    assert Scene.from_dict(data).to_dict() == data


def test_labels_are_in_onset_order():
    scene = Scene.load(GOLDEN / "scene_same_class.json")
    scene.fg_events.reverse()
    assert scene.labels == ["Speech", "Speech", "Cough"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda d: d["config"].pop("sr"), "config: found no key sr"),
        (lambda d: d.pop("room"), "found no key room"),
        (lambda d: d["fg_events"][1].pop("snr"), r"fg_events\[1\]: found no key snr"),
        (lambda d: d["fg_events"][0].update(snr="loud"), r"fg_events\[0\]\.snr: found 'loud', expected int or float"),
        (lambda d: d["fg_events"][0].update(source_time=None), "null label or source_time"),
        (
            lambda d: d["fg_events"][0].update(event_position=[[1, 2]]),
            r"event_position: found .*expected \[\[x, y, z\]\]",
        ),
        (lambda d: d["fg_events"][0].update(event_time=-1), "no negative time"),
        (
            lambda d: d["fg_events"][0].update(event_time=d["config"]["duration"]),
            r"fg_events\[0\].event_time: found .* s in a scene of .* s, expected a time within the scene",
        ),
        (lambda d: d["fg_events"][0].update(label=" Cough"), r"fg_events\[0\].label: found ' Cough', expected a word"),
        (lambda d: d["room"]["args"]["metadata"].pop("sofa_path"), "room.args.metadata: found no key sofa_path"),
        (lambda d: d["config"].update(duration=0), "config.duration: found 0 s, expected a sample or more"),
        (lambda d: d["config"].update(duration=1e6), "config.duration: found 1e.06 s, expected .*at most"),
        (lambda d: d["config"].update(sr=10**8), "config.sr: found 100000000 Hz, expected 100 to 1000000"),
        (lambda d: d["fg_events"][0].update(source_file="a\0b"), r"source_file: found .a.x00b., expected text"),
    ],
)
def test_a_bad_scene_is_refused_by_file_and_key(tmp_path, change, complaint):
    data = json.loads((GOLDEN / "scene_same_class.json").read_text())
    change(data)
    (tmp_path / "bad.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=f"bad.json.*{complaint}") as e:
        Scene.load(tmp_path / "bad.json")
    assert "\n" not in str(e.value)


def numbers(data, at=()):
    """Paths of a scene's numbers: keys from the outside in."""
    if isinstance(data, bool):
        return
    if isinstance(data, int | float):
        yield at
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        if key != "room_config":  # which is not ours: kept as it is
            yield from numbers(value, (*at, key))


@pytest.mark.parametrize("name", ["scenes/scene_same_class", "scenes_2025/valid/0001"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308, 10**300], ids="{:.3g}".format)
def test_a_number_that_is_not_finite_or_far_too_large_is_named(name, value, tmp_path):
    text = (GOLDEN.parent / f"{name}.json").read_text()
    places = list(numbers(json.loads(text)))
    assert len(places) > 15
    for place in places:
        data = part = json.loads(text)
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = value
        (tmp_path / "bad.json").write_text(json.dumps(data))
        names = [key for key in place if isinstance(key, str)]
        with pytest.raises(InputError, match=rf"^\S*bad.json: {names[0]}.*{names[-1]}: found .*, expected"):
            Scene.load(tmp_path / "bad.json")


def test_what_is_no_json_is_refused(tmp_path):
    (tmp_path / "bad.json").write_text('{"config": ')
    with pytest.raises(InputError, match=r"bad.json: found no JSON"):
        Scene.load(tmp_path / "bad.json")
    with pytest.raises(InputError, match=r"none.json: found No such file"):
        Scene.load(tmp_path / "none.json")
