"""Events that differ from the others of their class get the highest scores."""

import numpy as np
import pytest
import soundfile

from s5.challenge.corpus.outliers import find_events, outlier_scores, spectral_statistics
from s5.labels import LabelSet
from s5.utils.errors import InputError

RATE = 16000


def bell(rng, level=1.0):
    """A decaying chord."""
    t = np.arange(int(RATE * rng.uniform(0.8, 1.2))) / RATE
    tone = sum(np.sin(2 * np.pi * f * rng.uniform(0.98, 1.02) * t) for f in (880, 1320, 1760))
    return level * 0.2 * tone * np.exp(-4 * t)


def hiss(rng):
    return 0.2 * rng.standard_normal(RATE)


def test_wrong_sounds_score_high_even_if_they_resemble_each_other():
    rng = np.random.default_rng(0)
    sounds = [bell(rng) for _ in range(40)] + [hiss(rng), hiss(rng)]
    scores = outlier_scores(np.array([spectral_statistics(x, RATE) for x in sounds]))
    assert set(np.argsort(scores)[-2:]) == {40, 41}
    assert scores[40:].min() > 3.5
    assert np.median(scores[:40]) < 0.5


def test_statistics_do_not_depend_on_the_level():
    loud, quiet = (spectral_statistics(bell(np.random.default_rng(1), level), RATE) for level in (1, 0.01))
    np.testing.assert_allclose(loud, quiet, atol=0.05)


@pytest.mark.parametrize("rate", [16000, 32000, 44100])
@pytest.mark.parametrize("n", [10, 1000, 50_000])
def test_statistics_of_any_rate_and_length_are_finite(rate, n):
    x = np.random.default_rng(2).standard_normal(n)
    assert np.isfinite(spectral_statistics(x, rate)).all()
    assert np.isfinite(spectral_statistics(np.zeros(n), rate)).all()
    assert len(spectral_statistics(x, rate)) == 2 * 27 + 3


def test_equal_events_and_few_events_are_no_outliers():
    assert outlier_scores(np.ones((12, 3))).max() < 1e-6
    assert not outlier_scores(np.random.default_rng(3).standard_normal((4, 3))).any()


def test_events_of_a_folder(tmp_path):
    for name, seconds in (("Cough/a/1.wav", 1.0), ("Cough/2.wav", 0.2), ("Speech/x.flac", 2.0)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, np.zeros(int(8000 * seconds)), 8000)
    labels = LabelSet(("Cough", "Speech"))
    assert find_events(tmp_path, labels) == {"Cough": ["Cough/2.wav", "Cough/a/1.wav"], "Speech": ["Speech/x.flac"]}
    assert find_events(tmp_path, labels, 0.5)["Cough"] == ["Cough/a/1.wav"]
    with pytest.raises(InputError, match="Typing: found no audio"):
        find_events(tmp_path, LabelSet(("Typing",)))
