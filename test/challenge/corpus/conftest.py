"""A miniature of the published data, and a web server that truncates, stalls and refuses."""

import importlib.util
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from s5.challenge.corpus.download import Patience

HERE = Path(__file__).parent
QUICK = Patience(timeout=0.4, retries=2, first_wait=0.01, longest_wait=0.05)


def _module():
    spec = importlib.util.spec_from_file_location("s5_test_replica", HERE / "replica.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def replicas():
    """The module that makes replicas."""
    return _module()


@pytest.fixture(scope="session")
def replica(replicas, tmp_path_factory):
    """Replica of 2026, which tests only read."""
    return replicas.make_replica(tmp_path_factory.mktemp("replica26") / "of the user's", 2026)


class Server(ThreadingHTTPServer):
    """Serves ``files``; ``faults[path]`` lists the faults of the next requests, one a request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.ranges = True
        self.tags: dict[str, str] = {}
        self.busy = self.most_busy = 0
        self.delay = 0.0
        self.lock = threading.Lock()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Broken connections are expected in these tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        with server.lock:
            server.requests.append((self.path, self.headers.get("Range")))
            server.busy += 1
            server.most_busy = max(server.busy, server.most_busy)
            faults = server.faults.get(self.path, [])
            fault = faults.pop(0) if faults else None
        time.sleep(server.delay)
        with server.lock:  # before the answer: its reader may ask for the next file at once
            server.busy -= 1
        self.answer(fault)

    def answer(self, fault):
        if isinstance(fault, int):
            self.send_response(fault)
            self.send_header("Retry-After", "0")
            self.end_headers()
            return
        data = self.server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        tag = self.server.tags.get(self.path, '"1"')
        start, asked = 0, self.headers.get("Range")
        if asked and self.server.ranges and self.headers.get("If-Range", tag) == tag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:]
        if fault is None:
            self.wfile.write(body)
        elif fault[0] == "truncate":
            self.wfile.write(body[: fault[1]])
        elif fault[0] == "stall":
            self.wfile.write(body[: fault[1]])
            self.wfile.flush()
            self.server.released.wait(5)
        elif fault[0] == "spoil":
            self.wfile.write(bytes(len(body)))


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def quick():
    return QUICK
