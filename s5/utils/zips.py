"""Reading of zip files, with an error of one line that names a damaged file."""

from __future__ import annotations

import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from lzma import LZMAError
from pathlib import Path
from typing import Self

from s5.utils.errors import InputError

_ERRORS = (zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, struct.error)
DAMAGED = (*_ERRORS, EOFError, OSError, ValueError, IndexError, OverflowError, RuntimeError)
"""Errors of Python's libraries for a damaged archive. OSError: a position before the file's start, or from bzip2, gzip.
ValueError: a name that is not text. RuntimeError: an encrypted archive or an unknown method."""

BLOCK = 1 << 20


@contextmanager
def telling_damage(path: str | Path, expected: str, name: str = "") -> Iterator[None]:
    """Turns errors about a damaged archive into an InputError. The block must only read, not write.

    Args:
        path: archive.
        expected: expected file, for the error.
        name: name of the member that is read.
    """
    try:
        yield
    except DAMAGED as e:
        why = getattr(e, "strerror", None) or str(e) or type(e).__name__
        inside = f" in {name!r}" if name else ""
        raise InputError(path, f"a damaged file ({why}{inside})", expected) from None


def check_zip(path: str | Path, expected: str) -> None:
    """Reads a whole zip file. Raises InputError if any part is damaged."""
    with ZipReader(path, expected) as archive:
        for info in archive.infos:
            for _ in archive.blocks(info):
                pass


class ZipReader:
    """Reader of a zip file. All its errors are InputErrors.

    Args:
        path: zip file.
        expected: expected file, for errors.
        opener: function that opens it.

    Raises:
        InputError: no such file, or not a zip file.

    Example:
        with ZipReader("a.zip", "a submission") as archive:
            for info in archive.infos:
                content = archive.read(info)
    """

    def __init__(
        self, path: str | Path, expected: str, opener: Callable[[str | Path], zipfile.ZipFile] = zipfile.ZipFile
    ) -> None:
        self.path, self.expected = path, expected
        if not Path(path).is_file():
            raise InputError(path, "no such file", expected)
        with telling_damage(path, expected):
            self._zip = opener(path)
            self.infos = self._zip.infolist()

    def read(self, info: zipfile.ZipInfo) -> bytes:
        """Content of a member. Raises InputError if it is damaged."""
        return b"".join(self.blocks(info))

    def blocks(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """Content of a member in blocks. The last block is yielded only if the checksum is right."""
        left, held = info.file_size, b""
        with self._reading(info):
            source = self._zip.open(info)
        with source:
            while True:
                with self._reading(info):
                    block = source.read(BLOCK)
                    left -= len(block)
                    if left and not block:
                        raise zipfile.BadZipFile(f"{info.file_size - left} bytes instead of {info.file_size}")
                if held:
                    yield held
                if not block:
                    return
                held = block

    def close(self) -> None:
        """Closes the zip file."""
        self._zip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reading(self, info: zipfile.ZipInfo) -> AbstractContextManager[None]:
        return telling_damage(self.path, self.expected, info.filename)
