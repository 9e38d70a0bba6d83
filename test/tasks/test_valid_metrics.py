"""Validation figures: exact over any batches, and those of the scorer."""

import numpy as np
import pytest
import torch
from espnet2.train.reporter import Reporter

from s5.labels import LabelSet
from s5.metrics import Scorer
from s5.tasks.valid_metrics import FIGURES, batch_counts, figures

LABELS = LabelSet(("Cough", "Pour", "Speech"))
SILENCE = 3


def drawn(n, seed=0):
    """Truth and prediction [n, 3]; empty mixtures and repeated classes among them."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(4, (n, 3), p=[0.25, 0.15, 0.2, 0.4])
    predicted = np.where(rng.random((n, 3)) < 0.6, truth, rng.integers(0, 4, (n, 3)))
    return torch.from_numpy(predicted), torch.from_numpy(truth)


def reported(batches):
    """What ESPnet's reporter holds after an epoch of these batches."""
    reporter = Reporter()
    with reporter.observe("valid", epoch=1) as sub:
        for predicted, truth in batches:
            sub.register(batch_counts(predicted, truth, len(LABELS)), len(truth))
            sub.next()
    return figures({k: v for k, v in reporter.stats[1]["valid"].items() if isinstance(v, float)})


def test_equal_to_the_scorer_whatever_the_batches():
    predicted, truth = drawn(60)
    scorer = Scorer()
    for p, t in zip(predicted.tolist(), truth.tolist(), strict=True):
        ref, est = [LABELS.name(i) for i in t], [LABELS.name(i) for i in p]
        scorer.update("a", est, np.ones((3, 8)), ref, np.ones((3, 8)), np.ones(8))
    scores = scorer.compute()
    theirs = {"": scores["metrics"], "_dup": scores["by_subset"]["DupSet"], "_nodup": scores["by_subset"]["NoDupSet"]}
    names = {"accuracy_src": "accuracy_src", "accuracy_mix": "accuracy_mix", "acc2": "Acc2", "acc3": "Acc3"}
    # the last batch is smaller, as ESPnet's is
    for size in (7, 60):
        found = reported([(predicted[i : i + size], truth[i : i + size]) for i in range(0, 60, size)])
        for subset, metrics in theirs.items():
            for ours, name in names.items():
                assert 100 * found[ours + subset] == pytest.approx(metrics[name], abs=1e-4), ours + subset
        assert set(found) == set(FIGURES)


def test_an_empty_subset_has_no_figures():
    truth = torch.tensor([[0, 1, SILENCE], [SILENCE] * 3])
    found = reported([(truth, truth)])
    assert found["accuracy_mix"] == found["acc2"] == found["acc3_nodup"] == 1
    assert not any(name.endswith("_dup") for name in found)


def test_silence_on_both_sides_is_right_but_no_source():
    silent = torch.full((2, 3), SILENCE)
    assert reported([(silent, silent)]) == {"accuracy_mix": 1, "acc3": 1}


def test_any_number_of_predictions():
    found = reported([(torch.tensor([[0, 1, 2, 0]]), torch.tensor([[0, SILENCE, SILENCE]]))])
    assert found["accuracy_src"] == pytest.approx(1 / 4) and found["acc2"] == 1
