"""Jobs for test_parallel.py: other processes import them from here."""

import os
import signal
import sys
import threading
import time

from s5.utils.errors import InputError


def square(item):
    time.sleep(0.01 * (item % 3))  # later ones are done first
    return item * item


def refuse(item):
    if item in (5, 6, 13):
        raise InputError(f"{item}.wav", "nothing", "audio")
    return item


def end(how, item):
    """Ends the process that works on item 7."""
    if item == 7:
        how()
    return item


def killed(number):
    os.kill(os.getpid(), number)


class Halting:
    """A large result; a second after its pickle was begun its process is killed."""

    def __reduce__(self):
        threading.Timer(1, killed, [signal.SIGKILL]).start()
        return bytes, (bytes(1 << 24),)


def halting(item):
    return Halting() if item == 2 else item


def imported(item):
    return item in sys.modules
