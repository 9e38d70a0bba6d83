"""Every public metric and loss shows an example, which pytest runs as a doctest."""

import doctest
import inspect

import pytest

import s5.metrics
from s5.separation import losses
from s5.tagging import losses as tagging_losses

FORMULAS = {
    "sdr",
    "sdri",
    "capi_sdri",
    "ca_sdri",
    "pi_sdri",
    "label_counts_by_class",
    "mixture_terms",
    "best_gain",
    "ideal_mask",
}
LOSSES = {
    f"{module.__name__}.{name}": function
    for module in (losses, tagging_losses)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_")
}
METRICS = {name: value for name in s5.metrics.__all__ if inspect.isfunction(value := getattr(s5.metrics, name))}


@pytest.mark.parametrize("function", [*METRICS.values(), *LOSSES.values()], ids=[*METRICS, *LOSSES])
def test_it_has_an_example(function):
    assert doctest.DocTestFinder(recurse=False).find(function)[0].examples


@pytest.mark.parametrize("name", sorted({*FORMULAS, *LOSSES}))
def test_it_has_its_formula(name):
    text = inspect.getdoc(LOSSES.get(name) or METRICS[name])
    assert " = " in text.split("Example:")[0] or name.endswith("pairwise_sdr")


def test_pytest_runs_examples(pytestconfig):
    assert pytestconfig.getoption("doctestmodules") and "s5" in pytestconfig.getini("testpaths")
