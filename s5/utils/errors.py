"""One kind of error for bad input: a single line that says where, what was found and what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

LONGEST = 1000
"""Characters of what complaints show of an input."""


class InputError(Exception):
    """Bad input by the user: a file, a key or an option that is not as it has to be.

    Args:
        where: the file, key or option, e.g. ``"data/test/labels:12"``.
        found: what is there.
        expected: what should be there.

    Example:
        >>> print(InputError("a.wav", "16000 Hz", "32000 Hz"))
        a.wav: found 16000 Hz, expected 32000 Hz
        >>> len(str(InputError("a.txt", "x" * 10**6, "y"))) < 1000
        True
    """

    def __init__(self, where: object, found: object, expected: object) -> None:
        super().__init__(" ".join(f"{_short(where)}: found {_short(found)}, expected {expected}".split()))

    @classmethod
    def at(cls, where: object, error: InputError) -> InputError:
        """The same complaint with the place it happened in put in front: ``<where>: <complaint>``."""
        return _rebuild(f"{where}: {error}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Lets the message cross a process boundary (worker pools, data loaders) as it is.
        return (_rebuild, (str(self),))


def _short(value: object) -> str:
    """Its text, cut in the middle where it is longer than anybody reads: an input may hold anything."""
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 4 :]}"


def _rebuild(message: str) -> InputError:
    error = InputError.__new__(InputError)
    Exception.__init__(error, message)
    return error


def one_of(names: Iterable[str], wrong: str = "", most: int | None = None) -> str:
    """'one of a, b, c', preceded by the nearest name if there is one close to ``wrong``.

    Args:
        names: what there is.
        wrong: what was found.
        most: number of names to list at most, those nearest to ``wrong``.

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
