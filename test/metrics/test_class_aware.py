"""Facts of the class-aware metrics, and the official values."""

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from s5.metrics import ca_sdri, capi_sdri, match, pi_sdri, sdri
from s5.metrics.class_aware import best_assignment

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CASES = json.loads((GOLDEN / "metrics.json").read_text())["cases"]
CASES_2025 = json.loads((GOLDEN / "metrics_2025.json").read_text())
ARRAYS = np.load(GOLDEN / "metrics.npz")


def case(i):
    return CASES[i]["est_labels"], ARRAYS[f"est{i}"], CASES[i]["ref_labels"], ARRAYS[f"ref{i}"], ARRAYS[f"mix{i}"]


@pytest.fixture
def scene():
    """Three references, estimates of decreasing quality, and their mixture."""
    rng = np.random.default_rng(0)
    ref = rng.standard_normal((3, 1000)).astype(np.float32)
    noise = rng.standard_normal((3, 1000)).astype(np.float32)
    return ref, ref + np.float32([[0.1], [0.2], [0.4]]) * noise, ref.sum(axis=0)


@pytest.mark.parametrize("i", range(len(CASES)))
def test_official_values(i):
    expected = CASES[i]["capi_sdri"]
    value = capi_sdri(*case(i))
    assert value is None if expected is None else value == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("expected", CASES_2025)
def test_official_values_of_2025(expected):
    assert ca_sdri(*case(expected["case"])) == pytest.approx(expected["ca_sdri"], abs=1e-4)


def test_metric_of_2025_is_that_of_2026_on_distinct_labels():
    for expected in CASES_2025:
        assert capi_sdri(*case(expected["case"])) == ca_sdri(*case(expected["case"]))


def test_metric_of_2025_refuses_repeated_labels(scene):
    ref, est, mixture = scene
    with pytest.raises(ValueError, match="distinct"):
        ca_sdri(["Cough"] * 3, est, ["Cough", "Pour", "Speech"], ref, mixture)
    with pytest.raises(ValueError, match="references"):
        ca_sdri(["Cough", "silence", "silence"], est, ["Cough", "Cough", "silence"], ref, mixture)


def test_permuting_sources_of_one_class_changes_nothing(scene):
    ref, est, mixture = scene
    labels = ["Speech"] * 3
    expected = capi_sdri(labels, est, labels, ref, mixture)
    assert expected == pytest.approx(np.mean([sdri(e, s, mixture) for e, s in zip(est, ref, strict=True)]))
    for order in permutations(range(3)):
        assert capi_sdri(labels, est[list(order)], labels, ref, mixture) == pytest.approx(expected)


def test_swapping_waveforms_of_different_classes_costs(scene):
    ref, est, mixture = scene
    labels = ["Speech", "Pour", "Cough"]
    straight = capi_sdri(labels, est, labels, ref, mixture)
    assert capi_sdri(labels, est[[1, 0, 2]], labels, ref, mixture) < straight - 5
    # Labels and waveforms together may stand in any order.
    turned = [labels[i] for i in (1, 0, 2)]
    assert capi_sdri(turned, est[[1, 0, 2]], labels, ref, mixture) == pytest.approx(straight)


def test_perfect_estimates_are_worth_much(scene):
    ref, _, mixture = scene
    assert capi_sdri(["Pour"] * 3, ref[::-1], ["Pour"] * 3, ref, mixture) > 90


@pytest.mark.parametrize("label", ["Speech", "Cough"])
def test_a_false_alarm_lowers_the_mean_by_its_share(scene, label):
    """Eq. (12): penalties are 0, but the number of predictions grows."""
    ref, est, mixture = scene
    two = capi_sdri(["Speech"] * 2, est[:2], ["Speech"] * 2, ref[:2], mixture)
    three = capi_sdri(["Speech", "Speech", label], est, ["Speech"] * 2, ref[:2], mixture)
    assert three == pytest.approx(two * 2 / 3)


def test_penalties_enter_the_sum(scene):
    ref, est, mixture = scene
    arguments = (["Speech", "Cough"], est[:2], ["Speech", "Pour", "Pour"], ref, mixture)
    free = capi_sdri(*arguments)
    assert capi_sdri(*arguments, penalty_fn=-3.0) == pytest.approx(free - 2 * 3.0 / 4)
    assert capi_sdri(*arguments, penalty_fp=-3.0) == pytest.approx(free - 1 * 3.0 / 4)


def test_empty_mixtures(scene):
    _, est, mixture = scene
    assert capi_sdri(["silence"], est[:1], [], [], mixture) is None
    assert capi_sdri(["Speech"], est[:1], [], [], mixture) == 0.0
    assert capi_sdri([], [], ["Speech"], est[:1], mixture) == 0.0


def test_official_pairing_and_that_of_eq_10_differ_where_references_outnumber_estimates():
    """The official scorer takes the louder reference (higher SDR), Eq. (10) the one that gains more."""
    loud, soft = np.eye(2, 100) * [[10.0], [1.0]]
    mixture = loud + soft
    estimate = (0.8 * loud + 0.6 * soft)[None]
    arguments = (["Speech"], estimate, ["Speech", "Speech"], np.stack([soft, loud]), mixture)
    official, equation = match(*arguments), match(*arguments, select="sdri")
    assert [pair.ref for pair in official.pairs] == [1]
    assert [pair.ref for pair in equation.pairs] == [0]
    assert capi_sdri(*arguments, select="sdri") > capi_sdri(*arguments)


def test_a_silent_estimate_takes_the_first_reference(scene):
    """Its SDR is 0 dB against each; among equals the official scorer takes the first."""
    ref, _, mixture = scene
    found = match(["Speech"], np.zeros((1, 1000)), ["Speech"] * 3, ref, mixture)
    assert [pair.ref for pair in found.pairs] == [0]


def test_permutation_invariant_metric_ignores_labels(scene):
    ref, est, mixture = scene
    labels = ["Speech", "Pour", "Cough"]
    assert pi_sdri(est[[2, 0, 1]], ref, mixture) == pytest.approx(capi_sdri(labels, est, labels, ref, mixture))


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (1, 3), (3, 2), (2, 5), (5, 4), (6, 6)])
def test_assignment_is_the_best_of_all(shape):
    values = np.random.default_rng(sum(shape)).standard_normal(shape)
    found = best_assignment(values)
    wide = values if shape[0] <= shape[1] else values.T
    best = max(sum(wide[i, j] for i, j in enumerate(p)) for p in permutations(range(wide.shape[1]), wide.shape[0]))
    assert len(found) == min(shape)
    assert len({i for i, _ in found}) == len({j for _, j in found}) == min(shape)
    assert sum(values[i, j] for i, j in found) == pytest.approx(best)


def test_wrong_arguments_are_refused(scene):
    ref, est, mixture = scene
    with pytest.raises(ValueError, match="2 labels for 3 waveforms"):
        capi_sdri(["Pour"] * 2, est, ["Pour"] * 3, ref, mixture)
    with pytest.raises(ValueError, match="expected the mixture's 900"):
        capi_sdri(["Pour"] * 3, est, ["Pour"] * 3, ref, mixture[:900])
    with pytest.raises(ValueError, match="select"):
        capi_sdri(["Pour"] * 3, est, ["Pour"] * 3, ref, mixture, select="best")
