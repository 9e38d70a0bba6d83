"""Tests comparisons of two systems on the same mixtures, as functions and as a command."""

import json

import numpy as np
import pytest

from s5.bin.compare import main
from s5.metrics import Bootstrap, Scorer
from s5.report.compare import compare, paired_rows
from s5.utils.errors import InputError


def scored(gain, n=40, missed=0, room=None, seed=0, **options):
    """Scores of a system whose estimates are damped references; it misses the first mixtures."""
    rng = np.random.default_rng(seed)
    scorer = Scorer(**options)
    for i in range(n):
        labels = ["Pour", "Pour"] if i % 2 else ["Cough"]
        ref = rng.standard_normal((len(labels), 200))
        mixture = ref.sum(axis=0) + rng.uniform(0.1, 3) * rng.standard_normal(200)
        heard = [] if i < missed else labels
        scene = None if room is None else {"room": room, "snr": [10.0] * len(labels), "angle": None}
        scorer.update(f"m{i:02d}", heard, gain * ref[: len(heard)], labels, ref, mixture, scene=scene)
    return {"options": options, **scorer.compute()}


@pytest.fixture
def files(tmp_path):
    """Scores of two systems, and of a third one that is slightly better than the first."""
    for name, scores in {"a": scored(0.7), "b": scored(0.9, missed=2), "c": scored(0.701)}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "scores.json").write_text(json.dumps(scores))
    return tmp_path


def test_differences_are_those_of_the_figures(files):
    found = compare(files / "a", files / "b" / "scores.json", Bootstrap(500))["all"]
    for i, name in enumerate("ab"):
        metrics = json.loads((files / name / "scores.json").read_text())["metrics"]
        for key, difference in found.items():
            assert (difference.first, difference.second)[i] == pytest.approx(metrics[key])
    assert found["SDRi"].gained == pytest.approx(20 * np.log10(3), abs=0.2) and found["SDRi"].ahead == 1
    assert found["accuracy_mix"].gained == pytest.approx(-5.0) and found["precision"].ahead == 0


def test_a_small_gain_on_every_mixture_is_told_apart(files):
    difference = compare(files / "a", files / "c", Bootstrap(500))["all"]["CAPI-SDRi"]
    assert 0 < difference.gained < 0.05 and difference.ahead == 1


def test_parts(files):
    found = compare(files / "a", files / "b", Bootstrap(100), by="class")
    assert set(found) == {"all", "Cough", "Pour"} and found["Pour"]["recall"].first == 100.0
    assert set(compare(files / "a", files / "b", Bootstrap(100), by="subset")) == {"all", "DupSet", "NoDupSet"}
    assert set(compare(files / "a", files / "b", Bootstrap(100), by="n_sources")) == {"all", "1 source", "2 sources"}
    with pytest.raises(InputError, match="no room"):
        compare(files / "a", files / "b", Bootstrap(100), by="room")


def test_command_prints_and_writes(files, capsys):
    out = files / "out.json"
    main([str(files / "a"), str(files / "b"), "--by", "subset", "--resamples", "200", "--out", str(out)])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    line = next(line for line in text.splitlines() if line.startswith("SDRi"))
    assert line.endswith("B ahead") and " +9.6" in line
    found = json.loads(out.read_text())["differences"]["all"]["SDRi"]
    assert found["interval"][0] <= found["difference"] <= found["interval"][1]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: scored(0.9, n=39), "no mixture m39"),
        (lambda: scored(0.9, n=48), "m40, m41, m42, m43, m44 and 3 more"),
        (lambda: scored(0.9, penalty_fn=-1.0), "key options"),
        (lambda: {"metrics": {}}, "key mixtures"),
    ],
)
def test_what_does_not_compare_is_refused(files, other, message):
    (files / "b" / "scores.json").write_text(json.dumps(other()))
    with pytest.raises(InputError, match=message):
        compare(files / "a", files / "b", Bootstrap(10))


def test_other_references_are_refused(files):
    scores = scored(0.9)
    scores["mixtures"][3]["ref_labels"] = ["Pour", "Cough"]
    (files / "b" / "scores.json").write_text(json.dumps(scores))
    with pytest.raises(InputError, match=r"mixture m03: found references \[Pour Cough\], expected \[Pour Pour\]"):
        compare(files / "a", files / "b", Bootstrap(10))
    with pytest.raises(InputError, match=r"second: mixture m03"):
        paired_rows(scored(0.7), scores)


def test_missing_file(files):
    with pytest.raises(InputError, match="nothing"):
        compare(files / "a", files / "nothing", Bootstrap(10))
