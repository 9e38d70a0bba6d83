"""Facts of the confusion matrix over multi-sets."""

import json
from pathlib import Path

import numpy as np

from s5.metrics import Scorer, confusion_matrix, score_mixture

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
WAVES = np.eye(3, 30)
MIXTURE = WAVES.sum(axis=0)


def matrix(est_labels, est, ref_labels, ref):
    row = score_mixture("a", est_labels, np.array(est), ref_labels, np.array(ref), MIXTURE)
    found = confusion_matrix([row])
    cells = np.array(found["counts"])
    names = found["labels"]
    return {(names[i], names[j]): int(cells[i, j]) for i, j in zip(*np.nonzero(cells), strict=True)}


def test_a_right_label_is_no_confusion_whatever_its_slot():
    found = matrix(["Pour", "Cough"], WAVES[:2], ["Cough", "Pour"], WAVES[:2])
    assert found == {("Pour", "Pour"): 1, ("Cough", "Cough"): 1}


def test_a_repeated_label_counts_as_often_as_both_sides_have_it():
    found = matrix(["Pour", "Pour", "Cough"], WAVES, ["Pour", "Pour", "Pour"], WAVES)
    assert found == {("Pour", "Pour"): 2, ("Pour", "Cough"): 1}


def test_what_remains_is_paired_by_how_it_sounds():
    """Speech was heard as Typing and Cough as Pour, whatever the order."""
    for order in ([0, 1], [1, 0]):
        names, waves = [["Typing", "Pour"][i] for i in order], WAVES[order]
        found = matrix(names, 0.9 * waves, ["Speech", "Cough"], WAVES[:2])
        assert found == {("Speech", "Typing"): 1, ("Cough", "Pour"): 1}


def test_missed_and_false_sources_stand_with_silence():
    assert matrix(["silence"], WAVES[:1], ["Pour", "silence"], WAVES[:2]) == {("Pour", "silence"): 1}
    assert matrix(["Pour"], WAVES[:1], [], np.zeros((0, 30))) == {("silence", "Pour"): 1}
    # Two references remain for one estimate: it takes the one that it sounds like.
    found = matrix(["Typing"], 0.9 * WAVES[1:2], ["Speech", "Cough"], WAVES[:2])
    assert found == {("Cough", "Typing"): 1, ("Speech", "silence"): 1}


def test_rows_are_references_columns_estimates_and_the_rest_errors():
    reference, arrays = json.loads((GOLDEN / "metrics.json").read_text()), np.load(GOLDEN / "metrics.npz")
    scorer = Scorer()
    for i, case in enumerate(reference["cases"]):
        waves = (arrays[f"est{i}"], case["ref_labels"], arrays[f"ref{i}"], arrays[f"mix{i}"])
        scorer.update(f"m{i}", case["est_labels"], *waves)
    scores = scorer.compute()
    names, counts = scores["confusion"]["labels"], np.array(scores["confusion"]["counts"])
    assert names[-1] == "silence" and names[:-1] == list(scores["by_class"])
    for i, label in enumerate(names[:-1]):
        part = scores["by_class"][label]
        assert counts[i].sum() == part["tp"] + part["fn"]
        assert counts[:, i].sum() == part["tp"] + part["fp"]
        assert counts[i, i] == part["tp"]
    assert counts[-1, -1] == 0
