"""A server of ours that stands in for the Hugging Face Hub: repositories in memory, for transport alone."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = re.compile(r"/api/(datasets|models)/([\w.-]+/[\w.-]+)/(preupload|commit|tree|revision)/([^/]+)")
INFO = re.compile(r"/api/(datasets|models)/([\w.-]+/[\w.-]+)")
RESOLVE = re.compile(r"/(datasets/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")
BATCH = re.compile(r"/(datasets/)?([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch")


class Hub(ThreadingHTTPServer):
    """repos: by (type, id), the files after each commit; requests: (method, path) of all."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos, self.blobs, self.requests = {}, {}, []
        self.upload_mode = "regular"

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, kind, repo, revision):
        """The files of a revision: main, or the number of a commit as 40 digits."""
        commits = self.repos.get((kind, repo))
        if commits is None:
            return None
        at = len(commits) - 1 if revision == "main" else int(revision) if revision.isdigit() else -1
        return commits[at] if 0 <= at < len(commits) else None

    def sha(self, kind, repo, revision):
        number = len(self.repos[kind, repo]) - 1 if revision == "main" else int(revision)
        return f"{number:040}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        if "Content-Length" not in dict(headers):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def missing(self, what):
        self.answer(404, {"error": "not found"}, {"X-Error-Code": what})

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def path_of(self):
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path))
        return path

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path_of()
        if match := RESOLVE.fullmatch(path):
            return self.resolve(*match.groups())
        if match := COMMIT.fullmatch(path) or INFO.fullmatch(path):
            kind, repo, *rest = match.groups()
            if self.server.files(kind, repo, rest[1] if rest else "main") is None:
                return self.missing("RevisionNotFound" if rest else "RepoNotFound")
            if rest and rest[0] == "tree":
                return self.answer(200, self.tree(self.server.files(kind, repo, rest[1])))
            sha = self.server.sha(kind, repo, rest[1] if rest else "main")
            return self.answer(200, {"id": repo, "sha": sha, "siblings": [], "tags": []})
        return self.missing("EntryNotFound")

    def tree(self, files):
        return [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in files.items()
        ]

    def resolve(self, prefix, repo, revision, name):
        kind = "datasets" if prefix else "models"
        files = self.server.files(kind, repo, revision)
        if files is None:
            known = (kind, repo) in self.server.repos
            return self.missing("RevisionNotFound" if known else "RepoNotFound")
        if name not in files:
            return self.missing("EntryNotFound")
        data = files[name]
        first, status, headers = 0, 200, {}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(asked[1]), int(asked[2] or len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[first : last + 1], 206
        headers |= {
            "ETag": f'"{hashlib.sha256(files[name]).hexdigest()}"',
            "X-Repo-Commit": self.server.sha(kind, repo, revision),
            "Content-Length": str(len(data)),
            "Accept-Ranges": "bytes",
        }
        return self.answer(status, data, headers)

    def do_PUT(self):
        path, data = self.path_of(), self.body()
        oid = path.rsplit("/", 1)[1]
        if hashlib.sha256(data).hexdigest() != oid:
            return self.answer(422, {"error": "content does not match its oid"})
        self.server.blobs[oid] = data
        return self.answer(200)

    def do_POST(self):
        path, body = self.path_of(), self.body()
        if path == "/api/repos/create":
            asked = json.loads(body)
            key = f"{asked.get('type', 'model')}s", f"{asked['organization']}/{asked['name']}"
            status = 409 if key in self.server.repos else 200
            self.server.repos.setdefault(key, [{}])
            prefix = "datasets/" if key[0] == "datasets" else ""
            return self.answer(status, {"url": f"{self.server.url}/{prefix}{key[1]}"})
        if path == "/api/validate-yaml":
            return self.answer(200, {"warnings": [], "errors": []})
        if BATCH.fullmatch(path):
            wanted = json.loads(body)["objects"]
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.server.url}/blobs/{one['oid']}"}}}
                for one in wanted
            ]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        match = COMMIT.fullmatch(path)
        if match is None or self.server.files(match[1], match[2], match[4]) is None:
            return self.missing("RepoNotFound")
        act = self.preupload if match[3] == "preupload" else self.commit
        return act(match[1], match[2], match[4], body)

    def preupload(self, kind, repo, revision, body):
        mode = self.server.upload_mode
        files = [
            {
                "path": f["path"],
                "uploadMode": mode if f["path"].endswith(".ezip") else "regular",
                "shouldIgnore": False,
            }
            for f in json.loads(body)["files"]
        ]
        self.answer(200, {"files": files})

    def commit(self, kind, repo, revision, body):
        files = dict(self.server.files(kind, repo, revision))
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
        self.server.repos[kind, repo].append(files)
        sha = self.server.sha(kind, repo, "main")
        self.answer(200, {"commitUrl": f"{self.server.url}/{repo}/commit/{sha}", "commitOid": sha})


@contextmanager
def serving():
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
