"""The listening page in a headless Chromium: clicks, keys, and what comes out of the loudspeaker."""

import base64
import io
import json
import shutil
import time

import numpy as np
import pytest
import soundfile

from s5.data import DataDir, Row, write_data_dir
from s5.fusion import Pass
from s5.inference.results import Results
from s5.labels import LabelSet
from s5.report.page import write_page
from s5.report.results import Result

pytestmark = pytest.mark.browser

ROWS = "tbody tr"


def hears(page, *hz):
    """Waits until these tones, and no others, come out."""
    page.wait_for_function(
        f"JSON.stringify(heardHz()) === {json.dumps(json.dumps(hz, separators=(',', ':')))}", timeout=5000
    )


def listed(page):
    return [text.split("\n")[0] for text in texts(page, f"{ROWS} td:first-child")]


def texts(page, selector):
    """Texts of all visible elements."""
    return page.locator(f"{selector}:visible").all_inner_texts()


def now(page):
    return float(page.inner_text("#time").split()[0])


def go(page, utt):
    page.click(f'a[href="#{utt}"]')
    page.wait_for_function(f"document.querySelector('h2')?.innerText === '{utt}'")


def test_opens_from_disk_with_the_first_mixture(desktop):
    assert listed(desktop) == ["u1", "u2", "u10", "u3"]  # highest first, unscored last
    assert desktop.inner_text("h2") == "u1"
    sources = [["Reference", f"System A: {label}", f"System B: {label}"] for label in ("Cough", "Pour")]
    assert texts(desktop, ".lane h4") == ["Mixture, channel 0", *sources[0], *sources[1]]
    assert texts(desktop, ".what p")[:2] == ["confidence 0.88", "SDRi +5.0 dB (SDR +0.0 dB → +5.0 dB)"]
    assert "<system & A>, tagged labels" in desktop.inner_text(".systems")
    desktop.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_pictures_are_aligned_in_time(desktop):
    boxes = desktop.evaluate(
        "[...document.querySelectorAll('.view > *:not(i), .time > div')].map(e => {"
        " const b = e.getBoundingClientRect(); return [Math.round(b.left), Math.round(b.right)]; })"
    )
    assert len(boxes) == 7 * 2 + 3
    assert len({tuple(box) for box in boxes}) == 1


def test_text_of_the_table_has_room(desktop):
    """With the columns of several systems beside it."""
    widths = desktop.evaluate("[...document.querySelectorAll('tbody td:first-child')].map(e => e.clientWidth)")
    assert min(widths) > 150
    assert desktop.evaluate(
        "(() => { const t = document.querySelector('.table'); return t.scrollWidth <= t.clientWidth; })()"
    )


def test_filters_and_order(desktop):
    desktop.select_option("#class", "Bell")
    assert listed(desktop) == ["u10"]
    assert desktop.inner_text("#shown") == "1 of 4 mixtures"
    desktop.select_option("#class", "")
    desktop.select_option("#count", "2")
    assert listed(desktop) == ["u1", "u2"]
    desktop.select_option("#count", "0")
    assert listed(desktop) == ["u3"]
    desktop.select_option("#count", "")
    desktop.select_option("#labels", "wrong A")
    assert listed(desktop) == ["u10"]
    desktop.select_option("#labels", "wrong B")
    assert listed(desktop) == ["u2"]
    desktop.select_option("#labels", "same")
    assert listed(desktop) == ["u2"]
    desktop.select_option("#labels", "")
    desktop.select_option("#order", "worst A")
    assert listed(desktop) == ["u10", "u1", "u2", "u3"]
    desktop.select_option("#order", "best B")
    assert listed(desktop) == ["u1", "u10", "u2", "u3"]
    desktop.select_option("#order", "gain B")
    assert listed(desktop) == ["u10", "u1", "u2", "u3"]
    desktop.select_option("#order", "loss B")
    assert listed(desktop) == ["u2", "u1", "u10", "u3"]
    desktop.select_option("#order", "name")
    assert listed(desktop) == ["u1", "u2", "u3", "u10"]


def test_solo_together_and_ab_are_heard(desktop):
    desktop.keyboard.press("o")  # over and over
    desktop.click("#play")
    hears(desktop, 500, 1000)
    assert desktop.inner_text("#heard") == "Heard: Mixture, channel 0"
    desktop.click('[data-sound="1"] .solo')
    hears(desktop, 500)
    desktop.click('[data-sound="4"] .add')
    hears(desktop, 500, 1000)
    assert desktop.inner_text("#heard") == "Heard: Reference (Source 1: Cough) + Reference (Source 2: Pour)"
    desktop.click('[data-sound="4"] .add')
    hears(desktop, 500)
    desktop.click('[data-hear="A"]')
    hears(desktop, 2000, 2500)
    desktop.click("#swap")
    hears(desktop, 3000, 3500)
    assert desktop.evaluate("document.querySelector('[data-hear=B]').getAttribute('aria-pressed')") == "true"
    desktop.click('[data-sound="5"] .solo')
    hears(desktop, 2500)
    desktop.keyboard.press("x")
    hears(desktop, 3500)
    desktop.keyboard.press("x")
    hears(desktop, 2500)
    desktop.click("#play")
    assert desktop.inner_text("#play") == "▶ Play"
    hears(desktop)


def test_keys(desktop):
    desktop.keyboard.press("j")
    desktop.wait_for_function("document.querySelector('h2').innerText === 'u2'")
    desktop.keyboard.press("j")
    desktop.wait_for_function("document.querySelector('h2').innerText === 'u10'")
    desktop.keyboard.press("k")
    desktop.keyboard.press("k")
    desktop.wait_for_function("document.querySelector('h2').innerText === 'u1'")
    desktop.keyboard.press("ArrowRight")
    desktop.keyboard.press("ArrowRight")
    desktop.keyboard.press("ArrowRight")
    desktop.keyboard.press("ArrowLeft")
    assert now(desktop) == 1.0
    desktop.keyboard.press("Home")
    assert now(desktop) == 0.0
    desktop.keyboard.press("o")
    for key, hz in {"r": (500, 1000), "a": (2000, 2500), "b": (3000, 3500), "2": (2000,), "m": (500, 1000)}.items():
        desktop.keyboard.press(key)
        hears(desktop, *hz)
    desktop.keyboard.press("Shift+2")
    hears(desktop, 500, 1000, 2000)
    desktop.keyboard.press(" ")
    desktop.wait_for_function("document.querySelector('#play').innerText.includes('Play')")
    at = now(desktop)
    desktop.keyboard.press("p")
    desktop.wait_for_function("document.querySelector('#play').innerText.includes('Pause')")
    assert at > 0
    desktop.keyboard.press("f")
    assert desktop.evaluate("document.activeElement.id") == "class"
    desktop.keyboard.press("b")  # belongs to the menu now
    hears(desktop, 500, 1000, 2000)
    desktop.evaluate("document.activeElement.blur()")
    desktop.keyboard.press("?")
    assert "Space or p play and pause" in desktop.inner_text("#help")


def test_everything_can_be_reached_with_tab(desktop):
    reached = set()
    for _ in range(60):
        desktop.keyboard.press("Tab")
        reached.add(desktop.evaluate("document.activeElement.id || document.activeElement.className"))
    assert reached >= {"class", "order", "solo", "add", "save", "play", "seek", "swap", "next"}


def test_a_key_that_is_held_down_skips_mixtures(desktop):
    for _ in range(3):
        desktop.keyboard.press("j")
    desktop.wait_for_function("document.querySelector('h2').innerText === 'u3'")
    assert texts(desktop, f"{ROWS}[aria-current] a") == ["u3"]


def test_sounds_run_together_to_the_sample(desktop):
    desktop.evaluate(
        "(() => { window.starts = []; const start = AudioBufferSourceNode.prototype.start;"
        " AudioBufferSourceNode.prototype.start = function (...at) { starts.push(at); return start.apply(this, at); };"
        " })()"
    )
    desktop.click("#play")
    hears(desktop, 500, 1000)
    starts = desktop.evaluate("starts")
    assert len(starts) == 7
    assert len({tuple(at) for at in starts}) == 1


def test_what_would_clip_is_turned_down(desktop):
    desktop.click('[data-sound="0"] .solo')
    for sound in (1, 2, 3, 4, 5, 6):
        desktop.click(f'[data-sound="{sound}"] .add')
    desktop.wait_for_function("/, −\\d\\.\\d dB$/.test(document.querySelector('#heard').innerText)")
    desktop.click('[data-sound="0"] .solo')
    assert desktop.inner_text("#heard") == "Heard: Mixture, channel 0"


def test_click_on_a_picture_plays_from_there(desktop):
    desktop.click('[data-sound="2"] .view img')
    hears(desktop, 2000)
    assert 1.4 < now(desktop) < 3.0
    desktop.wait_for_function("document.querySelector('#play').innerText.includes('Play')")  # the end
    assert now(desktop) == 0


def test_missed_source_has_no_counterpart(desktop):
    go(desktop, "u2")
    assert "System B: ✗ missed" in texts(desktop, ".lane.none h4")
    desktop.click('[data-sound="5"] .solo')  # A's second pour
    assert "System A: Pour" in desktop.inner_text("#heard")
    desktop.keyboard.press("x")
    assert desktop.inner_text("#heard") == "Heard: nothing (system B has no estimate of it)"
    desktop.click('[data-hear="B"]')
    hears(desktop, 3000)


def test_mixture_without_a_source(desktop):
    go(desktop, "u3")
    assert desktop.evaluate("document.querySelectorAll('.lane').length") == 1
    assert desktop.evaluate("document.querySelector('[data-hear=A]').disabled")


def test_saved_sound_is_the_whole_file(desktop):
    saved = desktop.evaluate(
        "(async () => { let blob; const make = URL.createObjectURL; URL.createObjectURL = b => make(blob = b);"
        " HTMLAnchorElement.prototype.click = function () { window.savedName = this.download; };"
        " document.querySelector('[data-sound=\"1\"] .save').click();"
        " return btoa(String.fromCharCode(...new Uint8Array(await blob.arrayBuffer()))); })()"
    )
    assert desktop.evaluate("savedName") == "u1_reference0_Cough.flac"
    samples, fs = soundfile.read(io.BytesIO(base64.b64decode(saved)))
    assert (len(samples), fs) == (24000, 8000)
    assert np.abs(np.fft.rfft(samples)).argmax() == 500 * 3


def test_address_of_a_mixture(show, page_folder):
    page = show(page_folder / "index.html", "#u10")
    page.wait_for_selector(".lane")
    assert page.inner_text("h2") == "u10"
    assert texts(page, f"{ROWS}[aria-current] a") == ["u10"]


def test_missing_script_is_named(show, page_folder, tmp_path):
    folder = shutil.copytree(page_folder, tmp_path / "broken")
    (folder / "mixture0001.js").unlink()
    page = show(folder / "index.html", says=["Failed to load resource: net::ERR_FILE_NOT_FOUND"])
    page.click('a[href="#u2"]')
    text = "mixture0001.js is missing beside this page"
    page.wait_for_function(f"document.querySelector('#mixture').innerText === '{text}'")
    go(page, "u10")


@pytest.mark.parametrize("utt", ["u1", "u2"])
def test_phone_needs_no_sideways_scrolling(phone, utt):
    go(phone, utt)
    assert phone.evaluate("document.documentElement.scrollWidth === document.documentElement.clientWidth")
    narrow = phone.evaluate(
        "[...document.querySelectorAll('button, select, .view, h2, h4')].filter(e => e.offsetParent)"
        ".map(e => [e.outerHTML.slice(0, 60), e.getBoundingClientRect()])"
        ".filter(([, b]) => b.left < 0 || b.right > 390).map(([text]) => text)"
    )
    assert narrow == []
    # The player leaves two thirds of the window to the mixture.
    assert phone.evaluate("document.querySelector('#transport').getBoundingClientRect().height") < 844 / 3


def test_phone_plays(phone):
    phone.click('[data-sound="1"] .solo')
    hears(phone, 500)
    phone.click("#next")
    phone.wait_for_function("document.querySelector('h2').innerText === 'u2'")
    assert phone.inner_text("#play") == "▶ Play"


CONTRAST = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => {
    const v = c[i] / 255; return sum + w * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); }, 0);
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
    return [255, 255, 255]; };
  return Math.min(...[...document.querySelectorAll('body *')].filter(e => e.offsetParent
    && !e.matches('option, :disabled') && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }));
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out(show, page_folder, dark):
    page = show(page_folder / "index.html", phone=dark)
    go(page, "u2")
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(20, 23, 26)") == dark
    assert page.evaluate(CONTRAST) >= 4.5  # WCAG 2.2, level AA


def test_two_hundred_mixtures_open_in_two_seconds(show, tmp_path):
    rng, rows, mixtures = np.random.default_rng(0), [], []
    for i in range(200):
        utt, file = f"mixture_{i:04d}", tmp_path / "wav" / f"{i}.wav"
        file.parent.mkdir(exist_ok=True)
        soundfile.write(file, 0.1 * rng.standard_normal(800), 8000)
        rows.append(Row(utt, str(file), ()))
        entry = {"utt": utt, "ref_labels": [], "est_labels": [], "pairs": [], "CAPI-SDRi": float(i)}
        mixtures.append(entry)
    write_data_dir(tmp_path / "test", rows)
    folder = tmp_path / "exp" / "many" / "test"
    (folder / "estimates").mkdir(parents=True)
    scores = {"metrics": {}, "mixtures": mixtures, "oracle_labels": False}
    (folder / "scores.json").write_text(json.dumps(scores))
    write_page(tmp_path / "page", DataDir.load(tmp_path / "test"), [Result.load(folder)], 200)
    page = show(tmp_path / "page" / "index.html")
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        page.reload()
        page.wait_for_selector(".lane")
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 2
    assert len(listed(page)) == 200
    assert page.evaluate("asked") == ["mixture0000.js"]  # the others when they are asked for


def test_slots_of_each_pass_are_folded_and_can_be_heard(show, tmp_path):
    utt, n = "u1", 24000

    def tone(hz):
        return (0.1 * np.sin(2 * np.pi * hz * np.arange(n) / 8000)).astype(np.float32)

    def write(file, waveform):
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, waveform, 8000, subtype="FLOAT")
        return file

    mixture = write(tmp_path / "data" / "u1.wav", tone(500) + tone(1000))
    write_data_dir(tmp_path / "test", [Row(utt, str(mixture), ("Cough",), (str(mixture),))])
    folder = tmp_path / "exp" / "objects" / "test"
    write(folder / "estimates" / "u1_0_Cough.wav", tone(500))
    labels, silent = LabelSet(("Cough", "Pour")), np.zeros(n, np.float32)
    first = Pass(np.stack([tone(1500), tone(2000)]), np.array([0, 2]), np.array([0.75, 0.5]), np.array([0.875, 0.25]))
    second = Pass(np.stack([tone(2500), silent]), np.array([0, 2]), np.array([0.875, 0.5]), np.array([1.0, 0.0]))
    (folder / "separated" / "tse").mkdir(parents=True)
    Results(folder).separated.write_passes("tse", utt, [first, second], labels)
    pairs = [{"label": "Cough", "est": 0, "ref": 0, "sdr": 5.0, "sdr_mixture": 0.0, "sdri": 5.0}]
    row = {"utt": utt, "ref_labels": ["Cough"], "est_labels": ["Cough"], "pairs": pairs, "CAPI-SDRi": 5.0}
    scores = {"metrics": {}, "mixtures": [row], "oracle_labels": False}
    (folder / "scores.json").write_text(json.dumps(scores))
    write_page(tmp_path / "page", DataDir.load(tmp_path / "test"), [Result.load(folder)])
    page = show(tmp_path / "page" / "index.html")
    page.wait_for_selector(".lane")
    assert texts(page, ".passes h4") == []
    page.click(".passes summary")
    assert texts(page, ".passes h4") == ["Slot 1: Cough", "Slot 2: silence", "Slot 1: Cough", "Slot 2: silence"]
    assert texts(page, ".passes .what p")[:2] == ["confidence 0.75, active 0.88", "confidence 0.50, active 0.25"]
    assert page.inner_text(".passes .lane.none p") == "It is silent after an earlier pass."
    page.keyboard.press("o")
    page.locator(".passes .solo").nth(2).click()
    hears(page, 2500)
    page.locator(".passes .add").nth(0).click()
    hears(page, 1500, 2500)
    page.keyboard.press("a")  # all estimates of the system: not its passes
    hears(page, 500)
    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
