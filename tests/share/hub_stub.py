"""A hub of Hugging Face on loopback, as much of it as its client asks for when a small model is pushed and fetched."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """Repositories in memory: name -> the commits in order, each its files by path.  requests: what was asked, in order."""

    def __init__(self) -> None:
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.requests: list[tuple[str, str]] = []
        self.address = ""

    def sha(self, name: str, number: int) -> str:
        return hashlib.sha1(f"{name}/{number}".encode()).hexdigest()

    def commit(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.repositories.get(name) or []
        known = {self.sha(name, number): number for number in range(len(commits))}
        known |= {"main": len(commits) - 1, "v1": 0}
        number = known.get(revision, -1)
        return (self.sha(name, number), commits[number]) if 0 <= number < len(commits) else None

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        name = f"{body['organization']}/{body['name']}" if body.get("organization") else body["name"]
        self.repositories.setdefault(name, [])
        return {"url": f"{self.address}/{name}", "name": name}

    def add(self, name: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        before = dict(self.repositories[name][-1]) if self.repositories[name] else {}
        for line in lines:
            if line["key"] == "file":
                before[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self.repositories[name].append(before)
        sha = self.sha(name, len(self.repositories[name]) - 1)
        return {"success": True, "commitOid": sha, "commitUrl": f"{self.address}/{name}/commit/{sha}", "pullRequestUrl": None}


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub on a free port of loopback; `hub.address` is its endpoint."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            return None

        def answer(self, content: bytes, code: int = 200, **headers: str) -> None:
            self.send_response(code)
            for key, value in {"Content-Length": str(len(content)), **{k.replace("_", "-"): v for k, v in headers.items()}}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def missing(self, word: str) -> None:
            self.answer(b"{}", 404, X_Error_Code=word)

        def do_POST(self) -> None:
            hub.requests.append(("POST", self.path))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            words = self.path.split("?")[0].strip("/").split("/")
            if words[:3] == ["api", "repos", "create"]:
                told = hub.create(json.loads(body))
            elif words[:2] == ["api", "validate-yaml"]:
                told = {"errors": [], "warnings": []}
            elif words[4:5] == ["preupload"]:
                files = json.loads(body)["files"]
                told = {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for file in files]}
            elif words[4:5] == ["commit"]:
                told = hub.add("/".join(words[2:4]), [json.loads(line) for line in body.decode().splitlines()])
            else:
                self.missing("EntryNotFound")
                return
            self.answer(json.dumps(told).encode(), Content_Type="application/json")

        def do_GET(self) -> None:
            hub.requests.append((self.command, self.path))
            words = self.path.split("?")[0].strip("/").split("/")
            if words[:2] == ["api", "models"]:
                name, rest = "/".join(words[2:4]), words[4:]
                if name not in hub.repositories:
                    self.missing("RepoNotFound")
                    return
                found = hub.commit(name, rest[1] if rest[:1] == ["revision"] else "main")
                if found is None and rest[:1] == ["revision"]:
                    self.missing("RevisionNotFound")
                    return
                sha, files = found or (None, {})
                siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
                told = {"id": name, "modelId": name, "sha": sha, "private": False, "tags": [], "siblings": siblings}
                if rest[:1] == ["tree"]:
                    told = [{"type": "file", "path": entry["rfilename"], "size": entry["size"], "oid": "0"} for entry in siblings]
                self.answer(json.dumps(told).encode(), Content_Type="application/json")
                return
            found = hub.commit("/".join(words[:2]), words[3]) if words[2:3] == ["resolve"] else None
            content = found and found[1].get("/".join(words[4:]))
            if found is None or content is None:
                self.missing("EntryNotFound")
                return
            self.answer(content, X_Repo_Commit=found[0], ETag=f'"{hashlib.sha1(content).hexdigest()}"', Accept_Ranges="bytes")

        do_HEAD = do_GET  # noqa: N815 - the server asks for this name

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
