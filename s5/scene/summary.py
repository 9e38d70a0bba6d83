"""Summarizes a fixed set: counts in a line and a JSON file, classes and SNRs in a figure."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s5.data import Row
from s5.scene.spec import Scene
from s5.utils.files import write_bytes, write_json

SNR_STEP = 1.0
"""Width of a histogram's bar in dB."""

COLOURS = {"targets": "#3b6fb0", "interferers": "#d9822b"}
TEXT = "#222222"


def summarise(rows: Sequence[Row], scenes: Iterable[Scene]) -> dict[str, Any]:
    """Counts over a set.

    Args:
        rows: rows of its data directory.
        scenes: scenes of the same items; iterated once.

    Returns:
        Number of ``scenes``; ``sources_per_scene``: scenes by number of sources; ``repeated_class``: scenes that repeat
        a label; ``sources`` and ``interferers`` by class; ``snr_db``: SNRs of targets and of interferers, counted in
        bars of 1 dB by their lower edge; ``rooms``: scenes by SOFA file.
    """
    labels = [row.labels or () for row in rows]
    interferers: Counter[str] = Counter()
    rooms: Counter[str] = Counter()
    snr: dict[str, Counter[int]] = {"targets": Counter(), "interferers": Counter()}
    for scene in scenes:
        rooms[scene.room.sofa_path] += 1
        interferers.update(str(event.label) for event in scene.int_events)
        for kind, events in (("targets", scene.fg_events), ("interferers", scene.int_events)):
            snr[kind].update(int(np.floor(event.snr / SNR_STEP)) for event in events)
    return {
        "scenes": len(rows),
        "sources_per_scene": _sorted(Counter(len(found) for found in labels)),
        "repeated_class": sum(len(set(found)) < len(found) for found in labels),
        "sources": _sorted(Counter(label for found in labels for label in found)),
        "interferers": _sorted(interferers),
        "snr_db": {kind: {f"{k * SNR_STEP:g}": bars[k] for k in sorted(bars)} for kind, bars in snr.items()},
        "rooms": _sorted(rooms),
    }


def in_one_line(counts: dict[str, Any]) -> str:
    """One line: scenes, sources per scene, scenes with a repeated class, sources per class."""
    by_size = ", ".join(f"{count} of {size}" for size, count in counts["sources_per_scene"].items())
    by_class = ", ".join(f"{label} {count}" for label, count in counts["sources"].items())
    return (
        f"{counts['scenes']} scenes; sources per scene: {by_size}; repeated class: {counts['repeated_class']}; "
        f"sources: {by_class or 'none'}"
    )


def write_summary(counts: dict[str, Any], out: Path) -> None:
    """Writes ``summary.json`` and ``summary.png`` into a data directory."""
    write_json(out / "summary.json", counts, indent=2)
    write_bytes(out / "summary.png", _figure(counts))


def _sorted(counts: Counter) -> dict[str, int]:
    return {str(key): counts[key] for key in sorted(counts)}


def _figure(counts: dict[str, Any]) -> bytes:
    """PNG with the sources by class and the histogram of SNRs."""
    from PIL import Image, ImageDraw, ImageFont  # matplotlib takes a second or two to import and draw

    names = counts["sources"]
    height = max(360, 70 + 22 * len(names))
    image = Image.new("RGB", (1000, height), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(14)
    draw.text((20, 12), f"Sources in {counts['scenes']} scenes", TEXT, font)
    most = max([1, *names.values()])
    for i, (name, count) in enumerate(names.items()):
        y = 44 + 22 * i
        draw.text((150, y), name, TEXT, font, anchor="ra")
        draw.rectangle((160, y, 160 + 260 * count // most, y + 16), COLOURS["targets"])
        draw.text((166 + 260 * count // most, y), str(count), TEXT, font)
    _histogram(draw, font, counts["snr_db"], (560, 44, 970, height - 60))
    png = io.BytesIO()
    image.save(png, format="PNG")
    return png.getvalue()


def _histogram(draw: Any, font: Any, snr: dict[str, dict[str, int]], box: tuple[int, int, int, int]) -> None:
    """Draws the SNRs of targets and interferers, bars side by side, into a box of the figure."""
    left, top, right, bottom = box
    draw.text((left, 12), "SNR over the background", TEXT, font)
    for i, (kind, colour) in enumerate(COLOURS.items()):
        draw.text((right - 190 + 90 * i, 12), kind, colour, font)
    edges = sorted({float(edge) for bars in snr.values() for edge in bars})
    if edges:
        most = max(count for bars in snr.values() for count in bars.values())
        n_bars = round((edges[-1] - edges[0]) / SNR_STEP) + 1
        width = (right - left) / n_bars
        for i, (kind, colour) in enumerate(COLOURS.items()):
            for edge, count in snr[kind].items():
                x = left + width * (round((float(edge) - edges[0]) / SNR_STEP) + 0.1 + 0.4 * i)
                draw.rectangle((x, bottom - (bottom - top) * count / most, x + 0.4 * width, bottom), colour)
        for bar in range(0, n_bars + 1, max(1, n_bars // 6)):
            draw.text((left + width * bar, bottom + 8), f"{edges[0] + bar * SNR_STEP:g}", TEXT, font, anchor="ma")
        draw.text((left - 8, top), str(most), TEXT, font, anchor="ra")
    draw.line((left, bottom, right, bottom), TEXT)
    draw.text(((left + right) / 2, bottom + 28), "dB", TEXT, font, anchor="ma")
