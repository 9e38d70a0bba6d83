"""Published figures: complete, of systems that there are, and beside ours."""

from datetime import UTC, datetime
from pathlib import Path

import yaml

from s5.config import ROOT
from s5.report import markdown
from s5.report.results import Result
from s5.system import system_name

FIGURES = yaml.safe_load((ROOT / "s5/report/published.yaml").read_text())


def result(system, **metrics):
    scores = {"metrics": metrics, "mixtures": [], "by_class": {}}
    return Result(Path("exp", system, "test"), False, scores, 0.0)


def made(*results, data=()):
    return markdown.results_markdown(
        system="x",
        results=results,
        data=data,
        trainings=[],
        environment={},
        command="c",
        date=datetime.now(UTC),
        pages={},
    )


def test_every_row_is_a_system_of_ours():
    names = {system_name(path) for path in (ROOT / "conf/systems").rglob("*.yaml")}
    rows = [row["name"] for report in FIGURES["reports"] for row in report["rows"]]
    # Tables 1 and 2 of the reports, and the challenge's baselines, which stand for rows of one of them.
    official = {"official_2026_1c", "official_2026_4c"}
    assert len(rows) == 7 + 2 + 4 + 14 and len(set(rows)) == 7 + 2 + 2 + 14
    assert set(rows) <= names and {f"{name}_mini" for name in set(rows) - official} <= names


def test_ours_stands_below_the_published_and_says_on_which_data():
    text = made(
        result("deng2026_final_mini", **{"CAPI-SDRi": 2.5, "accuracy_mix": 40.0, "accuracy_src": 50.0}),
        result("park2025_ensemble_agent", **{"CAPI-SDRi": 3.0, "CA-SDRi": None, "Acc1": 33.3}),
    )
    lines = text.splitlines()
    published = next(i for i, line in enumerate(lines) if "| 8.625 | 61.706 | 72.139 |" in line)
    assert "2026 challenge, development test set" in lines[published]
    assert "the data that the third column names" in text
    assert lines[published + 1] == "|  | deng2026_final_mini | this folder's `test` | 2.500 | 40.0 | 50.0 |"
    agent = next(i for i, line in enumerate(lines) if "| 12.726 | 72.13 | 86.47 | 60.14 |" in line)
    assert "| CAPI-SDRi 3.000 | 33.3 | – | – |" in lines[agent + 1]
    assert "the two do not compare" in text


def test_rows_without_a_result_are_left_out():
    assert "Beside Deng" not in made(result("mini", **{"CAPI-SDRi": 2.5}))


def test_our_data_is_named_with_its_size():
    ours = result("deng2026_vote", **{"CAPI-SDRi": 2.5}), result("deng2026_vote_mini", **{"CAPI-SDRi": 1.5})
    text = made(*ours, data=[markdown.DataSet("test", (4.0, 4.0), 4, 16000, 3, 2)])
    assert "| deng2026_vote | this folder's `test` (2 mixtures of 4 s, 16 kHz) | 2.500 | – | – |" in text
    assert "| deng2026_vote_mini | this folder's `test` (2 mixtures of 4 s, 16 kHz) | 1.500 | – | – |" in text


def test_the_taggers_of_nguyen2026_are_compared_by_subset():
    ours = result("nguyen2026_4c_mini", **{"CAPI-SDRi": 5.0, "accuracy_mix": 90.0, "accuracy_src": 90.0})
    counts = {"mixtures": 10, "tp": 16, "fp": 2, "fn": 2, "accuracy_src": 80.0}
    ours.scores["by_subset"] = {
        "DupSet": {**counts, "correct": 4, "accuracy_mix": 40.0},
        "NoDupSet": {**counts, "tp": 18, "fp": 0, "correct": 7, "accuracy_src": 90.0, "accuracy_mix": 70.0},
    }
    lines = made(ours).splitlines()
    table = next(i for i, line in enumerate(lines) if "| 77.9 | 79.4 | 78.7 | 55.4 | 68.3 | 63.2 |" in line)
    assert "| 80.0 | 90.0 | 85.0 | 40.0 | 70.0 | 55.0 |" in lines[table + 1]  # Total without the mixtures of no source
    baseline = next(i for i, line in enumerate(lines) if "| 8.489 | 60.7 |" in line)
    assert "| 5.000 | 90.0 |" in lines[baseline + 1]
