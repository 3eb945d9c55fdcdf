"""Files are known by what is in them: everything that this package writes, and nothing else."""

import json
import os

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import gmar_hf
from gmar_hf.errors import ArgumentError
from gmar_hf.evaluation.output.page import write_page
from gmar_hf.evaluation.output.tables import write_results
from gmar_hf.images.own_pictures import save_picture
from gmar_hf.report.figures import png
from gmar_hf.utils.own_files import IMAGE, Made, check_replaceable, look_at
from tests.helpers.evaluations import made
from tests.helpers.reports import make_report


@pytest.mark.slow
def test_reports_and_evaluations(tmp_path):
    report, evaluation = make_report(), made()
    report.save_pretrained(tmp_path / "report")
    report.write_page(tmp_path / "report" / "index.html")
    (tmp_path / "report" / "l1_weight.png").write_bytes(png(report.overall, "l1_weight"))  # drawn by matplotlib
    for path in (tmp_path / "report").iterdir():
        noun = "report" if path.suffix == ".html" else None
        assert look_at(path) == (None if path.name == "README.md" else Made(noun)), path.name
    folder = tmp_path / "evaluation"
    folder.mkdir()
    write_page(evaluation, evaluation.summary(), [], folder / "index.html")
    write_results(evaluation, evaluation.summary(), folder)
    evaluation.save(folder / "rows.safetensors")
    assert {path.name: look_at(path) for path in folder.iterdir()} == {
        "images.csv": Made(), "index.html": Made("evaluation"), "results.csv": Made(), "results.json": Made(),
        "rows.safetensors": Made(),
    }  # fmt: skip


def test_explanations_tell_their_image(tmp_path):
    gmar_hf.Explanation(attribution=torch.zeros(1, 2, 2), settings={IMAGE: "ab"}).save(tmp_path / "a.safetensors")
    save_picture(Image.new("RGB", (2, 2)), tmp_path / "a.png", "ab")
    (tmp_path / "a.json").write_text(json.dumps({IMAGE: "ab", "settings": {"versions": {"gmar_hf": "1"}}}))
    for path in tmp_path.iterdir():
        assert look_at(path) == Made(images=frozenset({"ab"})), path.name


@pytest.mark.parametrize("name", ["x.png", "x.safetensors", "x.json", "x.html", "x.csv", "x.txt", "x"])
def test_files_of_others(tmp_path, name):
    path = tmp_path / name
    contents = [
        b"", b"{}", b"[]", b"[[]]", b"[{}]", b"3", b"null", b'"x"', b'{"settings": 3}', b"[" * 100_000, b"\xff" * 99,
        b"<html></html>", b"a,b\n1,2\n", b"\x89PNG\r\n\x1a\n" + b"\xff" * 8,
    ]  # fmt: skip
    for content in contents:
        path.write_bytes(content)
        assert look_at(path) is None, content
    Image.new("RGB", (2, 2)).save(path, "PNG")
    assert look_at(path) is None
    save_file({"x": torch.zeros(1)}, path, {"gmar_hf": "[]"})
    assert look_at(path) is None
    # What is no file: a pipe would keep a reader waiting.
    path.unlink()
    os.mkfifo(path)
    assert look_at(path) is None
    path.unlink()
    path.mkdir()
    assert look_at(path) is None


def test_what_is_refused(tmp_path):
    check_replaceable("`x`", tmp_path / "nowhere", ["a.json"], "report")
    (tmp_path / "a.json").symlink_to("nowhere")
    with pytest.raises(ArgumentError) as refused:
        check_replaceable("`x`", tmp_path, ["b.json", "a.json"], "report")
    assert str(refused.value) == (
        f"`x` must be a folder without files that would be lost; {str(tmp_path)!r} holds a.json, which this version "
        "of gmar_hf has not written. Choose another folder, or move the file."
    )
    # A page of a report is no page of an evaluation, and no results take the place of an explanation's.
    make_report().write_page(tmp_path / "index.html")
    check_replaceable("`x`", tmp_path, ["index.html"], "report")
    with pytest.raises(ArgumentError, match=r"holds index.html, which is of other results\."):
        check_replaceable("`x`", tmp_path, ["index.html"], "evaluation")
    save_picture(Image.new("RGB", (2, 2)), tmp_path / "a.png", "ab")
    with pytest.raises(ArgumentError, match=r"holds a.png, which is of other results\."):
        check_replaceable("`x`", tmp_path, ["a.png"], "demo")
