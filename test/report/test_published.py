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


def made(*results):
    return markdown.results_markdown(
        system="x",
        results=results,
        data=[],
        trainings=[],
        environment={},
        command="c",
        date=datetime.now(UTC),
        pages={},
    )


def test_every_row_is_a_system_of_ours():
    names = {system_name(path) for path in (ROOT / "conf/systems").rglob("*.yaml")}
    rows = [row["name"] for report in FIGURES["reports"] for row in report["rows"]]
    assert len(rows) == len(set(rows)) == 7 + 2 + 14
    assert set(rows) <= names and {f"{name}_mini" for name in rows} <= names


def test_ours_stands_below_the_published_and_says_on_which_data():
    text = made(
        result("deng2026_final_mini", **{"CAPI-SDRi": 2.5, "accuracy_mix": 40.0, "accuracy_src": 50.0}),
        result("park2025_ensemble_agent", **{"CAPI-SDRi": 3.0, "CA-SDRi": None, "Acc1": 33.3}),
    )
    lines = text.splitlines()
    published = next(i for i, line in enumerate(lines) if "| 8.625 | 61.706 | 72.139 |" in line)
    assert "2026 challenge, development test set" in lines[published]
    assert lines[published + 1] == "|  | deng2026_final_mini | this folder's `test` | 2.500 | 40.0 | 50.0 |"
    agent = next(i for i, line in enumerate(lines) if "| 12.726 | 72.13 | 86.47 | 60.14 |" in line)
    assert "| CAPI-SDRi 3.000 | 33.3 | – | – |" in lines[agent + 1]
    assert "the two do not compare" in text


def test_rows_without_a_result_are_left_out():
    assert "Beside Deng" not in made(result("mini", **{"CAPI-SDRi": 2.5}))
