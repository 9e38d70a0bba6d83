"""Archives unpacked safely: nothing outside the folder, nothing overwritten, space looked for first, restartable.

<out>/...                        the members, each under a temporary name until it is whole
<out>/.unpacked/<archive>.tsv    when all are there: the archive's size, then path and size of each member
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
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from s5.challenge.corpus.download import check_space
from s5.challenge.corpus.splitzip import open_zip, parts
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
    """Relative to the archive, checked."""
    size: int
    info: Any
    """The archive's own record."""


def unpack(archive: str | Path, out: str | Path, nj: int = 1, only: Collection[str] | None = None) -> bool:
    """Unpacks a zip archive (split or not) or a tar archive, or what is missing of it.

    Args:
        archive: its file; of a split one the last, ``a.zip``.
        out: folder to unpack into.
        nj: members at a time (zip).
        only: names of the members that are wanted; None: all.

    Returns:
        False if this very archive was unpacked here before.

    Raises:
        InputError: a damaged archive; a member that would lie outside of ``out`` or is no regular file or folder (in
            tar archives links that stay inside are allowed); a file that is there with other content; a full disk.
            Nothing is written before the list of members has been found good.
    """
    archive, out = Path(archive), Path(out)
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
    """Path below ``out`` -> size of what an archive of that name left there; None if it was not unpacked there."""
    try:
        lines = (Path(out) / DONE / f"{archive}.tsv").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return {name: int(size) for name, _, size in (line.rpartition("\t") for line in lines[1:])}


def _head(files: Sequence[Path], only: Collection[str] | None) -> str:
    """What identifies an archive, and what was wanted of it."""
    sizes = " ".join(str(_stat(file).st_size) for file in files)
    wanted = "all" if only is None else f"{len(only)} members {zlib.crc32(' '.join(sorted(only)).encode()):08x}"
    return f"# {sizes} bytes, {wanted}"


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as e:
        raise InputError(path, e.strerror or "no file", "an archive") from e


def safe_name(name: str, archive: Path) -> str:
    """A member's name, if it stays inside of the folder that it is unpacked in.

    Raises:
        InputError: it is absolute, goes up, or has characters that no such name has.
    """
    pure = PurePosixPath(name)
    bad = "\\" in name or "\0" in name or "\n" in name or "\t" in name
    if pure.is_absolute() or ".." in pure.parts or bad or not pure.parts or pure.parts[0] == DONE:
        raise InputError(archive, f"member {name!r}", "names of files inside of the archive's folder")
    return str(pure)


def _check(members: Sequence[Member], archive: Path, out: Path, same: Callable[[Member, Path], bool]) -> list[Member]:
    """The members that are not there yet, once all names and the space are found good."""
    seen: set[str] = set()
    for member in members:
        if member.name in seen:
            raise InputError(archive, f"member {member.name!r} twice", "each once")
        seen.add(member.name)
    real: dict[Path, bool] = {}
    root = os.path.realpath(out)
    missing = []
    for member in members:
        path = out / member.name
        parent = path.parent
        if parent not in real:
            real[parent] = os.path.commonpath([root, os.path.realpath(parent)]) == root
        if not real[parent]:
            raise InputError(parent, f"a link to {os.path.realpath(parent)}", "a folder")
        if not os.path.lexists(path):
            missing.append(member)
        elif path.is_symlink() or not path.is_file() or path.stat().st_size != member.size or not same(member, path):
            raise InputError(path, "a file of other content", f"none, or that of {archive.name} (move it away)")
    check_space(out, sum(member.size for member in missing), f"what {archive.name} holds")
    return missing


# --- zip ----------------------------------------------------------------------------------------------------------


def _unpack_zip(archive: Path, out: Path, nj: int, only: Collection[str] | None) -> list[Member]:
    expected = "a complete archive"
    with ZipReader(archive, expected, open_zip) as opened:
        members = list(_zip_members(opened.infos, archive, only))
    missing = _check(members, archive, out, _same_crc)
    logging.info("%s: %d files, %d of them to unpack", archive.name, len(members), len(missing))
    local, opened_here = threading.local(), []

    def extract(member: Member) -> None:
        if not hasattr(local, "zip"):
            local.zip = ZipReader(archive, expected, open_zip)
            opened_here.append(local.zip)
        path = out / member.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as target:
            for block in local.zip.blocks(member.info):
                target.write(block)

    try:
        with ThreadPoolExecutor(max(1, nj)) as pool:  # zlib and the CRC let other threads run
            try:
                for _ in progress(pool.map(extract, missing), len(missing), f"unpack {archive.name}"):
                    pass
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    finally:
        for one in opened_here:
            one.close()
    return members


def _zip_members(infos: Sequence[zipfile.ZipInfo], archive: Path, only: Collection[str] | None) -> Iterator[Member]:
    for info in infos:
        if info.filename.endswith("/"):
            continue
        name = safe_name(info.orig_filename if "\0" in info.orig_filename else info.filename, archive)
        kind = (info.external_attr >> 16) & 0o170000
        if info.create_system == 3 and kind not in (0, 0o100000):
            raise InputError(archive, f"{name!r}, which is no regular file", "regular files and folders")
        if info.flag_bits & 1:
            raise InputError(archive, f"{name!r}, which is encrypted", "an archive without password")
        if only is None or name in only:
            yield Member(name, info.file_size, info)
    if only is not None:
        _all_found(only, {i.filename for i in infos}, archive)


def _same_crc(member: Member, path: Path) -> bool:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            crc = zlib.crc32(block, crc)
    return crc == member.info.CRC


def _all_found(only: Iterable[str], names: Collection[str], archive: Path) -> None:
    missing = sorted(set(only) - set(names))
    if missing:
        raise InputError(archive, f"no {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""), "it")


# --- tar ----------------------------------------------------------------------------------------------------------


def _unpack_tar(archive: Path, out: Path, only: Collection[str] | None) -> list[Member]:
    expected = "a complete tar archive"
    with telling_damage(archive, expected):
        opened = tarfile.open(archive, "r:*")  # noqa: SIM115  (closed below)
    with opened:
        with telling_damage(archive, expected):
            infos = opened.getmembers()
            _check_end(opened)
        links, members = [], []
        for info in infos:
            if info.isdir():
                continue
            name = safe_name(info.name, archive)
            if only is not None and name not in only:
                continue
            _refuse_outside(info, name, out, archive)
            if not info.isreg():
                links.append(Member(name, 0, info))
                continue
            members.append(Member(name, info.size, info))
        if only is not None:
            _all_found(only, {m.name for m in [*members, *links]}, archive)

        def same(member: Member, path: Path) -> bool:
            with telling_damage(archive, expected, member.name):
                return _same_content(opened, member, path)

        missing = _check(members, archive, out, same)
        logging.info("%s: %d files, %d of them to unpack", archive.name, len(members), len(missing))
        for member in progress(missing, len(missing), f"unpack {archive.name}"):
            path = out / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as target:
                left = member.size
                with telling_damage(archive, expected, member.name):
                    source = opened.extractfile(member.info)
                assert source is not None
                while left:
                    with telling_damage(archive, expected, member.name):
                        block = source.read(BLOCK)
                        if not block:
                            raise tarfile.ReadError(f"{left} bytes are missing")
                    target.write(block)
                    left -= len(block)
        # Links come last: nothing is written through one.
        for link in links:
            _link(link, out, archive)
    return members


def _check_end(opened: tarfile.TarFile) -> None:
    """Refuses an archive whose list of members ends for another reason than its end: tarfile takes a damaged record,
    or the end of a file that is cut off, for it."""
    file: Any = opened.fileobj
    file.seek(opened.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"neither a member nor the end at byte {opened.offset}")
    while file.read(BLOCK):  # a compressed file's checksum is behind all of it
        pass


def _refuse_outside(info: tarfile.TarInfo, name: str, out: Path, archive: Path) -> None:
    """Refuses links to elsewhere, devices and pipes."""
    try:
        data_filter(info, str(out))
    except tarfile.TarError as e:
        raise InputError(archive, f"{name!r}: {e}", "files inside of the archive's folder") from e


def own_filter(info: tarfile.TarInfo, out: str) -> None:
    """What ``tarfile.data_filter`` refuses, for Pythons without it. Raises TarError."""
    if not (info.isreg() or info.issym() or info.islnk()):
        raise tarfile.TarError("a device or a pipe")
    target = info.linkname if not info.isreg() else info.name
    if info.issym():
        target = os.path.join(os.path.dirname(info.name), target)
    root = os.path.realpath(out)
    for path in (info.name, target):
        if os.path.isabs(path) or os.path.commonpath([os.path.realpath(os.path.join(root, path)), root]) != root:
            raise tarfile.TarError(f"leads outside, to {path!r}")


data_filter: Callable[[tarfile.TarInfo, str], Any] = getattr(tarfile, "data_filter", own_filter)
"""Python has it from 3.11.4 on; Debian 12 has 3.11.2."""


def _link(member: Member, out: Path, archive: Path) -> None:
    """Makes a symbolic or hard link of an archive; :func:`_refuse_outside` has found its target inside."""
    path = out / member.name
    if member.info.issym():
        target = member.info.linkname
    else:
        target = os.path.relpath(out / safe_name(member.info.linkname, archive), path.parent)
    if path.is_symlink() and os.readlink(path) == target:
        return
    if os.path.lexists(path):
        raise InputError(path, "a file", f"none, or the link of {archive.name} (move it away)")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _same_content(opened: tarfile.TarFile, member: Member, path: Path) -> bool:
    source = opened.extractfile(member.info)
    assert source is not None
    with source, path.open("rb") as file:
        while True:
            ours, theirs = file.read(BLOCK), source.read(BLOCK)
            if ours != theirs:
                return False
            if not ours:
                return True
