import json
from pathlib import Path

import numpy as np
import pytest

from s5.scene import Scene, render
from s5.scene.formats.lists import Entry, MetadataList
from s5.utils.errors import InputError

GOLDEN = Path(__file__).parents[2] / "golden" / "scenes"


@pytest.fixture
def dev_set(tmp_path):
    """metadata/valid.json over two scenes, one named relative to it and one in full."""
    folder = tmp_path / "metadata/valid"
    folder.mkdir(parents=True)
    entries = []
    for i, name in enumerate(("scene_same_class", "scene_zero_target")):
        path = folder / f"{i:04d}.json"
        path.write_bytes((GOLDEN / f"{name}.json").read_bytes())
        entries.append({"metadata_path": str(path) if i else f"valid/{path.name}"})
    (tmp_path / "metadata/valid.json").write_text(json.dumps(entries, indent=4))
    return tmp_path / "metadata/valid.json"


def test_a_list_as_the_dev_set_has_it(dev_set):
    scenes = MetadataList.load(dev_set)
    assert len(scenes) == 2
    assert [scene.labels for scene in scenes] == [["Speech", "Speech", "Cough"], []]
    golden = np.load(GOLDEN / "scene_same_class.npz")["mixture"]
    np.testing.assert_allclose(render(scenes[0], GOLDEN).mixture, golden, atol=1e-5 * abs(golden).max())


def test_scenes_are_read_when_they_are_asked_for(tmp_path):
    scenes = MetadataList(tmp_path, [Entry("none.json")])
    with pytest.raises(InputError, match=r"none.json: found No such file"):
        scenes[0]
    with pytest.raises(IndexError):
        scenes[1]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{}", "found a JSON dict, expected a list"),
        ('[{"metadata_path": "a.json"}, {"path": "b.json"}]', r"bad.json\[1\]: found no key metadata_path"),
        ('[{"metadata_path": "a.json", "ref_event": "Cough"}]', r"\[0\].ref_event: found 'Cough'"),
        ("[", "found no JSON"),
    ],
)
def test_a_bad_list_is_refused(tmp_path, text, complaint):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(InputError, match=complaint):
        MetadataList.load(tmp_path / "bad.json")


@pytest.mark.parametrize("channels", [1, 2])
def test_channels_rate_and_length_are_the_scenes(tmp_path, write_room, channels):
    """A scene of 3.3 s at 24 kHz from files at three other rates; full paths and other module names are kept."""
    import soundfile

    rng = np.random.default_rng(0)
    for path, rate, seconds, n in (("x/Cough/a.wav", 44100, 1.1, 1), ("n/b.wav", 16000, 5.0, channels)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / path, 0.1 * rng.standard_normal((int(rate * seconds), n)), rate)
    write_room(tmp_path / "r/r.sofa", 4, channels=channels, rate=48000)
    event = {"label": "Cough", "source_file": str(tmp_path / "x/Cough/a.wav"), "source_time": 0.1, "event_time": 2.9,
             "event_duration": 0.9, "event_position": [[1.5, 0.0, 0.0]], "snr": 7.5, "role": "foreground"}  # fmt: skip
    background = {"label": None, "source_file": "b.wav", "source_time": 1, "event_time": 0, "event_duration": 3.3,
                  "event_position": None, "snr": 0, "role": "background"}  # fmt: skip
    room = {"sofa_path": "r/r.sofa", "sr": 48000, "nchan": channels, "nrir": 4, "rir_len": 4800}
    module = {"module": "src.room", "main": "SofaRoom", "args": {"path": "r", "direct_range_ms": [6, 50]}}
    data = {
        "config": {"duration": 3.3, "sr": 24000, "max_event_overlap": 10, "max_event_dur": 3, "ref_db": -55,
                   "foreground_dir": str(tmp_path / "x"), "background_dir": "n", "interference_dir": None,
                   "room_config": module, "verbose": True},
        "fg_events": [event], "bg_events": [background], "int_events": [],
        "room": {"module": "src.room", "main": "SofaRoom.from_metadata",
                 "args": {"metadata": room | {"direct_range_ms": [6, 50]}}},
    }  # fmt: skip
    (tmp_path / "s.json").write_text(json.dumps(data))
    scene = Scene.load(tmp_path / "s.json")
    assert scene.to_dict() == data
    rendered = render(scene, tmp_path)
    assert rendered.mixture.shape == (channels, 79200) and rendered.dry.shape == (1, 79200)
    assert not rendered.dry[0, : int(2.9 * 24000)].any() and rendered.dry[0, int(2.9 * 24000) :].any()
    level = 10 * np.log10(np.mean(np.square(rendered.mixture[:, :60000], dtype=np.float64)))
    assert level == pytest.approx(-55, abs=0.2)  # background alone until 2.9 s
