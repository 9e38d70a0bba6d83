"""The listening page: mixtures, their references and the estimates of one or more systems, to hear and to see.

One folder that opens from disk in any browser without a network. index.html holds the table of the mixtures; what is
shown and heard of one comes with a script of its own (a page from disk may load scripts and images, but read no files),
when it is asked for: its description as HTML and its sounds as FLAC in base64. Spectrograms are PNG files.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from s5.data import read_audio
from s5.inference.results import Results
from s5.labels import SILENCE
from s5.report.choose import Mixture, choose, improvement, labels_of, same_class, wrong_labels
from s5.report.direction import Direction, directions
from s5.report.results import Result
from s5.report.template import render
from s5.utils import spectrogram
from s5.utils.errors import InputError
from s5.utils.files import atomic_folder

PEAK = 0.5
"""Peak of a mixture's audio copy; its references and estimates get the same gain."""

ENVELOPE_DB = 60
"""Range of the envelopes below the loudest moment of the mixture."""


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
        number: its place on the page, 0 for the mixture.
        levels: its envelope in dB below the loudest moment of the mixture.
        label_given: an estimate whose system was given the label.
        confidence: of the label; None where it is not known.
        sdri: improvement of an estimate over the mixture, in dB.
        sdr: SDR of the mixture and of the estimate, in dB.
    """

    heard: ClassVar[bool] = True
    file: str
    title: str
    waveform: np.ndarray
    kind: str
    number: int = 0
    levels: list[float] = field(default_factory=list)
    label_given: bool = False
    confidence: float | None = None
    sdri: float | None = None
    sdr: tuple[float, float] | None = None


@dataclass
class Missing:
    """In place of a sound: why there is none."""

    heard: ClassVar[bool] = False
    title: str
    text: str


@dataclass(frozen=True)
class Answer:
    """What a system says of one mixture.

    Attributes:
        letter: the system's letter.
        name: its name.
        labels: the labels that it gives.
        wrong: they are not those of the references.
        oracle: it was given the labels.
        value: CAPI-SDRi of the mixture in dB.
    """

    letter: str
    name: str
    labels: list[str]
    wrong: bool
    oracle: bool
    value: float | None


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
    with atomic_folder(out) as folder:
        rows = []
        for number, (mixture, words) in enumerate(chosen):
            entry = _entry(mixture, words, data, columns)
            _write_files(folder, number, entry, columns)
            rows.append(_row(number, mixture, columns))  # no samples: they need not stay in memory
        text = render(
            "page.html.j2",
            title=f"Listen: {results[0].system} on {results[0].set}",
            total=len(columns[0].mixtures),
            systems=columns,
            menus=_menus(rows, columns),
            rows=rows,
            range_db=spectrogram.RANGE_DB,
            colours=spectrogram.colours(12).tolist(),
        )
        (folder / "index.html").write_text(text, encoding="utf-8")
    return len(chosen)


def _entry(mixture: Mixture, words: list[str], data: Data, columns: Sequence[_Column]) -> Entry:
    utt = mixture["utt"]
    scores = Results(columns[0].result.path).scores_file
    if utt not in data.labels:
        raise InputError(scores, f"mixture {utt}", "mixtures of the data directory")
    labels = data.labels[utt]
    for column in columns:
        column.check(utt, labels)
    samples, fs = data.mixture(utt)
    references = data.sources(utt)
    sound = Sound(f"{utt}_mixture", "Mixture, channel 0", samples[0], "mixture")
    takes = [_SystemEstimates(column, utt, len(samples[0]), fs) for column in columns]
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
    loudest = float(spectrogram.envelope(sound.waveform).max())
    for number, one in enumerate(entry.sounds):
        one.number = number
        one.levels = spectrogram.level(spectrogram.envelope(one.waveform), loudest, ENVELOPE_DB).tolist()
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
        self.files = Results(result.path).estimates.find(self.mixtures)
        self.name = f"{result.system}, {result.labels} labels"
        self.value: float | None = result.scores["metrics"].get("CAPI-SDRi")

    def check(self, utt: str, labels: Sequence[str]) -> None:
        """Complains where the scores are not of this mixture with these references."""
        scores = Results(self.result.path).scores_file
        if utt not in self.mixtures:
            raise InputError(scores, f"no mixture {utt}", "the mixtures of the data directory (score again)")
        names = self.mixtures[utt]["ref_labels"]
        if list(labels) != labels_of(names):  # pairs count references in this order
            found, expected = " ".join(names), " ".join(labels)
            raise InputError(
                f"{scores}: mixture {utt}", f"references [{found}]", f"[{expected}] of the data directory (score again)"
            )

    def answer(self, utt: str) -> Answer:
        """What the system says of a mixture."""
        m = self.mixtures[utt]
        labels = labels_of(m["est_labels"])
        return Answer(self.letter, self.name, labels, wrong_labels(m), self.result.oracle, improvement(m))


class _SystemEstimates:
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
                Results(self.result.path).scores_file, f"slot {slot} of {self.utt}", f"a slot below {len(labels)}"
            )
        label, letter = labels[slot], self.column.letter
        probabilities = self.mixture.get("probabilities") or []
        name = f"{self.utt}_{letter}{slot}_{label}"
        sound = Sound(name, f"System {letter}: {label}", self._read(slot, label), letter)
        sound.label_given = self.result.oracle
        sound.confidence = probabilities[slot] if slot < len(probabilities) else None
        pair = self.pair_of.get(slot, {})
        sound.sdri = pair.get("sdri")
        if pair.get("sdr") is not None and pair.get("sdr_mixture") is not None:
            sound.sdr = pair["sdr_mixture"], pair["sdr"]
        return sound

    def false_alarms(self) -> list[Sound]:
        """Estimates that were paired with no reference."""
        slots = [slot for slot, label in enumerate(self.mixture["est_labels"]) if label != SILENCE]
        return [self.estimate(slot) for slot in slots if slot not in self.pair_of]

    def _read(self, slot: int, label: str) -> np.ndarray:
        if slot not in self.files or self.files[slot].label != label:
            expected = Results(self.result.path).estimates.path(self.utt, slot, label)
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
    loudest = float(picture.max())
    for sound in entry.sounds:
        if sound is not entry.sound:
            picture = spectrogram.power(sound.waveform, entry.fs)
        spectrogram.save_png(folder / f"{sound.file}.png", picture, loudest)
    content = {
        "html": render("mixture.html.j2", **_view(entry, columns)),
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


# --- what the templates are filled with ---------------------------------------------------------------------------


def _row(number: int, mixture: Mixture, columns: Sequence[_Column]) -> dict[str, Any]:
    """A mixture's row of the table; its facts are what the page's script filters and sorts by."""
    utt, answers = mixture["utt"], [column.answer(mixture["utt"]) for column in columns]
    references = labels_of(mixture["ref_labels"])
    facts = {
        "utt": utt,
        "labels": sorted({label for labels in (references, *(a.labels for a in answers)) for label in labels}),
        "count": len(references),
        "same": same_class(mixture),
        "wrong": [answer.letter for answer in answers if answer.wrong],
        "values": {answer.letter: answer.value for answer in answers},
    }
    return {
        "utt": utt,
        "script": _script(number),
        "references": references,
        "answers": answers,
        "facts": json.dumps(facts),
        "labels": facts["labels"],
    }


def _menus(rows: Sequence[dict[str, Any]], columns: Sequence[_Column]) -> list[dict[str, Any]]:
    """The choices above the table; only what occurs is offered."""
    classes = sorted({label for row in rows for label in row["labels"]})
    counts = sorted({len(row["references"]) for row in rows})
    orders = {"": "as chosen", "name": "name"}
    for c in columns:
        orders |= {f"worst {c.letter}": f"worst of {c.letter} first", f"best {c.letter}": f"best of {c.letter} first"}
    for c in columns[1:]:
        orders[f"gain {c.letter}"] = f"{c.letter} most above A first"
        orders[f"loss {c.letter}"] = f"{c.letter} most below A first"
    labels = {"": "any", "same": "two sources of a class"}
    for c in columns:
        labels |= {f"wrong {c.letter}": f"{c.letter} wrong", f"right {c.letter}": f"{c.letter} right"}
    return [
        {"id": "class", "title": "Class", "options": {"": "any"} | {name: name for name in classes}},
        {"id": "count", "title": "Sources", "options": {"": "any"} | {n: n for n in counts}},
        {"id": "labels", "title": "Labels", "options": labels},
        {"id": "order", "title": "Order", "options": orders},
    ]


def _view(entry: Entry, columns: Sequence[_Column]) -> dict[str, Any]:
    """What is shown of one mixture."""
    seconds, khz = len(entry.sound.waveform) / entry.fs, entry.fs / 2000
    return {
        "entry": entry,
        "references": labels_of(entry.mixture["ref_labels"]),
        "answers": [column.answer(entry.mixture["utt"]) for column in columns],
        "gain_db": 20 * np.log10(entry.gain),
        "envelope_db": ENVELOPE_DB,
        "plan_spots": [[_spot(point) for point in points] for points in entry.places],
        "seconds": seconds,
        "second_ticks": _ticks(seconds),
        "khz": khz,
        "khz_ticks": _ticks(khz),
    }


def _spot(point: Direction) -> tuple[float, float]:
    """Place on the plan of 100 by 100. Farther in where a source stands above or below, as on a sphere from above."""
    angle, radius = np.radians(point.azimuth), 38 * np.cos(np.radians(point.elevation))
    return 50 - radius * np.sin(angle), 50 - radius * np.cos(angle)


def _ticks(end: float) -> list[dict[str, float]]:
    """Round numbers from 0 to ``end`` at their places along an axis."""
    step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 4, 5, 10, 20, 30, 60) if end / s <= 5), end / 5)
    return [{"value": i * step, "percent": 100 * i * step / end} for i in range(int(end / step + 1e-6) + 1)]
