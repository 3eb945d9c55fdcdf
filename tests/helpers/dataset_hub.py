"""A small Hub on this machine that serves data sets to the real clients, of programs with its `HF_ENDPOINT`."""

import hashlib
import json
import re
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote

from tests.helpers import loopback

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Refusal(Exception):
    """A status and the Hub's code for it."""


@contextmanager
def serving(repos, gated=(), private=()):
    """Serve `{id: {path: bytes}}`, every one with the branch "main"; gives the address."""

    class Handler(loopback.QuietHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do(self):
            address, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                match = re.fullmatch(r"(?:/api)?/datasets/(.+?)(?:/(revision|paths-info|tree|resolve)/(.+))?", address)
                if match is None:
                    raise Refusal(404, "EntryNotFound")
                repo, what, rest = match[1], match[2] or "revision", match[3] or "main"
                if repo not in repos or repo in private:
                    raise Refusal(401, "RepoNotFound")
                revision, _, path = unquote(rest).partition("/")
                if revision not in ("main", COMMIT):
                    raise Refusal(404, "RevisionNotFound")
                if repo in gated and what == "resolve":
                    raise Refusal(401, "GatedRepo")
                if what == "resolve":
                    self.send_content(repos[repo], path)
                else:
                    fields = {"revision": self.info, "paths-info": self.paths, "tree": self.tree}[what]
                    self.send(200, json.dumps(fields(repo, path, parse_qs(query), body)).encode())
            except Refusal as refusal:
                self.send(refusal.args[0], b"{}", X_Error_Code=refusal.args[1])

        do_GET = do_HEAD = do_POST = do

        def info(self, repo, path, query, body):
            siblings = [{"rfilename": path} for path in repos[repo]]
            return {"id": repo, "sha": COMMIT, "private": False, "gated": repo in gated, "siblings": siblings}

        def paths(self, repo, path, query, body):
            wanted = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
            entries = {
                entry["path"]: entry for path in wanted for entry in self.entries(repo, path.rpartition("/")[0])
            }
            return [entries[path] for path in wanted if path in entries]

        def tree(self, repo, path, query, body):
            found = self.entries(repo, path, query.get("recursive", [""])[0].lower() == "true")
            if not found:
                raise Refusal(404, "EntryNotFound")
            return found

        def entries(self, repo, folder, recursive=False):
            prefix = folder and f"{folder}/"
            found = {}
            for path, content in repos[repo].items():
                name, deeper, _ = path.removeprefix(prefix).partition("/")
                if not path.startswith(prefix):
                    continue
                if deeper and not recursive:
                    found[prefix + name] = {"type": "directory", "path": prefix + name, "size": 0, "oid": COMMIT}
                else:
                    found[path] = {"type": "file", "path": path, "size": len(content), "oid": etag(content)}
            return list(found.values())

        def send_content(self, files, path):
            if path not in files:
                raise Refusal(404, "EntryNotFound")
            content = files[path]
            part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            headers = dict(ETag=f'"{etag(content)}"', X_Repo_Commit=COMMIT)
            if part is None:
                self.send(200, content, **headers)
                return
            start, stop = int(part[1]), min(int(part[2] or len(content)) + 1, len(content))
            self.send(206, content[start:stop], Content_Range=f"bytes {start}-{stop - 1}/{len(content)}", **headers)

    with loopback.serving(Handler) as address:
        yield address


def etag(content):
    return hashlib.sha1(content).hexdigest()
