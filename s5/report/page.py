"""Writes the listening page: mixtures, references and estimates of one or more systems, as sounds and pictures.

The page is a folder that opens from disk in any browser without a network. index.html holds the table of mixtures. A
page from disk may load scripts and images but not read files, so each mixture has a script, which is loaded when the
mixture is chosen: its description as HTML and its sounds as FLAC in base64. Spectrograms are PNG files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from s5.data import DataDir, read_audio
from s5.inference.results import Results
from s5.labels import SILENCE
from s5.metrics.labels import active
from s5.report.choose import Mixture, choose, improvement, same_class, wrong_labels
from s5.report.direction import Direction, directions
from s5.report.results import Bound, Result
from s5.report.template import flac, render
from s5.utils import spectrogram
from s5.utils.errors import InputError
from s5.utils.files import atomic_folder

PEAK = 0.5
"""Peak of a mixture on the page; its references and estimates get the same gain."""

ENVELOPE_DB = 60
"""Range of the envelopes in dB below the loudest moment of the mixture."""


@dataclass
class Sound:
    """A sound of the page with the text beside it.

    Attributes:
        file: name of its picture without suffix.
        title: its title.
        waveform: samples [T].
        kind: ``mixture``, ``reference``, or the letter of the system that estimated it.
        number: its position on the page; the mixture has 0.
        levels: its envelope in dB relative to the loudest moment of the mixture.
        reference: slot of the reference that an estimate was paired with.
        label_given: whether the system was given the label of an estimate.
        confidence: probability of the label, if it is known.
        active: probability of a slot to be active, if it is known.
        sdri: improvement of an estimate over the mixture in dB.
        sdr: SDR of the mixture and of the estimate in dB.
    """

    heard: ClassVar[bool] = True
    file: str
    title: str
    waveform: np.ndarray
    kind: str
    number: int = 0
    levels: list[float] = field(default_factory=list)
    reference: int | None = None
    label_given: bool = False
    confidence: float | None = None
    active: float | None = None
    sdri: float | None = None
    sdr: tuple[float, float] | None = None


@dataclass
class Missing:
    """Takes the place of a sound that does not exist; ``text`` is the reason."""

    heard: ClassVar[bool] = False
    title: str
    text: str


@dataclass
class Source:
    """A source's reference and all systems' estimates of it, in the order of the page."""

    title: str
    about: str
    lanes: list[Sound | Missing]


@dataclass
class Passes:
    """The slots of an objects system after each of its passes.

    Attributes:
        title: name of the system.
        groups: a group of sounds a pass.
    """

    title: str
    groups: list[Source]


@dataclass
class Entry:
    """A mixture of the page.

    Attributes:
        mixture: its entry in the first system's scores.json.
        words: words of :func:`s5.report.choose.choose` that describe it.
        fs: sampling rate in Hz.
        sound: channel 0 of the mixture.
        sources: its references, then the false alarms.
        places: directions of the references, from :func:`s5.report.direction.directions`.
        passes: slots of the systems that show them.
        gain: factor of all its sounds.
    """

    mixture: Mixture
    words: list[str]
    fs: int
    sound: Sound
    sources: list[Source]
    places: list[list[Direction]]
    passes: list[Passes] = field(default_factory=list)
    gain: float = 1.0

    @property
    def sounds(self) -> list[Sound]:
        """All sounds in the order of the page, the mixture first."""
        groups = [*self.sources, *(group for one in self.passes for group in one.groups)]
        return [self.sound, *(x for group in groups for x in group.lanes if isinstance(x, Sound))]


def write_page(
    out: str | Path, data: DataDir, results: Sequence[Result], n_mixtures: int = 12, bounds: Sequence[Bound] = ()
) -> int:
    """Writes the page of one data set. An older page is replaced in one step at the end.

    Args:
        out: folder to write, e.g. ``exp/<system>/<set>/report``.
        data: data directory of the set.
        results: results on the set, called A, B, ... on the page. The first one decides which mixtures are shown.
        n_mixtures: largest number of mixtures to show.
        bounds: floors and ceilings of the set.

    Returns:
        Number of mixtures shown.

    Raises:
        InputError: an estimate is missing or damaged, or scores and data do not fit together.
    """
    chosen = choose(results[0].scores["mixtures"], n_mixtures)
    columns = [_Column(chr(ord("A") + i), result) for i, result in enumerate(results)]
    limits = [_Limit(bound) for bound in bounds]
    with atomic_folder(out) as folder:
        rows = []
        for number, (mixture, words) in enumerate(chosen):
            entry = _entry(mixture, words, data, columns)
            _write_files(folder, number, entry, columns, limits)
            rows.append(_row(number, mixture, columns))  # without samples, which are freed here
        text = render(
            "page.html.j2",
            title=f"Listen: {results[0].system} on {results[0].set}",
            total=len(columns[0].mixtures),
            systems=columns,
            bounds=limits,
            menus=_menus(rows, columns),
            rows=rows,
            range_db=spectrogram.RANGE_DB,
            colours=spectrogram.colours(12).tolist(),
        )
        (folder / "index.html").write_text(text, encoding="utf-8")
    return len(chosen)


def _entry(mixture: Mixture, words: list[str], data: DataDir, columns: Sequence[_Column]) -> Entry:
    utt = mixture["utt"]
    if utt not in data.labels:
        raise InputError(columns[0].scores_file, f"mixture {utt}", "mixtures of the data directory")
    labels = data.labels[utt]
    for column in columns:
        column.check(utt, labels)
    samples, fs = data.mixture(utt)
    references = data.sources(utt)
    sound = Sound(f"{utt}_mixture", "Mixture, channel 0", samples[0], "mixture")
    estimates = [column.estimates(utt, len(samples[0]), fs) for column in columns]
    places = _places(data.scene_path(utt), labels)
    sources = []
    for slot, label in enumerate(labels):
        lanes: list[Sound | Missing] = [
            Sound(f"{utt}_reference{slot}_{label}", "Reference", references[slot], "reference")
        ]
        for column, found in zip(columns, estimates, strict=True):
            missed = Missing(f"System {column.letter}: ✗ missed", "It has no estimate for this reference.")
            lanes.append(next((one for one in found if one.reference == slot), missed))
        sources.append(Source(f"Source {slot + 1}: {label}", _place_words(places[slot]), lanes))
    for column, found in zip(columns, estimates, strict=True):
        about = f"System {column.letter} has an estimate for which there is no reference."
        sources += [Source("✗ False alarm", about, [one]) for one in found if one.reference is None]
    passes = [one for column in columns for one in column.passes(utt, len(samples[0]))]
    entry = Entry(mixture, words, fs, sound, sources, places, passes)
    peak = float(np.abs(sound.waveform).max(initial=0))
    highest = max(float(np.abs(s.waveform).max(initial=0)) for s in entry.sounds)
    if peak > 0:
        entry.gain = min(PEAK / peak, 0.99 / highest)  # the second term keeps loud estimates from clipping
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
    """A result on the page: system A, B, ..."""

    def __init__(self, letter: str, result: Result) -> None:
        self.letter, self.result = letter, result
        results = Results(result.path)
        self.scores_file, self.folder, self.separated = results.scores_file, results.estimates, results.separated
        self.mixtures: dict[str, Mixture] = {m["utt"]: m for m in result.scores["mixtures"]}
        self.files = self.folder.find(self.mixtures)
        self.name = f"{result.system}, {result.labels} labels"
        self.value: float | None = result.scores["metrics"].get("CAPI-SDRi")

    def check(self, utt: str, labels: Sequence[str]) -> None:
        """Raises InputError unless the scores include this mixture with these references."""
        if utt not in self.mixtures:
            raise InputError(self.scores_file, f"no mixture {utt}", "the mixtures of the data directory (score again)")
        names = self.mixtures[utt]["ref_labels"]
        if list(labels) != active(names):  # pairs count references in this order
            expected = f"[{' '.join(labels)}] of the data directory (score again)"
            raise InputError(f"{self.scores_file}: mixture {utt}", f"references [{' '.join(names)}]", expected)

    def answer(self, utt: str) -> dict[str, Any]:
        """The system's labels of a mixture and its score, for the templates."""
        m = self.mixtures[utt]
        return {
            "letter": self.letter,
            "name": self.name,
            "labels": active(m["est_labels"]),
            "wrong": wrong_labels(m),
            "oracle": self.result.oracle,
            "value": improvement(m),
        }

    def estimates(self, utt: str, n_samples: int, fs: int) -> list[Sound]:
        """The system's estimates of a mixture."""
        mixture = self.mixtures[utt]
        labels, probabilities = mixture["est_labels"], mixture.get("probabilities") or []
        pairs = {int(pair["est"]): pair for pair in mixture["pairs"]}
        if beyond := [slot for slot in pairs if slot >= len(labels)]:
            raise InputError(self.scores_file, f"slot {beyond[0]} of {utt}", f"a slot below {len(labels)}")
        found = []
        for slot, label in enumerate(labels):
            if label == SILENCE:
                continue
            name, title = f"{utt}_{self.letter}{slot}_{label}", f"System {self.letter}: {label}"
            sound = Sound(name, title, self._read(utt, slot, label, n_samples, fs), self.letter)
            sound.label_given = self.result.oracle
            sound.confidence = probabilities[slot] if slot < len(probabilities) else None
            if slot in pairs:
                pair = pairs[slot]
                sound.reference, sound.sdri = int(pair["ref"]), pair.get("sdri")
                if pair.get("sdr") is not None and pair.get("sdr_mixture") is not None:
                    sound.sdr = pair["sdr_mixture"], pair["sdr"]
            found.append(sound)
        return found

    def passes(self, utt: str, n_samples: int) -> list[Passes]:
        """The slots after each pass of an objects system; nothing of another system, and with true labels."""
        found = [] if self.result.oracle else self.separated.read_passes(utt)
        groups = []
        for number, one in enumerate(found):
            if one.waveforms.shape[1] != n_samples:
                raise InputError(self.separated.folder, f"{one.waveforms.shape[1]} samples of {utt}", f"{n_samples}")
            title = f"Pass {number}: {'extraction' if number else 'universal separation'}"
            lanes: list[Sound | Missing] = []
            for slot, (label, waveform) in enumerate(zip(one.labels, one.waveforms, strict=True)):
                name = f"{utt}_{self.letter}_pass{number}_{slot}_{label}"
                about = f"Slot {slot + 1}: {label}"
                sound = Sound(name, about, waveform, f"pass {self.letter}{number}")
                sound.confidence, sound.active = float(one.probability[slot]), float(one.active[slot])
                lanes.append(sound if waveform.any() else Missing(about, "It is silent after an earlier pass."))
            groups.append(Source(title, f"System {self.letter}", lanes))
        return [Passes(f"System {self.letter}: its slots after each pass", groups)] if groups else []

    def _read(self, utt: str, slot: int, label: str, n_samples: int, fs: int) -> np.ndarray:
        file = self.files[utt].get(slot)
        if file is None or file.label != label:
            expected = self.folder.path(utt, slot, label)
            raise InputError(expected, "no such file", "the estimates that were scored (stages 10 and 11)")
        samples, rate = read_audio(file.path)
        if rate != fs or samples.shape != (1, n_samples):
            found = f"{samples.shape[0]} channels, {samples.shape[1]} samples at {rate} Hz"
            raise InputError(file.path, found, f"1 channel, {n_samples} samples at {fs} Hz as in the mixture")
        return samples[0]


class _Limit:
    """A floor or ceiling on the page."""

    def __init__(self, bound: Bound) -> None:
        self.name = bound.system
        self.value: float | None = bound.scores["metrics"].get("CAPI-SDRi")
        self._mixtures: dict[str, Mixture] = {m["utt"]: m for m in bound.scores["mixtures"]}

    def of(self, mixture: Mixture) -> float | None:
        """CAPI-SDRi of a mixture; None if it is unknown or has other references now."""
        own = self._mixtures.get(mixture["utt"])
        return improvement(own) if own and own["ref_labels"] == mixture["ref_labels"] else None


def _write_files(folder: Path, number: int, entry: Entry, columns: Sequence[_Column], limits: Sequence[_Limit]) -> None:
    """Writes the pictures and the script of a mixture; all sounds have one gain, all pictures one colour scale."""
    picture = spectrogram.power(entry.sound.waveform, entry.fs)
    loudest = float(picture.max())
    for sound in entry.sounds:
        if sound is not entry.sound:
            picture = spectrogram.power(sound.waveform, entry.fs)
        spectrogram.save_png(folder / f"{sound.file}.png", picture, loudest)
    content = {
        "html": render("mixture.html.j2", **_view(entry, columns, limits)),
        "seconds": len(entry.sound.waveform) / entry.fs,
        "fs": entry.fs,
        "sounds": [flac(sound.waveform * entry.gain, entry.fs) for sound in entry.sounds],
    }
    (folder / _script(number)).write_text(f"s5page.arrived({number}, {json.dumps(content)});\n", encoding="utf-8")


def _script(number: int) -> str:
    return f"mixture{number:04d}.js"


# --- values for the templates ---------------------------------------------------------------------------------------


def _row(number: int, mixture: Mixture, columns: Sequence[_Column]) -> dict[str, Any]:
    """A mixture's row of the table; the page's script filters and sorts by its facts."""
    utt, answers = mixture["utt"], [column.answer(mixture["utt"]) for column in columns]
    references = active(mixture["ref_labels"])
    facts = {
        "utt": utt,
        "labels": sorted({*references, *(label for answer in answers for label in answer["labels"])}),
        "count": len(references),
        "same": same_class(mixture),
        "wrong": [answer["letter"] for answer in answers if answer["wrong"]],
        "values": {answer["letter"]: answer["value"] for answer in answers},
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
    """The menus above the table, with the choices that occur."""
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


def _view(entry: Entry, columns: Sequence[_Column], limits: Sequence[_Limit]) -> dict[str, Any]:
    """Values for the view of one mixture."""
    seconds, khz = len(entry.sound.waveform) / entry.fs, entry.fs / 2000
    return {
        "entry": entry,
        "references": active(entry.mixture["ref_labels"]),
        "answers": [column.answer(entry.mixture["utt"]) for column in columns],
        "bounds": [(limit.name, value) for limit in limits if (value := limit.of(entry.mixture)) is not None],
        "gain_db": 20 * np.log10(entry.gain),
        "envelope_db": ENVELOPE_DB,
        "plan_spots": [[_spot(point) for point in points] for points in entry.places],
        "seconds": seconds,
        "second_ticks": _ticks(seconds),
        "khz": khz,
        "khz_ticks": _ticks(khz),
    }


def _spot(point: Direction) -> tuple[float, float]:
    """Position on the plan of 100 by 100, which shows a sphere around the microphone from above."""
    angle, radius = np.radians(point.azimuth), 38 * np.cos(np.radians(point.elevation))
    return 50 - radius * np.sin(angle), 50 - radius * np.cos(angle)


def _ticks(end: float) -> list[dict[str, float]]:
    """Round numbers from 0 to ``end`` with their positions along an axis in percent."""
    step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 4, 5, 10, 20, 30, 60) if end / s <= 5), end / 5)
    return [{"value": i * step, "percent": 100 * i * step / end} for i in range(int(end / step + 1e-6) + 1)]
