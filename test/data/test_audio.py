import numpy as np
import pytest
import soundfile

from s5.data import audio_info, read_audio, write_audio
from s5.utils.errors import InputError


@pytest.fixture
def audio():
    return np.random.default_rng(0).standard_normal((4, 1000)).astype(np.float32)


def test_float_comes_back_as_it_was(tmp_path, audio):
    write_audio(tmp_path / "x.wav", 3 * audio, 16000)
    found, fs = read_audio(tmp_path / "x.wav")
    np.testing.assert_array_equal(found, 3 * audio)
    assert found.dtype == np.float32 and found.flags.c_contiguous and fs == 16000
    assert audio_info(tmp_path / "x.wav") == (4, 1000, 16000)
    assert soundfile.info(tmp_path / "x.wav").subtype == "FLOAT"


def test_sixteen_bits_are_rounded_and_clipped(tmp_path, audio):
    write_audio(tmp_path / "x.wav", audio[0], 8000, subtype="PCM_16")
    found, _ = read_audio(tmp_path / "x.wav", fs=8000)
    assert found.shape == (1, 1000) and soundfile.info(tmp_path / "x.wav").subtype == "PCM_16"
    np.testing.assert_allclose(found[0], np.clip(audio[0], -1, 1 - 2**-15), atol=2**-16)


@pytest.mark.parametrize(("name", "subtype"), [("x.wav", "PCM_16"), ("x.wav", "PCM_24"), ("x.flac", "PCM_16")])
def test_what_is_clipped_is_counted(tmp_path, name, subtype):
    samples = np.array([[0.0, 1.0, -1.0, 1.5, -4.0], [0.5, 1.0001, 0.0, 0.0, 0.0]], np.float32)
    assert write_audio(tmp_path / name, samples, 8000, subtype) == (3, 4.0)
    assert write_audio(tmp_path / name, 0.25 * samples, 8000, subtype) == (0, 1.0)
    assert write_audio(tmp_path / "float.wav", samples, 8000).samples == 0


def test_the_same_samples_give_the_same_bytes(tmp_path, audio):
    write_audio(tmp_path / "a.wav", audio, 16000)
    write_audio(tmp_path / "b.wav", audio, 16000)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav"]


def test_nothing_half_written_stays(tmp_path, audio, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_audio(tmp_path / "a.wav", audio, 16000)
    assert not list(tmp_path.iterdir())


def write(path, audio, fs=16000, **options):
    soundfile.write(path, audio.T, fs, **options)


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path, audio: None, r"x.wav: found no file, expected an audio file"),
        (lambda path, audio: path.write_text("hello"), r"x.wav: found a file that libsndfile cannot read"),
        (lambda path, audio: write(path, audio, 8000), r"x.wav: found 8000 Hz, expected 16000 Hz"),
        (lambda path, audio: write(path, audio[:, :0]), r"x.wav: found no sample"),
        (lambda path, audio: write(path, audio, 16), r"x.wav: found 16 Hz, expected a sampling rate from 100 to"),
        (lambda path, audio: write(path, audio * np.inf, subtype="FLOAT"), r"x.wav: found samples that are not finite"),
        (
            lambda path, audio: write(path, audio / abs(audio).max() * 1e30, subtype="FLOAT"),
            r"x.wav: found a sample of magnitude 1e\+30, expected at most 1e\+10",
        ),
        (
            lambda path, audio: (write(path, audio), cut(path)),
            r"x.wav: found \d+ bytes .* says 8000, .*truncated",
        ),
        (lambda path, audio: (write(path, audio, format="FLAC"), cut(path)), r"x.wav: found "),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path, audio, make, complaint):
    make(tmp_path / "x.wav", audio)
    with pytest.raises(InputError, match=complaint) as e:
        read_audio(tmp_path / "x.wav", fs=16000)
    assert "\n" not in str(e.value)
