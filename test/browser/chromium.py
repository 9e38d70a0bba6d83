"""A headless Chromium for tests: the DevTools protocol over a pipe, with what the standard library has.

Clicks and keys go through the browser's input, as a person's do (https://chromedevtools.github.io/devtools-protocol/).
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tab import Tab

NAMES = ("chromium", "chromium-browser", "google-chrome")
PACKAGES = "chromium"
KEYS = {" ": "Space", "ArrowLeft": "ArrowLeft", "ArrowRight": "ArrowRight", "Home": "Home", "Tab": "Tab"}
SHIFT = 8


def find():
    """Path of the browser, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page(Tab):
    """One tab of a Chromium.

    Args:
        width: of the window, in CSS pixels; below 600 the device is a phone with a touch screen.
        height: of the window.
        dark: ask the page for its dark colours.
        script: JavaScript that runs before every page's own.
    """

    def __init__(self, width=1280, height=800, dark=False, script=""):
        self._home = tempfile.mkdtemp(prefix="chromium.")
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        options = [
            "--headless=new",
            "--no-sandbox",  # which a container's root has no right to
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--mute-audio",
            "--disable-background-networking",
            "--disable-component-update",
            f"--user-data-dir={self._home}",
            f"--window-size={width},{height}",
        ]
        # The browser reads commands from descriptor 3 and answers on 4.
        command = (
            f"exec {find()} {' '.join(options)} --remote-debugging-pipe about:blank 3<&{theirs_in} 4>&{theirs_out}"
        )
        self._process = subprocess.Popen(
            ["bash", "-c", command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._number, self._session = b"", 0, None
        self.events = []
        try:
            targets = self.call("Target.getTargets")["targetInfos"]
            target = next(t["targetId"] for t in targets if t["type"] == "page")
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.call(f"{domain}.enable")
            self.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=height,
                deviceScaleFactor=1,
                mobile=width < 600,
            )
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            self.call("Emulation.setEmulatedMedia", features=[scheme])
            if script:
                self.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        except BaseException:
            self.close()
            raise

    def close(self):
        """Ends the browser and removes its files."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._home, ignore_errors=True)

    def call(self, method, **parameters):
        """Sends a command, returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(method)
            if answer.get("id") != self._number:
                self.events.append(answer)
                continue
            if "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']['message']}")
            return answer["result"]

    def _receive(self, method, seconds=30):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], seconds)
            part = os.read(self._in, 1 << 20) if ready else b""
            if not part:
                raise RuntimeError(f"{method}: no answer from the browser")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, file, place=""):
        """Opens a file from disk and waits until its first mixture is shown; returns the seconds that took."""
        self.events.clear()
        self.call("Page.navigate", url="about:blank")  # or a page that is open would only change its place
        self.wait("document.readyState === 'complete' && location.href === 'about:blank'")
        start = time.perf_counter()
        self.call("Page.navigate", url=Path(file).resolve().as_uri() + place)
        self.wait("document.readyState === 'complete' && document.querySelector('.lane') !== null")
        return time.perf_counter() - start

    def run(self, expression):
        """Value of a JavaScript expression; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def _press(self, x, y):
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def key(self, key, shift=False):
        """Presses a key: a letter, a digit, or one of :data:`KEYS`."""
        code = KEYS.get(key) or (f"Digit{key}" if key.isdigit() else f"Key{key.upper()}")
        number = {"Tab": 9, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36}.get(key, ord(key[0].upper()))
        common = {"key": key, "code": code, "modifiers": SHIFT * shift, "windowsVirtualKeyCode": number}
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, file, whole=False):
        """Writes a PNG of the window, or of the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(file).write_bytes(base64.b64decode(shot["data"]))

    def requests(self):
        """Addresses of what the page has asked for."""
        self.run("1")  # collects the events before it
        sent = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [told["request"]["url"] for told in sent]

    def complaints(self):
        """What the browser's console says, and requests that left the disk."""
        found = [url for url in self.requests() if not url.startswith(("file:", "blob:", "data:"))]
        for event in self.events:
            method, told = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(told["exceptionDetails"].get("exception", {}).get("description", "exception"))
            elif method == "Log.entryAdded":
                found.append(told["entry"]["text"])
        return found
