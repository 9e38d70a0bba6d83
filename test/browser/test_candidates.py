"""The page of events to leave out in a headless Chromium: listening, ticking, saving the list."""

import numpy as np
import pytest
import soundfile

from s5.bin import find_outliers as command
from s5.challenge.corpus.curation import read_drop_list

pytestmark = pytest.mark.browser

BUTTON = {"x": 20, "y": 17}  # to play, in a player
WRONG = [f"Doorbell/a long folder name of a corpus, take {i}/ring & voice {i}.wav" for i in (3, 7)]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A page of two classes of tones, one with two noises among them; awkward file names."""
    root = tmp_path_factory.mktemp("refine") / "a folder #1"
    rng = np.random.default_rng(0)
    for label, pitch in (("Doorbell", 800), ("Speech", 300)):
        for i in range(14):
            t = np.arange(16000) / 8000
            x = np.sin(2 * np.pi * pitch * rng.uniform(0.97, 1.03) * t) * np.exp(-3 * t)
            path = root / "train" / label / f"a long folder name of a corpus, take {i}/ring & voice {i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = rng.uniform(-1, 1, len(t))
            soundfile.write(path, 0.3 * (noise if str(path.relative_to(root / "train")) in WRONG else x), 8000)
    (root / "labels.txt").write_text("Doorbell\nSpeech\n")
    arguments = ("--events", root / "train", "--out", root / "out", "--labels", root / "labels.txt", "--threshold", 5)
    command.main([str(word) for word in arguments])
    assert sorted(read_drop_list(root / "out/candidates.tsv")) == sorted(WRONG)
    return root / "out/candidates.html"


@pytest.fixture
def desktop(show, page_file):
    """The page in a window of 1280 pixels, nothing ticked."""
    return show(page_file)


@pytest.fixture
def phone(show, page_file):
    """The page on a phone of 390 pixels."""
    return show(page_file, phone=True)


def test_ticked_events_become_a_list_that_a_refinement_reads(desktop):
    assert desktop.inner_text("#count") == "0 of 2 ticked"
    desktop.click("tbody tr:nth-child(1) label")  # the name is part of the box
    desktop.click("tbody tr:nth-child(2) input")
    assert desktop.inner_text("#count") == "2 of 2 ticked"
    desktop.click("tbody tr:nth-child(1) input")
    assert desktop.inner_text("#count") == "1 of 2 ticked"
    ticked = desktop.evaluate("document.querySelector('input:checked').value")
    assert ticked in WRONG
    with desktop.expect_download() as saved:
        desktop.click("#save")
    assert saved.value.suggested_filename == "drop.txt"
    assert read_drop_list(saved.value.path(), WRONG) == {ticked: "unlike its class"}
    desktop.reload()  # another day
    assert desktop.inner_text("#count") == "1 of 2 ticked"
    assert desktop.evaluate("document.querySelector('input:checked').value") == ticked


def test_one_sound_plays_at_a_time(desktop):
    players = "document.querySelectorAll('tbody tr audio')"
    desktop.click("tbody tr:nth-child(1) audio", position=BUTTON)  # its button
    desktop.wait_for_function(f"!{players}[0].paused && {players}[0].currentTime > 0")
    desktop.click("tbody tr:nth-child(2) audio", position=BUTTON)
    desktop.wait_for_function(f"!{players}[1].paused && {players}[0].paused")
    assert desktop.evaluate(f"{players}[1].duration") == 2.0
    desktop.evaluate(f"{players}[1].pause()")


def test_typical_events_are_there_to_compare_but_not_to_tick(desktop):
    assert desktop.evaluate("document.querySelectorAll('details audio').length") == 3
    desktop.click("summary")
    desktop.wait_for_function("document.querySelector('details audio').offsetHeight > 0")
    assert desktop.evaluate("document.querySelectorAll('details input').length") == 0


@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_everything_fits_the_window(device, request):
    page = request.getfixturevalue(device)
    page.evaluate("document.querySelector('details').open = true")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    outside = (
        "[...document.querySelectorAll('audio, button, textarea, label')].filter(e => {"
        " const b = e.getBoundingClientRect(); return b.width === 0 || b.left < 0 || b.right > innerWidth; }).length"
    )
    assert page.evaluate(outside) == 0
    # However far one has scrolled, the button is there, and nothing lies over it.
    page.evaluate("document.querySelector('tbody tr:nth-child(2) audio').scrollIntoView({block: 'start'})")
    for selector in ("#save", "#count"):
        middle = (
            f"(() => {{ const b = document.querySelector('{selector}').getBoundingClientRect();"
            " return document.elementFromPoint((b.left + b.right) / 2, (b.top + b.bottom) / 2); })()"
        )
        assert page.evaluate(f"{middle}?.matches('{selector}')")
