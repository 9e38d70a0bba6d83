"""Silence gates."""

import numpy as np
import pytest

from s5.fusion import GateConfig, gate, level
from s5.utils.errors import InputError

SILENCE = np.array([[0.1, 0.7, 0.4], [0.3, 0.5, 0.2]])  # of two taggers in three slots
LEVELS = np.array([-20.0, -25.0, -60.0])


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (GateConfig(), [True, True, True]),
        (GateConfig(silence=0.55), [True, False, True]),
        (GateConfig(silence=0.6), [True, True, True]),
        (GateConfig(margin=30), [True, True, False]),
        (GateConfig(silence=0.2, margin=45), [True, False, False]),
    ],
)
def test_a_slot_is_silenced_by_its_posterior_or_its_level(config, kept):
    assert gate(config, SILENCE, LEVELS, -18.0).tolist() == kept


def test_levels_are_of_the_mean_square_in_db():
    t = np.arange(8000) / 8000
    tone = 0.5 * np.sin(2 * np.pi * 100 * t)
    np.testing.assert_allclose(level(np.stack([tone, 0.1 * tone, 0 * t])), [-9.03, -29.03, -120], atol=0.01)


def test_multi_hot_taggers_have_no_silence_to_gate_by():
    assert gate(GateConfig(margin=30), None, LEVELS, -18.0).tolist() == [True, True, False]
    with pytest.raises(InputError, match="have no silence posterior"):
        gate(GateConfig(silence=0.5), None, LEVELS, -18.0)


def test_thresholds_out_of_range_are_refused():
    for bad in ({"silence": 1.5}, {"margin": float("nan")}, {"taggers": []}):
        with pytest.raises(InputError, match=next(iter(bad))):
            GateConfig(**bad)
