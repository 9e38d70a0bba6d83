"""Tests of the proposals of events to leave out: the list, and the page in one file."""

import base64
import io
import re

import numpy as np
import pytest
import soundfile

from s5.bin import find_outliers as command
from s5.challenge.corpus.curation import read_drop_list
from s5.report.candidates import encoder_embedding, propose
from s5.utils.errors import InputError


@pytest.fixture
def events(tmp_path):
    """Two classes of tones, one of which contains a noise, with awkward file names."""
    rng = np.random.default_rng(0)
    for label, pitch in (("Doorbell", 800), ("Speech", 300)):
        for i in range(12):
            t = np.arange(6400) / 8000
            path = tmp_path / "train" / label / f"{i} & co.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            x = np.sin(2 * np.pi * pitch * rng.uniform(0.97, 1.03) * t) * np.exp(-3 * t)
            soundfile.write(path, 0.3 * x + 1e-4 * rng.standard_normal(len(t)), 8000)
    soundfile.write(tmp_path / "train/Doorbell/3 & co.wav", 0.3 * rng.uniform(-1, 1, 8000), 8000)
    (tmp_path / "labels.txt").write_text("Doorbell\nSpeech\n")
    return tmp_path


def arguments(events, *more):
    return ["--events", f"{events}/train", "--out", f"{events}/out", "--labels", f"{events}/labels.txt", *more]


def test_list_names_the_wrong_event_and_can_be_used(events):
    command.main(arguments(events, "--threshold", "6"))
    assert list(read_drop_list(events / "out/candidates.tsv")) == ["Doorbell/3 & co.wav"]


def test_page_holds_its_sounds_and_refers_to_nothing_outside(events):
    command.main(arguments(events, "--threshold", "6", "--seconds", "0.5"))
    page = (events / "out/candidates.html").read_text()
    sounds = re.findall(r'src="data:audio/flac;base64,([^"]+)"', page)
    assert len(sounds) == 1 + 3  # the proposal, and three of its class to compare
    audio, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[0])))
    assert (len(audio), rate) == (4000, 8000)
    assert np.abs(audio).max() <= 0.51
    assert not re.search(r"https?://", page)
    assert 'value="Doorbell/3 &amp; co.wav"' in page
    assert "<h2>Speech</h2>" not in page


def test_nothing_found_says_so(events):
    command.main(arguments(events, "--threshold", "1000"))
    assert "No event differs" in (events / "out/candidates.html").read_text()
    assert not read_drop_list(events / "out/candidates.tsv")


def test_embedding_of_a_trained_tagger(events, trained):
    found = {"Doorbell": [f"Doorbell/{i} & co.wav" for i in range(12)]}
    embed = encoder_embedding(str(trained / "tagger"), None)
    short, long = embed(np.ones(10, np.float32), 8000), embed(np.ones(200_000, np.float32), 44100)
    assert short.shape == long.shape
    propose(found, embed, events / "out", -100, folder=events / "train")
    assert len(read_drop_list(events / "out/candidates.tsv")) == 12


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--features", "tagger"], "--features tagger: found both or neither"),
        (["--features", "tagger", "--experiment", "none"], "none: found no config.yaml"),
        (["--labels", "none.txt"], "none.txt: found No such file"),
    ],
)
def test_bad_options_are_one_line(events, more, complaint):
    with pytest.raises(InputError, match=re.escape(complaint)):
        command.main(arguments(events, *more))
