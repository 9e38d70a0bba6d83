"""Tests of the listening page's files; test/browser tests it in a browser."""

import base64
import html
import io
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s5.data import DataDir
from s5.report.page import write_page
from s5.report.results import Result

PAGE = Path("exp/small/test/report")


class Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.without_text = [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [attrs[key] for key in ("href", "src", "data-script") if key in attrs]
        self.without_text += tag == "img" and not attrs.get("alt")


class Mixture:
    """Content of a mixture's script."""

    def __init__(self, file):
        number, content = re.fullmatch(r"s5page\.arrived\((\d+), (.*)\);\n", file.read_text(), re.S).groups()
        assert file.name == f"mixture{int(number):04d}.js"
        self.content = json.loads(content)
        self.html = self.content["html"]
        self.utt = re.search(r"<h2[^>]*>(\w+)</h2>", self.html)[1]
        self.titles = re.findall(r'data-sound="\d+".*?<h4>(.*?)</h4>', self.html)

    def sound(self, title, nth=0):
        number = [i for i, x in enumerate(self.titles) if x == title][nth]
        return soundfile.read(io.BytesIO(base64.b64decode(self.content["sounds"][number])))[0]


def mixtures(folder=PAGE):
    return {m.utt: m for m in map(Mixture, sorted(folder.glob("mixture*.js")))}


def make():
    return write_page(PAGE, DataDir.load("data/test"), [Result.load("exp/small/test"), Result.load("exp/older/test")])


def read(path):
    return soundfile.read(path, dtype="float64", always_2d=True)[0][:, 0]


def test_folder_is_self_contained_and_every_link_resolves(made, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved") / "report"
    shutil.move(PAGE, moved)
    index = (moved / "index.html").read_text(encoding="utf-8")
    shown = mixtures(moved)
    pages = [Links(index), *(Links(m.html) for m in shown.values())]
    assert sum(page.without_text for page in pages) == 0
    assert not re.search(r"https?:|//\w+\.\w+/", index + "".join(m.html for m in shown.values()))
    files = [link for page in pages for link in page.links if not link.startswith("#")]
    # mixtures 6, references 7, estimates 2 + 1 + 2 + 0 + 1 + 1 tagged and 7 oracle: a picture each; 6 scripts
    assert len(files) == len(set(files)) == 6 + 6 + 7 + 7 + 7
    assert {file.name for file in moved.iterdir()} == {*files, "index.html"}
    assert {link[1:] for link in pages[0].links if link.startswith("#")} == shown.keys()


def test_missed_references_and_false_alarms_are_marked(made):
    shown = mixtures()
    count = {utt: (m.html.count("missed"), m.html.count("False alarm")) for utt, m in shown.items()}
    assert count == {"m0": (0, 0), "m1": (1, 1), "m2": (1, 0), "m3": (0, 0), "m4": (0, 0), "m5": (0, 1)}
    assert "same class" in shown["m0"].html and "wrong labels" not in shown["m0"].html
    pair = json.loads(Path("exp/small/test/scores.json").read_text())["mixtures"][0]["pairs"][0]
    assert f'SDRi <span class="number"><strong>{pair["sdri"]:+.1f} dB' in shown["m0"].html
    assert 'confidence <span class="number">0.75' in shown["m0"].html
    assert shown["m0"].html.count("label given") == 2


def test_facts_of_the_table(made):
    text = (PAGE / "index.html").read_text(encoding="utf-8")
    facts = [json.loads(html.unescape(x)) for x in re.findall(r'data-facts="([^"]*)"', text)]
    found = {f["utt"]: f for f in facts}
    assert found["m1"]["labels"] == ["Cough", "Pour"] and found["m1"]["wrong"] == ["A"]
    assert found["m0"]["same"] and not found["m2"]["same"]
    assert {utt: f["count"] for utt, f in found.items()} == {"m0": 2, "m1": 1, "m2": 3, "m3": 0, "m4": 1, "m5": 0}
    rows = json.loads(Path("exp/small/test_oracle/scores.json").read_text())["mixtures"]
    assert {utt: f["values"]["B"] for utt, f in found.items()} == {m["utt"]: m["CAPI-SDRi"] for m in rows}


def test_one_gain_for_all_sounds_of_a_mixture(made):
    original, shown = read("data/test/wav/m2.wav"), mixtures()["m2"]
    assert np.abs(shown.sound("Mixture, channel 0")).max() == pytest.approx(0.5, abs=1e-4)
    gain = 0.5 / np.abs(original).max()
    sounds = {
        "data/test/source/m2_2_Speech.wav": shown.sound("Reference", 2),
        "exp/small/test/estimates/m2_1_Speech.wav": shown.sound("System A: Speech"),
        "exp/small/test_oracle/estimates/m2_2_Speech.wav": shown.sound("System B: Speech"),
    }
    for file, sound in sounds.items():
        np.testing.assert_allclose(sound, gain * read(file), atol=1.01 / 2**15)


def test_loud_estimate_lowers_the_common_gain_instead_of_clipping(recipe):
    file = Path("exp/small/test/estimates/m4_0_Pour.wav")
    soundfile.write(file, np.sin(np.arange(8000)), 8000, subtype="PCM_16")
    make()
    shown = mixtures()["m4"]
    assert np.abs(shown.sound("System A: Pour")).max() == pytest.approx(0.99, abs=1e-3)
    np.testing.assert_allclose(shown.sound("Mixture, channel 0"), 0.99 * read("data/test/wav/m4.wav"), atol=1e-3)


def test_slot_silenced_after_the_vote_leaves_a_gap_in_the_file_numbers(recipe):
    folder = Path("exp/small/test/estimates")
    os.rename(folder / "m2_1_Speech.wav", folder / "m2_2_Speech.wav")
    scores = json.loads((folder.parent / "scores.json").read_text())
    row = next(row for row in scores["mixtures"] if row["utt"] == "m2")
    row["est_labels"].insert(1, "silence")
    next(pair for pair in row["pairs"] if pair["est"] == 1)["est"] = 2
    (folder.parent / "scores.json").write_text(json.dumps(scores))
    make()
    shown = mixtures()["m2"].sound("System A: Speech")
    assert np.corrcoef(shown, read(folder / "m2_2_Speech.wav"))[0, 1] > 0.999


def test_directions_come_from_the_scene(recipe):
    places = {"m0": [[[0, 1, 0]], [[-1, 0, 1], [0, -1, 0]]]}  # the second one moves
    common = {"source_file": "a.wav", "source_time": 0.0, "event_duration": 1.0, "snr": 5.0, "role": "foreground"}
    room = {"sofa_path": "a.sofa", "sr": 8000, "nchan": 4, "nrir": 4, "rir_len": 9, "direct_range_ms": [6.0, 50.0]}
    config = {
        "duration": 1.0,
        "sr": 8000,
        "max_event_overlap": 3,
        "max_event_dur": 1.0,
        "ref_db": -55.0,
        "foreground_dir": "",
        "background_dir": None,
        "interference_dir": None,
        "room_config": None,
        "verbose": False,
    }
    lines = []
    for utt, labels in DataDir.load("data/test").labels.items():
        events = [
            common | {"label": label, "event_time": 0.1 * i, "event_position": places.get(utt, [[[1, 0, 0]]] * 3)[i]}
            for i, label in enumerate(labels)
        ]
        content = {
            "config": config,
            "fg_events": events[::-1],
            "bg_events": [],
            "int_events": [],
            "room": {"module": "m", "main": "SofaRoom.from_metadata", "args": {"metadata": room}},
        }
        Path(f"{utt}.json").write_text(json.dumps(content))
        lines.append(f"{utt} {utt}.json\n")
    Path("data/test/scene.scp").write_text("".join(lines))
    make()
    shown = mixtures()
    assert "azimuth 90° (left), elevation 0°" in shown["m0"].html
    assert "moves from azimuth 180° (back), elevation 45° to azimuth −90° (right), elevation 0°" in shown["m0"].html
    assert "seen from above" in shown["m0"].html
    assert "azimuth 0° (front), elevation 0°" in shown["m4"].html
    assert "azimuth" not in shown["m5"].html  # a false alarm has no direction


def test_without_a_scene_no_direction_is_told(made):
    assert not any("azimuth" in m.html or "seen from above" in m.html for m in mixtures().values())


def test_names_of_files_may_hold_any_character(recipe):
    odd = "m4#50%?"
    for file in Path("data/test").iterdir():
        if file.is_file():
            file.write_text(re.sub(r"^m4 ", f"{odd} ", file.read_text(), flags=re.M))
    for name in ("small", "older"):
        scores = Path(f"exp/{name}/test/scores.json")
        scores.write_text(scores.read_text().replace('"m4"', f'"{odd}"'))
        folder = scores.parent / "estimates"
        os.rename(folder / "m4_0_Pour.wav", folder / f"{odd}_0_Pour.wav")
    make()
    assert 'href="#m4%2350%25%3F"' in (PAGE / "index.html").read_text(encoding="utf-8")
    assert (PAGE / f"{odd}_mixture.png").is_file()
    assert any("m4%2350%25%3F_mixture.png" in file.read_text() for file in PAGE.glob("*.js"))
