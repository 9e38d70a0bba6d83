"""Data directories of ready-made mixtures, in the naming of both years."""

import pytest

from s5.challenge.corpus.sets import mixture_rows
from s5.labels import LabelSet
from s5.utils.errors import InputError

LABELS = LabelSet(("Cough", "Speech"))


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.fixture
def mixtures(tmp_path):
    return touch(tmp_path / "m", "s_0000.wav", "s_0001.wav", "s_00011.wav", ".s_0002.wav", "._s_0001.wav", "notes.txt")


def rows(tmp_path, mixtures, *names):
    return {r.utt: (r.labels, len(r.sources)) for r in mixture_rows(mixtures, touch(tmp_path / "o", *names), LABELS)}


def test_slots_in_their_order_and_mixtures_without_sources(tmp_path, mixtures):
    found = rows(tmp_path, mixtures, "s_0001_1_Cough.wav", "s_0001_0_Speech.wav", "s_0001_2_Cough.wav")
    assert found == {"s_0000": ((), 0), "s_0001": (("Speech", "Cough", "Cough"), 3), "s_00011": ((), 0)}


def test_naming_of_2025(tmp_path, mixtures):
    found = rows(tmp_path, mixtures, "s_0001_Speech.wav", "s_0001_Cough.wav", "s_00011_Cough.wav")
    assert found["s_0001"] == (("Cough", "Speech"), 2)
    assert found["s_00011"] == (("Cough",), 1)


def test_without_sources_nothing_is_said_about_labels(mixtures):
    found = mixture_rows(mixtures, None, LABELS)
    assert next((r.utt, r.labels, r.sources) for r in found) == ("s_0000", None, ())


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["s_0007_0_Cough.wav"], "s_0007_0_Cough.wav: found a name that fits no mixture"),
        (["s_0001_0_Cow.wav"], "s_0001_0_Cow.wav: found label Cow"),
        (
            ["s_0001_0_Cough.wav", "s_0001_0_Speech.wav"],
            "s_0001_0_Speech.wav: found a second file for slot 0",
        ),
        ([f"s_0001_{k}_Cough.wav" for k in range(4)], "4 sources of s_0001, expected at most 3"),
    ],
)
def test_bad_sources_are_named(tmp_path, mixtures, names, complaint):
    with pytest.raises(InputError, match=complaint):
        rows(tmp_path, mixtures, *names)


def test_folder_without_mixtures(tmp_path):
    with pytest.raises(InputError, match=r"no \.wav file"):
        mixture_rows(touch(tmp_path / "m"), None, LABELS)
    with pytest.raises(InputError, match="no such folder"):
        mixture_rows(tmp_path / "none", None, LABELS)
