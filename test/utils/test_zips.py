"""Damaged zip files, whatever is wrong with them, are one line that names the file; so are tar files."""

import struct
import tarfile
import zipfile

import pytest

from s5.challenge.corpus.archives import unpack
from s5.utils.errors import InputError
from s5.utils.zips import ZipReader

CONTENT = {"a.txt": b"a" * 5000, "b.txt": bytes(range(256)) * 20}
DIRECTORY, FILE, END = b"PK\1\2", b"PK\3\4", b"PK\5\6"


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out:
        for name, content in CONTENT.items():
            out.writestr(name, content)
    return path


def read(path):
    with ZipReader(path, "a zip file") as found:
        return {info.filename: found.read(info) for info in found.infos}


def test_a_sound_one_is_read_in_blocks(archive, monkeypatch):
    assert read(archive) == CONTENT
    monkeypatch.setattr("s5.utils.zips.BLOCK", 100)
    assert read(archive) == CONTENT


def put(record, offset, form, value):
    """Another number in the first record of a kind."""

    def change(data):
        struct.pack_into(form, data, data.index(record) + offset, value)

    return change


def not_utf8(data):
    at = data.index(DIRECTORY)
    data[at + 9] |= 0x08  # the name is UTF-8, says the flag
    data[at + 46] = 0xFF


def other_byte(data):
    data[data.index(b"aaaa") + 100] ^= 1


BROKEN = {
    "a directory that lies outside of the file": put(END, 16, "<I", 0xFFFFFF00),
    "a directory larger than the file": put(END, 12, "<I", 0x7FFFFFFF),
    "a name that is no UTF-8": not_utf8,
    "a place outside of the file": put(DIRECTORY, 42, "<I", 0xFFFFFF00),
    "an encrypted file": put(DIRECTORY, 8, "<H", 1),
    "an unknown compression": put(DIRECTORY, 10, "<H", 77),
    "another byte": other_byte,
    "bzip2 of no bzip2": put(DIRECTORY, 10, "<H", zipfile.ZIP_BZIP2),
    "LZMA of no LZMA": put(DIRECTORY, 10, "<H", zipfile.ZIP_LZMA),
    "deflate of no deflate": put(DIRECTORY, 10, "<H", zipfile.ZIP_DEFLATED),
    "a file that needs a later version": put(DIRECTORY, 6, "<H", 99),
    "fewer bytes than the directory says": put(DIRECTORY, 24, "<I", 6000),
    "more bytes than the directory says": put(DIRECTORY, 24, "<I", 4000),
    "extra fields of another length": put(DIRECTORY, 30, "<H", 3),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_one_is_told_in_one_line(archive, tmp_path, name):
    data = bytearray(archive.read_bytes())
    BROKEN[name](data)
    archive.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.zip: found a damaged file \(.+\), expected") as error:
        read(archive)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"a\.zip"):
        unpack(archive, tmp_path / "out")


def test_a_member_without_a_name_is_refused(archive, tmp_path):
    data = archive.read_bytes().replace(b"a.txt", b"\0.txt")
    archive.write_bytes(data)
    with pytest.raises(InputError, match="member"):
        unpack(archive, tmp_path / "out")


def test_what_is_no_file_is_named(tmp_path):
    for path in (tmp_path / "none.zip", tmp_path):
        with pytest.raises(InputError, match="found no such file, expected a zip file"):
            ZipReader(path, "a zip file")


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
def test_a_tar_file_that_is_cut_or_changed_is_refused_wherever(tmp_path, kind):
    path, file = tmp_path / f"a.tar.{kind}", tmp_path / "x"
    with tarfile.open(path, f"w:{kind}") as out:
        for name, content in CONTENT.items():
            file.write_bytes(content)
            out.add(file, name)
    whole = path.read_bytes()
    headers = [at for at in range(0, len(whole), 512) if whole[at + 257 : at + 262] == b"ustar"]
    cuts = [*headers[1:], len(whole) // 2, 700] if not kind else [len(whole) // 3, len(whole) - 4, 5]
    for n in cuts:
        path.write_bytes(whole[:n])
        with pytest.raises(InputError, match=r"a\.tar.*found a damaged file"):
            unpack(path, tmp_path / f"cut {n}")
    # The second member's own record; of a compressed file any byte.
    for at in headers[1:] or range(len(whole) // 3, len(whole) - 20, 7):
        path.write_bytes(whole[: at + 10] + bytes([whole[at + 10] ^ 4]) + whole[at + 11 :])
        with pytest.raises(InputError, match=r"a\.tar"):
            unpack(path, tmp_path / f"changed {at}")
