"""A server of this machine in the place of the hub, Zenodo, GitHub and others, and the materials that it serves."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
from hub import Hub


class Handler(Hub):
    """The hub's interface; every other address is a file in a folder."""

    def __init__(self, *args, folder: Path) -> None:
        self.folder = folder
        super().__init__(*args)

    def do_GET(self, head: bool = False) -> None:
        """A file, or what the hub says."""
        file = self.folder / self.path.lstrip("/")
        if file.is_file():
            self.reply(200, file.read_bytes(), head)
        else:
            super().do_GET(head)


class StandIns:
    """Attributes: ``address`` of the server, ``names`` for commands.yaml, ``environment`` of the commands."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        # The same address when a folder is gone on with: it stands in what was made.
        noted = scratch / "port"
        port = int(noted.read_text()) if noted.exists() else 0
        self.server = ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, folder=scratch / "web"))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        port = self.server.server_address[1]
        noted.write_text(str(port))
        self.address = f"http://127.0.0.1:{port}"
        self.names = {
            "ADDRESS": self.address,
            **{
                name.upper(): str(scratch / name)
                for name in ("replica2026", "replica2025", "recordings", "audioset", "web")
            },
        }
        self.environment = {
            "HF_ENDPOINT": self.address,
            "HF_TOKEN": "hf_none",
            "recordings": str(scratch / "recordings"),
        }

    def fill(self, copy: Path, environment: dict[str, str]) -> None:
        """Makes the materials, with a copy of the repository whose sizes are small."""
        script = copy / "test/docs/materials.py"
        python = [str(copy / "tools/venv/bin/python"), str(script), str(self.scratch)]
        subprocess.run(python, env={**environment, "PYTHONPATH": str(copy)}, check=True)

    def end(self) -> None:
        """Stops the server."""
        self.server.shutdown()
        self.server.server_close()
