"""Class-dependent fusion."""

import numpy as np

from s5.fusion import fuse

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
