"""Writes proposals of events to leave out: a list, and a page in one file to listen to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from s5.challenge.corpus.outliers import Embed, mono, outlier_scores
from s5.report.template import flac, render
from s5.utils.errors import InputError
from s5.utils.files import write_text
from s5.utils.progress import progress

TYPICAL = 3
"""Number of typical sounds of a class that the page offers for comparison."""

LIST, PAGE = "candidates.tsv", "candidates.html"
PEAK = 0.5
"""Peak of the sounds on the page."""
LONGEST = 10.0
"""Seconds of an event that an encoder analyses."""


@dataclass(frozen=True)
class Event:
    """An event with its score."""

    path: str
    """Path below the folder of the events."""
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
        embed: function that computes a sound's vector.
        out: folder to write.
        threshold: score from which an event is proposed.
        most: largest number of proposals of a class.
        seconds: seconds of each sound that the page plays.
        folder: folder that the paths are relative to.

    Returns:
        Number of proposals.

    Raises:
        InputError: a file is no audio.
    """
    out, folder = Path(out), Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    proposed: dict[str, list[Event]] = {}
    typical: dict[str, list[Event]] = {}
    files = [path for paths in events.values() for path in paths]
    vectors = iter([embed(*mono(folder / path)) for path in progress(files, len(files), "events")])
    for label, paths in events.items():
        scores = outlier_scores(np.array(list(islice(vectors, len(paths)))))
        ranked = sorted((Event(p, float(s)) for p, s in zip(paths, scores, strict=True)), key=lambda e: -e.score)
        proposed[label] = [event for event in ranked if event.score >= threshold][:most]
        typical[label] = ranked[::-1][:TYPICAL]
    write_text(out / LIST, _list(proposed, threshold))
    classes = []
    for label, found in proposed.items():
        if found:
            sounds = {"proposed": _heard(found, folder, seconds), "typical": _heard(typical[label], folder, seconds)}
            classes.append({"label": label, "total": len(events[label]), **sounds})
    write_text(out / PAGE, render("candidates.html.j2", classes=classes))
    return sum(map(len, proposed.values()))


def encoder_embedding(experiment: str | None, weights: str | None, device: str = "cpu") -> Embed:
    """Function that computes a sound's vector: the mean over time of an encoder's features.

    Args:
        experiment: folder of a trained tagger whose encoder is used, or None.
        weights: file of pretrained M2D weights that are used without an experiment.
        device: torch device.

    Raises:
        InputError: tagger, weights or device do not exist.
    """
    import soxr
    import torch

    from s5.tagging.encoder import Encoder
    from s5.utils.device import check_device

    check_device(device)
    encoder: Encoder
    if experiment is not None:
        from s5.system.model import load_model

        encoder = load_model(experiment, None, "tagger", device).network.encoder  # type: ignore[assignment]
    else:
        from s5.tagging.m2d import M2DEncoder

        encoder = M2DEncoder(weights=weights, n_channels=1)
        encoder.load_weights()
        encoder.to(device).eval()
    rate = encoder.sampling_rate

    def embed(waveform: np.ndarray, fs: int) -> np.ndarray:
        x = waveform if fs == rate else soxr.resample(waveform, fs, rate, quality="HQ")
        x = x[: int(LONGEST * rate)]
        if len(x) < rate:  # an encoder needs several frames
            x = np.resize(x, rate)
        with torch.inference_mode():
            features = encoder(torch.from_numpy(np.ascontiguousarray(x, np.float32))[None].to(device))
        return features[0].float().mean(dim=0).cpu().numpy()

    return embed


def _list(proposed: Mapping[str, Sequence[Event]], threshold: float) -> str:
    lines = [
        "# Events that differ from the others of their class. Listen to them (candidates.html), delete the lines of",
        f"# good events, and list this file under drop in a curation's YAML. Scores of {threshold:g} or more.",
    ]
    lines += [f"{event.path}\tscore {event.score:.1f}" for found in proposed.values() for event in found]
    return "".join(f"{line}\n" for line in lines)


def _heard(events: Sequence[Event], folder: Path, seconds: float) -> list[dict[str, Any]]:
    """The events with their durations and sounds, for the page."""
    heard = []
    for event in events:
        audio, rate = mono(folder / event.path)
        peak = float(np.abs(audio).max())
        if not np.isfinite(peak):
            raise InputError(folder / event.path, "samples that are not finite", "audio")
        part = audio[: max(1, int(seconds * rate))] * (PEAK / peak if peak > 0 else 1.0)
        heard.append({**asdict(event), "seconds": len(audio) / rate, "flac": flac(part, rate)})
    return heard
