"""A Python that has its imports behind it: a server that forks.

Hundreds of commands are run by the tests of the documentation, and most of the time of a short one is the import of
torch. So the copy of the repository in which they run gets a ``python`` (warm_call.py) that only hands its arguments,
folder, environment and open files to this server, which forks a process that does what Python would have done. Signals
go on to that process, its exit status comes back.

    python warm.py SOCKET CODE      the server, after some code with imports; ends with its standard input
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import multiprocessing.process
import os
import random
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from typing import NoReturn

import numpy


def serve(path: str) -> dict | None:
    """Forks a process for every call. Returns in these, with the call; in the server itself None, at the end."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that forward the exit status
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in ready:
            return None
        caller, _ = listening.accept()
        if os.fork():
            caller.close()
            continue
        listening.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return _answer(caller)


def _answer(caller: socket.socket) -> dict:
    """Forks the process that runs a call, in which this returns, and tells the caller of its end."""
    line, files, _, _ = socket.recv_fds(caller, 1 << 20, 3)
    while not line.endswith(b"\n"):
        line += caller.recv(1 << 20)
    request = json.loads(line)
    process = os.fork()
    if process == 0:
        caller.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        return request
    for file in files:
        os.close(file)
    caller.sendall(f"{process}\n".encode())
    ended = os.pidfd_open(process)
    gone, _, _ = select.select([ended, caller], [], [])
    if ended not in gone:  # the caller was killed
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with contextlib.suppress(OSError):
        caller.sendall(f"{status}\n".encode())
    os._exit(0)


def run(request: dict) -> NoReturn:
    """Does what ``python WORDS`` would do in a process of its own, and ends."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    status = 1
    try:
        status = _run(*request["words"], folder=request["folder"])
        threading._shutdown()
        atexit._run_exitfuncs()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # an ordinary end would take the imports apart, which takes a second


def _run(kind: str, *words: str, folder: str) -> int:
    """Runs a module, code or a script. Returns the exit status."""
    random.seed()
    numpy.random.seed()
    sys.path[0] = folder
    multiprocessing.process.ORIGINAL_DIR = folder  # where the paths of scripts start for processes that these start
    try:
        if kind == "-m":
            sys.argv = list(words)
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.argv = ["-c", *words[1:]]
            exec(compile(words[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.path[0] = os.path.dirname(os.path.abspath(kind))
            sys.argv = [kind, *words]
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    address, imports = sys.argv[1:]
    exec(compile(imports, "<imports>", "exec"), {"__name__": "imports"})
    gc.freeze()
    call = serve(address)
    if call is not None:
        run(call)
