"""The Hugging Face hub on this machine, for tests."""

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler


class Hub(BaseHTTPRequestHandler):
    """The part of its interface that one file needs, with the repositories in memory."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes] = {}
    commit = "c" * 40

    def log_message(self, *args):
        pass

    def reply(self, status, content=b"", head=False, **headers):
        self.send_response(status)
        for key, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        if not head:
            self.wfile.write(content)

    def json(self, content):
        self.reply(200, json.dumps(content).encode(), Content_Type="application/json")

    def do_HEAD(self):
        self.do_GET(head=True)

    def do_GET(self, head=False):
        repository, _, rest = self.path.lstrip("/").partition("/resolve/")
        content = self.files.get(f"{repository}/{rest.partition('/')[2]}")
        if content is None:
            self.reply(404, b"Repository not found", head, X_Error_Code="RepoNotFound")
            return
        etag = hashlib.sha1(content).hexdigest()
        self.reply(200, content, head, ETag=f'"{etag}"', X_Repo_Commit=self.commit)

    def do_POST(self):
        body, host = self.rfile.read(int(self.headers["Content-Length"])), f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            self.json({"url": f"{host}/{asked['organization']}/{asked['name']}"})
        elif self.path == "/api/validate-yaml":
            self.json({"warnings": [], "errors": []})
        elif "/preupload/" in self.path:
            files = [f["path"] for f in json.loads(body)["files"]]
            self.json({"files": [{"path": f, "uploadMode": "regular", "shouldIgnore": False} for f in files]})
        else:
            repository = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.files[f"{repository}/{line['value']['path']}"] = content
            self.json({"commitUrl": f"{host}/{repository}/commit/{self.commit}", "commitOid": self.commit})
