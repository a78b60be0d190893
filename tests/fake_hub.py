"""A hub on this machine: the part of its HTTP API by which huggingface_hub downloads a repository and commits to one.

It answers as the hub does, errors and their headers included, so that what is tested is huggingface_hub itself.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import yaml

Files = dict[str, bytes]
LARGE = (".safetensors", ".bin", ".onnx", ".pt")
_YAML_BLOCK = re.compile(r"^\s*---\n([\s\S]*?)\n---[ \t]*(\n|$)")
_MODEL_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass
class Repository:
    """Files by commit, commits by branch or tag; `gated` ones show their names but no file without their terms."""

    private: bool = False
    gated: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Files, branch: str = "main") -> str:
        """A branch's next commit, which holds these files alone; its name."""
        sha = hashlib.sha1(repr((sorted(files.items()), len(self.commits))).encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        return sha

    def find(self, revision: str) -> str | None:
        sha = self.branches.get(revision, revision)
        return sha if sha in self.commits else None


class Refusal(Exception):
    """An answer that is an error: its status, the hub's code for it, and what it says."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class FakeHub:
    """Repositories by name. A token, if any is given, may write to the organizations that `tokens` names."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.tokens: dict[str, tuple[str, ...]] = {}
        self.broken: int | None = None
        self.asked: list[str] = []
        self.blobs: dict[str, bytes] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def add(self, name: str, directory: Path, **kind: Any) -> Repository:
        """A repository with the files of a directory, as its first commit."""
        repository = Repository(**kind)
        repository.commit(files_of(directory))
        self.repositories[name] = repository
        return repository

    @contextmanager
    def running(self) -> Iterator["FakeHub"]:
        thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.stop()
            thread.join()

    def stop(self) -> None:
        """Whoever asks it from now on finds no network."""
        huggingface_hub.close_session()
        self.server.shutdown()
        self.server.server_close()

    def writable(self, token: str | None, organization: str) -> bool:
        if token is None:
            return False
        if token not in self.tokens:
            raise Refusal(401, "", "Invalid credentials in Authorization header")
        return organization in self.tokens[token]

    def repository(self, name: str, token: str | None) -> Repository:
        found = self.repositories.get(name)
        if token is not None and token not in self.tokens:
            raise Refusal(401, "", "Invalid credentials in Authorization header")
        if found is None or (found.private and not self.writable(token, name.partition("/")[0])):
            raise Refusal(404 if token else 401, "RepoNotFound", "Repository not found")
        return found


def files_of(directory: Path) -> Files:
    """The files below a directory."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def check_card(text: str) -> list[str]:
    """What the hub refuses of a card's front matter."""
    block = _YAML_BLOCK.search(text)
    values = yaml.safe_load(block[1]) if block else {}
    found = [] if isinstance(values, dict) else ["front matter is no mapping"]
    values = values if isinstance(values, dict) else {}
    base = values.get("base_model", "x")
    found += [f'"base_model" with value "{base}" is not valid'] if not _MODEL_ID.fullmatch(str(base)) else []
    tags = values.get("tags", [])
    found += [] if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags) else ['"tags" are no strings']
    for model in values.get("model-index", []):
        for result in model["results"]:
            needed = [result["task"].get("type"), result["dataset"].get("type"), result["dataset"].get("name")]
            metrics = [metric for metric in result["metrics"] if "type" not in metric or "value" not in metric]
            found += ['"model-index" lacks a type or a name'] if not all(needed) or metrics else []
    return found


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _any(self) -> None:
            body = b"".join(self._parts())
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            given = self.headers.get("Authorization")
            try:
                if hub.broken:
                    raise Refusal(hub.broken, "", "out of order")
                status, headers, answer = _answer(hub, self.command, path, body, given and given.split()[-1])
            except Refusal as refusal:
                status, answer = refusal.status, json.dumps({"error": refusal.message}).encode()
                headers = {"X-Error-Message": refusal.message}
                headers |= {"X-Error-Code": refusal.code} if refusal.code else {}
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", headers.get("X-Size", str(len(answer))))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        def _parts(self) -> Iterator[bytes]:
            if self.headers.get("Transfer-Encoding") != "chunked":
                yield self.rfile.read(int(self.headers.get("Content-Length") or 0))
                return
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        do_GET = do_HEAD = do_POST = do_PUT = _any

    return Handler


Answer = tuple[int, dict[str, str], bytes]


def _answer(hub: FakeHub, method: str, path: str, body: bytes, token: str | None) -> Answer:
    if method == "PUT":  # large files, as the answer to the batch below says
        hub.blobs[path.rpartition("/")[2]] = body
        return 200, {}, b""
    if path == "/api/validate-yaml":
        errors = [{"message": message} for message in check_card(json.loads(body)["content"])]
        return _json({"errors": errors, "warnings": []}, 400 if errors else 200)
    if path == "/api/repos/create":
        return _create(hub, json.loads(body), token)
    if batch := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
        return _batch(hub, batch[1], json.loads(body), token)
    if api := re.fullmatch(r"/api/models/([\w.-]+(?:/[\w.-]+)??)(?:/(revision|tree|preupload|commit)/(.+))?", path):
        name, what, revision = api.groups()
        if method == "POST":
            return _write(hub, name, what, body, token)
        return _read(hub, name, what, revision or "main", token)
    if file := re.fullmatch(r"/([\w.-]+(?:/[\w.-]+)?)/resolve/([^/]+)/(.+)", path):
        return _file(hub, *file.groups(), token)
    raise Refusal(404, "EntryNotFound", path)


def _json(values: Any, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(values).encode()


def _commit(repository: Repository, revision: str) -> tuple[str, Files]:
    sha = repository.find(revision)
    if sha is None:
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return sha, repository.commits[sha]


def _read(hub: FakeHub, name: str, what: str | None, revision: str, token: str | None) -> Answer:
    repository = hub.repository(name, token)
    sha, files = _commit(repository, revision)
    if what == "tree":
        return _json([
            {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for path, content in files.items()
        ])  # fmt: skip
    siblings = [{"rfilename": path} for path in files]
    gated = "auto" if repository.gated else False
    return _json({"id": name, "sha": sha, "private": repository.private, "gated": gated, "siblings": siblings})


def _file(hub: FakeHub, name: str, revision: str, path: str, token: str | None) -> Answer:
    repository = hub.repository(name, token)
    sha, files = _commit(repository, revision)
    if repository.gated:
        raise Refusal(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted.")
    if path not in files:
        raise Refusal(404, "EntryNotFound", path)
    etag = hashlib.sha1(files[path]).hexdigest()
    return 200, {"X-Repo-Commit": sha, "ETag": f'"{etag}"'}, files[path]


def _create(hub: FakeHub, asked: dict[str, Any], token: str | None) -> Answer:
    name = f"{asked['organization']}/{asked['name']}"
    if not hub.writable(token, asked["organization"]):
        raise Refusal(403, "", f'You don\'t have the rights to create a model under the namespace "{name}"')
    if name in hub.repositories:
        raise Refusal(409, "", "You already created this model repo")
    made = Repository(private=asked.get("visibility") == "private" or asked.get("private") is True)
    made.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
    hub.repositories[name] = made
    return _json({"url": f"{hub.address}/{name}"})


def _batch(hub: FakeHub, name: str, asked: dict[str, Any], token: str | None) -> Answer:
    if not hub.writable(token, name.partition("/")[0]):
        raise Refusal(403, "", "no permission")
    objects = [
        {**each, "actions": {"upload": {"href": f"{hub.address}/lfs/{each['oid']}"}}} for each in asked["objects"]
    ]
    return _json({"transfer": "basic", "objects": objects})


def _write(hub: FakeHub, name: str, what: str | None, body: bytes, token: str | None) -> Answer:
    repository = hub.repository(name, token)
    if not hub.writable(token, name.partition("/")[0]):
        raise Refusal(403, "", "no permission to write")
    if what == "preupload":
        files = [
            {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
             "shouldIgnore": False}
            for file in json.loads(body)["files"]
        ]  # fmt: skip
        return _json({"files": files})
    files = dict(repository.commits[repository.branches["main"]])
    for line in map(json.loads, body.splitlines()):
        value = line["value"]
        match line["key"]:
            case "file":
                files[value["path"]] = base64.b64decode(value["content"])
            case "lfsFile":
                files[value["path"]] = hub.blobs[value["oid"]]
            case "deletedFile":
                del files[value["path"]]
    sha = repository.commit(files)
    return _json({"commitUrl": f"{hub.address}/{name}/commit/{sha}", "commitOid": sha})
