"""A file that is written is the old one or the new one, whatever happens meanwhile."""

import os
import signal
import subprocess
import sys

import pytest

from s5.utils.files import (
    PARTIAL,
    atomic_folder,
    atomic_write,
    hard_link,
    leftovers,
    link,
    write_bytes,
    write_json,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_readers_find_the_old_file_until_the_new_one_is_whole(tmp_path, durable):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with atomic_write(path, durable) as file:
        file.write(b"new, half of")
        file.flush()
        assert path.read_text() == "old"
        file.write(b" it")
    assert path.read_text() == "new, half of it" and names(tmp_path) == ["a.txt"]


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a.txt") as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_full_disk_is_said_of_the_file(tmp_path):
    script = (
        "import resource, signal, sys; from s5.utils.files import write_bytes\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_bytes(sys.argv[1], bytes(100000))\n"
        "except OSError as e: print(e.filename, e.strerror)\n"
    )
    path = tmp_path / "a.bin"
    said = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True).stdout
    assert said == f"{path} File too large\n" and names(tmp_path) == []


def test_an_error_of_another_file_stays_its_own(tmp_path):
    with pytest.raises(FileNotFoundError) as error, atomic_write(tmp_path / "a.zip"):
        (tmp_path / "missing.wav").read_bytes()
    assert error.value.filename == str(tmp_path / "missing.wav")
    with pytest.raises(FileNotFoundError) as error:
        write_bytes(tmp_path / "none" / "a.zip", b"")
    assert error.value.filename == str(tmp_path / "none" / "a.zip")


def test_the_mode_is_that_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_what_a_killed_process_left_is_found_by_its_name_and_by_no_pattern_for_data(tmp_path):
    script = (
        "import os, signal, sys; from s5.utils.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file: file.write(b'x'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "a_1.wav"])
    assert done.returncode == -signal.SIGKILL
    assert list(leftovers(tmp_path, "a_*")) == list(tmp_path.iterdir()) and not list(leftovers(tmp_path, "b_*"))
    assert names(tmp_path)[0].endswith(PARTIAL) and not list(tmp_path.glob("*.wav"))


def test_links_point_to_the_latest_target(tmp_path):
    for name in ("a", "b"):
        write_text(tmp_path / name, name)
        link(tmp_path / "best", name)
        assert (tmp_path / "best").read_text() == name
        hard_link(tmp_path / "second", tmp_path / name)
        hard_link(tmp_path / "second", tmp_path / name)  # again
        assert (tmp_path / "second").samefile(tmp_path / name)
    assert names(tmp_path) == ["a", "b", "best", "second"]


def test_json_has_a_last_line_end(tmp_path):
    write_json(tmp_path / "a.json", {"ä": 1}, indent=1, ensure_ascii=False)
    assert (tmp_path / "a.json").read_bytes() == '{\n "ä": 1\n}\n'.encode()


def test_a_folder_is_replaced_as_a_whole_or_stays(tmp_path):
    out = tmp_path / "deep" / "out"
    for content in ("first", "second"):
        with atomic_folder(out) as folder:
            write_text(folder / content, content)
        assert names(out) == [content] and names(out.parent) == ["out"]
    with pytest.raises(KeyboardInterrupt), atomic_folder(out):
        raise KeyboardInterrupt
    assert names(out) == ["second"] and names(out.parent) == ["out"]


def test_a_link_in_a_folders_place_is_replaced_and_what_it_points_to_stays(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a").touch()
    (tmp_path / "out").symlink_to("elsewhere")
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "b").touch()
    assert names(tmp_path) == ["elsewhere", "out"] and names(tmp_path / "out") == ["b"]
    assert names(tmp_path / "elsewhere") == ["a"]
