"""Tests of split and other archives: read in place, unpacked safely, resumable."""

import io
import os
import shutil
import struct
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest

from s5.challenge.corpus.archives import unpack, unpacked
from s5.challenge.corpus.splitzip import open_zip, parts
from s5.utils.errors import InputError

needs_zip = pytest.mark.skipif(shutil.which("zip") is None, reason="no zip program")


def content(n=6):
    """Bytes by file name; some compress well, some not at all."""
    rng = np.random.default_rng(0)
    files = {f"top/folder {i}/f{i}.bin": rng.bytes(30_000 + 977 * i) for i in range(n)}
    return files | {"top/text.txt": b"words " * 9000, "top/empty": b""}


def write(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def read(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and ".unpacked" not in p.parts
    }


def cut(archive, folder, size, zip64):
    """Splits a zip archive by the standard: positions count from the beginning of each part."""
    data = archive.read_bytes()
    with zipfile.ZipFile(archive) as opened:
        infos, begin = opened.infolist(), opened.start_dir
    body = b"PK\x07\x08" + data[:begin]  # the signature of a split archive shifts everything by four bytes
    headers = [4 + info.header_offset for info in infos]
    bounds = [0]
    while bounds[-1] + size < len(body):
        at = bounds[-1] + size
        # No header crosses a boundary.
        inside = [h for h in headers if h < at < h + 30 + 64]
        bounds.append(inside[0] if inside else at)
    part_of = [max(i for i, b in enumerate(bounds) if b <= h) for h in headers]
    last = len(bounds) - 1
    directory = b""
    for info, header, part in zip(infos, headers, part_of, strict=True):
        name, offset = info.filename.encode(), header - bounds[part]
        extra = struct.pack("<2HQQQL", 1, 28, info.file_size, info.compress_size, offset, part) if zip64 else b""
        full = 0xFFFFFFFF
        sizes = (full, full) if zip64 else (info.compress_size, info.file_size)
        fields = (info.CRC, *sizes, len(name), len(extra), 0, 0xFFFF if zip64 else part, 0, 0)
        head = struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, info.compress_type, 0, 0, *fields, full if zip64 else offset
        )
        directory += head + name + extra
    at, n, total = len(body) - bounds[-1], len(infos), len(directory)
    end = b""
    if zip64:
        end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, last, last, n, n, total, at)
        end += struct.pack("<4sLQL", b"PK\6\7", last, at + total, last + 1)
    numbers = (0xFFFF,) * 4 + (0xFFFFFFFF,) * 2 if zip64 else (last, last, n, n, total, at)
    end += struct.pack("<4s4H2LH", b"PK\5\6", *numbers, 0)
    folder.mkdir(parents=True, exist_ok=True)
    for i, b in enumerate(bounds):
        piece = body[b : bounds[i + 1]] if i < last else body[b:] + directory + end
        (folder / (f"a.z{i + 1:02d}" if i < last else "a.zip")).write_bytes(piece)
    return folder / "a.zip"


@pytest.fixture
def whole(tmp_path):
    """A zip archive in one part."""
    path = tmp_path / "whole.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content().items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("zip64", [False, True])
def test_split_archive_reads_as_one(whole, tmp_path, zip64):
    archive = cut(whole, tmp_path / "split", 50_000, zip64)
    assert len(parts(archive)) >= 4
    with open_zip(archive) as opened:
        assert opened.testzip() is None
        assert {i.filename: opened.read(i) for i in opened.infolist()} == content()


@needs_zip
@pytest.mark.parametrize("more", [[], ["-fz"]])
def test_split_archive_of_the_zip_program(tmp_path, more):
    write(tmp_path / "in", content())
    subprocess.run(["zip", "-q", "-r", "-s", "64k", *more, "../a.zip", "top"], cwd=tmp_path / "in", check=True)
    assert (tmp_path / "a.z02").exists()
    assert unpack(tmp_path / "a.zip", tmp_path / "out")
    assert read(tmp_path / "out") == content()


def test_unpacks_once(whole, tmp_path):
    assert unpack(whole, tmp_path / "out", nj=3)
    assert read(tmp_path / "out") == content()
    assert not unpack(whole, tmp_path / "out")
    assert unpacked("whole.zip", tmp_path / "out") == {name: len(data) for name, data in content().items()}


def test_goes_on_after_an_interruption(whole, tmp_path):
    unpack(whole, tmp_path / "out")
    (tmp_path / "out/.unpacked/whole.zip.tsv").unlink()
    (tmp_path / "out/top/text.txt").unlink()
    kept = tmp_path / "out/top/folder 1/f1.bin"
    os.utime(kept, (1, 1))
    assert unpack(whole, tmp_path / "out")
    assert read(tmp_path / "out") == content()
    assert kept.stat().st_mtime == 1  # a complete file is not written again


def test_wanted_members_only(whole, tmp_path):
    unpack(whole, tmp_path / "out", only=["top/text.txt"])
    assert list(read(tmp_path / "out")) == ["top/text.txt"]
    with pytest.raises(InputError, match="no top/other"):
        unpack(whole, tmp_path / "out2", only=["top/other"])


def test_missing_part_is_named(whole, tmp_path):
    archive = cut(whole, tmp_path / "split", 50_000, False)
    (tmp_path / "split/a.z02").unlink()
    with pytest.raises(InputError, match=r"a\.z02: found no file, expected part 2 of the \d parts of a\.zip"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("damage", ["short", "flipped", "no zip"])
def test_damaged_archive_is_one_line(whole, tmp_path, damage):
    data = bytearray(whole.read_bytes())
    if damage == "short":
        data = data[:-30]
    elif damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    else:
        data = bytearray(b"<html>not found</html>")
    whole.write_bytes(data)
    with pytest.raises(InputError) as e:
        unpack(whole, tmp_path / "out")
    assert "whole.zip" in str(e.value)
    assert not list((tmp_path / "out").rglob("*.partial")) if (tmp_path / "out").exists() else True
    assert unpacked("whole.zip", tmp_path / "out") is None


@pytest.mark.parametrize("name", ["../out.txt", "/etc/s5_test", "a/../../b", "a\\..\\b", ".unpacked/x"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_nothing_outside_of_the_folder(tmp_path, name, kind):
    path = tmp_path / f"bad.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("good.txt", "g")
            archive.writestr(zipfile.ZipInfo(name), "x")
    else:
        with tarfile.open(path, "w") as archive:
            for member in ("good.txt", name):
                info = tarfile.TarInfo(member)
                info.size = 1
                archive.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(InputError, match="member"):
        unpack(path, tmp_path / "in/out")
    assert not read(tmp_path / "in/out")  # not even the good file
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, "in"]


def test_symbolic_link_in_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(info, "/etc")
    with pytest.raises(InputError, match="no regular file"):
        unpack(tmp_path / "bad.zip", tmp_path / "out")


def test_folder_that_is_a_link_elsewhere_is_refused(whole, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/top").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="a link to"):
        unpack(whole, tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_other_file_of_that_name_is_kept(whole, tmp_path):
    mine = b"mine!!" * 9000  # as long as the member
    write(tmp_path / "out", {"top/text.txt": mine})
    with pytest.raises(InputError, match=r"text\.txt: found a file of other content"):
        unpack(whole, tmp_path / "out")
    assert read(tmp_path / "out") == {"top/text.txt": mine}


def test_space_is_looked_for_first(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"x")
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    # The directory says an exabyte, in a zip64 field.
    extra = struct.pack("<2HQ", 1, 8, 10**18)
    data[at + 24 : at + 28] = b"\xff" * 4
    data[at + 30 : at + 32] = struct.pack("<H", len(extra))
    data[at + 47 : at + 47] = extra
    end = data.rfind(b"PK\x05\x06")
    data[end + 12 : end + 16] = struct.pack("<L", 47 + len(extra))
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"free, expected .* TB for the content of bomb\.zip"):
        unpack(path, tmp_path / "out")
    assert not read(tmp_path / "out")


def test_tar_with_links_inside(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind, target in (
            ("d/a.wav", tarfile.REGTYPE, ""),
            ("e/b.wav", tarfile.SYMTYPE, "../d/a.wav"),
            ("e/c.wav", tarfile.LNKTYPE, "d/a.wav"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, target, 0 if target else 5
            archive.addfile(info, io.BytesIO(b"sound") if not target else None)
    assert unpack(path, tmp_path / "out")
    assert read(tmp_path / "out") == dict.fromkeys(("d/a.wav", "e/b.wav", "e/c.wav"), b"sound")
    (tmp_path / "out/.unpacked/a.tar.tsv").unlink()
    assert unpack(path, tmp_path / "out")  # existing links are accepted


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/hostname"),
        (tarfile.SYMTYPE, "../../x"),
        (tarfile.LNKTYPE, "/etc/hostname"),
        (tarfile.LNKTYPE, "../x"),
        (tarfile.CHRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_tar_with_a_link_outside_or_a_device_is_refused(tmp_path, kind, target):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("e/b.wav")
        info.type, info.linkname = kind, target
        archive.addfile(info)
    with pytest.raises(InputError, match=r"e/b\.wav"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


def test_truncated_tar_is_one_line(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("a.wav")
        info.size = 100_000
        archive.addfile(info, io.BytesIO(bytes(100_000)))
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[:50_000])
    with pytest.raises(InputError, match=r"a\.tar"):
        unpack(tmp_path / "a.tar", tmp_path / "out")
    assert not read(tmp_path / "out")
