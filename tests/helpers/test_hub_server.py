"""The loopback Hub, as the real client sees it; what reports ask of it is tests/report/test_sharing.py."""

import hashlib
from pathlib import Path

import pytest
from huggingface_hub import HfApi, create_repo, hf_hub_download, model_info, snapshot_download, whoami
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
)

from tests.helpers.hub_routes import READER, STRANGER

# huggingface_hub passes file objects to its HTTP library in a way that this deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
CARD = b"---\nlibrary_name: gmar_hf\nbase_model: google/vit-base-patch16-224\n---\n# Card\n"
LARGE = bytes(range(256)) * 2000


@pytest.fixture
def folder(tmp_path):
    """What is pushed: a card, a small and a large file."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").write_bytes(CARD)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(LARGE)
    return folder


def push(folder, **kwargs):
    create_repo("me/model", exist_ok=True)
    return HfApi().upload_folder(repo_id="me/model", folder_path=folder, **kwargs)


def pull(path, **kwargs):
    return Path(hf_hub_download("me/model", path, **kwargs)).read_bytes()


def test_what_is_pushed_comes_back_through_both_ways_of_upload(hub, folder):
    info = push(folder, commit_message="first")
    assert pull("config.json") == b"{}"
    assert pull("model.safetensors", revision=info.oid) == LARGE
    assert hub.commits == [("me/model", "main", "first", ["README.md", "config.json", "model.safetensors"])]
    tree = hub.repos["me/model"].trees[info.oid]
    assert tree["model.safetensors"].oid == hashlib.sha256(LARGE).hexdigest()
    assert tree["config.json"].oid == "9e26dfeeb6e641a33dae4961196235bdb965b21b"  # git hash-object
    assert f"PUT /lfs/{tree['model.safetensors'].oid}" in hub.requests
    assert {path.name for path in Path(snapshot_download("me/model")).iterdir()} == {".gitattributes", *tree}
    assert [file.rfilename for file in model_info("me/model").siblings] == sorted(tree)


def test_who_may_what(hub, folder):
    hub.add("me/secret", {"config.json": b"{}"}, is_private=True)
    hub.add("me/asked", {"config.json": b"{}"}, is_gated=True)
    assert whoami(READER)["name"] == "me"
    for name in ("me/secret", "me/asked"):
        assert hf_hub_download(name, "config.json", token=READER)
    for token in (STRANGER, False):
        with pytest.raises(RepositoryNotFoundError):
            model_info("me/secret", token=token)
        with pytest.raises(GatedRepoError):
            hf_hub_download("me/asked", "config.json", token=token, cache_dir=folder / "cache")
    push(folder)
    (folder / "config.json").write_bytes(b"[]")
    for token, status in ((READER, 403), (STRANGER, 403), (False, 401), ("hf_wrong", 401)):
        with pytest.raises(HfHubHTTPError) as caught:
            push(folder, token=token)
        assert caught.value.response.status_code == status
    assert push(folder, token=STRANGER, create_pr=True).pr_num == 1  # anybody may propose


@pytest.mark.parametrize(
    ("card", "complaint"),
    [
        (b"---\nlicense: [\n---\n", "YAML Metadata Error"),
        (b"---\nbase_model: /home/me/model\n---\n", '"base_model" with value "/home/me/model" is not valid'),
        (b"---\ndatasets:\n- ../images\n---\n", '"datasets" with value "../images" is not valid'),
    ],
)
def test_cards_that_the_hub_refuses(hub, folder, card, complaint):
    (folder / "README.md").write_bytes(card)
    with pytest.raises(ValueError, match=complaint):
        push(folder)
    assert hub.commits == []


def test_a_card_without_metadata_is_warned_of(hub, folder):
    (folder / "README.md").write_bytes(b"# Card")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        push(folder)


def test_faults_pass_after_as_many_times_as_they_were_set_to(hub, folder):
    hub.fail("POST .*/preupload/", status=500, times=2)
    hub.fail("POST .*/preupload/", status=429, headers={"Retry_After": "7"}, times=1)
    hub.fail("PUT /lfs/", cut="request", times=1)
    push(folder)
    assert hub.waits == [1, 2, 8, 1]  # Retry-After and one second more
    hub.fail("GET .*model.safetensors", cut="answer", times=2)
    assert pull("model.safetensors") == LARGE  # resumed in the middle, twice
    assert sum(request.startswith("GET") and "resolve" in request for request in hub.requests) == 3
