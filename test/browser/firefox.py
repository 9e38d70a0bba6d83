"""A headless Firefox for tests: WebDriver BiDi over a WebSocket, with what the standard library has.

Clicks and keys go through the browser's input, as a person's do (https://www.w3.org/TR/webdriver-bidi/).
"""

import base64
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from tab import Tab

NAMES = ("firefox-esr", "firefox")
PACKAGES = "firefox-esr pulseaudio"
KEYS = {"ArrowLeft": "\ue012", "ArrowRight": "\ue014", "Home": "\ue011", "Tab": "\ue004"}
SHIFT = "\ue008"
PREFERENCES = {
    "app.update.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "media.cubeb.backend": "pulse",
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",  # no network
    "toolkit.telemetry.enabled": False,
}


def find():
    """Path of the browser, or None. Without a sound device it plays nothing: PulseAudio has to give it one."""
    browser = next((path for name in NAMES if (path := shutil.which(name))), None)
    return browser if shutil.which("pulseaudio") else None


def _sound_device(file):
    """A sound server that plays to nobody, at a socket."""
    modules = ["-L", "module-null-sink", "-L", f"module-native-protocol-unix auth-anonymous=1 socket={file}"]
    options = ["-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--disable-shm"]
    home = {"HOME": str(file.parent), "XDG_RUNTIME_DIR": str(file.parent)}
    server = subprocess.Popen(
        ["pulseaudio", *options, *modules],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **home},
    )
    end = time.monotonic() + 20
    while not file.exists() and server.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    return server


class Page(Tab):
    """One tab of a Firefox.

    Args:
        width: of the window, in CSS pixels.
        height: of the window.
        dark: ask the page for its dark colours.
        script: JavaScript that runs before every page's own.
    """

    def __init__(self, width=1280, height=800, dark=False, script=""):
        self._home = Path(tempfile.mkdtemp(prefix="firefox."))
        self._sound = _sound_device(self._home / "sound")
        settings = {**PREFERENCES, "layout.css.prefers-color-scheme.content-override": 0 if dark else 1}
        lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in settings.items())
        (self._home / "user.js").write_text("".join(lines))
        self._process = subprocess.Popen(
            [
                find(),
                "--headless",
                "--no-remote",
                "--profile",
                self._home,
                "--remote-debugging-port",
                "0",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "HOME": str(self._home),
                "MOZ_DISABLE_CONTENT_SANDBOX": "1",  # which a container's root has no right to
                "PULSE_SERVER": f"unix:{self._home}/sound",
            },
            start_new_session=True,
        )
        self._socket, self._number, self.events = None, 0, []
        try:
            self._socket = _WebSocket(self._port(), "/session")
            self.call("session.new", capabilities={})
            self._tab = self.call("browsingContext.getTree")["contexts"][0]["context"]
            self.call("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
            size = {"width": width, "height": height}
            self.call("browsingContext.setViewport", context=self._tab, viewport=size)
            if script:
                self.call("script.addPreloadScript", functionDeclaration=f"() => {{ {script} }}")
        except BaseException:
            self.close()
            raise

    def _port(self, seconds=60):
        """The port that the browser says it listens on."""
        end, said = time.monotonic() + seconds, b""
        while time.monotonic() < end and self._process.poll() is None:
            ready, _, _ = select.select([self._process.stderr], [], [], 1)
            said += os.read(self._process.stderr.fileno(), 1 << 16) if ready else b""
            if found := re.search(rb"WebDriver BiDi listening on ws://[^:]+:(\d+)", said):
                return int(found[1])
        raise RuntimeError(f"no Firefox within {seconds} s: {said.decode(errors='replace')[-500:]}")

    def close(self):
        """Ends the browser and removes its files."""
        if self._socket:
            self._socket.close()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stderr.close()
        self._sound.kill()
        self._sound.wait()
        shutil.rmtree(self._home, ignore_errors=True)

    def call(self, method, **parameters):
        """Sends a command, returns its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}).encode())
        while True:
            answer = json.loads(self._socket.receive())
            if answer.get("id") != self._number:
                self.events.append(answer)
                continue
            if answer["type"] == "error":
                raise RuntimeError(f"{method}: {answer['message']}")
            return answer["result"]

    def open(self, file, place=""):
        """Opens a file from disk and waits until its first mixture is shown; returns the seconds that took."""
        # Or a page that is open would only change its place.
        self.call("browsingContext.navigate", context=self._tab, url="about:blank", wait="complete")
        self.events.clear()
        start = time.perf_counter()
        url = Path(file).resolve().as_uri() + place
        self.call("browsingContext.navigate", context=self._tab, url=url, wait="complete")
        self.wait("document.querySelector('.lane') !== null")
        return time.perf_counter() - start

    def run(self, expression):
        """Value of a JavaScript expression; promises are awaited."""
        answer = self.call(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression})))()",
            target={"context": self._tab},
            awaitPromise=True,
            userActivation=False,
        )
        if answer["type"] == "exception":
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']['text']}")
        value = answer["result"].get("value")
        return None if value is None else json.loads(value)

    def _act(self, kind, actions):
        source = {"type": kind, "id": kind, "actions": actions}
        self.call("input.performActions", context=self._tab, actions=[source])

    def _press(self, x, y):
        place = {"type": "pointerMove", "x": round(x), "y": round(y)}
        self._act("pointer", [place, {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}])

    def key(self, key, shift=False):
        """Presses a key: a letter, a digit, or one of :data:`KEYS`."""
        keys = [SHIFT] * shift + [KEYS.get(key, key)]
        steps = [{"type": "keyDown", "value": k} for k in keys] + [{"type": "keyUp", "value": k} for k in keys[::-1]]
        self._act("key", steps)

    def screenshot(self, file, whole=False):
        """Writes a PNG of the window, or of the whole page."""
        origin = "document" if whole else "viewport"
        shot = self.call("browsingContext.captureScreenshot", context=self._tab, origin=origin)
        Path(file).write_bytes(base64.b64decode(shot["data"]))

    def requests(self):
        """Addresses of what the page has asked for."""
        self.run("1")  # collects the events before it
        sent = [event["params"] for event in self.events if event.get("method") == "network.beforeRequestSent"]
        return [told["request"]["url"] for told in sent]

    def complaints(self):
        """What the browser's console says, and requests that left the disk."""
        found = [url for url in self.requests() if not url.startswith(("file:", "blob:", "data:"))]
        entries = [event["params"] for event in self.events if event.get("method") == "log.entryAdded"]
        return found + [entry["text"] for entry in entries if entry["level"] in ("error", "warn")]


class _WebSocket:
    """The client's side of RFC 6455, as far as texts go."""

    def __init__(self, port, path):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._file = self._socket.makefile("rb")
        status = self._file.readline()
        if b" 101 " not in status:
            raise RuntimeError(f"the browser's socket answers {status!r}")
        while self._file.readline().strip():
            pass

    def close(self):
        self._file.close()
        self._socket.close()

    def send(self, text):
        """One masked frame."""
        n, mask = len(text), os.urandom(4)
        size = (
            struct.pack("!B", 128 | n)
            if n < 126
            else struct.pack("!BH", 254, n)
            if n < 65536
            else struct.pack("!BQ", 255, n)
        )
        self._socket.sendall(b"\x81" + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(text)))

    def receive(self):
        """The next text, put together from its frames; a ping is answered."""
        text = b""
        while True:
            first, n = self._read(2)
            n &= 127
            if n > 125:
                (n,) = struct.unpack("!H" if n == 126 else "!Q", self._read(2 if n == 126 else 8))
            content = self._read(n)
            if first & 15 == 9:
                self._socket.sendall(b"\x8a\x80" + os.urandom(4))
            elif first & 15 in (0, 1):
                text += content
                if first & 128:
                    return text
            else:
                raise RuntimeError("the browser closed its socket")

    def _read(self, n):
        found = self._file.read(n)
        if len(found) < n:
            raise RuntimeError("no answer from the browser")
        return found
