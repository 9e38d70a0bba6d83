"""File names of sources are parsed, and no audio file is ignored silently."""

import pytest

from s5.data.names import SourceName, audio_files, find_source_files, parse, source_name
from s5.utils.errors import InputError

UTTS = {"s_0001", "s_00011", "s_0001_2"}


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).touch()
    return folder


def found(folder):
    files = find_source_files(folder, ("a", "b"))
    return {utt: {slot: (f.path.name, f.label) for slot, f in slots.items()} for utt, slots in files.items()}


@pytest.mark.parametrize("slot", [0, 2, 10])
@pytest.mark.parametrize("utt", ["s_00011", "2"])
def test_what_is_written_is_read(utt, slot):
    stem = source_name(utt, slot, "Speech").removesuffix(".wav")
    assert parse(stem, {"s_00011", "2"}, "") == SourceName(utt, slot, "Speech")


def test_known_mixtures_decide_where_a_name_ends_in_a_number():
    assert parse("s_0001_2_1_Speech", UTTS, "") == SourceName("s_0001_2", 1, "Speech")
    assert parse("s_00011_Speech", UTTS, "") == SourceName("s_00011", None, "Speech")
    with pytest.raises(InputError, match="x: found a name that fits the mixtures s_0001 and s_0001_2"):
        parse("s_0001_2_Speech", UTTS, "x")


@pytest.mark.parametrize("stem", ["s_0002_0_Speech", "s_0001_²_Speech", "s_0001_100_Speech", "s_0001", "Speech", ""])
def test_names_of_no_mixture(stem):
    assert parse(stem, {"s_0001"}, "") is None


def test_capitals_and_flac_are_read_and_hidden_files_are_not(tmp_path):
    touch(tmp_path, "a_1_Cough.WAV", "a_0_Pour.flac", "._a_0_Pour.wav", ".DS_Store", "notes.txt", ".cache/b_0_Pour.wav")
    assert found(tmp_path) == {"a": {0: ("a_0_Pour.flac", "Pour"), 1: ("a_1_Cough.WAV", "Cough")}, "b": {}}
    assert list(audio_files(tmp_path)) == ["a_0_Pour", "a_1_Cough"]


def test_names_without_slot_follow_the_order_of_their_names(tmp_path):
    touch(tmp_path, "a_Pour.wav", "a_Cough.wav")
    assert found(tmp_path)["a"] == {0: ("a_Cough.wav", "Cough"), 1: ("a_Pour.wav", "Pour")}


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["a_0_Pour.wav", "eval_out/a_1_Pour.wav"], "eval_out/a_1_Pour.wav: found audio that is not read here"),
        (["b/b_0_Pour.WAV"], "b/b_0_Pour.WAV: found audio that is not read here"),
        (["a_0_Pour.ogg"], "a_0_Pour.ogg: found audio that is not read here, expected <utt>_<slot>_<Label>.wav or .fl"),
        (["c_0_Pour.wav", "d_0_Pour.wav"], "c_0_Pour.wav: found a name that fits no mixture .*(and d_0_Pour.wav)"),
        (["a_Pour.wav", "a_Pour.flac"], "a_Pour.wav: found a second file of that name, a_Pour.flac"),
        (["a_0_Pour.wav", "a_00_Cough.flac"], "found a second file for slot 0 of a"),
    ],
)
def test_audio_that_would_count_as_silence_is_named(tmp_path, names, complaint):
    with pytest.raises(InputError, match=complaint):
        found(touch(tmp_path, *names))
