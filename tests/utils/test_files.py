import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import gmar_hf
from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.evaluation.results import Evaluation
from gmar_hf.utils.files import alone_in, checked_path, replacing, staged
from tests.helpers.reports import make_report


def test_the_file_appears_when_the_block_succeeds_and_replaces_an_old_one_at_once(tmp_path):
    path = tmp_path / "result.txt"
    with replacing(str(path)) as temporary:
        assert temporary.name == path.name  # the suffix tells writers the format
        temporary.write_text("old")
        assert not path.exists()
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["result.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, ValueError])
def test_after_an_error_nothing_has_changed(tmp_path, error):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.txt"]


def test_it_has_the_rights_of_any_new_file(tmp_path):
    (tmp_path / "usual").touch()
    with replacing(tmp_path / "result") as temporary:
        temporary.touch()
    assert (tmp_path / "result").stat().st_mode == (tmp_path / "usual").stat().st_mode


def write(path, text="text"):
    with replacing(path) as temporary:
        temporary.write_text(text)


def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    for path, reason in {
        tmp_path / "none" / "result": "No such file or directory",
        tmp_path / "file" / "result": "Not a directory",
        tmp_path / "folder": "Is a directory",
        "": "Is a directory",
        tmp_path / ("x" * 300): "File name too long",
    }.items():
        with pytest.raises(ArgumentError) as caught:
            write(path)
        assert str(caught.value) == (
            f"`path` must be a file that can be written; got {str(path)!r} ({reason}). "
            "Choose another place, or make the folder."
        )
        assert isinstance(caught.value, ValueError)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_full_disk(tmp_path):
    """Whoever meets it, the advice is to make room."""

    def fill():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    reason = r"\(No space left on device\)\. Make room there, or choose another"
    with (
        pytest.raises(ArgumentError, match=rf"`path` must be a file that .* {reason} place"),
        replacing(tmp_path / "a"),
    ):
        fill()
    with (
        pytest.raises(ArgumentError, match=rf"`--out` must be a folder that .* {reason}"),
        staged("`--out`", tmp_path),
    ):
        fill()
    with pytest.raises(ArgumentError, match=reason), staged("`--out`", tmp_path) as stage, replacing(stage / "a"):
        fill()
    with pytest.raises(FileNotFoundError), staged("`--out`", tmp_path) as stage:  # not of the disk
        open(stage / "none").close()
    assert not list(tmp_path.iterdir())


def test_a_link_leads_to_what_is_written(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("old")
    links = {"link": "elsewhere/file", "second": "link", "early": "elsewhere/not-yet"}
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    write(tmp_path / "second", "new")
    write(tmp_path / "early", "first")
    assert {name: os.readlink(tmp_path / name) for name in links} == links
    assert sorted(os.listdir(tmp_path / "elsewhere")) == ["file", "not-yet"]
    assert (tmp_path / "elsewhere" / "file").read_text() == "new"
    assert (tmp_path / "early").read_text() == "first"


def test_links_to_nowhere_and_things_that_are_no_files(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("none/file")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(os.listdir(tmp_path))
    for name, reason in {
        "loop": "Too many levels of symbolic links",
        "nowhere": "No such file or directory",
        "pipe": "a device or a pipe",
    }.items():
        with pytest.raises(ArgumentError, match=rf"`path` must be a file that can be written; got .*\({reason}\)"):
            write(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_file_keeps_its_rights(tmp_path):
    (tmp_path / "secret").touch(mode=0o600)
    write(tmp_path / "secret")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def evaluation(**settings):
    return Evaluation(settings, [], [], [], np.zeros((0, 0, 0)))


WRITERS = {
    "path": [
        gmar_hf.Explanation(torch.zeros(1, 2)).save,
        evaluation().save,
        lambda path: gmar_hf.pages.write_page([], path),
    ],
    "save_directory": [lambda path: make_report().save_pretrained(path)],
}


@pytest.mark.parametrize(("name", "write"), [(name, write) for name, several in WRITERS.items() for write in several])
def test_no_paths_at_all(name, write):
    with pytest.raises(ArgumentTypeError, match=f"`{name}` must be a path.*; got 3"):
        write(3)


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_names_that_no_file_can_have(path):
    with pytest.raises(ArgumentError, match="`path` must be a name that files can have; got "):
        checked_path("path", path)


def test_an_evaluation_that_could_not_be_read_again_is_not_saved(tmp_path):
    for settings in ({"a": float("nan")}, {"a": object()}, {"a": {1: 2}}):
        with pytest.raises(ArgumentError, match="`content` must hold plain JSON values"):
            evaluation(**settings).save(tmp_path / "it")
    assert os.listdir(tmp_path) == []


def test_long_and_odd_names(tmp_path):
    for name in ("x" * 200 + ".txt", "é" * 100, "日" * 80, " ", "-rf", "a\nb", "%s{}"):
        write(tmp_path / name, name)
        assert (tmp_path / name).read_text() == name


FULL_DISK = """
import resource, sys
import numpy
from safetensors.numpy import save_file
from gmar_hf.errors import ArgumentError
from gmar_hf.utils.files import replacing

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # no file of this process may be longer
for name, write in {
    "result.txt": lambda path: path.write_text("x" * 10_000),
    "tensors": lambda path: save_file({"zeros": numpy.zeros(1000)}, path),
}.items():
    try:
        with replacing(name) as temporary:
            write(temporary)
    except ArgumentError as error:
        print(error)
"""


def test_a_file_that_finds_no_room(tmp_path):
    # In a process of its own: the limit would also hold for what pytest itself writes.
    command = [sys.executable, "-c", FULL_DISK]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert "result.txt' (File too large)" in first
    assert "File too large" in second
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="no such locks")
def test_one_at_a_time(tmp_path):
    with alone_in("`--out`", tmp_path):
        with pytest.raises(ArgumentError, match="`--out` must be a folder that no other run writes to now"):
            alone_in("`--out`", tmp_path, patience=0).__enter__()
        (tmp_path / "other").mkdir()
        with alone_in("`--out`", tmp_path / "other", patience=0):
            pass
    with alone_in("`--out`", tmp_path, patience=0):
        pass
