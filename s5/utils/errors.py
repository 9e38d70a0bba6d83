"""Error for wrong input: one line with the place, the found value and the expected value."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

LONGEST = 1000
"""Largest number of characters of an input that an error shows."""


class InputError(Exception):
    """Wrong input by the user: a file, a key or an option.

    Args:
        where: file, key or option, e.g. ``"data/test/labels:12"``.
        found: found value.
        expected: expected value.

    Example:
        >>> print(InputError("a.wav", "16000 Hz", "32000 Hz"))
        a.wav: found 16000 Hz, expected 32000 Hz
        >>> len(str(InputError("a.txt", "x" * 10**6, "y"))) < 1000
        True
    """

    def __init__(self, where: object, found: object, expected: object) -> None:
        super().__init__(" ".join(f"{_short(where)}: found {_short(found)}, expected {_short(expected)}".split()))

    @classmethod
    def at(cls, where: object, error: InputError) -> InputError:
        """The same error with a place in front of its message: ``<where>: <message>``."""
        return _rebuild(f"{where}: {error}")

    def __reduce__(self) -> tuple[Any, ...]:
        # The message passes unchanged from one process to another (worker pools, data loaders).
        return (_rebuild, (str(self),))


def _short(value: object) -> str:
    """Text of a value, cut in the middle if it is too long."""
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 4 :]}"


def _rebuild(message: str) -> InputError:
    error = InputError.__new__(InputError)
    Exception.__init__(error, message)
    return error


def one_of(names: Iterable[str], wrong: str = "", most: int | None = None) -> str:
    """'one of a, b, c', preceded by the nearest name if there is one close to ``wrong``.

    Args:
        names: known names.
        wrong: found name.
        most: largest number of names to list. The nearest to ``wrong`` are listed.

    Example:
        >>> one_of(["gamma", "alpha"], "gama")
        'gamma (one of gamma, alpha)'
    """
    names = list(names)
    if most is not None:
        names = difflib.get_close_matches(wrong, names, n=most, cutoff=0.3) or names[:most]
    listed = "one of " + ", ".join(names) if names else "nothing"
    near = difflib.get_close_matches(wrong, names, n=1) if wrong else []
    return f"{near[0]} ({listed})" if near else listed
