"""Work in several processes: the order of the results, and what happens when a process is killed."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from s5.utils.errors import InputError
from s5.utils.parallel import in_processes, run_jobs

sys.path.insert(0, str(Path(__file__).parent))
from parallel_jobs import end, halting, killed, refuse, square

ITEMS = list(range(20))


def test_results_come_in_order_whatever_the_number_of_processes():
    for nj in (1, 2, 3):
        assert list(run_jobs(square, ITEMS, nj, "squares")) == [i * i for i in ITEMS]
    assert list(in_processes(square, [], 2, "nothing")) == []


def test_the_first_item_that_fails_is_named_after_the_results_before_it():
    found = []
    with pytest.raises(InputError, match=r"^5\.wav: found nothing, expected audio$"):
        for out in in_processes(refuse, ITEMS, 3, "x"):
            found.append(out)
    assert found == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (partial(killed, signal.SIGKILL), "was killed by SIGKILL, probably because memory ran out"),
        (partial(killed, signal.SIGBUS), r"was killed by SIGBUS.* found \d+ MB of \d+ MB free there"),
        (partial(killed, signal.SIGSEGV), "was killed by SIGSEGV"),
        (partial(os._exit, 0), "ended before its work did: found exit status 0"),
        (partial(os._exit, 3), "ended before its work did: found exit status 3"),
    ],
)
def test_a_process_that_is_killed_ends_the_work_in_one_line(how, said):
    began = time.monotonic()
    with pytest.raises(ChildProcessError, match=f"a process of 'x' {said}") as error:
        list(run_jobs(partial(end, how), ITEMS, 2, "x"))
    assert time.monotonic() - began < 20 and "\n" not in error.value.strerror


def test_a_process_that_is_killed_while_it_sends_is_noticed():
    results = in_processes(halting, ITEMS, 2, "x")
    assert next(results) == 0
    time.sleep(2)  # what is not asked for is not read: the process waits in the middle of its message
    with pytest.raises(ChildProcessError, match="a process of 'x' was killed by SIGKILL"):
        list(results)


def test_processes_begin_with_what_they_are_said_to_need():
    script = (
        "from parallel_jobs import imported; from s5.utils.parallel import in_processes\n"
        "print(*in_processes(imported, ['colorsys', 'wave'], 1, 'x', ['colorsys']))\n"
    )
    command = [sys.executable, "-c", script]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    assert said.stdout == "True False\n"
