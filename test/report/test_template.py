"""Tests that values in templates cannot become markup and must not be missing."""

import jinja2
import pytest

from s5.report.template import render


def test_names_cannot_become_markup():
    event = {"path": '"><script>alert(1)</script>.wav', "score": 5.0, "seconds": 1.0, "flac": ""}
    text = render(
        "candidates.html.j2", classes=[{"label": "<b>&", "total": 1, "proposed": [event], "typical": [event]}]
    )
    assert "<h2>&lt;b&gt;&amp;</h2>" in text
    assert text.count("<script>") == 1  # the page's own
    assert "(box) => box.checked" in text  # which is not escaped


def test_missing_value_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="'classes' is undefined"):
        render("candidates.html.j2")
