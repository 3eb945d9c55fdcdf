"""A small Hugging Face Hub on this machine, for the real client to talk to, with faults on demand.

It keeps model repositories: commits, branches, pull requests, large files (LFS), private and gated ones. Answers and
error codes are the Hub's; there is no Xet storage.
"""

import fnmatch
import hashlib
import json
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, unquote

import huggingface_hub
import pytest
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http, close_session

from gmar_hf.errors import GMARError, HubError
from tests.helpers import loopback
from tests.helpers.hub_routes import OWNER, ROUTES, TOKENS, Refusal

CHUNK = 1 << 20


@dataclass(frozen=True)
class Blob:
    """A file's content, on disk; `oid` is the git blob's SHA-1, of large files the SHA-256."""

    path: Path
    size: int
    oid: str
    is_lfs: bool


@dataclass
class Repo:
    id: str
    is_private: bool = False
    is_gated: bool = False
    refs: dict[str, str] = field(default_factory=dict)  # of branches, and refs/pr/N: the commit
    trees: dict[str, dict[str, Blob]] = field(default_factory=dict)  # of commits: the files
    pull_requests: list[str] = field(default_factory=list)  # titles

    @property
    def owner(self):
        return self.id.partition("/")[0]


@dataclass
class Fault:
    """What goes wrong with requests whose "METHOD /path" holds `pattern`, the next `times` times."""

    pattern: str
    status: int | None = None  # answered in place of doing what is asked
    message: str = "of the fault"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None  # of the answer with `status`, in place of JSON with the message
    cut: str = ""  # the connection breaks off in the middle of the "request", or of the "answer" when it is done
    corrupt: bool = False  # one bit of the body changes on its way
    delay: float = 0.0  # seconds before the answer
    times: float = float("inf")


class Hub:
    """The Hub's state; tests read and change it while the server runs.

    `requests` are all "METHOD /path", `commits` the (repository, ref, message, sorted paths) that clients made.
    """

    def __init__(self, folder, large_files=("*.safetensors",)):
        self.folder, self.large_files = Path(folder), large_files
        self.url = ""
        self.repos: dict[str, Repo] = {}
        self.requests: list[str] = []
        self.commits: list[tuple[str, str, str, list[str]]] = []
        self.faults: list[Fault] = []
        self.errors: list[Exception] = []  # mistakes of this server itself
        self.waits: list[float] = []  # seconds that the client wanted to wait before it tried again
        self.lock = threading.RLock()

    def add(self, repo_id, files=(), **settings) -> Repo:
        """A repository with files `{path: bytes, or a path to a file that is served from where it is}`."""
        repo = self.repos[repo_id] = Repo(repo_id, **settings)
        tree = {path: self.blob(path, content) for path, content in dict(files).items()}
        self.commit(repo, "main", {".gitattributes": self.blob(".gitattributes", b"")} | tree)
        return repo

    def commit(self, repo, ref, tree) -> str:
        oid = hashlib.sha1(f"{repo.id} {len(repo.trees)}".encode()).hexdigest()
        repo.trees[oid], repo.refs[ref] = tree, oid
        return oid

    def blob(self, path, content, is_lfs=None) -> Blob:
        is_lfs = any(fnmatch.fnmatch(path, pattern) for pattern in self.large_files) if is_lfs is None else is_lfs
        if isinstance(content, bytes):
            target = self.folder / hashlib.sha256(content).hexdigest()
            target.write_bytes(content)
            content = target
        size = content.stat().st_size
        digest = hashlib.sha256() if is_lfs else hashlib.sha1(b"blob %d\0" % size)
        with content.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        return Blob(content, size, digest.hexdigest(), is_lfs)

    def read(self, repo_id, path, revision="main") -> bytes:
        repo = self.repos[repo_id]
        return repo.trees[repo.refs.get(revision, revision)][path].path.read_bytes()

    def fail(self, pattern, **settings) -> None:
        self.faults.append(Fault(pattern, **settings))

    def next_fault(self, request) -> Fault:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return Fault("")


def message(action, *args, error=HubError, **kwargs):
    """What the action's error says, which must be one line that can be shown, without a token."""
    with pytest.raises(error) as caught:
        action(*args, **kwargs)
    assert isinstance(caught.value, GMARError)
    assert isinstance(caught.value, OSError)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 500
    assert OWNER not in text
    return text


class Handler(loopback.QuietHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # would hold an answer back for 40 ms, until its headers are acknowledged
    hub: Hub

    def do(self):
        path, _, query = self.path.partition("?")
        self.query = parse_qs(query)
        request = f"{self.command} {path}"
        self.hub.requests.append(request)
        self.fault = self.hub.next_fault(request)
        time.sleep(self.fault.delay)
        length = int(self.headers.get("Content-Length", 0))
        self.close_connection |= bool(self.fault.cut)
        if self.fault.cut == "request":
            self.rfile.read(length // 2)
            return
        try:
            self.body = bytearray(self.rfile.read(length))
            assert "Transfer-Encoding" not in self.headers
            if self.fault.status:
                raise Refusal(self.fault.status, self.fault.message, **self.fault.headers)
            if self.fault.corrupt and length:
                self.body[length // 2] ^= 1
            with self.hub.lock:
                answer = self.answer(path)
            self.send_blob(*answer) if isinstance(answer, tuple) else self.send_json(200, answer)
        except Refusal as refusal:
            self.send_json(refusal.status, {"error": refusal.message}, self.fault.body, **refusal.headers)
        except ConnectionError:  # the client left
            self.close_connection = True
        except Exception as error:
            self.hub.errors.append(error)
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do

    def answer(self, path):
        """What is to be sent: a (blob, commit) or something for JSON."""
        method = "GET" if self.command == "HEAD" else self.command
        for route_method, pattern, function in ROUTES:
            if route_method == method and (match := pattern.fullmatch(path)):
                return function(self, **{name: unquote(part) for name, part in match.groupdict().items()})
        raise Refusal(404, "Sorry, we can't find the page you are looking for.")

    def json(self):
        return json.loads(self.body)

    def user(self):
        """The (name, role) of the token that was sent; (None, None) without."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in TOKENS:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return TOKENS.get(token, (None, None))

    def repo(self, repo_id, write=False, propose=False) -> Repo:
        """The repository, if the user may read it, and write or at least open a pull request where that is asked."""
        user, role = self.user()
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo.is_private and repo.owner != user):
            # Of a 401 the real Hub leaves the code out: its client then goes by the address, if that is https.
            answer = (404, "Repository not found") if user else (401, "Invalid username or password.")
            raise Refusal(*answer, "RepoNotFound")
        if (write or propose) and user is None:
            raise Refusal(401, "Invalid username or password.")
        if (write or propose) and (role != "write" or (write and repo.owner != user)):
            raise Refusal(403, "Forbidden: you must use a write token to upload to a repository.")
        return repo

    def tree(self, repo, revision) -> tuple[str, dict[str, Blob]]:
        oid = repo.refs.get(revision, revision)
        if oid not in repo.trees:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid, repo.trees[oid]

    def send_json(self, status, content, body=None, **headers):
        body = json.dumps(content).encode() if body is None else body
        if self.fault.cut:
            return
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_blob(self, blob, commit):
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1]) if "Range" in self.headers else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{blob.size - 1}/{blob.size}")
        self.send_header("Content-Length", str(blob.size - start))
        self.send_header("ETag", f'"{blob.oid}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command == "HEAD":
            return
        with blob.path.open("rb") as file:
            if self.fault.corrupt:
                content = bytearray(file.read())
                content[-1] ^= 1
                self.wfile.write(content[start:])
            else:
                self.wfile.flush()
                length = blob.size - start
                self.connection.sendfile(file, start, length // 2 if self.fault.cut else length)


@contextmanager
def serving(large_files=("*.safetensors",)) -> Iterator[Hub]:
    """Runs a Hub; for programs that are started with `HF_ENDPOINT=hub.url`."""
    with tempfile.TemporaryDirectory() as folder:
        hub = Hub(folder, large_files)
        handler = type("HubHandler", (Handler,), {"hub": hub})
        with loopback.serving(handler) as hub.url:
            yield hub
    assert hub.errors == []


@contextmanager
def client_of(hub, home, token=OWNER, **settings) -> Iterator[None]:
    """Lets this process's own client talk to the Hub, logged in with `token` (None: not at all), its files in `home`.

    The client reads its environment once, at import, into `huggingface_hub.constants`; all of its modules and
    transformers look there at every call. One object has made itself a copy. `settings` are more of these constants.
    """
    values = dict(
        ENDPOINT=hub.url,
        HUGGINGFACE_CO_URL_TEMPLATE=hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        HF_HOME=str(home),
        HF_HUB_CACHE=str(home / "hub"),
        HF_TOKEN_PATH=str(home / "token"),
        HF_STORED_TOKENS_PATH=str(home / "stored_tokens"),
        HF_HUB_OFFLINE=False,
        HF_HUB_DISABLE_TELEMETRY=True,  # would ask the Hub for more
        HF_HUB_DISABLE_IMPLICIT_TOKEN=False,
        HF_HUB_DISABLE_XET=True,
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (values | settings).items():
            patch.setattr(constants, name, value)
        patch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.url)
        for module in (_http, file_download):  # tests need not sit through its waits
            patch.setattr(module, "time", SimpleNamespace(**(vars(time) | {"sleep": hub.waits.append})))
        for name in ("HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
            patch.delenv(name, raising=False)
        patch.setenv("HF_TOKEN", token or "")
        patch.setenv("no_proxy", "127.0.0.1")
        close_session()
        try:
            yield
        finally:
            close_session()
