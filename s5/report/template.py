"""Renders templates/*.j2 with Jinja2, which escapes all values in HTML; styles and scripts are in static/."""

from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

_HERE = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """Renders a template.

    Args:
        template: name of a file in ``templates``.
        values: values for the template's names; a missing one is an error.
    """
    return _environment().get_template(template).render(values)


def flac(waveform: np.ndarray, fs: int) -> str:
    """A waveform [T] at fs Hz as a FLAC file with 16 bits, encoded in base64."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, waveform, fs, format="FLAC", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode("ascii")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["signed"] = signed
    environment.globals["static"] = _static
    return environment


def signed(value: float) -> str:
    """A number with its sign and one decimal, with a typographic minus.

    Example:
        >>> signed(5), signed(-0.25)
        ('+5.0', '−0.2')
    """
    return f"{value:+.1f}".replace("-", "−")


def _static(name: str) -> Markup:
    """Content of a file in ``static``, which is not escaped."""
    return Markup((_HERE / "static" / name).read_text(encoding="utf-8"))  # noqa: S704 - our own file
