"""Kaldi's matrices in: binary ones alone, of files.

kaldiio's own readers run the commands and unpickle the objects that they find, and trust every length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from s5.utils.errors import InputError
from s5.utils.text import read_text

BEGIN = b"\0B"
"""What a binary matrix begins with."""


def read_scp(path: str | Path, expected: str) -> Iterator[tuple[str, np.ndarray]]:
    """Matrices by utterance of a file of ``<utt> <file>:<offset>`` lines.

    Args:
        path: the scp file; its paths start from the working directory.
        expected: what complaints say that it should hold.

    Raises:
        InputError: another kind of line, an utterance twice, none at all, or no matrix where a line says.
    """
    seen: set[str] = set()
    for number, line in enumerate(read_text(path, expected).splitlines(), 1):
        utt, _, place = line.partition(" ")
        file, _, offset = place.strip().rpartition(":")
        where = f"{path}:{number}"
        if not utt or utt in seen or not re.fullmatch("[0-9]{1,15}", offset):
            raise InputError(where, repr(line[:80]), "<utt> <file>:<offset>, each utterance once")
        seen.add(utt)
        try:
            with open(file, "rb") as ark:
                ark.seek(int(offset))
                matrix = _matrix(ark)
        except (OSError, ValueError) as e:
            reason = getattr(e, "strerror", None) or e
            raise InputError(where, f"no matrix at {place[:80]} ({reason})", expected) from e
        yield utt, matrix
    if not seen:
        raise InputError(path, "no utterance", expected)


def read_ark(path: str | Path, expected: str) -> Iterator[tuple[str, np.ndarray]]:
    """Matrices by utterance of an ark file. Raises InputError where it is damaged or holds something else."""
    from kaldiio.matio import read_token

    utt = None
    try:
        with open(path, "rb") as ark:
            while utt := read_token(ark):
                yield utt, _matrix(ark)
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or e
        raise InputError(path, f"no matrix of {utt or 'an utterance'} ({reason})", expected) from e


def _matrix(ark: IO[bytes]) -> np.ndarray:
    """The matrix that begins here. Raises ValueError if none does."""
    from kaldiio.matio import read_matrix_or_vector

    begin = ark.read(len(BEGIN))
    if begin != BEGIN:
        raise ValueError("another beginning")
    ark.seek(-len(BEGIN), 1)
    try:
        return read_matrix_or_vector(ark)
    except Exception as e:  # it trusts what it reads, and fails in any way
        raise ValueError(str(e) or type(e).__name__) from e


def read_n_slots(path: str | Path) -> int:
    """K, as stage 7 writes it beside posteriors. Raises InputError for a file that does not say it."""
    expected = "the number of slots (stage 7)"
    text = read_text(path, expected).strip()
    if not re.fullmatch("[1-9][0-9]?", text):
        raise InputError(path, repr(text[:20]), expected)
    return int(text)


def check_posterior(found: Any, n_labels: int, where: object) -> None:
    """Refuses what is no posterior: [K, C + 1] or [1, C] of probabilities.

    Raises:
        InputError: naming ``where``.
    """
    wrong = _unlike_posterior(found, n_labels)
    if wrong:
        raise InputError(where, wrong, f"probabilities of {n_labels} labels (stage 7)")


def _unlike_posterior(found: Any, n_labels: int) -> str | None:
    """What is wrong with it, if anything is."""
    if not isinstance(found, np.ndarray) or found.ndim != 2 or not len(found):
        return "no matrix"
    if found.shape[1] not in (n_labels, n_labels + 1) or (found.shape[1] == n_labels and len(found) > 1):
        return f"a matrix of shape {list(found.shape)}"
    if found.dtype.kind != "f" or not (np.isfinite(found).all() and (found >= 0).all() and (found <= 1.001).all()):
        return "numbers that are no probabilities"
    return None
