"""The page of events to leave out in a headless Chromium: listening, ticking, saving the list."""

import numpy as np
import pytest
import soundfile
from chromium import Page, find

from s5.bin import refine as command
from s5.corpus.refine import read_drop_list

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


def opened(page, file):
    page.events.clear()
    page.call("Page.navigate", url="about:blank")
    page.wait("location.href === 'about:blank'")
    page.call("Page.navigate", url=file.resolve().as_uri())
    page.wait("document.readyState === 'complete' && document.getElementById('list')")
    return page


@pytest.fixture(scope="module")
def windows():
    """A window of a desktop and one of a phone."""
    if find() is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with Page(1280, 900) as desktop, Page(390, 844, dark=True) as phone:
        yield {"desktop": desktop, "phone": phone}


@pytest.fixture
def desktop(windows, page_file):
    """The page in a window of 1280 pixels, nothing ticked."""
    page = opened(windows["desktop"], page_file)
    page.run("localStorage.clear()")
    opened(page, page_file)
    yield page
    assert page.complaints() == []


@pytest.fixture
def phone(windows, page_file):
    """The page on a phone of 390 pixels."""
    page = opened(windows["phone"], page_file)
    yield page
    assert page.complaints() == []


def test_ticked_events_become_a_list_that_a_refinement_reads(desktop, page_file, tmp_path):
    assert desktop.text("#count") == "0 of 2 ticked"
    desktop.click("tbody tr:nth-child(1) label", across=0.5)  # the name is part of the box
    desktop.click("tbody tr:nth-child(2) input")
    assert desktop.text("#count") == "2 of 2 ticked"
    desktop.click("tbody tr:nth-child(1) input")
    assert desktop.text("#count") == "1 of 2 ticked"
    ticked = desktop.run("document.querySelector('input:checked').value")
    assert ticked in WRONG
    desktop.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    desktop.click("#save")
    saved = tmp_path / "drop.txt"
    for _ in range(200):
        if saved.is_file() and saved.stat().st_size:
            break
        desktop.run("new Promise(done => setTimeout(done, 25))")
    assert read_drop_list(saved, WRONG) == {ticked: "unlike its class"}
    opened(desktop, page_file)  # another day
    assert desktop.text("#count") == "1 of 2 ticked"
    assert desktop.run("document.querySelector('input:checked').value") == ticked


def test_one_sound_plays_at_a_time(desktop):
    players = "document.querySelectorAll('tbody tr audio')"
    desktop.click("tbody tr:nth-child(1) audio", across=0.08)  # its button
    desktop.wait(f"!{players}[0].paused && {players}[0].currentTime > 0")
    desktop.click("tbody tr:nth-child(2) audio", across=0.08)
    desktop.wait(f"!{players}[1].paused && {players}[0].paused")
    assert desktop.run(f"{players}[1].duration") == 2.0
    desktop.run(f"{players}[1].pause()")


def test_typical_events_are_there_to_compare_but_not_to_tick(desktop):
    assert desktop.run("document.querySelectorAll('details audio').length") == 3
    desktop.click("summary")
    desktop.wait("document.querySelector('details audio').offsetHeight > 0")
    assert desktop.run("document.querySelectorAll('details input').length") == 0


@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_everything_fits_the_window(device, request):
    page = request.getfixturevalue(device)
    page.run("document.querySelector('details').open = true")
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    outside = (
        "[...document.querySelectorAll('audio, button, textarea, label')].filter(e => {"
        " const b = e.getBoundingClientRect(); return b.width === 0 || b.left < 0 || b.right > innerWidth; }).length"
    )
    assert page.run(outside) == 0
    # However far one has scrolled, the button is there, and nothing lies over it.
    page.run("document.querySelector('tbody tr:nth-child(2) audio').scrollIntoView({block: 'start'})")
    for selector in ("#save", "#count"):
        middle = (
            f"(() => {{ const b = document.querySelector('{selector}').getBoundingClientRect();"
            " return document.elementFromPoint((b.left + b.right) / 2, (b.top + b.bottom) / 2); })()"
        )
        assert page.run(f"{middle}?.matches('{selector}')")
