"""Files that are written whole or not at all, and checked when they are read."""

import errno
import zipfile

import pytest
import torch

from s5.tasks.checkpoint import NEWEST, PREVIOUS, Checkpoints, Damaged, has_checkpoint, read, save


def content(n):
    return {"model": {"weight": torch.arange(float(n))}, "epoch": n}


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.pth"
    save(content(3), path)
    before = path.read_bytes()

    def fail():
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left on device") as error:
        save(content(4), path, before=fail)
    assert error.value.filename == str(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.pth"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        save(content(1), tmp_path / "none/a.pth")
    assert error.value.filename == str(tmp_path / "none/a.pth")


def test_every_kind_of_damage_is_noticed(tmp_path):
    path = tmp_path / "a.pth"
    save(content(10000), path)
    whole = path.read_bytes()
    assert torch.equal(read(path)["model"]["weight"], torch.arange(10000.0))
    at = whole.index(torch.arange(5000.0, 5004.0).numpy().tobytes())
    broken = {
        "empty": b"",
        "cut off": whole[:-100],
        "in half": whole[: len(whole) // 2],
        "a byte changed": whole[:at] + b"\x01" + whole[at + 1 :],
        "a block never written": whole[: at - 512] + bytes(1024) + whole[at + 512 :],
        "text": b"not a checkpoint",
    }
    for what, data in broken.items():
        path.write_bytes(data)
        with pytest.raises(Damaged):
            read(path)
            pytest.fail(what)


def test_damage_that_the_system_reports_without_a_name_is_damage(tmp_path, monkeypatch):
    """A place before the start of the file, say."""
    save(content(1), tmp_path / "a.pth")

    def seek(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(zipfile.ZipFile, "testzip", seek)
    with pytest.raises(Damaged, match=r"OSError: .*Invalid argument"):
        read(tmp_path / "a.pth")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.pth")


def test_code_in_a_checkpoint_does_not_run(tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return (print, ("code ran",))

    torch.save(Evil(), tmp_path / "a.pth")
    with pytest.raises(Damaged, match="Weights only load failed"):
        read(tmp_path / "a.pth")
    assert "code ran" not in capsys.readouterr().out


def test_the_checkpoint_before_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load() is None and not has_checkpoint(tmp_path)
    for n in (1, 2, 3):
        checkpoints.save(content(n))
    assert checkpoints.load()["epoch"] == 3 and read(tmp_path / PREVIOUS)["epoch"] == 2
    (tmp_path / NEWEST).unlink()
    assert has_checkpoint(tmp_path) and checkpoints.load()["epoch"] == 2


def test_a_damaged_checkpoint_never_becomes_the_one_before(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for n in (1, 2):
        checkpoints.save(content(n))
    (tmp_path / NEWEST).write_bytes(b"PK")
    assert checkpoints.load()["epoch"] == 1
    checkpoints.save(content(3))
    assert [read(tmp_path / name)["epoch"] for name in (NEWEST, PREVIOUS)] == [3, 1]
