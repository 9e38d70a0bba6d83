"""Fig. 5 of Nguyen et al. on the smallest models: two epochs of each."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from s5 import S5System
from s5.data import DataDir
from s5.metrics import capi_sdri
from s5.utils.errors import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "local/studies"))
from epochs import ORACLE, Point, epochs_of, evaluate, main, write_study

PLAIN = "taggers: {tagger: {train: tagger.yaml}}\nseparators: {separator: {train: separator.yaml}}\n"


@pytest.fixture
def plain(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained.parent)
    (tmp_path / "plain.yaml").write_text(PLAIN)
    return str(tmp_path / "plain.yaml")


@pytest.fixture
def system(plain):
    return S5System.from_yaml(plain, "exp", "cpu")


def test_points_are_what_the_parts_give(system, plain):
    data = DataDir.load("data/valid")
    points = evaluate(system, data, ["1epoch.pth", "2epoch.pth"], ["2epoch.pth"])
    assert [(p.subset, p.tagger) for p in points if p.subset == "Total"] == [
        ("Total", "1epoch.pth"),
        ("Total", "2epoch.pth"),
    ]
    values = []
    for utt in data.utts:
        labels, (mixture, _) = list(data.labels[utt]), data.mixture(utt)
        at = S5System.from_yaml(plain, "exp", "cpu")
        at.config.separators[0].checkpoint = "2epoch.pth"
        found = at.separate(mixture, labels)["separator"][: len(labels)]
        value = capi_sdri(labels, found, labels, data.sources(utt)[: len(labels)], mixture[0])
        values += [] if value is None else [value]
    assert points[-1].oracle == pytest.approx(sum(values) / len(values), abs=1e-6)
    assert all(p.accuracy_src is not None and 0 <= p.accuracy_src <= 100 for p in points if p.subset == "Total")


@pytest.mark.slow
def test_the_command_writes_table_and_figure(plain, tmp_path, capsys):
    out = tmp_path / "out"
    main(["--system", plain, "--data", "data/valid", "--out", str(out), "--device", "cpu"])
    assert "| Total | 2 | 1 |" in capsys.readouterr().out
    points = json.loads((out / "epoch_study.json").read_text())
    assert len(points) == 3 * 2 * 2 and ORACLE in points[0]
    assert (out / "epoch_study.png").read_bytes()[1:4] == b"PNG"
    assert sorted(p.name for p in out.iterdir()) == [f"epoch_study.{s}" for s in ("json", "md", "png")]


def test_a_part_of_the_set_is_enough(system):
    data = DataDir.load("data/valid")
    first = next(utt for utt in data.utts if data.labels[utt])
    part = dataclasses.replace(data, utts=[first])
    (total,) = (p for p in evaluate(system, part, ["2epoch.pth"], ["1epoch.pth"]) if p.subset == "Total")
    labels, (mixture, _) = list(data.labels[first]), data.mixture(first)
    at = S5System.from_yaml("system.yaml", "exp", "cpu")
    at.config.separators[0].checkpoint = "1epoch.pth"
    found = at.separate(mixture, labels)["separator"][: len(labels)]
    value = capi_sdri(labels, found, labels, data.sources(first)[: len(labels)], mixture[0])
    assert total.oracle == pytest.approx(value, abs=1e-6)


def test_size_and_colour_of_a_point_are_the_capi_sdri_of_the_whole(tmp_path, monkeypatch):
    """Fig. 5: accuracy and separation are the axes, CAPI-SDRi of both is size and colour."""
    from matplotlib.axes import Axes

    drawn = []
    scatter = Axes.scatter
    monkeypatch.setattr(Axes, "scatter", lambda *args, **style: drawn.append((args, style)) or scatter(*args, **style))
    points = [Point("Total", f"{i}epoch.pth", "1epoch.pth", 10.0 * i, 20.0 * i, 5.0, 1.0 * i) for i in (1, 2, 4)]
    write_study(points, tmp_path, "a title")
    ((_, x, y), style) = drawn[0]
    assert x == [20.0, 40.0, 80.0] and y == [5.0, 5.0, 5.0]
    np.testing.assert_array_equal(style["c"], [1.0, 2.0, 4.0])
    steps = np.diff(style["s"])
    assert steps[0] > 0 and steps[1] == pytest.approx(2 * steps[0])


def test_epochs_are_those_that_there_are(system):
    assert epochs_of(system, "tagger", None, 6) == ["1epoch.pth", "2epoch.pth"]
    assert epochs_of(system, "tagger", None, 1) == ["1epoch.pth"]
    assert epochs_of(system, "separator", [2], 6) == ["2epoch.pth"]
    with pytest.raises(InputError, match=r"exp/tagger: found no 7epoch.pth, expected one of 1, 2"):
        epochs_of(system, "tagger", [7], 6)
