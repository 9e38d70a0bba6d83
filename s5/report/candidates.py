"""Proposals of events to leave out: a list, and one page to listen to them that holds its sounds itself."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from s5.corpus.outliers import Embed, mono, outlier_scores
from s5.data import write_bytes
from s5.errors import InputError
from s5.progress import progress

TYPICAL = 3
"""Sounds in the middle of a class, to compare with."""

LIST, PAGE = "candidates.tsv", "candidates.html"
PEAK = 0.5
LONGEST = 10.0
"""Seconds of an event that an encoder gets."""

_HERE = Path(__file__).parent
_HEAD = (
    '<thead><tr><th>event</th><th class="number">distance</th><th class="number">length</th><th>sound</th></tr></thead>'
)


@dataclass(frozen=True)
class Event:
    """An event with its score."""

    path: str
    """Below the folder of the events."""
    score: float


def propose(
    events: Mapping[str, Sequence[str]],
    embed: Embed,
    out: str | Path,
    threshold: float = 3.5,
    most: int = 50,
    seconds: float = 5.0,
    folder: str | Path = ".",
) -> int:
    """Scores all events and writes ``candidates.tsv`` and ``candidates.html``.

    Args:
        events: paths by label.
        embed: makes a vector of a sound.
        out: folder to write.
        threshold: score from which an event is proposed.
        most: proposals of a class at most.
        seconds: of each sound that the page plays.
        folder: that the paths start from.

    Returns:
        Number of proposals.

    Raises:
        InputError: a file that is no audio.
    """
    out, folder = Path(out), Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    proposed: dict[str, list[Event]] = {}
    typical: dict[str, list[Event]] = {}
    pairs = [(label, path) for label, paths in events.items() for path in paths]
    vectors = [embed(*mono(folder / path)) for _, path in progress(pairs, len(pairs), "events")]
    at = 0
    for label, paths in events.items():
        scores = outlier_scores(np.array(vectors[at : at + len(paths)]))
        at += len(paths)
        ranked = sorted((Event(p, float(s)) for p, s in zip(paths, scores, strict=True)), key=lambda e: -e.score)
        proposed[label] = [event for event in ranked if event.score >= threshold][:most]
        typical[label] = ranked[::-1][:TYPICAL]
    write_bytes(out / LIST, _list(proposed, threshold).encode())
    write_bytes(out / PAGE, _page(proposed, typical, events, folder, seconds).encode())
    return sum(map(len, proposed.values()))


def encoder_embedding(experiment: str | None, weights: str | None, device: str = "cpu") -> Embed:
    """What a tagger's encoder makes of a sound: the mean over time of its features.

    Args:
        experiment: folder of a trained tagger; or
        weights: file of pretrained M2D weights.
        device: torch device.

    Raises:
        InputError: no such tagger or weights, or a device that torch cannot compute on here.
    """
    import soxr
    import torch

    from s5.processor import check_device
    from s5.tagging.encoder import Encoder

    check_device(device)
    encoder: Encoder
    if experiment is not None:
        from s5.experiment import load_experiment

        encoder = load_experiment(experiment, None, "tagger", device).network.encoder  # type: ignore[assignment]
    else:
        from s5.tagging.m2d import M2DEncoder

        encoder = M2DEncoder(weights=weights, n_channels=1)
        encoder.load_weights()
        encoder.to(device).eval()
    rate = encoder.sampling_rate

    def embed(waveform: np.ndarray, fs: int) -> np.ndarray:
        x = waveform if fs == rate else soxr.resample(waveform, fs, rate, quality="HQ")
        x = x[: int(LONGEST * rate)]
        if len(x) < rate:  # an encoder needs some frames
            x = np.resize(x, rate)
        with torch.inference_mode():
            features = encoder(torch.from_numpy(np.ascontiguousarray(x, np.float32))[None].to(device))
        return features[0].float().mean(dim=0).cpu().numpy()

    return embed


def _list(proposed: Mapping[str, Sequence[Event]], threshold: float) -> str:
    lines = [
        "# Events that are unlike the others of their class: listen (candidates.html), delete the lines of those that",
        f"# are good, and name this file under drop in a refinement's YAML. Scores from {threshold:g} on.",
    ]
    lines += [f"{event.path}\tscore {event.score:.1f}" for found in proposed.values() for event in found]
    return "".join(f"{line}\n" for line in lines)


def _page(
    proposed: Mapping[str, Sequence[Event]],
    typical: Mapping[str, Sequence[Event]],
    events: Mapping[str, Sequence[str]],
    folder: Path,
    seconds: float,
) -> str:
    css, js = ((_HERE / name).read_text(encoding="utf-8") for name in ("candidates.css", "candidates.js"))
    sections = []
    for label, found in proposed.items():
        if not found:
            continue
        rows = "\n".join(_row(event, folder, seconds, True) for event in found)
        compare = "\n".join(_row(event, folder, seconds, False) for event in typical[label])
        sections.append(
            f"<section><h2>{html.escape(label)}</h2>\n<p>{len(found)} of {len(events[label])} events.</p>\n"
            f"<table>{_HEAD}\n{rows}\n</table>\n<details><summary>For comparison: {len(typical[label])} from the "
            f"middle of the class</summary>\n<table>{_HEAD}\n{compare}\n</table></details></section>"
        )
    body = "\n".join(sections) or "<p>No event is unlike the others of its class.</p>"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Events to leave out?</title>
<style>
{css}</style>
</head>
<body>
<h1>Events to leave out?</h1>
<p>These sounds are unlike the others of their class by what was measured. Whether they are wrong is for you to hear:
tick those that do not belong, save the list, and name it under <code>drop</code> in a refinement's YAML. Distance: how
much further off than usual the nearest others of the class are (robust z-score of its logarithm).</p>
<p class="bar"><button id="save" type="button">Save as drop.txt</button> <span id="count">0 ticked</span></p>
{body}
<section><h2>The list</h2>
<textarea id="list" rows="12" readonly aria-label="paths of the ticked events"></textarea></section>
<script>
{js}</script>
</body>
</html>
"""


def _row(event: Event, folder: Path, seconds: float, tick: bool) -> str:
    name = html.escape(event.path, quote=True)
    box = f'<label><input type="checkbox" value="{name}"> {name}</label>' if tick else name
    whole, sound = _sound(folder / event.path, seconds)
    return (
        f'<tr><td>{box}</td><td class="number" data-name="distance">{event.score:.1f}</td>'
        f'<td class="number" data-name="length">{whole:.1f} s</td>'
        f'<td><audio controls preload="none" src="data:audio/flac;base64,{sound}" aria-label="{name}"></audio></td>'
        "</tr>"
    )


def _sound(path: Path, seconds: float) -> tuple[float, str]:
    """Duration of a file, and its beginning as base64 of FLAC."""
    audio, rate = mono(path)
    peak = float(np.abs(audio).max())
    if not np.isfinite(peak):
        raise InputError(path, "samples that are not finite", "audio")
    content = io.BytesIO()
    part = audio[: max(1, int(seconds * rate))] * (PEAK / peak if peak > 0 else 1.0)
    soundfile.write(content, part, rate, format="FLAC", subtype="PCM_16")
    return len(audio) / rate, base64.b64encode(content.getvalue()).decode()
