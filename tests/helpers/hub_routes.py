"""What the Hub of the tests answers, address by address."""

import base64
import fnmatch
import hashlib
import json
import re

import yaml

OWNER, READER, STRANGER = "hf_owner", "hf_reader", "hf_stranger"  # tokens: of "me" to write and to read; of "you"
TOKENS = {OWNER: ("me", "write"), READER: ("me", "read"), STRANGER: ("you", "write")}


class Refusal(Exception):
    def __init__(self, status, message, code=None, **headers):
        self.status, self.message = status, message
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {}) | headers


ROUTES = []


def route(method, pattern):
    """Names in braces take one part of the path; `repo` one or two, `path` all that is left."""
    parts = {"repo": r"[^/]+(?:/[^/]+)?", "path": r".+"}
    expression = re.sub(r"{(\w+)}", lambda match: f"(?P<{match[1]}>{parts.get(match[1], '[^/]+')})", pattern)

    def add(function):
        ROUTES.append((method, re.compile(expression), function))
        return function

    return add


@route("GET", "/api/whoami-v2")
def whoami(self):
    name, role = self.user()
    if name is None:
        raise Refusal(401, "Invalid username or password.")
    return {"name": name, "type": "user", "orgs": [], "auth": {"accessToken": {"role": role}}}


@route("POST", "/api/repos/create")
def create_repo(self):
    wanted = self.json()
    user, role = self.user()
    repo_id = f"{wanted.get('organization') or user}/{wanted['name']}"
    if user is None:
        raise Refusal(401, "Invalid username or password.")
    if role != "write" or repo_id.partition("/")[0] != user:
        raise Refusal(
            403, f"You don't have the rights to create a model under the namespace {repo_id.partition('/')[0]!r}"
        )
    url = f"{self.hub.url}/{repo_id}"
    if repo_id in self.hub.repos:
        self.fault.body = json.dumps({"error": "You already created this model repo", "url": url}).encode()
        raise Refusal(409, "You already created this model repo")
    self.hub.add(repo_id, is_private=wanted.get("visibility") == "private" or bool(wanted.get("private")))
    return {"url": url, "name": repo_id}


@route("POST", "/api/validate-yaml")
def validate_yaml(self):
    header = re.match(r"---\n(.*?)\n---\n", self.json()["content"], re.DOTALL)
    if header is None:
        return {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]}
    errors = []
    try:
        metadata = yaml.safe_load(header[1]) or {}
    except yaml.YAMLError as error:
        metadata, errors = {}, [f"YAML Metadata Error: {error}"]
    ids = [("base_model", metadata.get("base_model")), *(("datasets", name) for name in metadata.get("datasets", ()))]
    for key, value in ids:
        if value is not None and not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", str(value)):
            errors.append(f'"{key}" with value "{value}" is not valid. Use an id from https://hf.co.')
    if errors:
        self.fault.body = json.dumps({"errors": [{"message": text} for text in errors], "warnings": []}).encode()
        raise Refusal(400, "Invalid metadata")
    return {"errors": [], "warnings": []}


@route("POST", "/api/models/{repo}/preupload/{revision}")
def preupload(self, repo, revision):
    _, tree = self.tree(self.repo(repo, write="create_pr" not in self.query, propose=True), revision)
    files = []
    for file in self.json()["files"]:
        path = file["path"]
        is_lfs = any(fnmatch.fnmatch(path, pattern) for pattern in self.hub.large_files)
        oid = tree[path].oid if path in tree else None
        files.append({"path": path, "uploadMode": "lfs" if is_lfs else "regular", "shouldIgnore": False, "oid": oid})
    return {"files": files}


@route("POST", "/{repo}.git/info/lfs/objects/batch")
def lfs_batch(self, repo):
    self.repo(repo, propose=True)
    objects = self.json()["objects"]
    for item in objects:
        if not (self.hub.folder / item["oid"]).exists():
            urls = {"upload": f"/lfs/{item['oid']}", "verify": f"/lfs/{item['oid']}/verify"}
            item["actions"] = {name: {"href": self.hub.url + path} for name, path in urls.items()}
    return {"transfer": "basic", "objects": objects}


@route("PUT", "/lfs/{oid}")
def lfs_upload(self, oid):
    if hashlib.sha256(self.body).hexdigest() != oid:
        raise Refusal(400, "The Content-SHA256 you specified did not match what we received")
    (self.hub.folder / oid).write_bytes(self.body)
    return {}


@route("POST", "/lfs/{oid}/verify")
def lfs_verify(self, oid):
    if not (self.hub.folder / oid).exists():
        raise Refusal(404, "Object not found")
    return {}


@route("POST", "/api/models/{repo}/commit/{revision}")
def commit(self, repo, revision):
    proposing = "create_pr" in self.query or revision.startswith("refs/pr/")
    repo = self.repo(repo, write=not proposing, propose=True)
    parent, tree = self.tree(repo, revision)
    header, *operations = [json.loads(line) for line in self.body.splitlines()]
    if header["value"].get("parentCommit", parent) != parent:
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    tree = dict(tree)
    for operation in operations:
        key, value = operation["key"], operation["value"]
        if key == "file":
            tree[value["path"]] = self.hub.blob(value["path"], base64.b64decode(value["content"]), is_lfs=False)
        elif key == "lfsFile":
            if not (self.hub.folder / value["oid"]).exists():
                raise Refusal(
                    400, "Your push was rejected because an LFS pointer pointed to a file that does not exist"
                )
            tree[value["path"]] = self.hub.blob(value["path"], self.hub.folder / value["oid"], is_lfs=True)
        elif key == "deletedFile":
            del tree[value["path"]]
    ref, pull_request = revision, None
    if "create_pr" in self.query:
        pull_request = open_pull_request(self, repo, header["value"]["summary"])
        ref = f"refs/pr/{len(repo.pull_requests)}"
    oid = self.hub.commit(repo, ref, tree)
    paths = sorted(operation["value"]["path"] for operation in operations)
    self.hub.commits.append((repo.id, ref, header["value"]["summary"], paths))
    return {"commitUrl": f"{self.hub.url}/{repo.id}/commit/{oid}", "commitOid": oid, "pullRequestUrl": pull_request}


def open_pull_request(self, repo, title):
    repo.pull_requests.append(title)
    number = len(repo.pull_requests)
    repo.refs[f"refs/pr/{number}"] = repo.refs["main"]
    return f"{self.hub.url}/{repo.id}/discussions/{number}"


@route("POST", "/api/models/{repo}/discussions")
def create_discussion(self, repo):
    repo = self.repo(repo, propose=True)
    open_pull_request(self, repo, self.json()["title"])
    return {"num": len(repo.pull_requests)}


@route("GET", "/api/models/{repo}/discussions/{number}")
def discussion(self, repo, number):
    repo, number = self.repo(repo), int(number)
    return {
        "title": repo.pull_requests[number - 1], "num": number, "status": "draft", "isPullRequest": True, "events": [],
        "createdAt": "2026-01-01T00:00:00.000Z", "repo": {"name": repo.id, "type": "model"},
        "changes": {"base": "refs/heads/main"}, "filesWithConflicts": [],
    }  # fmt: skip


@route("POST", "/api/models/{repo}/branch/{branch}")
def create_branch(self, repo, branch):
    repo = self.repo(repo, write=True)
    if branch in repo.refs:
        raise Refusal(409, "Reference already exists")
    start = self.json().get("startingPoint", "main") if self.body else "main"
    repo.refs[branch] = self.tree(repo, start)[0]
    return {}


@route("GET", "/api/models/{repo}/tree/{revision}")
def list_tree(self, repo, revision):
    _, tree = self.tree(self.repo(repo), revision)
    entries = []
    for path, blob in sorted(tree.items()):
        lfs = {"lfs": {"oid": blob.oid, "size": blob.size, "pointerSize": 130}} if blob.is_lfs else {}
        entries.append({"type": "file", "path": path, "size": blob.size, "oid": blob.oid[:40], **lfs})
    return entries


@route("GET", "/api/models/{repo}/revision/{revision}")
@route("GET", "/api/models/{repo}")
def model_info(self, repo, revision="main"):
    repo = self.repo(repo)
    oid, tree = self.tree(repo, revision)
    with_sizes = "blobs" in self.query
    siblings = [{"rfilename": path} | ({"size": tree[path].size} if with_sizes else {}) for path in sorted(tree)]
    return {"id": repo.id, "sha": oid, "private": repo.is_private, "gated": repo.is_gated, "siblings": siblings}


@route("GET", "/{repo}/resolve/{revision}/{path}")
def resolve(self, repo, revision, path):
    repo = self.repo(repo)
    if repo.is_gated and self.user()[0] != repo.owner:
        raise Refusal(403 if self.user()[0] else 401, f"Access to model {repo.id} is restricted.", "GatedRepo")
    oid, tree = self.tree(repo, revision)
    if path not in tree:
        raise Refusal(404, "Entry not found", "EntryNotFound", X_Repo_Commit=oid)
    return tree[path], oid
