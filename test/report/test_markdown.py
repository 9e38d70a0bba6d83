"""Tests of the texts beside the figures of RESULTS.md."""

from datetime import UTC, datetime
from pathlib import Path

from s5.report.markdown import results_markdown
from s5.report.results import Result


def text(*warnings):
    scores = {"metrics": {"CAPI-SDRi": 35.2}, "mixtures": [], "by_class": {}, "warnings": list(warnings)}
    return results_markdown(
        system="x",
        results=[Result(Path("exp/x/test"), False, scores, 0.0)],
        data=[],
        trainings=[],
        environment={},
        command="c",
        date=datetime.now(UTC),
        pages={},
    )


def test_silent_references_stand_below_the_means_that_hold_them():
    line = "m0: the reference of slot 0 (Pour) is silent: SDRi 62.1 dB"
    assert "1 of the references are silent. Estimates" in text(line) and line in text(line)
    assert text(line).index("35.2") < text(line).index(line)
    assert "Doubtful" not in text()
