"""Reads split zip archives (``a.z01``, ``a.z02``, ... ``a.zip``) in place, without joining their parts on disk.

Python's zipfile does not read them. Each entry of a split archive's central directory holds the number of a part and a
position in it. Here the parts are presented as one file with a rewritten directory, whose positions count from the
beginning of the first part.

Formats: PKWARE's APPNOTE.TXT, sections 4.3.12 to 4.3.16 and 4.5.3 (zip64), 8.4 and 8.5 (splitting).
"""

from __future__ import annotations

import io
import struct
import zipfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

from s5.utils.errors import InputError

END = struct.Struct("<4s4H2LH")
"""End record: signature; number of this part and of the directory's first part; entries in this part and in all; size
and position of the directory; length of the comment."""

END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR = struct.Struct("<4sLQL")
ENTRY = struct.Struct("<4s6H3L5H2L")
"""Entry of the directory: signature; versions, flags, method, time, date; CRC, packed and unpacked size; lengths of
name, extra fields and comment; part; attributes; position in the part."""

FULL16, FULL32 = 0xFFFF, 0xFFFFFFFF
ZIP64 = 1
"""Number of the extra field for values that do not fit into 32 bits."""


class Joined(io.RawIOBase):
    """Several files as one file to read, optionally cut off and followed by other bytes.

    Args:
        paths: the files in their order.
        cut: number of their bytes that are used; all by default.
        tail: bytes that follow.
    """

    def __init__(self, paths: Sequence[Path], cut: int | None = None, tail: bytes = b"") -> None:
        self._files = [path.open("rb") for path in paths]
        self.starts = [0, *accumulate(path.stat().st_size for path in paths)]
        self._cut = self.starts[-1] if cut is None else cut
        self._tail, self._place = tail, 0

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def tell(self) -> int:
        """Position of the next byte."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a position and returns it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._cut + len(self._tail)}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Fills the buffer from one of the files and returns the number of bytes read."""
        view = memoryview(buffer).cast("B")
        if self._place >= self._cut:
            block = self._tail[self._place - self._cut :][: len(view)]
        else:
            i = bisect_right(self.starts, self._place) - 1
            file = self._files[i]
            file.seek(self._place - self.starts[i])
            block = file.read(min(len(view), self.starts[i + 1] - self._place, self._cut - self._place))
        view[: len(block)] = block
        self._place += len(block)
        return len(block)

    def close(self) -> None:
        """Closes the files."""
        for file in self._files:
            file.close()
        super().close()


def parts(path: str | Path) -> list[Path]:
    """All files of an archive in their order: ``a.z01``, ..., ``a.zip``, or ``a.zip`` alone if it is not split.

    Args:
        path: the last file, which ends in .zip.

    Raises:
        InputError: a file is missing, or the last one is no zip archive.
    """
    path = Path(path)
    number = _end(path)[1]
    names = []
    for i in range(1, number + 1):
        name = path.with_suffix(f".z{i:02d}")
        if not name.is_file():
            raise InputError(name, "no file", f"part {i} of the {number + 1} parts of {path.name}")
        names.append(name)
    return [*names, path]


def open_zip(path: str | Path) -> zipfile.ZipFile:
    """Opens a zip archive, split or not, for :class:`s5.utils.zips.ZipReader`.

    Args:
        path: the archive; of a split archive the last part, which ends in .zip.

    Raises:
        InputError: a part is missing, or the file is no zip archive.
    """
    files = parts(path)
    if len(files) == 1:
        return zipfile.ZipFile(path)
    raw = Joined(files)
    with io.BufferedReader(raw) as whole:
        cut, tail = _rewritten(whole, raw.starts, raw.starts[-2] + _end(files[-1])[0])
    return zipfile.ZipFile(io.BufferedReader(Joined(files, cut, tail), 1 << 18))


def _end(path: Path) -> tuple[int, int]:
    """Position of the end record in a file, and the number of the last part (0 if the archive is not split)."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - END.size - FULL16))
            data = file.read()
    except OSError as e:
        raise InputError(path, e.strerror or "no file", "a zip archive") from e
    place = data.rfind(b"PK\x05\x06")
    if place < 0 or len(data) < place + END.size:
        raise InputError(path, "no end of an archive", "a complete zip archive")
    number = END.unpack_from(data, place)[1]
    # In a zip64 archive the locator before the end record holds the number of parts.
    if number == FULL16 and place >= LOCATOR.size:
        locator = LOCATOR.unpack_from(data, place - LOCATOR.size)
        number = max(0, locator[3] - 1) if locator[0] == b"PK\x06\x07" else 0
    return size - len(data) + place, number


def _rewritten(whole: IO[bytes], starts: Sequence[int], place: int) -> tuple[int, bytes]:
    """Position of the central directory in the joined parts, and new directory and end records for one part.

    Args:
        whole: the joined parts.
        starts: position of each part in them.
        place: position of the end record in them.
    """

    def record(form: struct.Struct, at: int) -> tuple[Any, ...]:
        whole.seek(at)
        return form.unpack(whole.read(form.size))

    _, _, disk, _, count, size, offset, _ = record(END, place)
    locator = record(LOCATOR, place - LOCATOR.size)
    if locator[0] == b"PK\x06\x07":
        end = record(END64, starts[locator[1]] + locator[2])
        if end[0] != b"PK\x06\x06":
            raise ValueError("no zip64 end record where it should be")
        _, _, _, _, _, disk, _, count, size, offset = end
    begin = starts[disk] + offset
    whole.seek(begin)
    entries = list(_entries(whole.read(size), starts))
    if len(entries) != count:
        raise ValueError(f"{len(entries)} entries instead of {count}")
    directory = b"".join(entries)
    where = begin + len(directory)
    end64 = END64.pack(b"PK\x06\x06", END64.size - 12, 45, 45, 0, 0, len(entries), len(entries), len(directory), begin)
    locator64 = LOCATOR.pack(b"PK\x06\x07", 0, where, 1)
    end32 = END.pack(b"PK\x05\x06", 0, 0, FULL16, FULL16, FULL32, FULL32, 0)
    return begin, directory + end64 + locator64 + end32


def _entries(data: bytes, starts: Sequence[int]) -> Iterator[bytes]:
    """Entries of a central directory, with positions that count from the beginning of the first part."""
    at = 0
    while at < len(data):
        fields = list(ENTRY.unpack_from(data, at))
        if fields[0] != b"PK\x01\x02":
            raise ValueError("no entry of the directory where it should be")
        n_name, n_extra, n_comment = fields[10:13]
        name_end = at + ENTRY.size + n_name
        name, extra = data[at + ENTRY.size : name_end], data[name_end : name_end + n_extra]
        comment = data[name_end + n_extra : name_end + n_extra + n_comment]
        at = name_end + n_extra + n_comment
        rest, wide = _split_extra(extra)
        # Values that do not fit into the entry are in the zip64 field: unpacked size, packed size, position, part.
        values = []
        for i, full, form in ((9, FULL32, "<Q"), (8, FULL32, "<Q"), (16, FULL32, "<Q"), (13, FULL16, "<L")):
            value = fields[i]
            if value == full:
                value, wide = struct.unpack_from(form, wide)[0], wide[struct.calcsize(form) :]
            values.append(value)
        unpacked, packed, offset, part = values
        rest += struct.pack("<2H3Q", ZIP64, 24, unpacked, packed, starts[part] + offset)
        fields[8], fields[9], fields[11], fields[13], fields[16] = FULL32, FULL32, len(rest), 0, FULL32
        yield ENTRY.pack(*fields) + name + rest + comment


def _split_extra(extra: bytes) -> tuple[bytes, bytes]:
    """The extra fields without the zip64 field, and the content of the zip64 field."""
    rest, wide, at = b"", b"", 0
    while at + 4 <= len(extra):
        kind, n = struct.unpack_from("<2H", extra, at)
        if kind == ZIP64:
            wide = extra[at + 4 : at + 4 + n]
        else:
            rest += extra[at : at + 4 + n]
        at += 4 + n
    return rest, wide
