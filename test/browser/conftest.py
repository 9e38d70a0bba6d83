"""A page with sounds that can be told apart, and what is heard of it in the system's Chromium.

Playwright drives the Chromium that Debian has, but of Firefox only a build of its own: there is no test in Firefox.
"""

import json
import shutil

import numpy as np
import pytest
import soundfile
from playwright.sync_api import sync_playwright

from s5.data import DataDir, Row, write_data_dir
from s5.report.page import write_page
from s5.report.results import Result

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ["--disable-gpu", "--disable-quic"]  # Playwright adds what a root and a machine without a network need
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "color_scheme": "dark"}
ON_DISK = ("file:", "blob:", "data:", "about:")

FS, SECONDS = 8000, 3.0
COUGH, POUR = 500, 1000  # Hz of the references
OF_SYSTEM = {"A": 1500, "B": 2500}  # added for a system's estimates: 2000 and 2500, 3000 and 3500 Hz
LABELS = {"u1": ("Cough", "Pour"), "u2": ("Pour", "Pour"), "u3": (), "u10": ("Cough",)}
HEARD = {  # system -> mixture -> labels; A takes a cough for a bell, B finds one of two pours
    "A": {"u1": ["Cough", "Pour"], "u2": ["Pour", "Pour"], "u3": [], "u10": ["Bell"]},
    "B": {"u1": ["Cough", "Pour"], "u2": ["Pour"], "u3": [], "u10": ["Cough"]},
}

# Everything that goes to the loudspeaker goes through an analyser as well; scripts that the page asks for are noted.
LISTEN = """(() => {
  const append = Element.prototype.append;
  window.asked = [];
  Element.prototype.append = function (...nodes) {
    for (const node of nodes) if (node.src) asked.push(node.getAttribute("src"));
    return append.apply(this, nodes);
  };
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (to, ...rest) {
    if (to instanceof AudioDestinationNode) {
      const c = this.context;
      if (!c.ear) {
        c.ear = new AnalyserNode(c, {fftSize: 4096, smoothingTimeConstant: 0});
        window.ear = c.ear;
      }
      connect.call(this, c.ear);
    }
    return connect.call(this, to, ...rest);
  };
  window.heardHz = () => {
    if (!window.ear) return [];
    const levels = new Float32Array(ear.frequencyBinCount), found = [];
    ear.getFloatFrequencyData(levels);
    for (let hz = 500; hz <= 3500; hz += 500) {
      if (levels[Math.round(hz / ear.context.sampleRate * ear.fftSize)] > -60) found.push(hz);
    }
    return found;
  };
})();"""


def tone(hz):
    return (0.1 * np.sin(2 * np.pi * hz * np.arange(int(FS * SECONDS)) / FS)).astype(np.float32)


def write(file, waveform):
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, waveform, FS, subtype="FLOAT")
    return file


def hz_of(slot):
    return (COUGH, POUR)[slot]


@pytest.fixture(scope="session")
def page_folder(tmp_path_factory):
    """A page of four mixtures and two systems, in a folder whose name is hard on links."""
    root = tmp_path_factory.mktemp("listen")
    rng = np.random.default_rng(0)
    rows = []
    for utt, labels in LABELS.items():
        sources = [write(root / "data" / f"{utt}_{i}.wav", tone(hz_of(i))) for i in range(len(labels))]
        noise = 1e-5 * rng.standard_normal(int(FS * SECONDS))
        mixture = write(root / "data" / f"{utt}.wav", sum((tone(hz_of(i)) for i in range(len(labels))), noise))
        rows.append(Row(utt, str(mixture), labels, tuple(map(str, sources))))
    write_data_dir(root / "test", rows)
    for system, heard in HEARD.items():
        folder = root / "exp" / f"<system & {system}>" / "test"
        mixtures = []
        for utt, est in heard.items():
            pairs = []
            for slot, label in enumerate(est):
                write(folder / "estimates" / f"{utt}_{slot}_{label}.wav", tone(hz_of(slot) + OF_SYSTEM[system]))
                if label == LABELS[utt][slot]:
                    pairs.append(
                        {"label": label, "est": slot, "ref": slot, "sdr": 5.0, "sdr_mixture": 0.0, "sdri": 5.0}
                    )
            value = None if not LABELS[utt] else len(pairs) / len(LABELS[utt]) * (5.0 if system == "A" else 4.0)
            mixtures.append(
                {
                    "utt": utt,
                    "ref_labels": list(LABELS[utt]),
                    "est_labels": est,
                    "probabilities": [0.875] * len(est),
                    "pairs": pairs,
                    "CAPI-SDRi": value,
                }
            )
        scores = {"metrics": {"CAPI-SDRi": 3.0}, "mixtures": mixtures, "oracle_labels": False}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scores.json").write_text(json.dumps(scores))
    out = root / "a page #1 50%"
    results = [Result.load(root / "exp" / f"<system & {system}>" / "test") for system in HEARD]
    assert write_page(out, DataDir.load(root / "test"), results, 12) == len(LABELS)
    return out


@pytest.fixture(scope="module")  # Playwright's loop runs until its end: not beside other tests
def chromium():
    """The system's Chromium, headless."""
    program = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium on this machine: tools/installers/install_chromium.sh")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def show(chromium):
    """Shows a file from disk in a window of its own: 1280 pixels wide, or a phone of 390 in dark colours.

    At the end of the test its console has said what was expected, and no request has left the disk.
    """
    windows = []

    def show(file, place="", phone=False, says=()):
        context = chromium.new_context(**(PHONE if phone else DESKTOP))
        context.add_init_script(LISTEN)
        page, said = context.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url.startswith(ON_DISK) or said.append(request.url))
        page.goto(file.resolve().as_uri() + place)
        windows.append((context, said, says))
        return page

    yield show
    for context, said, says in windows:
        context.close()
        assert said == list(says)


@pytest.fixture
def desktop(show, page_folder):
    """The page in a window of 1280 pixels, just opened."""
    page = show(page_folder / "index.html")
    page.wait_for_selector(".lane")
    return page


@pytest.fixture
def phone(show, page_folder):
    """The page on a phone of 390 pixels, just opened."""
    page = show(page_folder / "index.html", phone=True)
    page.wait_for_selector(".lane")
    return page
