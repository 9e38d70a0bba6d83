"""Class-dependent fusion."""

import numpy as np
import pytest

from s5.fusion import FusionConfig, GroupConfig, fuse
from s5.utils.errors import InputError

RANDOM = np.random.default_rng(0)


def test_weights_of_the_class_then_of_the_default():
    a, b = RANDOM.standard_normal((2, 3, 50)).astype(np.float32)
    out = fuse({"r": a, "t": b}, ["Cough", "Speech"], {"r": 1.0}, {"Cough": {"r": 0.95, "t": 0.05}})
    np.testing.assert_allclose(out[0], 0.95 * a[0] + 0.05 * b[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(out[1], a[1])
    assert not out[2].any()


def test_two_sources_of_a_class_are_matched_before_they_are_summed():
    a = RANDOM.standard_normal((2, 50)).astype(np.float32)
    out = fuse({"r": a, "t": a[::-1].copy()}, ["Speech", "Speech"], {"r": 0.5, "t": 0.5})
    np.testing.assert_allclose(out, a, rtol=1e-5)
    other = fuse({"r": a, "t": a[::-1].copy()}, ["Speech", "Cough"], {"r": 0.5, "t": 0.5})
    np.testing.assert_allclose(other[0], (a[0] + a[1]) / 2, rtol=1e-4, atol=1e-6)


def test_any_number_of_separators_is_matched_each_by_itself():
    a = RANDOM.standard_normal((3, 200)).astype(np.float32)
    noisy = a + 0.3 * RANDOM.standard_normal((2, 3, 200)).astype(np.float32)
    second, third = noisy[0][[2, 0, 1]], noisy[1][[1, 2, 0]]
    out = fuse({"a": a, "b": second, "c": third}, ["Speech"] * 3, {"a": 0.5, "b": 0.2, "c": 0.3})
    np.testing.assert_allclose(out, 0.5 * a + 0.2 * noisy[0] + 0.3 * noisy[1], rtol=1e-4, atol=1e-5)


def test_sources_of_other_classes_are_not_matched_with_them():
    a, b = RANDOM.standard_normal((2, 3, 50)).astype(np.float32)
    b[[0, 2]] = a[[2, 0]]
    out = fuse({"r": a, "t": b}, ["Speech", "Cough", "Speech"], {"r": 0.5, "t": 0.5})
    np.testing.assert_allclose(out[[0, 2]], a[[0, 2]], rtol=1e-5)
    np.testing.assert_allclose(out[1], (a[1] + b[1]) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"groups": [GroupConfig(["Cough", "Pour"], {"r": 1}), GroupConfig(["Pour"], {"r": 0})]}, "label Pour twice"),
        ({"default": {"r": float("nan")}}, "fusion: default: r: found nan, expected a finite weight"),
        ({"classes": {"Cough": {"r": float("inf")}}}, "fusion: Cough: r: found inf"),
        ({"sharpen": {"r": -0.1}}, r"fusion: sharpen: r: found -0\.1, expected 0 or more"),
    ],
)
def test_rules_that_make_no_sense_are_refused(bad, message):
    with pytest.raises(InputError, match=message):
        FusionConfig(**bad)
