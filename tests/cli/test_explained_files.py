"""`gmar-hf explain` keeps what is in its folder: files of others, of other images, and what it made before a stop."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

import gmar_hf
from gmar_hf.cli.explanation_files import ExplanationFiles
from gmar_hf.images import own_pictures
from tests.helpers.commands import printed, save_model
from tests.helpers.explainers import photo
from tests.helpers.pages import Page


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def explain(run, tmp_path, monkeypatch, model):
    """The command, in a folder with two images of one name."""
    monkeypatch.chdir(tmp_path)
    for number, folder in enumerate("ab"):
        Path(folder).mkdir()
        photo(number).save(f"{folder}/cat.png")
    return lambda *options: run("explain", *options, "-m", model, "-t", "cat", "--method", "rollout", "-o", "out")


def contents(folder="out"):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def headings(page):
    return [text.split(" → ")[0].removeprefix("name: ") for text in Page(Path(page).read_text("utf-8")).texts("h2")][
        :-1
    ]


def test_files_of_others_are_kept(explain):
    Path("out").mkdir()
    for name in ("cat.json", "index.html"):
        Path("out", name).write_bytes(b"mine")
    os.symlink("nowhere", "out/cat-2.safetensors")
    Path("out/cat-3-cat.png").mkdir()
    for _ in range(2):  # our own are made anew
        out = printed(explain("a/cat.png", "--html"))
        assert "Look first at out/index-2.html" in out
        assert sorted(os.listdir("out")) == [
            "cat-2.safetensors", "cat-3-cat-2.png", "cat-3-cat.png", "cat-3.json", "cat-3.safetensors", "cat.json",
            "index-2.html", "index.html",
        ]  # fmt: skip
    assert (Path("out/cat.json").read_bytes(), Path("out/index.html").read_bytes()) == (b"mine", b"mine")
    assert not Path("nowhere").exists()


def test_images_of_one_name_in_two_calls(explain):
    printed(explain("a/cat.png", "--html"))
    before = contents()
    assert set(before) == {"cat.json", "cat.safetensors", "cat-cat.png", "index.html"}
    printed(explain("b/cat.png", "--html"))
    after = contents()
    assert set(after) - set(before) == {"cat-2.json", "cat-2.safetensors", "cat-2-cat.png", "index-2.html"}
    assert {name: after[name] for name in before} == before
    assert json.loads(after["cat-2.json"])["files"]["overlays"] == ["cat-2-cat.png"]
    # The same again, by other words, takes its own place; a page that shows all of another takes that one's.
    printed(explain("b/../b/cat.png", "--html"))
    assert set(contents()) == set(after)
    printed(explain("b/cat.png", "a/cat.png", "--html"))
    assert set(contents()) == set(after)
    assert (headings("out/index.html"), headings("out/index-2.html")) == (["cat", "cat-2"], ["cat"])
    assert {json.loads(Path("out", name).read_text())["image"] for name in ("cat.json", "cat-2.json")} == {
        "a/cat.png", "b/cat.png",
    }  # fmt: skip
    assert json.loads(Path("out/cat.json").read_text())["image"] == "a/cat.png"
    assert gmar_hf.Explanation.load("out/cat-2.safetensors").settings["image"] == "b/cat.png"


def test_another_process_takes_the_name_meanwhile(explain, monkeypatch):
    save = own_pictures.save_picture

    def take(*args):
        Path("out/cat.json").write_bytes(b"mine")
        save(*args)

    monkeypatch.setattr(own_pictures, "save_picture", take)
    printed(explain("a/cat.png"))
    assert set(contents()) == {"cat.json", "cat-2.json", "cat-2.safetensors", "cat-2-cat.png"}
    assert Path("out/cat.json").read_bytes() == b"mine"


@pytest.fixture
def heeding_control_c():
    """Whoever runs the tests in the background has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding_control_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_made_before_it_was_stopped(explain, monkeypatch, number):
    write, calls = ExplanationFiles.write, []

    def stop(*args):
        calls.append(args)
        if len(calls) == 2:
            signal.raise_signal(number)
        return write(*args)

    shutil.copy("b/cat.png", "a/dog.png")
    monkeypatch.setattr(ExplanationFiles, "write", stop)
    code, out, err = explain("a", "b", "--html", "--json")
    assert code == 130
    assert [image["image"] for image in json.loads(out)] == ["a/cat.png"]
    told = "gmar-hf: interrupted. 1 of 3 images explained; what is made of them is kept in out. "
    told += "The same command begins anew.\n"
    assert err == told
    assert set(contents()) == {"cat.json", "cat.safetensors", "cat-cat.png", "index.html"}
    assert headings("out/index.html") == ["cat"]
    # A page of fewer images does not take the place of one of more.
    calls[:] = [None, None]
    printed(explain("a", "b", "--html"))
    calls.clear()
    assert explain("a", "b", "--html")[::2] == (130, told)
    assert (headings("out/index.html"), headings("out/index-2.html")) == (["cat", "dog", "cat-2"], ["cat"])


@pytest.mark.usefixtures("heeding_control_c")
def test_stopped_before_the_first_image(explain, monkeypatch):
    monkeypatch.setattr(ExplanationFiles, "write", lambda *args: signal.raise_signal(signal.SIGINT))
    for options in ((), ("--html",), ("--json",)):
        assert explain("a", "b", *options) == (
            130, "", "gmar-hf: interrupted. 0 of 2 images explained. The same command begins anew.\n",
        )  # fmt: skip
        assert not Path("out").exists()


def test_images_in_subfolders_are_counted(explain):
    shutil.copytree("b", "a/deep")
    code, _, err = explain("a")
    assert (code, err) == (0, "gmar-hf: 1 image in subfolders left out; --recursive explains them too.\n")
    assert [image["image"] for image in json.loads(printed(explain("a", "--recursive", "--json")))] == [
        "a/cat.png", "a/deep/cat.png",
    ]  # fmt: skip
