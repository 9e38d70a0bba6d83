"""Reading of text and JSON files in UTF-8, with or without a byte order mark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from s5.utils.errors import InputError


def read_text(path: str | Path, expected: str) -> str:
    """Reads a text file. Raises InputError with the text ``expected`` if it cannot be read or is not UTF-8."""
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as e:  # ValueError: an invalid file name
        raise InputError(path, getattr(e, "strerror", None) or e, expected) from e
    return parse_text(content, path, expected)


def parse_text(content: bytes, where: object, expected: str) -> str:
    """Decodes the bytes of a text file. Raises InputError naming ``where`` if they are not UTF-8."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise InputError(where, "no text in UTF-8", expected) from e
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | Path, expected: str) -> Any:
    """Reads a JSON file. Raises InputError as :func:`read_text`, and if the file is not JSON."""
    return _json(read_text(path, expected), path, expected)


def parse_json(content: bytes, where: object, expected: str) -> Any:
    """Reads the bytes of a JSON file. Raises InputError naming ``where`` if they are not JSON."""
    return _json(parse_text(content, where, expected), where, expected)


def _json(text: str, where: object, expected: str) -> Any:
    try:
        data = json.loads(text)
        if "\\u" in text:  # an escape may be half a character, which no file could hold
            json.dumps(data, ensure_ascii=False).encode()
        return data
    except RecursionError:
        raise InputError(where, "no JSON (nested too deeply)", expected) from None
    except ValueError as e:
        raise InputError(where, f"no JSON ({e})", expected) from e
