import pytest

from s5.report.choose import choose


def entry(utt, value, refs, ests=None):
    return {"utt": utt, "CAPI-SDRi": value, "ref_labels": refs, "est_labels": refs if ests is None else ests}


@pytest.fixture
def mixtures():
    names = ["Cough", "Pour", "Speech"]
    plain = [entry(f"u{i:02d}", float(i), names[: 1 + i % 3]) for i in range(30)]
    pairs = [entry(f"d{i}", 10.5 + i, ["Cough", "Cough"]) for i in range(3)]
    return [*plain, *pairs, entry("w", 3.5, ["Cough"], ["Pour", "Pour"]), entry("empty", None, [])]


def test_choice_spans_the_kinds(mixtures):
    chosen = choose(mixtures, 8)
    words = {m["utt"]: why for m, why in chosen}
    assert len(chosen) == 8
    assert "best" in words["u29"] and "worst" in words["u00"]
    assert words["w"] == ["1 source", "wrong labels"]
    assert words["d1"] == ["2 sources", "same class"]  # the median of the same-class mixtures
    assert words["empty"] == ["no source"]
    assert {why[0] for why in words.values()} >= {"1 source", "2 sources", "3 sources"} - {"best", "worst"}


def test_highest_first_and_unscored_last(mixtures):
    values = [m["CAPI-SDRi"] for m, _ in choose(mixtures, 35)]
    assert values[-1] is None
    assert values[:-1] == sorted(values[:-1], reverse=True)
    assert len(values) == 35


def test_choice_depends_on_scores_alone(mixtures):
    assert choose(mixtures, 9) == choose(mixtures[::-1], 9)


def test_repeated_label_against_a_single_one_is_wrong():
    ((_, words),) = choose([entry("a", 1.0, ["Cough", "Cough"], ["Cough"])], 5)
    assert "wrong labels" in words


@pytest.mark.parametrize("n", [1, 2, 3, 100])
def test_never_more_than_asked_nor_than_there_are(mixtures, n):
    assert len(choose(mixtures, n)) == min(n, len(mixtures))
    assert choose([], n) == []
