"""Tests of the published figures: complete, of existing systems, and beside our figures."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from s5.report import markdown
from s5.report.results import Result
from s5.system.config import SystemConfig, system_name
from s5.utils.config import ROOT

FIGURES = yaml.safe_load((ROOT / "local/published.yaml").read_text())


def result(system, **metrics):
    scores = {"metrics": metrics, "mixtures": [], "by_class": {}}
    return Result(Path("exp", system, "test"), False, scores, 0.0)


def made(*results, data=(), recipe=""):
    return markdown.results_markdown(
        system="x",
        results=results,
        data=data,
        trainings=[],
        environment={},
        command="c",
        date=datetime.now(UTC),
        pages={},
        recipe=recipe,
    )


def systems(folder):
    """Names of the systems in a folder below conf/systems."""
    return {system_name(path) for path in (ROOT / "conf/systems" / folder).glob("*.yaml")}


def rows(report):
    return [row["name"] for table in FIGURES["reports"] if table["report"] == report for row in table["rows"]]


@pytest.mark.parametrize(("report", "n_rows"), [("deng2026", 7), ("nguyen2026", 2), ("park2025", 14)])
def test_every_row_of_a_report_is_a_system_that_there_is_in_small_too(report, n_rows):
    assert len(rows(report)) == len(set(rows(report))) == n_rows
    assert set(rows(report)) <= systems(report)
    for path in (ROOT / "conf/systems" / report).glob("*.yaml"):
        assert SystemConfig.load(f"{path}:mini") and system_name(f"{path}:mini") == f"{system_name(path)}_mini"


def test_every_published_checkpoint_has_its_figures_and_the_docs_tell_the_same():
    """The challenge's own models have one size; only trainings of the same networks are listed beside them."""
    official = {name for name in systems(".") if name.startswith("official_")}
    assert official and official == {name for name in rows("official") if name in official}
    assert set(rows("official")) - official <= set(rows("nguyen2026"))
    told = {}
    for page in ("README.md", "docs/challenge.md"):
        for cells in re.findall(r"^\| `(official_\w+)` \|(.*)\|$", (ROOT / page).read_text(), re.M):
            told.setdefault(cells[0], []).append(re.findall(r"[0-9]+\.[0-9]+", cells[1]))
    for table in FIGURES["reports"]:
        for row in (row for row in table["rows"] if row["name"] in official):
            assert told[row["name"]] and all(found == list(row["metrics"].values()) for found in told[row["name"]])


def test_what_an_official_checkpoint_reaches_stands_beside_what_was_published():
    ours = result("official_2026_4c", **{"CAPI-SDRi": 8.48881, "accuracy_mix": 60.71429, "accuracy_src": 70.39386})
    lines = made(ours, recipe="dcase2026_task4").splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("| official_2026_4c | tagged |"))
    beside = [line for line in lines[at:] if "| official baseline 4c | published |" in line]
    assert "| official baseline 4c | published | 8.489 | 60.714 | 70.394 |" in beside[0]  # the table of the test set
    at = lines.index("## Beside the baselines of DCASE 2026 Task 4")
    published = next(i for i, line in enumerate(lines) if i > at and "| 8.489 | 60.714 | 70.394 |" in line)
    assert lines[published + 1] == "|  | official_2026_4c | this folder's `test` | 8.489 | 60.714 | 70.394 |"
    older = made(
        result("official_2025_resunet", **{"CA-SDRi": 11.0317, "accuracy_mix": 59.8}), recipe="dcase2025_task4"
    )
    assert "| official baseline, ResUNet | published | 2025 challenge, development test set | 11.032 | 59.80 |" in older
    assert "|  | official_2025_resunet | this folder's `test` | 11.032 | 59.80 |" in older


def test_ours_stands_below_the_published_and_says_on_which_data():
    text = made(
        result("deng2026_final_mini", **{"CAPI-SDRi": 2.5, "accuracy_mix": 40.0, "accuracy_src": 50.0}),
        result("park2025_ensemble_agent", **{"CAPI-SDRi": 3.0, "CA-SDRi": None, "Acc1": 33.3}),
    )
    lines = text.splitlines()
    published = next(i for i, line in enumerate(lines) if "| 8.625 | 61.706 | 72.139 |" in line)
    assert "2026 challenge, development test set" in lines[published]
    assert "on the data in the third column" in text
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
    lines = lines[lines.index("## Beside the baselines of DCASE 2026 Task 4") :]
    baseline = next(i for i, line in enumerate(lines) if "| 8.489 | 60.714 | 70.394 |" in line)
    assert "| 5.000 | 90.000 | 90.000 |" in lines[baseline + 1]
