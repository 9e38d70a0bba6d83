"""Unpacks archives safely: nothing outside the folder, nothing overwritten, enough space before it begins, resumable.

<out>/...                        the members, each under a temporary name until it is complete
<out>/.unpacked/<archive>.tsv    written at the end: the archive's size, then path and size of each member
"""

from __future__ import annotations

import logging
import os
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from s5.challenge.corpus.download import check_space
from s5.challenge.corpus.splitzip import open_zip, parts
from s5.data.names import shortened
from s5.utils.errors import InputError
from s5.utils.files import atomic_write, write_text
from s5.utils.progress import progress
from s5.utils.zips import ZipReader, telling_damage

BLOCK = 1 << 20
DONE = ".unpacked"


@dataclass(frozen=True)
class Member:
    """A file of an archive."""

    name: str
    """Relative path, checked by :func:`safe_name`."""
    size: int
    info: Any
    """The archive library's own record of the member."""


def unpack(archive: str | Path, out: str | Path, nj: int = 1, only: Collection[str] | None = None) -> bool:
    """Unpacks a zip archive (split or not) or a tar archive; members that exist already are kept.

    Args:
        archive: its file; of a split archive the last one, ``a.zip``.
        out: folder to unpack into.
        nj: number of members that are unpacked at a time (zip).
        only: names of the members to unpack; None unpacks all.

    Returns:
        False if this archive was unpacked here before.

    Raises:
        InputError: the archive is damaged; a member would lie outside of ``out`` or is no regular file or folder (in
            tar archives links that stay inside are allowed); a file exists with other content; the disk is full.
            All members are checked before the first one is written.
    """
    archive, out = Path(archive), Path(out)
    if not archive.is_file():
        raise InputError(archive, "no such file", "an archive")
    stamp = out / DONE / f"{archive.name}.tsv"
    is_zip = archive.suffix == ".zip"
    head = _head(parts(archive) if is_zip else [archive], only)
    if stamp.is_file() and stamp.read_text(encoding="utf-8").partition("\n")[0] == head:
        return False
    out.mkdir(parents=True, exist_ok=True)
    members = _unpack_zip(archive, out, nj, only) if is_zip else _unpack_tar(archive, out, only)
    stamp.parent.mkdir(exist_ok=True)
    lines = [head, *(f"{member.name}\t{member.size}" for member in members)]
    write_text(stamp, "".join(f"{line}\n" for line in lines))
    return True


def unpacked(archive: str, out: str | Path) -> dict[str, int] | None:
    """Size in bytes by path of the files that an archive left in ``out``; None if it was not unpacked there."""
    try:
        lines = (Path(out) / DONE / f"{archive}.tsv").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return {name: int(size) for name, _, size in (line.rpartition("\t") for line in lines[1:])}


def _head(files: Sequence[Path], only: Collection[str] | None) -> str:
    """First line of the list of members: identifies the archive and the members that were asked for."""
    sizes = " ".join(str(file.stat().st_size) for file in files)
    wanted = "all" if only is None else f"{len(only)} members {zlib.crc32(' '.join(sorted(only)).encode()):08x}"
    return f"# {sizes} bytes, {wanted}"


def safe_name(name: str, archive: Path) -> str:
    """A member's relative path. Raises InputError if it leads outside or contains characters that are refused."""
    pure = PurePosixPath(name)
    bad = "\\" in name or "\0" in name or "\n" in name or "\t" in name
    if pure.is_absolute() or ".." in pure.parts or bad or not pure.parts or pure.parts[0] == DONE:
        raise InputError(archive, f"member {name!r}", "names of files inside of the archive's folder")
    return str(pure)


def _check(members: Sequence[Member], archive: Path, out: Path, same: Callable[[Member, Path], bool]) -> list[Member]:
    """Checks names, existing files and space. Returns the members that have to be unpacked."""
    seen: set[str] = set()
    for member in members:
        if member.name in seen:
            raise InputError(archive, f"member {member.name!r} twice", "each member once")
        seen.add(member.name)
    root = os.path.realpath(out)
    for parent in {(out / member.name).parent for member in members}:
        real = os.path.realpath(parent)
        if os.path.commonpath([root, real]) != root:
            raise InputError(parent, f"a link to {real}", "a folder")
    missing = []
    for member in members:
        path = out / member.name
        if not os.path.lexists(path):
            missing.append(member)
        elif path.is_symlink() or not path.is_file() or path.stat().st_size != member.size or not same(member, path):
            raise InputError(path, "a file of other content", f"no file, or that of {archive.name} (move it away)")
    check_space(out, sum(member.size for member in missing), f"the content of {archive.name}")
    logging.info("%s: %d files, %d of them to unpack", archive.name, len(members), len(missing))
    return missing


def _wanted(members: Sequence[Member], only: Collection[str] | None, archive: Path) -> list[Member]:
    """The members that were asked for. Raises InputError if one of them is missing."""
    if only is None:
        return list(members)
    if missing := sorted(set(only) - {member.name for member in members}):
        raise InputError(archive, f"no {shortened(missing, 1)}", "these members")
    return [member for member in members if member.name in only]


def _write(path: Path, blocks: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as target:
        for block in blocks:
            target.write(block)


# --- zip ----------------------------------------------------------------------------------------------------------


def _unpack_zip(archive: Path, out: Path, nj: int, only: Collection[str] | None) -> list[Member]:
    expected = "a complete archive"
    with ZipReader(archive, expected, open_zip) as opened:
        members = _wanted(list(_zip_members(opened.infos, archive)), only, archive)
    missing = _check(members, archive, out, _same_crc)
    local = threading.local()
    with ExitStack() as readers, ThreadPoolExecutor(max(1, nj)) as pool:  # zlib and the CRC let other threads run

        def extract(member: Member) -> None:
            if not hasattr(local, "zip"):
                local.zip = readers.enter_context(ZipReader(archive, expected, open_zip))
            _write(out / member.name, local.zip.blocks(member.info))

        for _ in progress(pool.map(extract, missing), len(missing), f"unpack {archive.name}"):
            pass  # an error ends the loop, and map() cancels the members that are not begun
    return members


def _zip_members(infos: Sequence[zipfile.ZipInfo], archive: Path) -> Iterator[Member]:
    for info in infos:
        if info.filename.endswith("/"):
            continue
        name = safe_name(info.orig_filename if "\0" in info.orig_filename else info.filename, archive)
        kind = (info.external_attr >> 16) & 0o170000
        if info.create_system == 3 and kind not in (0, 0o100000):
            raise InputError(archive, f"{name!r}, which is no regular file", "regular files and folders")
        if info.flag_bits & 1:
            raise InputError(archive, f"{name!r}, which is encrypted", "an archive without password")
        yield Member(name, info.file_size, info)


def _same_crc(member: Member, path: Path) -> bool:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            crc = zlib.crc32(block, crc)
    return crc == member.info.CRC


# --- tar ----------------------------------------------------------------------------------------------------------


def _unpack_tar(archive: Path, out: Path, only: Collection[str] | None) -> list[Member]:
    expected = "a complete tar archive"
    with telling_damage(archive, expected):
        opened = tarfile.open(archive, "r:*")  # noqa: SIM115  (closed below)
    with opened:
        with telling_damage(archive, expected):
            infos = [info for info in opened.getmembers() if not info.isdir()]
            _check_end(opened)
        found = [Member(safe_name(info.name, archive), info.size if info.isreg() else 0, info) for info in infos]
        found = _wanted(found, only, archive)
        for member in found:
            _refuse_outside(member.info, out, archive)
        members, links = ([m for m in found if m.info.isreg() == regular] for regular in (True, False))

        def blocks(member: Member) -> Iterator[bytes]:
            left = member.size
            with telling_damage(archive, expected, member.name):
                source: Any = opened.extractfile(member.info)
            while left:
                with telling_damage(archive, expected, member.name):
                    block = source.read(BLOCK)
                    if not block:
                        raise tarfile.ReadError(f"{left} bytes are missing")
                left -= len(block)
                yield block

        def same(member: Member, path: Path) -> bool:
            with path.open("rb") as file:
                return all(file.read(len(block)) == block for block in blocks(member))

        missing = _check(members, archive, out, same)
        for member in progress(missing, len(missing), f"unpack {archive.name}"):
            _write(out / member.name, blocks(member))
        for link in links:  # last, so that nothing is written through a link
            _link(link, out, archive)
    return members


def _check_end(opened: tarfile.TarFile) -> None:
    """Refuses an archive without an end record, which tarfile accepts: a damaged record or a file that is cut off."""
    file: Any = opened.fileobj
    file.seek(opened.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"neither a member nor the end at byte {opened.offset}")
    while file.read(BLOCK):  # the checksum of a compressed file is at its very end
        pass


def _refuse_outside(info: tarfile.TarInfo, out: Path, archive: Path) -> None:
    """Refuses links to elsewhere, devices and pipes, as ``tarfile.data_filter`` does, which Python 3.11.2 lacks."""
    if not (info.isreg() or info.issym() or info.islnk()):
        raise InputError(archive, f"{info.name!r}, a device or a pipe", "files and links")
    target = os.path.join(os.path.dirname(info.name), info.linkname) if info.issym() else info.linkname
    root = os.path.realpath(out)
    for path in (info.name, target):
        if os.path.isabs(path) or os.path.commonpath([os.path.realpath(os.path.join(root, path)), root]) != root:
            raise InputError(archive, f"{info.name!r}, which leads outside, to {path!r}", "files inside of its folder")


def _link(member: Member, out: Path, archive: Path) -> None:
    """Makes a symbolic link for a symbolic or hard link of an archive, after :func:`_refuse_outside`."""
    path = out / member.name
    if member.info.issym():
        target = member.info.linkname
    else:
        target = os.path.relpath(out / safe_name(member.info.linkname, archive), path.parent)
    if path.is_symlink() and os.readlink(path) == target:
        return
    if os.path.lexists(path):
        raise InputError(path, "a file", f"no file, or the link of {archive.name} (move it away)")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
