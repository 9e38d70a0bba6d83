"""The loop of an objects system on small fixed functions: three tones, one class each."""

import numpy as np
import pytest

from s5.fusion.objects import (
    ObjectsConfig,
    class_log_probability,
    decide,
    find_objects,
    matched_slots,
    queries,
    without_duplicates,
)
from s5.labels import LabelSet
from s5.utils.errors import InputError

N, LABELS = 64, LabelSet(("Low", "Middle", "High"))
TONES = np.stack([np.sin(2 * np.pi * k * np.arange(N) / N) for k in (1, 5, 20)]).astype(np.float32)
LIMITS = np.full(3, 0.5)


def mixture(*amplitudes):
    return (np.array(amplitudes, np.float32) @ TONES)[None]


def amplitudes(waveforms):
    return waveforms @ TONES.T / (N / 2)


def uss(mixtures):
    """Each slot has a tone, and leaks 0.15 of the others."""
    parts = amplitudes(mixtures[:, 0])[..., None] * TONES
    return (parts + 0.15 * (parts.sum(1, keepdims=True) - parts))[:, ::-1].copy(), "features"


def classify(waveforms, features):
    """The loudest tone is the class; a waveform with amplitude above 0.1 is active."""
    found = np.abs(amplitudes(waveforms))
    return 10 * found, 100 * (found.max(-1) - 0.1)


class Tse:
    """Extracts the tones of the labels exactly, and remembers its queries and enrolments."""

    def __init__(self):
        self.asked = []

    def __call__(self, mixtures, labels, enrolments):
        self.asked.append((labels, enrolments))
        return (labels * amplitudes(mixtures[:, 0])[:, None]) @ TONES


def run(x, tse=None, given=None, priors=None, limits=LIMITS, **config):
    return find_objects(np.stack(x), uss, classify, tse or Tse(), ObjectsConfig(**config), limits, priors, given)


def test_the_loop_finds_the_sources_and_removes_the_leakage():
    one, two = run([mixture(1.0, 0.0, 0.5), mixture(0.2, 0.7, 0.4)], loops=2)
    assert [LABELS.name(i) for i in one.index] == ["High", "Low"]
    np.testing.assert_allclose(one.sources, [0.5 * TONES[2], TONES[0], 0 * TONES[0]], atol=1e-6)
    assert [LABELS.name(i) for i in two.index] == ["High", "Middle", "Low"]
    assert [len(r.passes) for r in (one, two)] == [3, 3]
    before = run([mixture(1.0, 0.0, 0.5)], loops=0)[0]
    assert len(before.passes) == 1
    assert np.abs(before.sources[0] - 0.5 * TONES[2]).max() > 0.1  # USS alone leaks


def test_extraction_gets_label_and_enrolment_of_active_slots_and_zeros_of_silent_ones():
    tse = Tse()
    run([mixture(1.0, 0.0, 0.5)], tse, loops=2)
    (labels, first), (_, second) = tse.asked
    assert labels.dtype == first.dtype == np.float32
    # Of its own tone the middle slot has nothing, and of Low the most: a duplicate of Low, which the end removes.
    assert labels[0].tolist() == [[0, 0, 1], [1, 0, 0], [1, 0, 0]]
    np.testing.assert_allclose(first[0], uss(mixture(1.0, 0.0, 0.5)[None])[0][0], atol=1e-6)
    np.testing.assert_allclose(second[0], [0.5 * TONES[2], TONES[0], TONES[0]], atol=1e-6)


def test_slots_below_the_threshold_of_their_label_are_silent_and_stay_silent():
    tse = Tse()
    high = ObjectsConfig(thresholds={"Low": 1.0}).limits(LABELS)
    found = run([mixture(0.1, 0.0, 0.5)], tse, limits=high)[0]  # Low is active with probability 0.5
    assert [LABELS.name(i) for i in found.index] == ["High"]
    for labels, enrolments in tse.asked:
        silent = ~labels[0].any(-1)
        assert silent.tolist().count(True) >= 1
        assert not enrolments[0][silent].any()


def test_a_silent_mixture_has_no_source_and_is_not_extracted():
    tse = Tse()
    silent, sound = run([mixture(0, 0, 0), mixture(0, 1, 0)], tse)
    assert len(silent.index) == 0 and not silent.sources.any() and len(silent.passes) == 1
    assert [LABELS.name(i) for i in sound.index] == ["Middle"]
    assert all(len(labels) == 1 for labels, _ in tse.asked)
    assert run([mixture(0, 1, 0)])[0].sources.tolist() == sound.sources.tolist()  # a batch changes nothing


def test_given_labels_take_the_slots_that_fit_and_are_never_changed():
    tse = Tse()
    given = [np.array([0, 2])]
    found = run([mixture(1.0, 0.9, 0.5)], tse, given)[0]
    assert found.index.tolist() == [0, 2] and found.probability.tolist() == [1, 1]
    np.testing.assert_allclose(found.sources[:2], [TONES[0], 0.5 * TONES[2]], atol=1e-6)
    labels, enrolments = tse.asked[0]
    assert labels[0].tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert not enrolments[0, 2].any()
    assert np.abs(amplitudes(enrolments[0, :2])).argmax(-1).tolist() == [0, 2]
    # Even a label that no slot has is extracted; an empty list gives nothing.
    assert run([mixture(0, 1, 0)], given=[np.array([2])])[0].index.tolist() == [2]
    assert run([mixture(0, 1, 0)], given=[np.array([], int)])[0].index.tolist() == []


def test_the_prior_of_the_mixture_decides_between_close_classes():
    log_p = class_log_probability(np.array([[2.0, 1.9, 0.0]]), 0.5, np.array([0.1, 0.9, 0.5]))
    assert log_p.argmax() == 1 and np.exp(log_p).sum() == pytest.approx(1)
    assert class_log_probability(np.array([[2.0, 1.9, 0.0]]), 0.0, np.array([0.1, 0.9, 0.5])).argmax() == 0
    x = mixture(0, 0.5, 0.5)
    plain, led = run([x], loops=0), run([x], loops=0, alpha=50.0, priors=np.array([[1e-9, 1.0, 1e-9]]))
    assert {2} < set(plain[0].index.tolist())
    assert set(led[0].index.tolist()) == {1}


def test_of_duplicates_the_stronger_stays():
    same = np.array([[1.0, 0, 0], [2.0, 0.1, 0], [0, 0, 3.0]])
    products = same @ same.T
    assert without_duplicates(np.array([0, 0, 0]), products, 0.9, 3).tolist() == [3, 0, 0]
    assert without_duplicates(np.array([0, 1, 0]), products, 0.9, 3).tolist() == [0, 1, 0]  # two labels
    assert without_duplicates(np.array([0, 0, 3]), products, 1.0, 3).tolist() == [0, 0, 3]
    assert without_duplicates(np.array([3, 3, 3]), 0 * products, 0.9, 3).tolist() == [3, 3, 3]
    assert without_duplicates(np.array([0, 0, 3]), -products * [[1, -1, 1]] * [[-1], [1], [-1]], 0.9, 3).tolist() == [
        3,
        0,
        3,
    ]


def test_decisions():
    log_p = np.log(np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]))
    assert decide(log_p, np.array([0.5, 0.5]), np.array([0.5, 0.6, 0.0])).tolist() == [0, 3]
    assert matched_slots(np.array([1]), log_p, np.array([0.9, 0.9]))[0] == 1
    assert matched_slots(np.array([1]), log_p, np.array([0.9, 0.1]))[0] == 0  # a silent slot fits nothing
    assert sorted(matched_slots(np.array([], int), log_p, np.array([0.9, 0.1])).tolist()) == [0, 1]
    assert queries(np.array([2, 3]), 3).tolist() == [[0, 0, 1], [0, 0, 0]]


def test_settings_are_checked():
    assert ObjectsConfig(thresholds={"High": 0.7}).limits(LABELS).tolist() == [0.5, 0.5, 0.7]
    assert ObjectsConfig(thresholds=0.3).limits(LABELS).tolist() == [0.3] * 3
    with pytest.raises(InputError, match="Hihg, expected High"):
        ObjectsConfig(thresholds={"Hihg": 0.7}).limits(LABELS)
    for wrong in (
        {"loops": -1},
        {"alpha": -0.1},
        {"thresholds": 1.5},
        {"thresholds": {"High": 2.0}},
        {"duplicates": -1},
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            ObjectsConfig(**wrong)
