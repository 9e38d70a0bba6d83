"""The listening page: mixtures, their references and the estimates of one or more systems, to hear and to see.

One folder that opens from disk in any browser without a network. index.html holds the table of the mixtures; what is
shown and heard of one comes with a script of its own (a page from disk may load scripts and images, but read no files),
when it is asked for: its description as HTML and its sounds as FLAC in base64. Spectrograms are PNG files.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from s5.data import read_audio
from s5.errors import InputError
from s5.inference.names import find_source_files, source_name
from s5.labels import SILENCE
from s5.report import spectrogram
from s5.report.choose import Mixture, choose, improvement, labels_of, same_class, wrong_labels
from s5.report.direction import Direction, directions
from s5.report.results import Result

PEAK = 0.5
"""Peak of a mixture's audio copy; its references and estimates get the same gain."""

ENVELOPE_DB = 60
"""Range of the envelopes below the loudest moment of the mixture."""

_HERE = Path(__file__).parent


class Data(Protocol):
    """What the page needs of a data directory; :class:`s5.data.DataDir` is one."""

    labels: dict[str, tuple[str, ...]]

    def mixture(self, utt: str) -> tuple[np.ndarray, int]:
        """Mixture [M, T] and its sampling rate in Hz."""

    def sources(self, utt: str) -> np.ndarray:
        """Dry targets [n_slots, T] in the order of ``labels[utt]``."""

    def scene_path(self, utt: str) -> Path | None:
        """JSON file of the mixture's scene, if there is one."""


@dataclass
class Sound:
    """One lane of the page: a waveform [T] with what is written beside it.

    Attributes:
        file: name of its picture, without the ending.
        title: what it is.
        waveform: [T].
        kind: ``mixture``, ``reference``, or the letter of the system whose estimate it is.
        lines: more about it, as HTML.
    """

    file: str
    title: str
    waveform: np.ndarray
    kind: str
    lines: list[str] = field(default_factory=list)


@dataclass
class Missing:
    """In place of a sound: why there is none."""

    title: str
    text: str


@dataclass
class Source:
    """What belongs to one source: the reference and the estimates of all systems, in the order of the page."""

    title: str
    about: str
    lanes: list[Sound | Missing]


@dataclass
class Entry:
    """One mixture of the page.

    Attributes:
        mixture: its entry in the first system's scores.json.
        words: what it stands for.
        fs: sampling rate in Hz.
        sound: channel 0 of the mixture.
        sources: its references, then the false alarms.
        places: directions of the references, as :func:`s5.report.direction.directions` gives them.
        gain: factor of all audio copies.
    """

    mixture: Mixture
    words: list[str]
    fs: int
    sound: Sound
    sources: list[Source]
    places: list[list[Direction]]
    gain: float = 1.0

    @property
    def sounds(self) -> list[Sound]:
        """All sounds in the order of the page, the mixture first."""
        return [self.sound, *(x for source in self.sources for x in source.lanes if isinstance(x, Sound))]


def write_page(out: str | Path, data: Data, results: Sequence[Result], n_mixtures: int = 12) -> int:
    """Writes the page of one data set. An older page at ``out`` is replaced at the end, in one step.

    Args:
        out: folder to write, e.g. ``exp/<system>/<set>/report``.
        data: the data directory of the set.
        results: what is compared on the page, called A, B, ... there: results of one or more systems on the set. The
            first one decides which mixtures are shown.
        n_mixtures: number of mixtures to show at most.

    Returns:
        Number of mixtures shown.

    Raises:
        InputError: an estimate is missing or broken, or scores and data disagree.
    """
    chosen = choose(results[0].scores["mixtures"], n_mixtures)
    columns = [_Column(chr(ord("A") + i), result) for i, result in enumerate(results)]
    with _replaced(Path(out)) as folder:
        rows = []
        for number, (mixture, words) in enumerate(chosen):
            entry = _entry(mixture, words, data, columns)
            _write_files(folder, number, entry, columns)
            rows.append(_row(number, mixture, columns))  # text only: the samples need not stay in memory
        text = _document([mixture for mixture, _ in chosen], rows, columns)
        (folder / "index.html").write_text(text, encoding="utf-8")
    return len(chosen)


@contextmanager
def _replaced(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its place at the end, or vanishes when something fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        folder.chmod(0o777 & ~_umask())  # mkdtemp allows the owner only; a report is for others too
        yield folder
        old = folder.with_name(f"{folder.name}.old")
        if out.exists():
            os.replace(out, old)
        try:
            os.replace(folder, out)
        except BaseException:
            if old.exists():
                os.replace(old, out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _entry(mixture: Mixture, words: list[str], data: Data, columns: Sequence[_Column]) -> Entry:
    utt = mixture["utt"]
    scores = columns[0].result.path / "scores.json"
    if utt not in data.labels:
        raise InputError(scores, f"mixture {utt}", "mixtures of the data directory")
    labels = data.labels[utt]
    for column in columns:
        column.check(utt, labels)
    samples, fs = data.mixture(utt)
    references = data.sources(utt)
    sound = Sound(f"{utt}_mixture", "Mixture, channel 0", samples[0], "mixture")
    takes = [_Take(column, utt, len(samples[0]), fs) for column in columns]
    places = _places(data.scene_path(utt), labels)
    sources = []
    for slot, label in enumerate(labels):
        lanes: list[Sound | Missing] = [
            Sound(f"{utt}_reference{slot}_{label}", "Reference", references[slot], "reference")
        ]
        lanes += [take.of_reference(slot) for take in takes]
        sources.append(Source(f"Source {slot + 1}: {label}", _place_words(places[slot]), lanes))
    for take in takes:
        for alarm in take.false_alarms():
            about = f"System {take.column.letter} has an estimate for which there is no reference."
            sources.append(Source("✗ False alarm", about, [alarm]))
    entry = Entry(mixture, words, fs, sound, sources, places)
    peak = float(np.abs(sound.waveform).max(initial=0))
    highest = max(float(np.abs(s.waveform).max(initial=0)) for s in entry.sounds)
    if peak > 0:
        entry.gain = min(PEAK / peak, 0.99 / highest)  # the second: nothing clips, whatever a system puts out
    return entry


def _places(scene: Path | None, labels: Sequence[str]) -> list[list[Direction]]:
    if scene is None:
        return [[] for _ in labels]
    from s5.scene.spec import Scene

    return directions(Scene.load(scene), labels)


def _place_words(points: Sequence[Direction]) -> str:
    if not points:
        return ""
    return str(points[0]) if len(points) == 1 else f"moves from {points[0]} to {points[-1]}"


class _Column:
    """One result as the page shows it: system A, B, ..."""

    def __init__(self, letter: str, result: Result) -> None:
        self.letter, self.result = letter, result
        self.mixtures: dict[str, Mixture] = {m["utt"]: m for m in result.scores["mixtures"]}
        self.files = find_source_files(result.path / "estimates", self.mixtures)
        self.name = f"{result.system}, {result.labels} labels"

    def check(self, utt: str, labels: Sequence[str]) -> None:
        """Complains where the scores are not of this mixture with these references."""
        scores = self.result.path / "scores.json"
        if utt not in self.mixtures:
            raise InputError(scores, f"no mixture {utt}", "the mixtures of the data directory (score again)")
        names = self.mixtures[utt]["ref_labels"]
        if list(labels) != labels_of(names):  # pairs count references in this order
            found, expected = " ".join(names), " ".join(labels)
            raise InputError(
                f"{scores}: mixture {utt}", f"references [{found}]", f"[{expected}] of the data directory (score again)"
            )


class _Take:
    """One result's estimates of one mixture."""

    def __init__(self, column: _Column, utt: str, n_samples: int, fs: int) -> None:
        self.column, self.utt, self.n_samples, self.fs = column, utt, n_samples, fs
        self.result = column.result
        self.mixture = column.mixtures[utt]
        self.files = column.files[utt]
        self.slot_of = {int(pair["ref"]): int(pair["est"]) for pair in self.mixture["pairs"]}
        self.pair_of = {int(pair["est"]): pair for pair in self.mixture["pairs"]}

    def of_reference(self, slot: int) -> Sound | Missing:
        """The estimate that was paired with a reference."""
        if slot in self.slot_of:
            return self.estimate(self.slot_of[slot])
        return Missing(f"System {self.column.letter}: ✗ missed", "It has no estimate for this reference.")

    def estimate(self, slot: int) -> Sound:
        """The estimate in a slot."""
        labels = self.mixture["est_labels"]
        if slot >= len(labels):
            raise InputError(
                self.result.path / "scores.json", f"slot {slot} of {self.utt}", f"a slot below {len(labels)}"
            )
        label, letter = labels[slot], self.column.letter
        probabilities = self.mixture.get("probabilities") or []
        name = f"{self.utt}_{letter}{slot}_{label}"
        sound = Sound(name, f"System {letter}: {label}", self._read(slot, label), letter)
        if self.result.oracle:
            sound.lines.append("label given")
        elif slot < len(probabilities) and probabilities[slot] is not None:
            sound.lines.append(f'confidence <span class="number">{probabilities[slot]:.2f}</span>')
        if (pair := self.pair_of.get(slot)) is not None:
            sound.lines.append(_improvement(pair))
        return sound

    def false_alarms(self) -> list[Sound]:
        """Estimates that were paired with no reference."""
        slots = [slot for slot, label in enumerate(self.mixture["est_labels"]) if label != SILENCE]
        return [self.estimate(slot) for slot in slots if slot not in self.pair_of]

    def _read(self, slot: int, label: str) -> np.ndarray:
        if slot not in self.files or self.files[slot].label != label:
            expected = self.result.path / "estimates" / source_name(self.utt, slot, label)
            raise InputError(expected, "no such file", "the estimates that were scored (stages 10 and 11)")
        file = self.files[slot].path
        samples, fs = read_audio(file)
        if fs != self.fs or samples.shape != (1, self.n_samples):
            found = f"{samples.shape[0]} channels, {samples.shape[1]} samples at {fs} Hz"
            raise InputError(file, found, f"1 channel, {self.n_samples} samples at {self.fs} Hz as in the mixture")
        return samples[0]


def _write_files(folder: Path, number: int, entry: Entry, columns: Sequence[_Column]) -> None:
    """Pictures and the script of an entry: all sounds with one gain, all pictures with one scale."""
    picture = spectrogram.power(entry.sound.waveform, entry.fs)
    loudest, moment = float(picture.max()), float(spectrogram.envelope(entry.sound.waveform).max())
    for sound in entry.sounds:
        if sound is not entry.sound:
            picture = spectrogram.power(sound.waveform, entry.fs)
        spectrogram.save_png(folder / f"{sound.file}.png", picture, loudest)
    content = {
        "html": _section(entry, columns, moment),
        "seconds": len(entry.sound.waveform) / entry.fs,
        "fs": entry.fs,
        "sounds": [_flac(sound.waveform * entry.gain, entry.fs) for sound in entry.sounds],
    }
    (folder / _script(number)).write_text(f"s5page.arrived({number}, {json.dumps(content)});\n", encoding="utf-8")


def _script(number: int) -> str:
    return f"mixture{number:04d}.js"


def _flac(waveform: np.ndarray, fs: int) -> str:
    """A FLAC file of 16 bits in base64."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, waveform, fs, format="FLAC", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode("ascii")


def _improvement(pair: dict[str, Any]) -> str:
    if pair.get("sdri") is None:
        return ""
    text = f'SDRi <span class="number"><strong>{_db(pair["sdri"])}</strong></span>'
    if pair.get("sdr") is not None and pair.get("sdr_mixture") is not None:
        text += f' <span class="soft number">(SDR {_db(pair["sdr_mixture"])} → {_db(pair["sdr"])})</span>'
    return text


def _db(value: float) -> str:
    return f"{value:+.1f} dB".replace("-", "−")


# --- HTML: index.html ---------------------------------------------------------------------------------------------


def _document(mixtures: Sequence[Mixture], rows: Sequence[str], columns: Sequence[_Column]) -> str:
    first = columns[0].result
    css, js = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    values = {
        "title": html.escape(f"Listen: {first.system} on {first.set}"),
        "css": css,
        "js": js,
        "introduction": _introduction(len(mixtures), columns),
        "filters": _filters(mixtures, columns),
        "heads": "".join(
            f'<th scope="col" aria-label="CAPI-SDRi of system {c.letter} in dB">{c.letter}<br>dB</th>' for c in columns
        ),
        "rows": "\n".join(rows),
        "together": "".join(
            f'<button type="button" data-hear="{c.letter}" aria-pressed="false">All {c.letter}'
            f" <kbd>{c.letter.lower()}</kbd></button>"
            for c in columns
        ),
        "letters": ", ".join(f"<kbd>{c.letter.lower()}</kbd>" for c in columns),
        "scale": _scale(),
    }
    text = (_HERE / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)


def _introduction(shown: int, columns: Sequence[_Column]) -> str:
    total = len(columns[0].mixtures)
    which = f"All {total}" if shown == total else f"{shown} of {total}"
    why = (
        ""
        if shown == total
        else (", chosen to span the numbers of sources, same-class sources, wrong labels, the best and the worst")
    )
    systems = []
    for column in columns:
        value = column.result.scores["metrics"].get("CAPI-SDRi")
        mean = "" if value is None else f': CAPI-SDRi <span class="number">{_db(value)}</span> over all mixtures'
        systems.append(f"<li><strong>{column.letter}</strong> = {html.escape(column.name)}{mean}</li>")
    return f'<p>{which} mixtures{why}. Systems:</p>\n<ul class="systems">{"".join(systems)}</ul>'


def _scale() -> str:
    stops = ", ".join(f"rgb({r} {g} {b})" for r, g, b in spectrogram.colours(12).tolist())
    return f"""<div class="scale"><span class="number">−{spectrogram.RANGE_DB} dB and below</span>
<span class="bar" role="img" aria-label="colour scale, dark is quiet"
style="background: linear-gradient(to right, {stops})"></span>
<span class="number">0 dB</span></div>"""


def _filters(mixtures: Sequence[Mixture], columns: Sequence[_Column]) -> str:
    """The choices above the table; only what occurs is offered."""
    entries = [column.mixtures[m["utt"]] for m in mixtures for column in columns]
    names = sorted({label for m in entries for key in ("ref_labels", "est_labels") for label in labels_of(m[key])})
    counts = sorted({len(labels_of(m["ref_labels"])) for m in mixtures})
    orders = {"": "as chosen", "name": "name"}
    for c in columns:
        orders |= {f"worst {c.letter}": f"worst of {c.letter} first", f"best {c.letter}": f"best of {c.letter} first"}
    for c in columns[1:]:
        orders[f"gain {c.letter}"] = f"{c.letter} most above A first"
        orders[f"loss {c.letter}"] = f"{c.letter} most below A first"
    labels = {"": "any", "same": "two sources of a class"}
    for c in columns:
        labels |= {f"wrong {c.letter}": f"{c.letter} wrong", f"right {c.letter}": f"{c.letter} right"}
    return "\n".join(
        [
            _select("class", "Class", {"": "any", **{name: name for name in names}}),
            _select("count", "Sources", {"": "any", **{str(n): str(n) for n in counts}}),
            _select("labels", "Labels", labels),
            _select("order", "Order", orders),
        ]
    )


def _select(name: str, title: str, options: dict[str, str]) -> str:
    choices = "".join(f'<option value="{html.escape(k)}">{html.escape(v)}</option>' for k, v in options.items())
    return f'<label>{title} <select id="{name}">{choices}</select></label>'


def _row(number: int, mixture: Mixture, columns: Sequence[_Column]) -> str:
    utt = mixture["utt"]
    own = [column.mixtures[utt] for column in columns]
    facts = {
        "utt": utt,
        "labels": sorted({label for m in own for key in ("ref_labels", "est_labels") for label in labels_of(m[key])}),
        "count": len(labels_of(mixture["ref_labels"])),
        "same": same_class(mixture),
        "wrong": [column.letter for column, m in zip(columns, own, strict=True) if wrong_labels(m)],
        "values": {column.letter: improvement(m) for column, m in zip(columns, own, strict=True)},
    }
    lines = [f"References: {_label_list(mixture['ref_labels'])}"]
    for column, m in zip(columns, own, strict=True):
        wrong = wrong_labels(m)
        if wrong or not column.result.oracle:
            said = f'{_label_list(m["est_labels"])} <span class="bad">✗ wrong</span>' if wrong else "✓ right"
            lines.append(f"{column.letter}: {said}")
    about = "".join(f"<span>{line}</span>" for line in lines)
    values = "".join(f'<td class="number">{_capi(m)}</td>' for m in own)
    return (
        f'<tr data-facts="{html.escape(json.dumps(facts))}"><td>'
        f'<a href="#{html.escape(urllib.parse.quote(utt))}" data-script="{_script(number)}">{html.escape(utt)}</a>'
        f"{about}</td>{values}</tr>"
    )


# --- HTML: one mixture --------------------------------------------------------------------------------------------


def _section(entry: Entry, columns: Sequence[_Column], moment: float) -> str:
    """What is shown of a mixture; ``moment`` is the power at 0 dB of the envelopes."""
    utt = entry.mixture["utt"]
    words = "".join(
        f'<span class="word{" bad" if word == "wrong labels" else ""}">{html.escape(word)}</span>'
        for word in entry.words
    )
    about = [f"<p><strong>References:</strong> {_label_list(entry.mixture['ref_labels'])}</p>"]
    for column in columns:
        own = column.mixtures[utt]
        wrong = ' <span class="bad">✗ wrong</span>' if wrong_labels(own) else ""
        about.append(
            f"<p><strong>{column.letter}</strong> ({html.escape(column.name)}): {_label_list(own['est_labels'])}{wrong}"
            f', CAPI-SDRi <strong class="number">{_capi(own)}</strong></p>'
        )
    about.append(f'<p class="soft">Gain of all sounds of this mixture: {_db(20 * np.log10(entry.gain))}</p>')
    numbers = {id(sound): i for i, sound in enumerate(entry.sounds)}
    groups = [_group("", [_lane(entry.sound, 0, entry, moment)], entry)]
    for source in entry.sources:
        lanes = [
            _lane(lane, numbers[id(lane)], entry, moment) if isinstance(lane, Sound) else _missing(lane)
            for lane in source.lanes
        ]
        place = f' <span class="soft">{source.about}</span>' if source.about else ""
        groups.append(_group(f"<h3>{html.escape(source.title)}{place}</h3>", lanes, entry))
    return (
        f'<div class="head"><h2 tabindex="-1">{html.escape(utt)}</h2><div>{words}</div></div>'
        f'<div class="facts"><div>{"".join(about)}</div>{_plan(entry)}</div>{"".join(groups)}'
    )


def _group(head: str, lanes: Sequence[str], entry: Entry) -> str:
    seconds = len(entry.sound.waveform) / entry.fs
    return (
        f'<div class="group">{head}{"".join(lanes)}'
        f'<div class="time" aria-hidden="true"><div>{_ticks(seconds, "left", " s")}</div></div></div>'
    )


def _lane(sound: Sound, number: int, entry: Entry, moment: float) -> str:
    seconds, khz = len(sound.waveform) / entry.fs, entry.fs / 2000
    title = html.escape(sound.title)
    lines = "".join(f"<p>{line}</p>" for line in sound.lines if line)
    key = f" <kbd>{number}</kbd>" if number < 10 else ""
    name, file = html.escape(urllib.parse.quote(f"{sound.file}.png")), html.escape(f"{sound.file}.flac")
    frequencies = _ticks(khz, "bottom", "<b> kHz</b>")
    return (
        f'<div class="lane" data-sound="{number}" data-kind="{sound.kind}"><div class="what"><h4>{title}</h4>{lines}'
        f'<div class="buttons"><button type="button" class="solo" aria-pressed="false" aria-label="Solo: {title}">'
        f'Solo{key}</button><button type="button" class="add" aria-pressed="false" aria-label="Add: {title}">Add'
        f'</button><button type="button" class="save" aria-label="Save: {title}" data-name="{file}">'
        f'Save</button></div></div><div class="frequency" aria-hidden="true">{frequencies}</div>'
        f'<div class="view"><img src="{name}" loading="lazy" alt="Spectrogram of {title}, 0 to {seconds:g} s, 0 to '
        f'{khz:g} kHz">{_envelope(sound, moment)}<i class="cursor"></i></div></div>'
    )


def _missing(lane: Missing) -> str:
    title, text = html.escape(lane.title), html.escape(lane.text)
    return (
        f'<div class="lane none"><div class="what"><h4 class="bad">{title}</h4></div><p class="soft">{text}</p></div>'
    )


def _envelope(sound: Sound, moment: float) -> str:
    """The level over time as a filled curve, under the spectrogram and as wide."""
    levels = spectrogram.level(spectrogram.envelope(sound.waveform), moment, ENVELOPE_DB)
    points = " ".join(f"{i},{-x:.0f}" for i, x in enumerate(levels))
    title = html.escape(sound.title)
    return (
        f'<svg class="envelope" viewBox="0 0 {len(levels) - 1} {ENVELOPE_DB}" preserveAspectRatio="none" role="img" '
        f'aria-label="Energy envelope of {title}, highest {levels.max():.0f} dB"><polygon points="0,{ENVELOPE_DB} '
        f'{points} {len(levels) - 1},{ENVELOPE_DB}"/></svg>'
    )


def _plan(entry: Entry) -> str:
    """The sources around the microphone, seen from above, front at the top."""
    marks = []
    for slot, points in enumerate(entry.places):
        spots = []
        for point in points:
            # Farther in where a source stands above or below: its place on a sphere seen from above.
            angle, radius = np.radians(point.azimuth), 38 * np.cos(np.radians(point.elevation))
            spots.append((50 - radius * np.sin(angle), 50 - radius * np.cos(angle)))
        if len(spots) > 1:
            marks.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in spots)}"/>')
        for x, y in spots[:1]:
            marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8"/>')
            marks.append(f'<text x="{x:.1f}" y="{y + 4:.1f}">{slot + 1}</text>')
    if not marks:
        return ""
    return (
        '<figure class="plan"><svg viewBox="0 0 100 100" role="img" aria-label="Sources around the microphone, seen '
        'from above, front at the top"><circle class="rim" cx="50" cy="50" r="38"/><path class="rim" '
        f'd="M50 44V56M44 50H56"/><text class="rim" x="50" y="9">front</text>{"".join(marks)}</svg></figure>'
    )


def _ticks(end: float, side: str, unit: str) -> str:
    """Round numbers from 0 to ``end`` at their places along an axis, the last one with the unit."""
    step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 4, 5, 10, 20, 30, 60) if end / s <= 5), end / 5)
    marks = []
    count = int(end / step + 1e-6)
    for i in range(count + 1):
        share = 100 * i * step / end
        last = (" class=top" if side == "bottom" else " class=end") if share > 99 else ""
        marks.append(f'<span{last} style="{side}: {share:.2f}%">{i * step:g}{unit if i == count else ""}</span>')
    return "".join(marks)


def _label_list(names: Sequence[str]) -> str:
    return html.escape(", ".join(labels_of(list(names)))) or '<span class="soft">none</span>'


def _capi(mixture: Mixture) -> str:
    value = improvement(mixture)
    return "–" if value is None else _db(value).removesuffix(" dB") + '<span class="unit"> dB</span>'
