"""Stands in the place of ``python``: has the server of warm.py run what Python would have run.

    python -I -S warm_call.py SOCKET ARGUMENT...

Started often, so it imports next to nothing.
"""

import contextlib
import json
import os
import signal
import socket
import sys

FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


def call(path: str, words: list[str]) -> int:
    """Has the server run ``python WORDS`` here. Returns the exit status as a shell tells it."""
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
    request = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
    socket.send_fds(server, [json.dumps(request).encode() + b"\n"], [0, 1, 2])
    answers = server.makefile("r")
    process = int(answers.readline())
    for name in FORWARDED:
        signal.signal(getattr(signal, name), lambda number, frame: _kill(process, number))
    status = int(answers.readline() or 1)
    return 128 - status if status < 0 else status


def _kill(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


if __name__ == "__main__":
    path, *words = sys.argv[1:]
    if not words or words[0] not in ("-m", "-c"):
        os.execv(sys.executable, [sys.executable, *words])
    sys.exit(call(path, words))
