"""Reads Kaldi's binary matrices from files, safely.

kaldiio's own readers run commands and unpickle objects that a file names, and trust every length in it.
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
"""First bytes of a binary matrix."""


def read_scp(path: str | Path, expected: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yields utterance and matrix for each line ``<utt> <file>:<offset>`` of a file.

    Args:
        path: the scp file; its paths start from the working directory.
        expected: the content that errors name as expected.

    Raises:
        InputError: a line has another form, an utterance occurs twice or never, or there is no matrix at an offset.
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
    """Yields utterance and matrix of an ark file. Raises InputError if it is damaged or holds something else."""
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
    """Reads the matrix at the present position. Raises ValueError if there is none."""
    from kaldiio.matio import read_matrix_or_vector

    if ark.read(len(BEGIN)) != BEGIN:
        raise ValueError("no binary matrix begins there")
    ark.seek(-len(BEGIN), 1)
    try:
        return read_matrix_or_vector(ark)
    except Exception as e:  # kaldiio trusts the content, so damaged content fails in any way
        raise ValueError(str(e) or type(e).__name__) from e


def read_n_slots(path: str | Path, expected: str = "the number of slots (stage 7)") -> int:
    """Reads the number of slots, K, from a file that holds nothing else. Raises InputError for any other content."""
    text = read_text(path, expected).strip()
    if not re.fullmatch("[1-9][0-9]?", text):
        raise InputError(path, repr(text[:20]), expected)
    return int(text)


def check_posterior(found: Any, n_labels: int, where: object) -> None:
    """Raises InputError, naming ``where``, unless ``found`` holds probabilities [K, C + 1] or [1, C] (C labels)."""
    wrong = None
    if not isinstance(found, np.ndarray) or found.ndim != 2 or not len(found):
        wrong = "no matrix"
    elif found.shape[1] not in (n_labels, n_labels + 1) or (found.shape[1] == n_labels and len(found) > 1):
        wrong = f"a matrix of shape {list(found.shape)}"
    elif found.dtype.kind != "f" or not (np.isfinite(found).all() and (found >= 0).all() and (found <= 1.001).all()):
        wrong = "numbers that are no probabilities"
    if wrong:
        raise InputError(where, wrong, f"probabilities of {n_labels} labels (stage 7)")
