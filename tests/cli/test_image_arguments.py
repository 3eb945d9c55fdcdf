import os
from pathlib import Path

import pytest

from gmar_hf.cli.image_arguments import expand, num_in_subfolders, safe, stem, unique
from gmar_hf.errors import ArgumentError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "c.tar.gif", "d.txt", ".hidden.png", "e.h5", "f.pdf", "deep/g.webp", "[x].png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    return tmp_path


def test_folders_hold_images(here):
    assert expand(["."]) == ["[x].png", "a.JPG", "b.png", "c.tar.gif"]
    assert expand(["deep"]) == ["deep/g.webp"]
    assert expand([str(here / "deep")]) == [str(here / "deep" / "g.webp")]


def test_subfolders_are_asked_for(here):
    for name in ("deep/deeper/h.png", "deep/.hidden/i.png", "empty/only/j.png"):
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        Path(name).touch()
    Path("deep/circle").symlink_to("..")
    top, below = expand(["."]), ["deep/g.webp", "deep/deeper/h.png", "empty/only/j.png"]
    assert expand(["."], recursive=True) == [*top, *below]
    assert expand(["deep", "b.png"], recursive=True) == ["deep/g.webp", "deep/deeper/h.png", "b.png"]
    assert num_in_subfolders(["."]) == 3
    assert num_in_subfolders([".", "deep", "b.png", "", "http://h/x"]) == 2  # one of them is named
    with pytest.raises(ArgumentError, match=r"which has none but 1 in its subfolders\. Pass `--recursive`\.$"):
        expand(["empty"])


def test_globs_match_files(here):
    assert expand(["*.png"]) == ["[x].png", "b.png"]
    assert expand(["**/*.webp"]) == ["deep/g.webp"]
    assert expand(["?.*"]) == ["a.JPG", "b.png", "c.tar.gif", "d.txt", "e.h5", "f.pdf"]  # who names it gets it
    assert expand(["[x].png"]) == ["[x].png"]  # a file of that name is no glob


def test_everything_once_in_order(here):
    assert expand(["b.png", "*.png", "deep", "b.png"]) == ["b.png", "[x].png", "deep/g.webp"]


def test_the_rest_is_taken_as_it_is(here):
    sources = ["none.png", "http://h/*.png", "https://h/[a].png?x=*", "data:image/png;base64,AAAA", ""]
    assert expand(sources) == sources


def test_what_holds_nothing(here):
    Path("empty").mkdir()
    for argument, message in {
        "empty": "`IMAGE` must be an image or a folder with images; got 'empty', which has none.",
        "*.bmp": "`IMAGE` must match at least one file; got '*.bmp', which matches none.",
        "d*p": "`IMAGE` must match at least one file; got 'd*p', which matches none.",
    }.items():
        with pytest.raises(ArgumentError) as caught:
            expand([argument])
        assert str(caught.value) == message


def test_a_glob_that_matches_nothing_is_left_to_be_told_with_the_bad_images(here):
    assert expand(["*.bmp", "b.png"]) == ["b.png", "*.bmp"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a/b/cat.png", "cat"),
        ("cat", "cat"),
        ("cat.tar.gz", "cat.tar"),
        (".cat", ".cat"),
        ("what?.png", "what?"),
        ("https://h/a/cat.png?x=/y.jpg#z", "cat"),
        ("https://h/a/", "a"),
        ("https://h", "h"),
        ("/", "image"),
        ("", "image"),
    ],
)
def test_stem(source, expected):
    assert stem(source) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tabby, tabby cat", "tabby_tabby_cat"),
        ("../../etc/passwd", "etc_passwd"),
        ("C:\\x", "C_x"),
        ("a\x1b[2J\n\0b", "a_2J_b"),
        ("v1.5-x", "v1.5-x"),
        ("_a._", "a"),
        ("日本 é", "日本_é"),
        ("e\u0301", "é"),  # one letter, however it is written
        ("\udcff", "unnamed"),
        ("...", "unnamed"),
        ("", "unnamed"),
        ("x" * 100, "x" * 60),
        ("日" * 100, "日" * 20),  # 3 bytes each
        ("a" + "日" * 100, "a" + "日" * 19),
        ("x" * 59 + "., yz", "x" * 59),
    ],
)
def test_safe(text, expected):
    assert safe(text) == expected
    assert len(os.fsencode(safe(text))) <= 60


def test_unique():
    taken = {"dog"}
    assert unique(["cat", "Dog", "CAT", "cat", "cat-2"], taken) == ["cat", "Dog-2", "CAT-2", "cat-3", "cat-2-2"]
    assert taken == {"dog", "cat", "dog-2", "cat-2", "cat-3", "cat-2-2"}
    assert unique(["cat"], taken) == ["cat-4"]
