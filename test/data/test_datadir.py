import numpy as np
import pytest

from s5.data import DataDir, Row, read_audio, write_audio, write_data_dir
from s5.labels import LabelSet
from s5.utils.errors import InputError

LABELS = LabelSet(("Cough", "Pour", "Speech"))
FS, T = 8000, 400


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A data directory of three utterances with 2, 0 and 1 sources, in the working directory."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = []
    for utt, labels in (("b", ("Speech", "Speech")), ("a", ()), ("c", ("Pour",))):
        write_audio(f"{utt}.wav", rng.standard_normal((4, T)), FS)
        for slot in range(len(labels)):
            write_audio(f"{utt}{slot}.wav", rng.standard_normal(T), FS)
        (tmp_path / f"{utt}.json").write_text("{}")
        rows.append(Row(utt, f"{utt}.wav", labels, tuple(f"{utt}{k}.wav" for k in range(len(labels))), f"{utt}.json"))
    write_data_dir("data", rows)
    return tmp_path / "data"


def test_what_was_written_is_read(made):
    data = DataDir.load(made, LABELS)
    data.check(fs=FS, channels=4, decode=True)
    assert data.utts == ["a", "b", "c"]
    assert data.labels == {"a": (), "b": ("Speech", "Speech"), "c": ("Pour",)}
    mixture, fs = data.mixture("b")
    assert mixture.shape == (4, T) and mixture.dtype == np.float32 and fs == FS
    assert str(data.scene_path("c")) == "c.json"
    assert (made / "labels").read_text() == "a\nb Speech Speech\nc Pour\n"
    assert (made / "source2.scp").read_text() == "b b1.wav\n"
    assert (made / "source3.scp").read_text() == ""


def test_missing_slots_are_zeros(made):
    data = DataDir.load(made, LABELS)
    sources = data.sources("b")
    assert sources.shape == (3, T) and sources.dtype == np.float32
    np.testing.assert_array_equal(sources[1], read_audio("b1.wav")[0][0])
    assert not sources[2].any() and not data.sources("a").any()
    assert DataDir.load(made, LABELS, n_slots=2).sources("c").shape == (2, T)
    with pytest.raises(InputError, match=r"labels:2: found 2 labels for b, expected at most 1"):
        DataDir.load(made, LABELS, n_slots=1)


def test_a_set_of_mixtures_alone(made):
    write_data_dir("plain", [Row("a", "a.wav"), Row("b", "b.wav")])
    assert sorted(path.name for path in (made.parent / "plain").iterdir()) == ["wav.scp"]
    data = DataDir.load("plain")
    data.check()
    assert data.labels == {} and not data.has_sources and data.scene_path("a") is None
    with pytest.raises(InputError, match=r"no source1.scp, expected dry targets \(requested for a\)"):
        data.sources("a")


@pytest.fixture
def with_rest(made):
    """The same set with 0, 2 and 1 interferers and both kinds of rest."""
    rng = np.random.default_rng(1)
    rows = []
    for utt, labels, n in (("a", (), 0), ("b", ("Speech", "Speech"), 2), ("c", ("Pour",), 1)):
        for name in (*(f"{utt}_i{k}.wav" for k in range(n)), f"{utt}_rest.wav", f"{utt}_noise.wav"):
            write_audio(name, rng.standard_normal(T), FS)
        others = tuple(f"{utt}_i{k}.wav" for k in range(n))
        sources = tuple(f"{utt}{k}.wav" for k in range(len(labels)))
        events = ", ".join(["{}"] * n)
        (made.parent / f"{utt}.json").write_text(f'{{"int_events": [{events}]}}')
        rows.append(
            Row(utt, f"{utt}.wav", labels, sources, f"{utt}.json", others, f"{utt}_rest.wav", f"{utt}_noise.wav")
        )
    write_data_dir(made, rows)
    return made


def test_interference_and_rests_are_read(with_rest):
    data = DataDir.load(with_rest, LABELS)
    data.check(fs=FS, channels=4, decode=True)
    assert data.n_interference == 2 and data.has_rest() and data.has_rest("noise")
    assert (with_rest / "interference2.scp").read_text() == "b b_i1.wav\n"
    both = data.interference("b")
    assert both.shape == (2, T) and both.dtype == np.float32
    np.testing.assert_array_equal(both[1], read_audio("b_i1.wav")[0][0])
    assert not data.interference("a").any() and not data.interference("c")[1].any()
    np.testing.assert_array_equal(data.rest("a"), read_audio("a_rest.wav")[0])
    np.testing.assert_array_equal(data.rest("a", "noise"), read_audio("a_noise.wav")[0])


def test_a_set_without_interference_and_rest(made):
    data = DataDir.load(made)
    assert data.n_interference == 0 and not data.has_rest() and data.interference("b").shape == (0, T)
    expected = r"data: found no noise.scp, expected the rest of each mixture \(simulate --rest noise\)"
    with pytest.raises(InputError, match=expected):
        data.rest("b", "noise")
    write_data_dir(made, [Row("a", "a.wav", rest="r.wav")], n_interference=2)
    assert DataDir.load(made).n_interference == 2 and (made / "interference2.scp").read_text() == ""
    write_data_dir(made, [Row("a", "a.wav")])
    assert [path.name for path in made.iterdir()] == ["wav.scp"]


def test_files_of_an_earlier_set_do_not_stay(made):
    write_data_dir(made, [Row("a", "a.wav", ("Pour",))])
    assert sorted(path.name for path in made.iterdir()) == ["labels", "wav.scp"]
    assert not DataDir.load(made).has_sources


def change(file, old, new):
    def do(path):
        text = (path / file).read_text()
        assert old in text
        (path / file).write_text(text.replace(old, new, 1))

    return do


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda path: (path / "wav.scp").unlink(), r"wav.scp: found No such file"),
        (lambda path: (path / "wav.scp").write_text(""), r"wav.scp: found no utterance"),
        (change("wav.scp", "b b.wav\n", ""), r"labels: found utterance b, expected only those of wav.scp"),
        (change("labels", "b Speech Speech\n", ""), r"labels: found no line for b"),
        (change("labels", "c Pour", "d Pour"), r"labels: found utterance d"),
        (change("labels", "Pour", "Poor"), r"labels:3: found label Poor, expected Pour \(one of Cough, Pour, Speech\)"),
        (change("labels", "Pour", "silence"), r"labels:3: found silence for c"),
        (change("labels", "a\nb", "b x\na\nb"), r"labels:2: found a after b"),
        (change("wav.scp", "b b.wav", "a b.wav"), r"wav.scp:2: found utterance a twice"),
        (change("wav.scp", "b b.wav", "b"), r"wav.scp:2: found nothing after b"),
        (change("wav.scp", "b b.wav", "b cat b.wav |"), r"wav.scp:2: found cat b.wav | after b"),
        (change("wav.scp", "b b.wav\n", "b b.wav\n\n"), r"wav.scp:3: found an empty line"),
        (change("labels", "c Pour", "c Pour Pour Pour Pour"), r"labels:3: found 4 labels for c, expected at most 3"),
        (change("labels", "c Pour", "c"), r"source1.scp: found a source for c, expected none, as it has 0 labels"),
        (change("labels", "c Pour", "c Pour Cough"), r"source2.scp: found no line for c, expected the .* label Cough"),
        (change("source2.scp", "b b1.wav", "z b1.wav"), r"source2.scp: found utterance z"),
        (lambda path: (path / "source1.scp").unlink(), r"source1.scp: found no line for b"),
        (
            lambda path: (path / "source4.scp").write_text("b b.wav\n"),
            r"source4.scp: found a source for b, expected .* 3",
        ),
        (change("scene.scp", "b b.json\n", ""), r"scene.scp: found no line for b"),
        (lambda path: (path / "labels").write_bytes(b"\xff\xfe"), r"labels: found no text"),
    ],
)
def test_files_that_disagree_are_refused_in_one_line(made, break_it, complaint):
    break_it(made)
    with pytest.raises(InputError, match=complaint) as e:
        DataDir.load(made, LABELS)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (change("interference1.scp", "b b_i0.wav\n", ""), r"interference2.scp: found interferer 2 of b, expected .* 1"),
        (change("interference1.scp", "c c_i0", "d c_i0"), r"interference1.scp: found utterance d, expected only those"),
        (lambda path: (path / "interference1.scp").unlink(), r"interference1.scp: found No such file"),
        (change("rest.scp", "b b_rest.wav\n", ""), r"rest.scp: found no line for b, expected one"),
        (change("noise.scp", "c c", "d c"), r"noise.scp: found utterance d, expected only those of wav.scp"),
        (lambda path: (path / "rest.scp").write_text(""), r"rest.scp: found no line for a"),
    ],
)
def test_interference_and_rests_that_disagree_are_refused(with_rest, break_it, complaint):
    break_it(with_rest)
    with pytest.raises(InputError, match=complaint):
        DataDir.load(with_rest, LABELS)


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda root: (root / "b_i1.wav").unlink(), r"b_i1.wav: found no file"),
        (lambda root: write_audio(root / "c_i0.wav", np.ones(T + 1), FS), r"c_i0.wav: found 401 samples, expected 400"),
        (lambda root: write_audio(root / "a_rest.wav", np.ones((2, T)), FS), r"a_rest.wav: found 2 channels"),
        (lambda root: write_audio(root / "b_noise.wav", np.ones(T), 2 * FS), r"b_noise.wav: found 16000 Hz"),
        (
            lambda root: (root / "c.json").write_text("{}"),
            r"interference1.scp: found 1 dry interferers of c in all, ex",
        ),
        (
            lambda root: (root / "a.json").write_text('{"int_events": [{}]}'),
            r"interference1.scp: found 0 dry interferers of a in all, expected 1, as in a.json",
        ),
    ],
)
def test_bad_interference_and_rests_are_found_by_the_check(with_rest, break_it, complaint):
    data = DataDir.load(with_rest, LABELS)
    break_it(with_rest.parent)
    with pytest.raises(InputError, match=complaint):
        data.check(decode=True)


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda root: (root / "b.wav").unlink(), r"b.wav: found no file"),
        (lambda root: (root / "b1.wav").write_text("x"), r"b1.wav: found a file that libsndfile cannot read"),
        (lambda root: write_audio(root / "b.wav", np.ones((4, T)), 2 * FS), r"b.wav: found 16000 Hz, expected 8000 Hz"),
        (lambda root: write_audio(root / "c.wav", np.ones((2, T)), FS), r"c.wav: found 2 channels, expected 4"),
        (lambda root: write_audio(root / "b0.wav", np.ones(T - 1), FS), r"b0.wav: found 399 samples, expected 400"),
        (lambda root: write_audio(root / "c0.wav", np.ones((2, T)), FS), r"c0.wav: found 2 channels, expected 1"),
        (lambda root: (root / "b.json").unlink(), r"b.json: found no file, expected the scene of b"),
        (lambda root: write_audio(root / "a.wav", np.full((4, T), np.nan), FS), r"a.wav: found samples that are not"),
    ],
)
def test_bad_audio_is_found_by_the_check(made, break_it, complaint):
    data = DataDir.load(made, LABELS)
    break_it(made.parent)
    with pytest.raises(InputError, match=complaint):
        data.check(decode=True)


def test_a_source_unlike_its_mixture_is_refused(made):
    data = DataDir.load(made, LABELS)
    write_audio("b1.wav", np.ones(T + 1), FS)
    with pytest.raises(InputError, match=r"b1.wav: found 1 x 401 samples, expected 1 x 400"):
        data.sources("b")


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([Row("a", "x"), Row("a", "y")], r"utterance a twice"),
        ([Row("a b", "x")], r"utterance 'a b', expected a name without space"),
        ([Row("a", "x", ("Pour",), ("p", "q"))], r"2 sources for a, expected 1"),
        ([Row("a", "x", ("Pour",) * 4, ("p",) * 4)], r"4 sources for a, expected at most 3"),
    ],
)
def test_rows_that_the_form_cannot_hold_are_refused(tmp_path, rows, complaint):
    with pytest.raises(InputError, match=complaint):
        write_data_dir(tmp_path / "data", rows)
    with pytest.raises(InputError, match="2 interferers for a, expected at most 1"):
        write_data_dir(tmp_path / "data", [Row("a", "x", interference=("i", "j"))], n_interference=1)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("n_slots", [2, 5])
def test_a_directory_says_how_many_sources_it_may_have(tmp_path, n_slots):
    rows = [Row("a", "a.wav", ("Pour",) * n_slots, ("s.wav",) * n_slots), Row("b", "b.wav", ())]
    write_data_dir(tmp_path / "data", rows, n_slots)
    data = DataDir.load(tmp_path / "data")
    assert (data.n_slots, data.labels["a"]) == (n_slots, ("Pour",) * n_slots)
    write_data_dir(tmp_path / "data", rows[1:])  # three again
    assert DataDir.load(tmp_path / "data").n_slots == 3 and not (tmp_path / "data/n_slots").exists()
    (tmp_path / "data/n_slots").write_text("many\n")
    with pytest.raises(InputError, match="n_slots: found 'many', expected the number of slots"):
        DataDir.load(tmp_path / "data")
