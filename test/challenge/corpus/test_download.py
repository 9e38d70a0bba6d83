"""Downloads from a real server that truncates, stalls, refuses and sends wrong bytes."""

import dataclasses
import hashlib
import json
import os
import socket
import threading
import time
from email.utils import formatdate

import numpy as np
import pytest

from s5.challenge.corpus.download import File, Patience, _Meter, _Transfer, download, published
from s5.utils.errors import InputError

DATA = np.random.default_rng(0).bytes(700_000)


def md5(data):
    return "md5:" + hashlib.md5(data).hexdigest()


def file(server, name="a.bin", data=DATA, known=True, hosts=None):
    server.files[f"/{name}"] = data
    urls = tuple(f"{host}/{name}" for host in hosts or [server.url])
    return File(name, urls, len(data) if known else None, md5(data) if known else None)


def get(server, tmp_path, quick, *files, **more):
    return download(files, tmp_path / "d", patience=quick, **more)


def left(tmp_path):
    return sorted(os.listdir(tmp_path / "d"))


def test_whole_file_under_its_name(server, tmp_path, quick):
    (path,) = get(server, tmp_path, quick, file(server))
    assert path.read_bytes() == DATA
    assert left(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("known", [True, False])
def test_truncated_answers_are_resumed_where_they_ended(server, tmp_path, quick, known):
    server.faults["/a.bin"] = [("truncate", 300_000), ("truncate", 200_000)]
    (path,) = get(server, tmp_path, quick, file(server, known=known))
    assert path.read_bytes() == DATA
    assert [asked for _, asked in server.requests] == [None, "bytes=300000-", "bytes=500000-"]


def test_stalled_connection_is_given_up_and_resumed(server, tmp_path, quick):
    server.faults["/a.bin"] = [("stall", 100_000)]
    (path,) = get(server, tmp_path, quick, file(server))
    assert path.read_bytes() == DATA
    assert server.requests[1][1] == "bytes=100000-"


def test_busy_server_is_asked_again(server, tmp_path, quick):
    server.faults["/a.bin"] = [503, 429, ("truncate", 10)]
    assert get(server, tmp_path, quick, file(server))[0].read_bytes() == DATA


@pytest.mark.parametrize(
    ("after", "least", "most"),
    [("0", 1, 1), ("7", 7, 7), ("date", 18, 20), ("soon", 1, 1), ("100", 60, 60), (None, 1, 1)],
)
def test_a_server_says_in_seconds_or_by_a_date_when_it_is_to_be_asked_again(tmp_path, after, least, most):
    if after == "date":
        after = formatdate(time.time() + 20, usegmt=True)
    transfer = _Transfer(File("a", ()), tmp_path, Patience(), _Meter(None), threading.Event())
    assert least <= transfer._pause(Patience().tries(), after) <= most


def test_waits_double_up_to_the_longest(tmp_path):
    patience, waits = Patience(retries=8), []
    transfer = _Transfer(File("a", ()), tmp_path, patience, _Meter(None), threading.Event())
    tries = patience.tries()
    for _ in range(8):
        tries = tries.increment("GET", "/")
        waits.append(transfer._pause(tries, None))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_next_run_goes_on(server, tmp_path, quick):
    server.faults["/a.bin"] = [("truncate", 400_000), 500, 500, 500]
    with pytest.raises(InputError, match="HTTP 500"):
        get(server, tmp_path, quick, file(server))
    assert left(tmp_path) == ["a.bin.part", "a.bin.part.json"]
    get(server, tmp_path, quick, file(server))
    assert server.requests[-1][1] == "bytes=400000-"
    assert left(tmp_path) == ["a.bin"]


def test_complete_file_is_not_asked_for(server, tmp_path, quick):
    get(server, tmp_path, quick, file(server))
    get(server, tmp_path, quick, file(server))
    assert len(server.requests) == 1


def test_server_without_ranges_starts_over(server, tmp_path, quick):
    server.ranges = False
    server.faults["/a.bin"] = [("truncate", 300_000)]
    assert get(server, tmp_path, quick, file(server))[0].read_bytes() == DATA


def test_server_that_always_truncates_the_same_way_is_given_up(server, tmp_path, quick):
    server.ranges = False
    server.faults["/a.bin"] = [("truncate", 300_000)] * 50
    with pytest.raises(InputError, match="the connection ended after 300000 of 700000 bytes"):
        get(server, tmp_path, quick, file(server))
    assert len(server.requests) == 4


def test_file_that_changed_since_is_not_mixed(server, tmp_path, quick):
    # No size or checksum is published: only the server's tag identifies the version.
    server.faults["/a.bin"] = [("truncate", 300_000), 500, 500, 500]
    with pytest.raises(InputError):
        get(server, tmp_path, quick, file(server, known=False))
    new = DATA[::-1]
    server.tags["/a.bin"] = '"2"'
    (path,) = get(server, tmp_path, quick, file(server, data=new, known=False))
    assert path.read_bytes() == new


def test_wrong_content_is_tried_once_more_then_refused(server, tmp_path, quick):
    server.faults["/a.bin"] = [("spoil",)]
    assert get(server, tmp_path, quick, file(server))[0].read_bytes() == DATA
    server.faults["/b.bin"] = [("spoil",)] * 9
    with pytest.raises(InputError, match=r"b\.bin: found 127.*instead of md5:"):
        get(server, tmp_path, quick, file(server, "b.bin"))
    assert "b.bin" not in left(tmp_path)


def test_mirrors_stand_in_for_each_other(server, tmp_path, quick):
    with socket.socket() as nobody:  # bound, but nobody listens
        nobody.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        wanted = file(server, hosts=[dead, f"{server.url}/gone", server.url])
        assert get(server, tmp_path, quick, wanted)[0].read_bytes() == DATA
    assert [path for path, _ in server.requests] == ["/gone/a.bin", "/a.bin"]  # a missing file is requested once


def test_another_size_than_published_is_another_file(server, tmp_path, quick):
    wanted = file(server)
    server.files["/a.bin"] = DATA + b"more"
    with pytest.raises(InputError, match="700004 bytes instead of 700000"):
        get(server, tmp_path, quick, wanted)


def test_file_that_is_there_with_another_size_is_left_alone(server, tmp_path, quick):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.bin").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"a\.bin: found 4 bytes, expected 700000"):
        get(server, tmp_path, quick, file(server))
    assert (tmp_path / "d/a.bin").read_bytes() == b"mine"


def test_recheck_finds_spoilt_file(server, tmp_path, quick):
    (path,) = get(server, tmp_path, quick, file(server))
    path.write_bytes(bytes(len(DATA)))
    get(server, tmp_path, quick, file(server))
    with pytest.raises(InputError, match="as published"):
        get(server, tmp_path, quick, file(server), recheck=True)


def test_several_at_once(server, tmp_path, quick):
    server.delay = 0.3
    patient = dataclasses.replace(quick, timeout=10)  # what is measured here is not the speed of the machine
    get(server, tmp_path, patient, *(file(server, f"{i}.bin") for i in range(6)), jobs=3)
    assert server.most_busy == 3
    assert left(tmp_path) == [f"{i}.bin" for i in range(6)]


def test_one_failure_keeps_what_the_others_have(server, tmp_path, quick):
    server.faults["/a.bin"] = [("stall", 100_000)]
    patient = Patience(timeout=5, retries=0, first_wait=0.01)
    missing = File("b.bin", (f"{server.url}/b.bin",))
    server.released.set()  # the stalled answer ends short instead
    with pytest.raises(InputError, match="404"):
        download([file(server), missing], tmp_path / "d", patience=patient)
    assert (tmp_path / "d/a.bin.part").exists() or (tmp_path / "d/a.bin").exists()


def test_too_little_space_is_said_before_anything_is_downloaded(server, tmp_path, quick):
    huge = File("a.bin", (f"{server.url}/a.bin",), size=10**18)
    with pytest.raises(InputError, match=r"free, expected .* TB for 1 files"):
        get(server, tmp_path, quick, huge)
    assert not server.requests


def test_only_web_addresses(tmp_path, quick):
    with pytest.raises(InputError, match="expected http://"):
        download([File("a", ("file:///etc/passwd",))], tmp_path, patience=quick)


def test_zenodo_record_is_asked_once(server, tmp_path, quick):
    record = {"files": [{"key": "a.zip", "size": 3, "checksum": "md5:0"}], "id": 1}
    server.files["/api/records/1"] = json.dumps(record).encode()
    for _ in range(2):
        assert published(f"{server.url}/api/records/1", tmp_path / ".record.json", quick) == {"a.zip": (3, "md5:0")}
    assert len(server.requests) == 1
    server.files["/api/records/2"] = b"<html>"
    with pytest.raises(InputError, match="without a list of files"):
        published(f"{server.url}/api/records/2", tmp_path / "other.json", quick)
