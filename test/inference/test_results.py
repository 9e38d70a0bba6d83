"""The results folder: the passes of an objects system."""

import numpy as np
import pytest

from s5.fusion import Pass
from s5.inference.results import Results
from s5.labels import LabelSet
from s5.utils.errors import InputError


def test_passes_read_back_with_their_labels(tmp_path):
    separated = Results(tmp_path).separated
    waveforms = np.linspace(-1, 1, 20, dtype=np.float32).reshape(2, 10)
    one = Pass(waveforms, np.array([1, 2]), np.array([0.75, 0.5]), np.array([0.9, 0.1]))
    (separated.folder / "tse").mkdir(parents=True)
    separated.write_passes("tse", "a", [one, one], LabelSet(("Cough", "Speech")))
    found = separated.read_passes("a")
    assert [p.labels for p in found] == [["Speech", "silence"]] * 2
    np.testing.assert_array_equal(found[0].active, one.active)
    np.testing.assert_allclose(found[1].waveforms, waveforms, atol=2**-11)
    assert separated.read_passes("b") == []
    file = separated.folder / "tse" / "a.npz"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=r"a\.npz: found nothing that can be read"):
        separated.read_passes("a")
