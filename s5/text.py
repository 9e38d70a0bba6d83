"""Text files in: UTF-8, with or without the byte order mark that editors put in front of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from s5.errors import InputError


def read_text(path: str | Path, expected: str) -> str:
    """Content of a text file.

    Args:
        path: the file.
        expected: what complaints say the file should be.

    Raises:
        InputError: the file cannot be read, or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise InputError(path, "no UTF-8 text", expected) from e
    except (OSError, ValueError) as e:  # ValueError: no name of a file
        raise InputError(path, getattr(e, "strerror", None) or e, expected) from e


def read_json(path: str | Path, expected: str) -> Any:
    """Content of a JSON file. Raises InputError as :func:`read_text`, and where the file is no JSON."""
    text = read_text(path, expected)
    try:
        return json.loads(text)
    except RecursionError:
        raise InputError(path, "no JSON (nested too deeply)", expected) from None
    except ValueError as e:
        raise InputError(path, f"no JSON ({e})", expected) from e
