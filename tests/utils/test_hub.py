"""Everything that can go wrong with the Hub, end to end through the real client; and reports there and back."""

import errno
import gc
import json
import os
import re
import socket
import time

import pytest
from huggingface_hub import HfApi, ModelHubMixin, constants, create_repo, hf_hub_download
from transformers.image_utils import httpx

from gmar_hf import HeadImportanceReport
from gmar_hf.errors import ArgumentError, HubError
from gmar_hf.utils.files import replacing
from gmar_hf.utils.hub import check_in_reach, hub_errors, no_folder, remote_card
from tests.helpers import hub_server
from tests.helpers.hub_routes import READER, STRANGER
from tests.helpers.hub_server import message

# huggingface_hub passes file objects to its HTTP library in a way that this deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
CARD = b"---\nlibrary_name: gmar_hf\n---\n# Card\n"
LOG_IN = "log in with `hf auth login` or pass `token`"


def load(name="me/report", path="config.json", **kwargs):
    with hub_errors(name, "load the report"):
        return hf_hub_download(name, path, **kwargs)


def create(name="me/report", **kwargs):
    with hub_errors(name, "push the report"):
        return create_repo(name, exist_ok=True, **kwargs)


def push(folder, name="me/report", card=CARD, **kwargs):
    """Pushes a card and a large file."""
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_bytes(card)
    (folder / "report.safetensors").write_bytes(b"numbers" * 1000)
    with hub_errors(name, "push the report"):
        create_repo(name, exist_ok=True)
        return HfApi().upload_folder(repo_id=name, folder_path=folder, **kwargs)


def test_names_that_are_not_there(hub, tmp_path):
    assert message(load) == (
        "To load the report, `repo_id` must be a repository that is on the Hub and that you may see; got 'me/report'. "
        f"Check the name; if it is private, {LOG_IN}."
    )
    hub.add("me/report", {"config.json": b"{}"})
    assert message(load, revision="v/2") == (
        "To load the report, `revision` must be a branch, a tag or a commit of 'me/report'; got 'v/2'. "
        "Leave it out for the main branch, or make it first (huggingface_hub.create_branch)."
    )
    assert message(load, path="a folder/report.safetensors") == (
        "To load the report, 'me/report' must hold the file 'a folder/report.safetensors'; got none at revision "
        "'main'. Check that this is the repository you mean."
    )
    assert "got 'side'. Leave it out" in message(push, tmp_path / "folder", revision="side")


def test_private_and_gated_repositories(hub):
    hub.add("me/report", {"config.json": b"{}"}, is_private=True)
    hub.add("me/asked", {"config.json": b"{}"}, is_gated=True)
    assert "that you may see; got 'me/report'." in message(load, token=False)
    assert "that you may see; got 'me/report'." in message(load, token=STRANGER)
    for token in (False, STRANGER):
        assert message(load, "me/asked", token=token) == (
            "To load the report, `repo_id` must be a repository that you were given access to; got 'me/asked', which "
            f"is gated. Ask for access at {hub.url}/me/asked, then {LOG_IN}."
        )


def test_tokens(hub, monkeypatch):
    tokens = f"({hub.url}/settings/tokens)"
    assert message(create, token=False) == (
        f"To push the report, `token` must be one of the Hub's; got none. Please {LOG_IN} {tokens}."
    )
    assert message(create, token="hf_forgotten") == (
        "To push the report, `token` must be one of the Hub's; got one that it does not know. "
        f"Please {LOG_IN} {tokens}."
    )
    assert message(create, token=STRANGER) == (
        "To push the report, `token` must give the right to it; got 403 Forbidden for 'me/report' (You don't have the "
        f"rights to create a model under the namespace 'me'). Use a token with that right {tokens}, or a `repo_id` of "
        "your own."
    )
    monkeypatch.setenv("HF_TOKEN", "")
    assert message(load, token=True) == (
        f"To load the report, `token` must be one of the Hub's; got none. Please {LOG_IN}."
    )
    for token in ("hf_se\ncret", "hf_sécret"):  # neither fits into a header; the client's errors show it
        assert message(create, token=token) == (
            "To push the report, `token` must be one of the Hub's; got one with letters that none has. "
            f"Please {LOG_IN}."
        )


@pytest.mark.parametrize(
    "name", ["a/b/c", "me/two words", "/home/me/report", "me/..", "", "me/\x1b[2J", "--", "x" * 300]
)
def test_names_that_cannot_be(hub, name):
    text = message(load, name)
    assert text.startswith("To load the report, `repo_id` must be a name on the Hub ('owner/name', of letters,")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("headers", "when"),
    [
        ({"Retry_After": "120"}, "after 120 seconds"),
        ({"RateLimit": '"api";r=0;t=55'}, "after 55 seconds"),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "later"),
    ],
)
def test_too_many_requests(hub, headers, when):
    hub.fail("POST /api/repos/create", status=429, headers=headers)
    assert message(create) == (
        f"To push the report, the Hub must be asked less often; got 429 Too Many Requests. Try again {when}."
    )


def test_too_many_requests_for_a_file(hub):
    hub.add("me/report", {"config.json": b"{}"})
    hub.fail("HEAD ", status=429, headers={"Retry_After": "3"})
    assert message(load).endswith("Too Many Requests, and it is not in the local cache. Try again after 3 seconds.")
    assert hub.waits == [4] * 5  # the client has tried again in the meantime


def test_a_hub_that_fails(hub):
    hub.add("me/report", {"config.json": b"{}"})
    hub.fail("HEAD ", status=500)
    assert message(load) == (
        f"To load the report, the Hub must answer; got 500 Internal Server Error from {hub.url} (of the fault), and "
        "it is not in the local cache. Try again later."
    )
    hub.fail("GET ", status=503)
    hub.faults.pop(0)
    assert "got 503 Service Unavailable from" in message(load)


def test_connections_that_fail(hub, monkeypatch):
    hub.fail("POST /api/repos/create", cut="request")
    assert message(create) == (
        f"To push the report, the connection to the Hub must hold; got one to {hub.url} that broke off (Server "
        "disconnected without sending a response.). Try again."
    )
    hub.add("me/report", {"report.safetensors": b"other" * 1000})
    hub.fail("GET .*safetensors", cut="answer")
    assert "that broke off (peer closed connection" in message(load, path="report.safetensors")
    hub.faults.clear()
    hub.fail("GET .*safetensors", delay=0.3)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    assert message(load, path="report.safetensors") == (
        f"To load the report, the Hub must answer in time; got silence from {hub.url}. Try again, or raise "
        "HF_HUB_DOWNLOAD_TIMEOUT and HF_HUB_ETAG_TIMEOUT (seconds)."
    )


def test_no_hub_at_the_address(tmp_path):
    with hub_server.serving() as hub:
        pass
    hub.url = hub.url.replace("//", "//me:secret@")
    with hub_server.client_of(hub, tmp_path / "home"):
        nobody = hub.url.replace("me:secret@", "")
        refused = f"[Errno {errno.ECONNREFUSED}] {os.strerror(errno.ECONNREFUSED)}"
        assert message(create) == (
            f"To push the report, the Hub must be in reach; got no connection to {nobody} ({refused}). Check the "
            "network, the proxy and HF_ENDPOINT, and try again."
        )
        assert re.search(
            rf"got no connection to {nobody} \(.*\), and it is not in the local cache\. Check", message(load)
        )
        hub.url = "ftp://nobody"
    with hub_server.client_of(hub, tmp_path / "home"):
        assert "got no connection to ftp://nobody (Request URL has an unsupported protocol" in message(create)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach 'me/data' on the Hub (LocalEntryNotFoundError)"),
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        socket.gaierror(-2, "Name or service not known"),
        httpx.ConnectTimeout("timed out"),
    ],
)
def test_what_never_connected_did_not_break_off(error):
    with pytest.raises(HubError) as caught, hub_errors("me/data", "load the data set", no_folder("me/data")):
        raise error
    text = str(caught.value)
    assert text.startswith("No folder here is called 'me/data'. To load the data set, the Hub must ")
    assert "broke off" not in text


def test_nobody_is_asked_twice_for_what_is_not_in_reach(tmp_path, monkeypatch):
    """The client itself tries for half a minute."""
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits"))
    with hub_server.serving() as hub:
        pass
    with hub_server.client_of(hub, tmp_path / "home"):
        with pytest.raises(
            HubError, match=r"^No folder here is called 'nowhere'\. To load the report, the Hub must be in"
        ):
            HeadImportanceReport.from_pretrained("nowhere")
        with pytest.raises(httpx.ConnectError):
            check_in_reach("nothere", "dataset")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        check_in_reach("nothere", "dataset")  # needs none


def test_something_else_at_the_address(hub):
    hub.fail("", status=200, body=b"<html>Log in to this hotel's network</html>")
    advice = "Check HF_ENDPOINT, and that no proxy or login page is in between."
    assert (
        message(create)
        == f"To push the report, {hub.url} must be a Hub; got a web page (HTML) for an answer. {advice}"
    )
    assert message(load) == (
        f"To load the report, {hub.url} must be a Hub; got a file without commit or ETag, and it is not in the local "
        f"cache. {advice}"
    )


def test_offline_mode(hub, tmp_path, monkeypatch):
    hub.add("me/report", {"config.json": b"{}"})
    path = load()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    offline = "the Hub must be in reach; got offline mode (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set)"
    assert load() == path
    assert message(load, "me/other") == (
        f"To load the report, {offline}, and it is not in the local cache. Unset it and start Python again."
    )
    assert message(load, force_download=True) == f"To load the report, {offline}. Unset it and start Python again."
    assert message(create) == f"To push the report, {offline}. Unset it and start Python again."
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert load(local_files_only=True) == path
    assert message(load, revision="v2", local_files_only=True) == (
        "To load the report, 'me/report' must be in the local cache (`local_files_only=True`); got nothing of this "
        "revision there. Load it once without `local_files_only`."
    )
    assert hub.requests == []


def test_uploads_that_are_refused(hub, tmp_path):
    hub.fail("PUT ", corrupt=True, times=1)
    assert message(push, tmp_path / "folder") == (
        "To push the report, what is uploaded must arrive as it was sent; got 400 Bad Request (The Content-SHA256 you "
        "specified did not match what we received). Try again."
    )
    hub.fail("PUT ", status=403, message="Request has expired", times=1)  # by the storage: no matter of rights
    assert "as it was sent; got 403 Forbidden (Request has expired). Try again." in message(push, tmp_path / "folder")
    assert '"base_model" with value "/home/me" is not valid' in message(
        push, tmp_path / "folder", card=b"---\nbase_model: /home/me\n---\n"
    )
    push(tmp_path / "folder", parent_commit=hub.repos["me/report"].refs["main"])
    assert message(push, tmp_path / "folder", card=CARD + b"more", parent_commit="0" * 40) == (
        "To push the report, 'me/report' must not change meanwhile; got 412 Precondition Failed (A commit has "
        "happened since. Please refresh and try again.). Try again."
    )
    hub.fail("/commit/", status=413, message="too much", times=1)
    assert message(push, tmp_path / "folder", card=CARD + b"more") == (
        "To push the report, the Hub must accept what it is asked; got 413 Request Entity Too Large for 'me/report' "
        "(too much). Change what it names."
    )


def test_what_a_server_says_is_made_harmless(hub):
    said = {"error": "first\nsecond \x1b[2J\u202e" + "long " * 1000}
    hub.fail("POST ", status=500, body=json.dumps(said).encode())
    text = message(create)
    assert "(of the fault first second \\x1b[2J\\u202elong long" in text
    assert text.endswith("long l...). Try again later.")


def test_mistakes_of_this_machine(hub, tmp_path):
    hub.add("me/report", {"config.json": b"{}"})
    (tmp_path / "file").write_bytes(b"")
    assert message(load, cache_dir=tmp_path / "file" / "cache") == (
        f"To load the report, the Hub's cache must be writable; got Not a directory "
        f"('{tmp_path}/file/cache'). Make room, or set HF_HOME to another folder."
    )
    assert message(push, tmp_path / "folder", repo_type="recipe").startswith(
        "To push the report, huggingface_hub must succeed; got ValueError (Invalid repo type, must be one of [None,"
    )


class Broken(ModelHubMixin):
    """What the client calls back fails in this package, by a mistake and by an error for users."""

    def __init__(self, path):
        self.path = path

    def _save_pretrained(self, save_directory):
        with replacing(self.path):
            raise OSError("full")


def test_other_errors_pass():
    original = ArgumentError("`k` must be 3.")
    for error in (original, KeyError("a"), ValueError("b"), OSError(2, "c"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, hub_errors("me/report", "load the report"):
            raise error
        assert caught.value is error
        assert not isinstance(error, HubError)


# huggingface_hub leaves its temporary folder to the garbage collector when saving fails.
@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
def test_errors_of_this_package_pass_through_the_client(hub, tmp_path):
    for path, error in ((tmp_path / "a" / "b", ArgumentError), (None, TypeError)):
        with pytest.raises(error) as caught, hub_errors("me/x", "push"):
            Broken(path).push_to_hub("me/x")
        del caught
        gc.collect()


def test_remote_card_is_that_of_the_moment(hub):
    repo = hub.add("me/report", {"README.md": b"first", "config.json": b"{}"})
    hf_hub_download("me/report", "README.md")
    first = repo.refs["main"]
    hub.commit(repo, "main", repo.trees[first] | {"README.md": hub.blob("README.md", b"two\r\nlines \xff")})
    assert remote_card("me/report") == "two\r\nlines \ufffd"
    assert remote_card("me/report", revision=first) == "first"
    assert remote_card("me/report", revision="other") is None
    assert remote_card("me/other") is None
    hub.commit(repo, "empty", {})
    assert remote_card("me/report", "empty", READER) is None


def test_remote_card_that_cannot_be_had(hub):
    hub.add("me/asked", {"README.md": b"a"}, is_gated=True)
    assert remote_card("me/asked") == "a"
    assert message(remote_card, "me/asked", token=False).startswith(
        "To read the repository's card, `repo_id` must be a repository that you were given access to; got 'me/asked'"
    )
    hub.fail("README.md", status=500)
    assert "the Hub must answer; got 500" in message(remote_card, "me/asked")
