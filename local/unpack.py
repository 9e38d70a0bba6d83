#!/usr/bin/env python3
"""Unpacks the archive of the mini data set into data/raw, and counts the files there.

Only regular files with the expected names are taken, so that no member can write outside the folder; everything is
unpacked under a temporary name first, and renamed after the whole archive was read.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import shutil
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import h5py

from s5.bin.command import Parser, run
from s5.data import audio_info
from s5.data.datadir import CONTENT
from s5.utils.errors import InputError
from s5.utils.files import write_bytes, write_text

MEMBER = re.compile(r"(sound_event|interference|noise)/(train|valid|test)(/[A-Za-z0-9][A-Za-z0-9_-]*){1,3}\.(ogg|flac)")
PLACE = {"sound_event": "sound_event", "interference": "interference", "noise": "ambience"}
"""Folder below data/raw of each kind in the archive. data/raw/noise is made from the mono ambiences."""


def members(archive: Path) -> dict[str, bytes]:
    """Content of every file of the archive by name.

    Raises:
        InputError: the archive is damaged, or a member is no regular file, has an unexpected name, or is not audio.
    """
    try:
        content = gzip.decompress(archive.read_bytes())
        out: dict[str, bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for info in tar:
                if not info.isreg():
                    raise InputError(archive, f"{info.name!r}, which is no regular file", "regular files only")
                if not MEMBER.fullmatch(info.name):
                    raise InputError(archive, f"member {info.name!r}", "<kind>/<split>/.../<name>.ogg or .flac")
                file = tar.extractfile(info)
                data = file.read() if file else b""
                if len(data) != info.size or data[:4] not in (b"OggS", b"fLaC"):
                    raise InputError(archive, f"{info.name}, damaged", "a complete audio file")
                out[info.name] = data
    except (OSError, tarfile.TarError, EOFError, zlib.error) as e:
        raise InputError(
            archive, getattr(e, "strerror", None) or str(e) or "a damaged file", "a gzipped tar archive"
        ) from e
    # A tar that was cut between two members lacks the two empty blocks at its end.
    if not out or content[-1024:].strip(b"\0"):
        raise InputError(archive, "an archive that ends early", "a complete archive")
    return out


def unpack(archive: Path, out: Path) -> bool:
    """Unpacks the missing and damaged files into ``out``. Returns False if nothing was to do."""
    files = members(archive)
    version = hashlib.sha256(archive.read_bytes()).hexdigest()
    stamp = out / ".unpacked"
    places = [out / place for place in PLACE.values()]
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == version and all(p.is_dir() for p in places):
        restored = [name for name, data in files.items() if _restore(_path(out, name), data)]
        return bool(restored)
    partial = out / ".unpack.partial"
    shutil.rmtree(partial, ignore_errors=True)
    for name, data in files.items():
        path = _path(partial, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    stamp.unlink(missing_ok=True)
    for place in PLACE.values():
        if (partial / place).is_dir():
            old = partial / f"old_{place}"
            if (out / place).exists():
                (out / place).rename(old)
            (partial / place).rename(out / place)
    shutil.rmtree(partial)
    write_text(stamp, version)
    return True


def _path(folder: Path, name: str) -> Path:
    """The path of a member below data/raw."""
    kind, _, rest = name.partition("/")
    return folder / PLACE[kind] / rest


def _restore(path: Path, data: bytes) -> bool:
    """Writes a file that is missing or differs; False if it is correct already."""
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)
    return True


def content(raw: Path) -> str:
    """A checksum over names and contents of all recordings, and over responses and positions of all rooms."""
    digest = hashlib.sha256()
    for kind in ("sound_event", "interference", "noise", "room_ir"):
        for path in sorted((raw / kind).rglob("*.*")):
            if path.is_file() and not path.name.startswith("."):
                digest.update(f"{path.relative_to(raw)}\n".encode())
                digest.update(hashlib.sha256(_room(path) if path.suffix == ".sofa" else path.read_bytes()).digest())
    return digest.hexdigest()


def _room(path: Path) -> bytes:
    """The numbers of a SOFA file, without its time of writing."""
    with h5py.File(path, "r") as file:
        arrays = {name: file[name][()] for name in sorted(file) if isinstance(file[name], h5py.Dataset)}
    return b"".join(name.encode() + value.tobytes() for name, value in arrays.items() if hasattr(value, "tobytes"))


def summary(raw: Path) -> str:
    """Table of kind, split, label, number of files and of sources, and seconds."""
    rows: dict[tuple[str, str, str], list[tuple[str, float]]] = defaultdict(list)
    for kind in ("sound_event", "interference", "noise", "room_ir"):
        for path in sorted((raw / kind).rglob("*.*")):
            parts = path.relative_to(raw / kind).parts
            if path.name.startswith(".") or len(parts) < 2:
                continue
            source = parts[2] if len(parts) > 3 else re.sub(r"_\d+(_sp[\d.]+)?$", "", path.stem)
            _, n_samples, fs = (1, 0, 1) if path.suffix == ".sofa" else audio_info(path)
            seconds = n_samples / fs
            rows[kind, parts[0], parts[1] if len(parts) > 2 else "-"].append((source, seconds))
    lines = [f"{'kind':13s} {'split':6s} {'label':18s} {'files':>6s} {'sources':>8s} {'seconds':>8s}"]
    order = {"train": 0, "valid": 1, "test": 2}
    for (kind, split, label), found in sorted(rows.items(), key=lambda r: (r[0][0], order.get(r[0][1], 3), r[0][2])):
        total = f"{sum(s for _, s in found):8.1f}" if kind != "room_ir" else f"{'-':>8s}"
        lines.append(f"{kind:13s} {split:6s} {label:18s} {len(found):6d} {len({s for s, _ in found}):8d} {total}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--archive", default=str(Path(__file__).resolve().parent / "mini_s5.tar.gz"), help="the archive"
    )
    parser.add_argument("--out", default="data/raw", help="folder to unpack into")
    parser.add_argument("--summary", action="store_true", help="only count the files in the folder")
    parser.add_argument("--content", action="store_true", help="only write .content, a checksum for run.sh")
    args = parser.parse_args(argv)
    if args.summary:
        print(summary(Path(args.out)))
        return
    if args.content:
        write_text(Path(args.out, CONTENT), f"{content(Path(args.out))}\n")
        return
    done = unpack(Path(args.archive), Path(args.out))
    print(f"{args.out}: {'unpacked' if done else 'unpacked already'}")


if __name__ == "__main__":
    run(main)
