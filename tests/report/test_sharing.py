"""Reports on their way to the Hub and back, through the real client, on good days and bad."""

import re
import tempfile
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from gmar_hf.errors import ArgumentError, ArgumentTypeError, ArtifactError
from gmar_hf.report import sharing
from gmar_hf.report.head_importance_report import HeadImportanceReport
from gmar_hf.report.report_files import read_settings
from tests.helpers import hub_server
from tests.helpers.hub_routes import OWNER, READER, STRANGER
from tests.helpers.hub_server import message
from tests.helpers.reports import assert_same, dataset, make_report
from tests.helpers.sampling import pick

# huggingface_hub passes file objects to its HTTP library in a way that this deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "me/heads"
MINE = b"---\nlicense: mit\n---\n# My own words\n"


@pytest.fixture(scope="module")
def report():
    return make_report()


@pytest.fixture(scope="module")
def revised():
    """A report on other images, to take the first one's place."""
    return make_report(seed=1)


def load(name=NAME, **kwargs):
    return HeadImportanceReport.from_pretrained(name, **kwargs)


def write_card(hub, card, ref="main"):
    """Somebody writes a card on the Hub."""
    repo = hub.repos[NAME]
    hub.commit(repo, ref, repo.trees[repo.refs[ref]] | {"README.md": hub.blob("README.md", card)})


@pytest.mark.parametrize(
    ("large_files", "no_xet"),
    [((), True), (("*.safetensors",), True), (("*.safetensors", "*.png"), True), ((), False)],
    ids=["regular", "LFS", "LFS figures", "the client's way with Xet"],
)
def test_there_and_back(report, revised, tmp_path, large_files, no_xet):
    report.save_pretrained(tmp_path / "saved")
    files = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    with (
        hub_server.serving(large_files) as hub,
        hub_server.client_of(hub, tmp_path / "home", HF_HUB_DISABLE_XET=no_xet),
    ):
        info = report.push_to_hub(NAME)
        assert hub.commits == [(NAME, "main", "Upload head-importance report", sorted(files))]
        assert {name: hub.read(NAME, name) for name in files} == files
        assert (info.oid, str(info)) == (hub.repos[NAME].refs["main"], f"{hub.url}/{NAME}/commit/{info.oid}")
        loaded = load()
        assert_same(loaded, report)
        assert report.push_to_hub(NAME).oid == loaded.push_to_hub(NAME).oid == info.oid
        assert len(hub.commits) == 1  # nothing has changed
        revised.push_to_hub(NAME, commit_message="Twice the images")
        assert hub.commits[1][1:3] == ("main", "Twice the images")
        assert len(hub.commits) == 2
        assert_same(load(), revised)
        assert_same(load(revision=info.oid), report)


def test_saving_can_push_under_the_folders_name_to_ones_own_account(hub, report, tmp_path):
    report.save_pretrained(tmp_path / "heads", push_to_hub=True)
    assert_same(load(), report)
    assert_same(load(tmp_path / "heads"), report)


def test_branches(hub, report, revised):
    report.push_to_hub(NAME)
    commit = revised.push_to_hub(NAME, revision="v/2")
    assert revised.push_to_hub(NAME, revision="v/2").oid == commit.oid
    for settings, expected in (({}, report), ({"revision": "v/2"}, revised), ({"revision": commit.oid}, revised)):
        assert_same(load(**settings), expected)
    assert [entry[1] for entry in hub.commits] == ["main", "v/2"]
    assert "`revision` must be a branch, a tag or a commit of 'me/heads'; got 'v3'." in message(load, revision="v3")


def test_what_the_mixins_other_classes_take(hub, report, revised, tmp_path):
    """The same call does for a report and for any other class of `ModelHubMixin`."""
    alike = {"config": None, "model_card_kwargs": None, "token": None, "private": None}
    report.save_pretrained(
        tmp_path / "one", push_to_hub=True, repo_id=NAME, branch="v1", commit_message="One", **alike
    )
    report.push_to_hub(NAME, branch="v1", delete_patterns="*.png", allow_patterns="*.md", **alike)
    assert sorted(hub.repos[NAME].trees[hub.repos[NAME].refs["v1"]]) == [
        ".gitattributes", "README.md", "config.json", "report.safetensors",
    ]  # fmt: skip
    report.push_to_hub(NAME, allow_patterns=["*.json", "*.safetensors", "*.md"], ignore_patterns="README.md")
    assert hub.commits[-1][1:] == (
        "main", "Upload head-importance report", ["config.json", "report.safetensors"],
    )  # fmt: skip
    assert_same(load(strict=False, map_location="cpu", revision="v1"), report)
    assert_same(load(strict=True, map_location=torch.device("cpu")), report)
    # A card that somebody has written is kept beside what is ignored.
    write_card(hub, MINE)
    revised.push_to_hub(NAME, ignore_patterns=["*.png"])
    assert hub.read(NAME, "README.md") == MINE
    assert_same(load(), revised)


def test_what_nobody_knows_is_refused(report, tmp_path):
    for settings, words in (
        ({"nonsense": 1}, "`save_pretrained` must get arguments that it or `push_to_hub` has; got nonsense."),
        ({"brnch": "v1"}, "got brnch. Did you mean 'branch'?"),
        ({"safe_serialization": True}, "got safe_serialization."),
    ):
        for is_pushed in (False, True):
            with pytest.raises(ArgumentTypeError, match=re.escape(words)):
                report.save_pretrained(tmp_path / "one", push_to_hub=is_pushed, **settings)
    for call in (report.push_to_hub, load):
        with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
            call(NAME, nonsense=1)
    for name in ("config", "model_card_kwargs"):
        for call in (
            lambda **value: report.save_pretrained(tmp_path / "one", **value),
            partial(report.push_to_hub, NAME),
        ):
            with pytest.raises(ArgumentError, match=f"`{name}` must be None"):
                call(**{name: {"a": 1}})
    with pytest.raises(ArgumentError, match="`branch` must be the `revision` where both are given; got 'a' and 'b'"):
        report.push_to_hub(NAME, branch="a", revision="b")
    with pytest.raises(ArgumentError, match="`map_location` must be the CPU, where reports stay; got 'cuda:0'"):
        load(map_location="cuda:0")
    assert not (tmp_path / "one").exists()


def test_private_reports_and_tokens(hub, report, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    assert "To push the report, `token` must be one of the Hub's; got none." in message(report.push_to_hub, NAME)
    assert "`token` must give the right to it; got 403" in message(report.push_to_hub, NAME, token=READER)
    report.push_to_hub(NAME, private=True, token=OWNER)
    assert hub.repos[NAME].is_private
    assert "on the Hub and that you may see; got 'me/heads'" in message(load)
    assert "on the Hub and that you may see; got 'me/heads'" in message(load, token=STRANGER)
    assert_same(load(token=READER), report)
    report.push_to_hub(NAME, token=OWNER)
    assert len(hub.commits) == 1
    monkeypatch.setenv("HF_TOKEN", READER)
    assert_same(load(token=True), report)


@pytest.mark.parametrize("no_xet", [True, False])
def test_pull_requests(report, revised, tmp_path, no_xet):
    with hub_server.serving(()) as hub, hub_server.client_of(hub, tmp_path / "home", HF_HUB_DISABLE_XET=no_xet):
        report.push_to_hub(NAME)
        for number, token in enumerate((None, STRANGER), start=1):
            info = revised.push_to_hub(NAME, create_pr=True, token=token)
            assert (info.pr_num, info.pr_url) == (number, f"{hub.url}/{NAME}/discussions/{number}")
            assert_same(load(revision=info.pr_revision), revised)
        assert_same(load(), report)
        assert [entry[1] for entry in hub.commits] == ["main", "refs/pr/1", "refs/pr/2"]


@pytest.mark.parametrize("card", [MINE, b"\xff\xfe no UTF-8", b""])
def test_cards_of_others_are_kept(hub, report, card, caplog):
    hub.add(NAME, {"README.md": card})
    report.push_to_hub(NAME)
    assert caplog.messages == [
        f"README.md of {NAME} on the Hub was written by hand and is kept; `overwrite_card=True` (`--overwrite-card`) "
        "replaces it."
    ]
    caplog.clear()
    assert hub.read(NAME, "README.md") == card
    assert "README.md" not in hub.commits[0][3]
    assert_same(load(), report)
    report.push_to_hub(NAME, overwrite_card=True)
    assert hub.read(NAME, "README.md").startswith(b"---\n")
    assert b"head-importance" in hub.read(NAME, "README.md")
    assert hub.commits[1][3] == ["README.md"]
    assert not caplog.messages


def test_own_cards_are_brought_up_to_date_until_somebody_edits_them(hub, report, revised):
    report.push_to_hub(NAME)
    first = hub.read(NAME, "README.md")
    revised.push_to_hub(NAME)
    second = hub.read(NAME, "README.md")
    assert second != first
    # The client has seen neither this edit nor the next: what its cache holds must not count.
    edited = second.replace(b"\n# ", b"\nWith a word of mine.\n\n# ", 1)
    assert edited != second
    write_card(hub, edited)
    report.push_to_hub(NAME)
    assert hub.read(NAME, "README.md") == edited
    assert_same(load(), report)
    write_card(hub, first)
    revised.push_to_hub(NAME)
    assert hub.read(NAME, "README.md") == second


def test_cards_are_those_of_the_branch(hub, report, revised):
    report.push_to_hub(NAME, revision="side")
    write_card(hub, MINE, "side")
    revised.push_to_hub(NAME, revision="side")
    assert hub.read(NAME, "README.md", "side") == MINE
    revised.push_to_hub(NAME)
    assert hub.read(NAME, "README.md") != MINE
    write_card(hub, MINE)
    assert hub.read(NAME, "README.md", report.push_to_hub(NAME, create_pr=True).pr_revision) == MINE


def test_cards_about_local_files_pass_the_hubs_check(hub):
    local = dataset(id="/home/me/images: #1", is_local=True)
    report = make_report(model={"id": "/home/me/model", "is_local": True}, datasets=local, license="mit")
    report.push_to_hub(NAME)  # any complaint would be an error or a warning
    assert b"license: mit" in hub.read(NAME, "README.md")


STEPS = {
    "making the repository": "POST /api/repos/create",
    "reading the card": "HEAD .*README.md",
    "checking the card": "POST /api/validate-yaml",
    "comparing files": "POST .*/preupload/",
    "announcing a large file": "POST .*/objects/batch",
    "sending it": "PUT /lfs/",
    "verifying it": "POST .*/verify",
    "committing": "POST .*/commit/",
}
FAULTS = {  # by kind: what the server does, and what the error says
    "500": (dict(status=500), "the Hub must answer; got 500 Internal Server Error"),
    "429": (dict(status=429, headers={"Retry_After": "30"}), "Try again after 30 seconds."),
    "breaks off": (dict(cut="request"), "the connection to the Hub must hold; got one"),
    "answer lost": (dict(cut="answer"), "the connection to the Hub must hold; got one"),
}
NO_FAILURES = {("reading the card", "answer lost")}  # the answer to HEAD has no body


@pytest.fixture
def temporary_files(tmp_path, monkeypatch):
    """The folder of temporary files; nothing may be left in it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("temporary_files")
@pytest.mark.parametrize("step", pick(STEPS, 3))
def test_pushes_that_fail_lose_nothing(hub, report, revised, tmp_path, step):
    report.save_pretrained(tmp_path / "saved")
    saved = {path: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    revised.push_to_hub(NAME)
    earlier = revised
    for seed, (kind, (fault, sentence)) in enumerate(FAULTS.items(), start=2):
        if (step, kind) in NO_FAILURES:
            continue
        report = make_report(seed=seed)
        hub.fail(STEPS[step], **fault)
        text = message(report.push_to_hub, NAME)
        assert text.startswith(("To push the report, ", "To read the repository's card, ")), text
        assert sentence in text
        hub.faults.clear()
        stored = load()
        assert_same(stored, report if (step, kind) == ("committing", "answer lost") else earlier)
        report.push_to_hub(NAME)
        assert_same(load(), report)
        earlier = report
    assert len(hub.commits) == len(FAULTS) + 1 - sum(step == harmless for harmless, _ in NO_FAILURES)
    assert {path: path.read_bytes() for path in (tmp_path / "saved").iterdir()} == saved


@pytest.mark.usefixtures("temporary_files")
@pytest.mark.parametrize("file", ["config.json", "report.safetensors"])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_loads_that_fail_lose_nothing(hub, report, tmp_path, file, method):
    report.push_to_hub(NAME)
    for kind, (fault, sentence) in FAULTS.items():
        if method == "HEAD" and kind == "answer lost":
            continue  # it has no body
        cache = tmp_path / f"{kind} cache"
        hub.fail(f"{method} .*{file}", **fault)
        text = message(load, cache_dir=cache)
        assert text.startswith("No folder here is called 'me/heads'. To load the report, ")
        assert sentence in text
        assert list(cache.rglob("*.incomplete")) == []
        hub.faults.clear()
        assert_same(load(cache_dir=cache), report)
    hub.fail("", status=500)  # and what is in the cache needs no Hub
    assert_same(load(cache_dir=cache), report)


@pytest.mark.parametrize("file", ["config.json", "report.safetensors"])
def test_downloads_that_change_on_their_way(hub, report, file):
    report.push_to_hub(NAME)
    hub.fail(f"GET .*{file}", corrupt=True)
    assert (
        message(load)
        == f"'{file}' of 'me/heads' must arrive as it is on the Hub; got another content, twice. Try again later."
    )
    hub.faults.clear()
    assert_same(load(), report)
    hub.fail(f"GET .*{file}", corrupt=True, times=1)
    assert_same(load(force_download=True), report)


@pytest.mark.parametrize("file", ["config.json", "report.safetensors"])
def test_a_cache_that_has_changed(hub, report, monkeypatch, file):
    report.push_to_hub(NAME)
    assert_same(load(), report)
    [path] = Path(constants.HF_HUB_CACHE).rglob(file)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"0", b"1", 1))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert f"'{file}' of 'me/heads' must be in the local cache as it came; got a file that has changed." in message(
        load
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert "Load it once from the Hub." in message(load, local_files_only=True)
    assert_same(load(), report)
    assert_same(load(local_files_only=True), report)


def test_offline(hub, report, tmp_path, monkeypatch):
    report.push_to_hub(NAME)
    load()
    load(cache_dir=tmp_path / "elsewhere")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert_same(load(), report)
    assert_same(load(cache_dir=tmp_path / "elsewhere"), report)
    assert "got offline mode (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set)" in message(report.push_to_hub, NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert_same(load(local_files_only=True), report)
    assert hub.requests == []


def test_repositories_that_are_no_reports(hub):
    assert "that is on the Hub and that you may see; got 'me/heads'" in message(load)
    hub.add("me/nothing")
    assert "'me/nothing' must hold the file 'config.json'; got none" in message(load, "me/nothing")
    hub.add("me/model", {"config.json": b'{"model_type": "vit"}'})
    assert "'me/model' must be a head-importance report" in message(load, "me/model", error=ArtifactError)
    assert "`repo_id` must be a name on the Hub" in message(load, "me/not/here")


def test_a_push_between_the_downloads_of_a_load(hub, report, revised, monkeypatch):
    report.push_to_hub(NAME)

    def read_and_push(*args):
        revised.push_to_hub(NAME)
        return read_settings(*args)

    monkeypatch.setattr(sharing, "read_settings", read_and_push)
    assert_same(load(), report)
    assert len(hub.commits) == 2
