"""Facts of the aggregation, and the official aggregate."""

import json
from pathlib import Path

import numpy as np
import pytest

from s5.metrics import Bootstrap, Scorer

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(scope="module")
def golden():
    return json.loads((GOLDEN / "metrics.json").read_text()), np.load(GOLDEN / "metrics.npz")


def scored(golden, keep=lambda case: True, **options):
    reference, arrays = golden
    scorer = Scorer(**options)
    for i, case in enumerate(reference["cases"]):
        if keep(case):
            waveforms = (arrays[f"est{i}"], case["ref_labels"], arrays[f"ref{i}"], arrays[f"mix{i}"])
            scorer.update(f"mixture{i}", case["est_labels"], *waveforms)
    return scorer.compute()


def test_official_aggregate(golden):
    scores, expected = scored(golden), golden[0]["aggregate"]
    assert scores["metrics"]["CAPI-SDRi"] == pytest.approx(expected["capi_sdri"], abs=1e-4)
    assert scores["metrics"]["accuracy_mix"] == pytest.approx(expected["accuracy_mix"])
    assert scores["metrics"]["accuracy_src"] == pytest.approx(expected["accuracy_src"])


def test_an_empty_mixture_counts_in_the_accuracy_alone(golden):
    scores = scored(golden, lambda case: case["capi_sdri"] is None)
    assert scores["metrics"]["CAPI-SDRi"] is None
    assert scores["metrics"]["accuracy_mix"] == 100.0
    assert scores["metrics"]["Acc3"] == 100.0
    assert scores["metrics"]["accuracy_src"] is scores["metrics"]["Acc2"] is None
    assert (scores["counts"]["mixtures"], scores["counts"]["scored"]) == (1, 0)


def test_subsets_and_numbers_of_sources_partition_the_set(golden):
    scores = scored(golden)
    assert sum(part["mixtures"] for part in scores["by_n_sources"].values()) == 12
    dup, no_dup = scores["by_subset"]["DupSet"], scores["by_subset"]["NoDupSet"]
    assert dup["mixtures"] + no_dup["mixtures"] + scores["by_n_sources"]["0"]["mixtures"] == 12
    assert dup["mixtures"] == 6
    values = dup["CAPI-SDRi"] * dup["scored"] + no_dup["CAPI-SDRi"] * no_dup["scored"]
    assert values == pytest.approx(scores["metrics"]["CAPI-SDRi"] * scores["counts"]["scored"])


def test_classes_add_up_to_the_whole(golden):
    scores = scored(golden)
    for key in ("tp", "fp", "fn"):
        assert sum(part[key] for part in scores["by_class"].values()) == scores["counts"][key]
    gains = sum(part["SDRi"] * part["tp"] for part in scores["by_class"].values() if part["tp"])
    assert gains == pytest.approx(scores["metrics"]["SDRi"] * scores["counts"]["tp"])
    speech = scores["by_class"]["Speech"]
    assert speech["CAPI-SDRi"] == pytest.approx(
        speech["SDRi"] * speech["tp"] / (speech["tp"] + speech["fp"] + speech["fn"])
    )


def test_metric_of_2025_stands_only_where_references_are_distinct(golden):
    assert scored(golden)["metrics"]["CA-SDRi"] is None

    def distinct(case):
        labels = [[name for name in case[key] if name != "silence"] for key in ("est_labels", "ref_labels")]
        return all(len(set(names)) == len(names) for names in labels)

    metrics = scored(golden, distinct)["metrics"]
    assert metrics["CA-SDRi"] == metrics["CAPI-SDRi"]
    assert metrics["CA-SDRi"] is not None


def test_three_accuracies_of_2025():
    """Report of 2025: Acc1 counts whole mixtures, Acc2 averages recall, Acc3 TP/(TP+FN+FP)."""
    scorer = Scorer()
    wave = np.random.default_rng(0).standard_normal((3, 50))
    mixture = wave.sum(axis=0)
    scorer.update("two of three", ["Pour", "Cough"], wave[:2], ["Pour", "Cough", "Speech"], wave, mixture)
    scorer.update("right and a false one", ["Pour", "Cough"], wave[:2], ["Pour"], wave[:1], mixture)
    scorer.update("right", ["Pour"], wave[:1], ["Pour"], wave[:1], mixture)
    metrics = scorer.compute()["metrics"]
    assert metrics["Acc1"] == metrics["accuracy_mix"] == pytest.approx(100 / 3)
    assert metrics["Acc2"] == pytest.approx(100 * (2 / 3 + 1 + 1) / 3)
    assert metrics["Acc3"] == pytest.approx(100 * (2 / 3 + 1 / 2 + 1) / 3)
    assert metrics["precision"] == pytest.approx(100 * 4 / 5)
    assert metrics["recall"] == pytest.approx(100 * 4 / 5)


def test_pairs_count_slots_and_carry_the_levels():
    ref = np.eye(3, 20)
    est = np.stack([ref[2], np.zeros(20), 0.9 * ref[0]])
    scorer = Scorer()
    row = scorer.update(
        "a", ["Pour", "silence", "Pour"], est, ["Pour", "Cough", "Pour"], ref, ref.sum(0), [0.9, 0, 0.4]
    )
    assert [(pair["est"], pair["ref"]) for pair in row["pairs"]] == [(2, 0), (0, 2)]
    first = row["pairs"][0]
    assert first["label"] == "Pour"
    assert first["sdri"] == pytest.approx(first["sdr"] - first["sdr_mixture"])
    assert first["sdr"] == pytest.approx(20.0, abs=1e-3)
    assert row["probabilities"] == [0.9, 0.0, 0.4]


def test_options_reach_the_metric(golden):
    reference, _ = golden
    missed = sum(case["label"]["fn"] > 0 for case in reference["cases"])
    assert missed
    assert scored(golden, penalty_fn=-5.0)["metrics"]["CAPI-SDRi"] < scored(golden)["metrics"]["CAPI-SDRi"]
    by_gain = scored(golden, select="sdri")["metrics"]["CAPI-SDRi"]
    assert by_gain >= scored(golden)["metrics"]["CAPI-SDRi"]


def test_scores_are_plain_json(golden):
    scores = scored(golden)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_nothing_scored_is_no_error():
    scores = Scorer().compute()
    assert scores["counts"]["mixtures"] == 0
    assert scores["metrics"]["accuracy_mix"] is None


def test_wrong_number_of_probabilities_is_refused():
    with pytest.raises(ValueError, match="1 probabilities for 2 estimates"):
        Scorer().update("a", ["Pour", "Pour"], np.zeros((2, 9)), [], [], np.zeros(9), [0.5])


def test_by_room_angle_and_snr():
    """Ranges are [low, high); SNR is that of a source, angle and room are those of a mixture."""
    ref, scorer = np.eye(3, 30), Scorer()
    mixture = ref.sum(axis=0)
    room = {"room": "office", "angle": 89.9, "snr": [5.0, 14.9]}
    scorer.update("a", ["Pour"], 0.9 * ref[:1], ["Pour", "Pour"], ref[:2], mixture, scene=room)
    room = {"room": "hall", "angle": 90.0, "snr": [10.0, None, 10.1]}
    scorer.update("b", ["Pour", "Pour"], ref[::2], ["Pour", "silence", "Pour"], ref, mixture, scene=room)
    room = {"room": "hall", "angle": None, "snr": [10.0]}
    scorer.update("c", [], np.zeros((0, 30)), ["Cough"], ref[:1], mixture, scene=room)
    scores = scorer.compute()
    assert {key: part["mixtures"] for key, part in scores["by_room"].items()} == {"hall": 2, "office": 1}
    assert {key: part["mixtures"] for key, part in scores["by_angle"].items()} == {"60..90": 1, "90..120": 1}
    assert list(scores["by_snr"]) == ["5..10", "10..15"]
    found = scores["by_snr"]["10..15"]
    assert (found["sources"], found["found"], found["missed"], found["recall"]) == (4, 2, 2, 50.0)
    assert scores["by_snr"]["5..10"]["SDRi"] == pytest.approx(20.0 + 10 * np.log10(2), abs=1e-3)  # mixture: two errors


def test_unknown_scenes_leave_no_breakdown(golden):
    assert not {"by_room", "by_angle", "by_snr", "intervals"} & set(scored(golden))


def test_every_figure_has_an_interval_around_it(golden):
    scores = scored(golden, bootstrap=Bootstrap(200, 90.0, 1))
    found = scores["intervals"]
    assert (found["resamples"], found["level"], found["seed"]) == (200, 90.0, 1)
    for group in ("by_class", "by_n_sources", "by_subset"):
        assert found[group].keys() == scores[group].keys()
        for key, part in scores[group].items():
            for name, interval in found[group][key].items():
                assert interval is None or interval[0] <= part[name] <= interval[1], (group, key, name)
    # These classes alone are in more than one mixture; CA-SDRi alone is not defined with duplicates.
    known = {key for key, part in found["by_class"].items() if part["CAPI-SDRi"] is not None}
    assert known == {"Dishes", "Speech"}
    for key in ("DupSet", "NoDupSet"):
        none = {name for name, value in scores["by_subset"][key].items() if value is None}
        assert {name for name, value in found["by_subset"][key].items() if value is None} == none
        assert none == ({"CA-SDRi"} if key == "DupSet" else set())
    # Fewer mixtures, a wider interval: that of the whole set is narrower than those of its parts.
    width = {name: np.diff(interval)[0] for name, interval in found["metrics"].items() if interval is not None}
    for part in found["by_subset"].values():
        assert np.diff(part["CAPI-SDRi"])[0] > 0.6 * width["CAPI-SDRi"] > 0
    for name, interval in found["metrics"].items():
        value = scores["metrics"][name]
        assert (interval is None) == (value is None)
        assert interval is None or interval[0] <= value <= interval[1]


def test_single_mixture_has_no_interval():
    scorer = Scorer(bootstrap=Bootstrap())
    scorer.update("a", ["Pour"], np.ones((1, 9)), ["Pour"], np.ones((1, 9)), np.ones(9))
    assert set(scorer.compute()["intervals"]["metrics"].values()) == {None}


def test_metric_of_2025_takes_the_last_of_estimates_that_repeat_a_label():
    """The scorer of 2025 keeps one waveform a label, the last; the others are neither right nor wrong."""
    ref = np.eye(2, 30)
    mixture, est = ref.sum(axis=0), np.stack([0.9 * ref[0], 0.99 * ref[0], ref[1]])
    scorer = Scorer()
    row = scorer.update("a", ["Pour", "Pour", "Speech"], est, ["Pour"], ref[:1], mixture)
    assert row["CA-SDRi"] == pytest.approx(40 / 2, abs=0.01)  # 40 dB, and a false Speech
    assert row["CAPI-SDRi"] == pytest.approx(40 / 3, abs=0.01)  # a false Pour too
    assert scorer.compute()["metrics"]["CA-SDRi"] == row["CA-SDRi"]
