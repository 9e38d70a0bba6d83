"""The listening page: mixtures, their references and the system's estimates, as sound and as spectrograms.

One folder that opens from disk in any browser without a network: index.html with relative links to FLAC and PNG files.
"""

from __future__ import annotations

import glob
import html
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from s5.errors import InputError
from s5.labels import SILENCE
from s5.report import spectrogram
from s5.report.choose import Mixture, choose, improvement, labels_of, wrong_labels
from s5.report.results import Result

PEAK = 0.5
"""Peak of a mixture's audio copy; its references and estimates get the same gain."""

_HERE = Path(__file__).parent


class Data(Protocol):
    """What the page needs of a data directory; :class:`s5.data.DataDir` is one."""

    labels: dict[str, tuple[str, ...]]

    def mixture(self, utt: str) -> tuple[np.ndarray, int]:
        """Mixture [M, T] and its sampling rate in Hz."""

    def sources(self, utt: str) -> np.ndarray:
        """Dry targets [n_slots, T] in the order of ``labels[utt]``."""


@dataclass
class Sound:
    """One player of the page: a waveform [T] with what is written above it."""

    name: str
    title: str
    waveform: np.ndarray
    lines: list[str] = field(default_factory=list)


@dataclass
class Entry:
    """One mixture of the page.

    Attributes:
        mixture: its entry in scores.json (tagged labels, or oracle labels where there are no others).
        words: what it stands for.
        fs: sampling rate in Hz.
        sound: channel 0 of the mixture.
        rows: one a source: the reference, then the estimate of every result; a string says why there is no sound.
        gain: factor of all audio copies.
    """

    mixture: Mixture
    words: list[str]
    fs: int
    sound: Sound
    rows: list[list[Sound | str]]
    gain: float


def write_page(out: str | Path, data: Data, results: Sequence[Result], n_mixtures: int = 12) -> int:
    """Writes the page of one data set. An older page at ``out`` is replaced at the end, in one step.

    Args:
        out: folder to write, e.g. ``exp/<system>/<set>/report``.
        data: the data directory of the set.
        results: results of one system on the set, the first one decides which mixtures are shown.
        n_mixtures: number of mixtures to show at most.

    Returns:
        Number of mixtures shown.

    Raises:
        InputError: an estimate is missing or broken, or scores and data disagree.
    """
    chosen = choose(results[0].scores["mixtures"], n_mixtures)
    with _replaced(Path(out)) as folder:
        sections = []
        for mixture, words in chosen:
            entry = _entry(mixture, words, data, results)
            _write_files(folder, entry)
            sections.append(_section(entry, results))  # text only: the samples need not stay in memory
        text = _document([mixture for mixture, _ in chosen], sections, results)
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


def _entry(mixture: Mixture, words: list[str], data: Data, results: Sequence[Result]) -> Entry:
    utt = mixture["utt"]
    scores = results[0].path / "scores.json"
    if utt not in data.labels:
        raise InputError(scores, f"mixture {utt}", "mixtures of the data directory")
    if list(data.labels[utt]) != labels_of(mixture["ref_labels"]):  # pairs count references in this order
        found, expected = " ".join(mixture["ref_labels"]), " ".join(data.labels[utt])
        raise InputError(
            f"{scores}: mixture {utt}", f"references [{found}]", f"[{expected}] of the data directory (score again)"
        )
    samples, fs = data.mixture(utt)
    references = data.sources(utt)
    labels = data.labels[utt]
    sound = Sound(f"{utt}_mixture", "Mixture, channel 0", samples[0])
    columns = [_Column(result, utt, len(samples[0]), fs) for result in results]
    rows: list[list[Sound | str]] = []
    for slot, label in enumerate(labels):
        row: list[Sound | str] = [Sound(f"{utt}_reference{slot}_{label}", f"Reference: {label}", references[slot])]
        for column in columns:
            paired = column.of_reference.get(slot)
            row.append("missed" if paired is None else column.estimate(paired))
        rows.append(row)
    alarms = [column.false_alarms() for column in columns]
    for i in range(max(map(len, alarms))):
        # A column without a false alarm in this row stays empty.
        rows.append(["false alarm", *(alarm[i] if i < len(alarm) else "" for alarm in alarms)])
    entry = Entry(mixture, words, fs, sound, rows, gain=1.0)
    peak = float(np.abs(sound.waveform).max(initial=0))
    highest = max(float(np.abs(s.waveform).max(initial=0)) for s in _sounds(entry))
    if peak > 0:
        entry.gain = min(PEAK / peak, 0.99 / highest)  # the second: nothing clips, whatever a system puts out
    return entry


class _Column:
    """One result's estimates of one mixture."""

    def __init__(self, result: Result, utt: str, n_samples: int, fs: int) -> None:
        self.result, self.utt, self.n_samples, self.fs = result, utt, n_samples, fs
        found = [m for m in result.scores["mixtures"] if m["utt"] == utt]
        if not found:
            raise InputError(
                result.path / "scores.json", f"no mixture {utt}", "the mixtures of the data directory (score again)"
            )
        self.mixture: Mixture = found[0]
        self.files = _estimate_files(result.path / "estimates", utt)
        self.of_reference = {int(pair["ref"]): int(pair["est"]) for pair in self.mixture["pairs"]}
        self.pair_of = {int(pair["est"]): pair for pair in self.mixture["pairs"]}

    def estimate(self, slot: int) -> Sound:
        labels = self.mixture["est_labels"]
        if slot >= len(labels):
            raise InputError(
                self.result.path / "scores.json", f"slot {slot} of {self.utt}", f"a slot below {len(labels)}"
            )
        label = labels[slot]  # slots count the active ones, as scores do
        probabilities = self.mixture.get("probabilities") or []
        title = "Estimate, oracle label: " if self.result.oracle else "Estimate: "
        sound = Sound(f"{self.utt}_{self.result.labels}{slot}_{label}", title + label, self._read(slot, label))
        if not self.result.oracle and slot < len(probabilities) and probabilities[slot] is not None:
            sound.lines.append(f'probability <span class="number">{probabilities[slot]:.2f}</span>')
        if (pair := self.pair_of.get(slot)) is not None:
            sound.lines.append(_improvement(pair))
        return sound

    def false_alarms(self) -> list[Sound]:
        slots = [slot for slot, label in enumerate(self.mixture["est_labels"]) if label != SILENCE]
        return [self.estimate(slot) for slot in slots if slot not in self.pair_of]

    def _read(self, slot: int, label: str) -> np.ndarray:
        import soundfile

        expected = self.result.path / "estimates" / f"{self.utt}_<slot>_{label}.wav"
        if slot >= len(self.files) or self.files[slot].stem.rpartition("_")[2] != label:
            raise InputError(expected, "no such file", "the estimates that were scored (stages 10 and 11)")
        file = self.files[slot]
        try:
            samples, fs = soundfile.read(file, dtype="float32", always_2d=True)
        except (OSError, soundfile.SoundFileError) as e:
            raise InputError(file, "no audio", "an estimate that stage 10 writes") from e
        if fs != self.fs or samples.shape != (self.n_samples, 1):
            found = f"{samples.shape[1]} channels, {len(samples)} samples at {fs} Hz"
            raise InputError(file, found, f"1 channel, {self.n_samples} samples at {self.fs} Hz as in the mixture")
        return samples[:, 0]


def _estimate_files(folder: Path, utt: str) -> list[Path]:
    """Estimates of a mixture by slot. A gate may have silenced a slot between two others: numbers may have gaps."""
    form = re.compile(re.escape(utt) + r"_(\d+)_[^_]+\.wav")
    found = {int(m[1]): file for file in folder.glob(f"{glob.escape(utt)}_*.wav") if (m := form.fullmatch(file.name))}
    return [found[slot] for slot in sorted(found)]


def _sounds(entry: Entry) -> Iterator[Sound]:
    yield entry.sound
    for row in entry.rows:
        yield from (cell for cell in row if isinstance(cell, Sound))


def _write_files(folder: Path, entry: Entry) -> None:
    """FLAC and PNG of every sound of an entry, all with one gain and one colour scale."""
    import soundfile

    reference: float | None = None
    for sound in _sounds(entry):
        picture = spectrogram.power(sound.waveform, entry.fs)
        if reference is None:  # the mixture comes first
            reference = float(picture.max())
        spectrogram.save_png(folder / f"{sound.name}.png", picture, reference)
        soundfile.write(folder / f"{sound.name}.flac", sound.waveform * entry.gain, entry.fs, subtype="PCM_16")


def _improvement(pair: dict[str, Any]) -> str:
    if pair.get("sdri") is None:
        return ""
    text = f'SDRi <span class="number"><strong>{_db(pair["sdri"])}</strong></span>'
    if pair.get("sdr") is not None and pair.get("sdr_mixture") is not None:
        text += f' <span class="soft number">(SDR {_db(pair["sdr_mixture"])} → {_db(pair["sdr"])})</span>'
    return text


def _db(value: float) -> str:
    return f"{value:+.1f} dB".replace("-", "−")


# --- HTML ---------------------------------------------------------------------------------------------------------


def _document(mixtures: Sequence[Mixture], sections: Sequence[str], results: Sequence[Result]) -> str:
    first = results[0]
    title = html.escape(f"Listen: {first.system} on {first.set}")
    css, js = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    body = "\n".join(sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{css}</style>
</head>
<body style="--columns: {len(results) + 1}">
<h1>{title}</h1>
{_introduction(len(mixtures), results)}
{_overview(mixtures)}
{body}
<script>
{js}</script>
</body>
</html>
"""


def _introduction(shown: int, results: Sequence[Result]) -> str:
    parts = []
    for result in results:
        value = result.scores["metrics"].get("CAPI-SDRi")
        if value is not None:
            parts.append(f'<span class="number">{_db(value)}</span> with {result.labels} labels')
    mean = f" CAPI-SDRi over all of them: {', '.join(parts)}." if parts else ""
    stops = ", ".join(f"rgb({r} {g} {b})" for r, g, b in spectrogram.colours(12).tolist())
    return f"""<p>{shown} of {len(results[0].scores["mixtures"])} mixtures, chosen to span the numbers of
sources, same-class sources, wrong labels, the best and the worst.{mean}</p>
<p>All sounds of a mixture (the mixture, references, estimates) are played with one common gain, which brings the
mixture's peak to {PEAK} or less, so their levels can be compared. The spectrograms of a mixture share one colour scale:
level in dB relative to the loudest point of the mixture's channel 0 (Hann window, 32 ms). References are dry: the
direct sound only.</p>
<div class="scale"><span class="number">−{spectrogram.RANGE_DB} dB and below</span>
<span class="bar" role="img" aria-label="colour scale, dark is quiet"
style="background: linear-gradient(to right, {stops})"></span>
<span class="number">0 dB</span></div>"""


def _overview(mixtures: Sequence[Mixture]) -> str:
    rows = []
    for m in mixtures:
        wrong = ' <span class="bad">✗ wrong</span>' if wrong_labels(m) else ""
        rows.append(
            f'<tr><td><a href="#{_id(m["utt"])}">{html.escape(m["utt"])}</a></td>'
            f"<td>{_label_list(m['ref_labels'])}</td><td>{_label_list(m['est_labels'])}{wrong}</td>"
            f'<td class="number">{_capi(m)}</td></tr>'
        )
    return (
        '<div class="wide"><table>\n'
        "<tr><th>Mixture</th><th>References</th><th>Labels of the system</th><th>CAPI-SDRi</th></tr>\n"
        + "\n".join(rows)
        + "\n</table></div>"
    )


def _section(entry: Entry, results: Sequence[Result]) -> str:
    m = entry.mixture
    words = "".join(
        f'<span class="word{" bad" if word == "wrong labels" else ""}">{html.escape(word)}</span>'
        for word in entry.words
    )
    about = [f"<p><strong>References:</strong> {_label_list(m['ref_labels'])}</p>"]
    about.append(f"<p><strong>Labels of the system:</strong> {_label_list(m['est_labels'])}</p>")
    for result in results:
        own = next(x for x in result.scores["mixtures"] if x["utt"] == m["utt"])
        about.append(f"<p>CAPI-SDRi with {result.labels} labels: <strong class='number'>{_capi(own)}</strong></p>")
    about.append(f'<p class="soft">Gain of all sounds of this mixture: {_db(20 * np.log10(entry.gain))}</p>')
    rows = [f'<div class="row">{_cell(entry.sound, entry)}<div class="about">{"".join(about)}</div></div>']
    for row in entry.rows:
        rows.append(f'<div class="row">{"".join(_cell(cell, entry) for cell in row)}</div>')
    return (
        f'<section id="{_id(m["utt"])}">\n<div class="head"><h2>{html.escape(m["utt"])}</h2><div>{words}</div></div>\n'
        + "\n".join(rows)
        + "\n</section>"
    )


_MISSING = {
    "missed": '<p class="bad">✗ missed</p><p class="soft">The system has no estimate for this reference.</p>',
    "false alarm": '<p class="bad">✗ false alarm</p><p class="soft">There is no reference for this estimate.</p>',
}


def _cell(cell: Sound | str, entry: Entry) -> str:
    if isinstance(cell, str):
        return f'<div class="cell none">{_MISSING[cell]}</div>' if cell else "<div></div>"
    seconds, khz = len(cell.waveform) / entry.fs, entry.fs / 2000
    name, title = html.escape(cell.name), html.escape(cell.title)
    lines = "".join(f"<p>{line}</p>" for line in cell.lines if line)
    alt = f"Spectrogram of {title}, 0 to {seconds:g} s, 0 to {khz:g} kHz"
    return f"""<div class="cell"><h3>{title}</h3>{lines}
<audio controls preload="metadata" src="{name}.flac" aria-label="{title}"></audio>
<figure><div class="frequency" aria-hidden="true">{_ticks(khz, "bottom")}</div>
<div class="picture" data-seconds="{seconds:g}"><img src="{name}.png" alt="{alt}" loading="lazy"><i></i></div>
<div class="time" aria-hidden="true">{_ticks(seconds, "left")}</div>
<figcaption>frequency (kHz) over time (s)</figcaption></figure></div>"""


def _ticks(end: float, side: str) -> str:
    """Round numbers from 0 to ``end`` at their places along an axis."""
    step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 4, 5, 10, 20, 30, 60) if end / s <= 5), end / 5)
    marks = []
    for i in range(int(end / step + 1e-6) + 1):
        share = 100 * i * step / end
        last = (" class=top" if side == "bottom" else " class=end") if share > 99 else ""
        marks.append(f'<span{last} style="{side}: {share:.2f}%">{i * step:g}</span>')
    return "".join(marks)


def _label_list(names: Sequence[str]) -> str:
    return html.escape(", ".join(labels_of(list(names)))) or '<span class="soft">none</span>'


def _capi(mixture: Mixture) -> str:
    value = improvement(mixture)
    return "–" if value is None else _db(value)


def _id(utt: str) -> str:
    return html.escape(utt, quote=True)
