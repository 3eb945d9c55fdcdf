"""`gmar-hf explain`: what it writes, what it prints, and how it ends."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import pipeline

import gmar_hf
from gmar_hf.cli import loading
from gmar_hf.cli.explanation_table import print_table, remarks
from gmar_hf.data import open_data
from gmar_hf.images.reading import read_image
from gmar_hf.plotting import overlay
from gmar_hf.plotting.result_words import caption_of
from tests.helpers import zoo
from tests.helpers.commands import LABELS, printed, refusal, save_model
from tests.helpers.dual_encoders import clip, tokenizer
from tests.helpers.explainers import photo, serving
from tests.helpers.pages import Page, assert_self_contained


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with two pictures, a broken one and one more folder, where the command is started."""
    monkeypatch.chdir(tmp_path)
    photo(0).save("one.png")
    photo(1, (45, 70)).save("two.jpg")
    Path("broken.png").write_text("no image")
    Path("more").mkdir()
    photo(2).save("more/one.bmp")
    photo(3).save("more/ONE.webp")
    Path("more/notes.txt").write_text("no image")
    return tmp_path


def start(*arguments, python=()):
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, *python, "-m", "gmar_hf", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_PROXY": "*", "PYTHONPATH": str(Path(gmar_hf.__file__).parents[1])},
        # A shell starts background jobs with Ctrl-C ignored, and children inherit that: a terminal's would not be.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def written(folder="out"):
    return sorted(os.listdir(folder))


# What is written


def test_files_of_every_image(run, here, model):
    out = printed(
        run(
            "explain", "one.png", "two.jpg", "-m", model, "-t", "cat", "-t", "tabby, tabby cat", "--method", "gmar",
            "--no-caption", "-o", "out",
        )
    )  # fmt: skip
    assert written() == sorted(
        f"{stem}{end}"
        for stem in ("one", "two")
        for end in (".json", ".safetensors", "-cat.png", "-tabby_tabby_cat.png")
    )
    expected = pipeline("gmar-explanation", model=model)("two.jpg", target=["cat", "tabby, tabby cat"])
    explanation = gmar_hf.Explanation.load("out/two.safetensors")
    for name in ("attribution", "head_importance", "head_contribution"):
        stacked = torch.stack([result[name] for result in expected])
        torch.testing.assert_close(getattr(explanation, name), stacked[None])
    assert explanation.target.tolist() == [[0, 1]]
    assert explanation.logits.shape == (1, len(LABELS))
    settings = explanation.settings
    assert (settings["image"], settings["labels"]) == ("two.jpg", ["cat", "tabby, tabby cat"])
    assert (settings["method"], settings["command"]["model"]) == ("gmar", model)
    assert settings["box"] == pytest.approx(expected[0]["box"])
    with Image.open("out/two-cat.png") as picture:
        assert (picture.mode, picture.size) == ("RGB", (450, 700))  # enlarged, for smooth lines
    for text in ("one.png", "two.jpg", "cat", "tabby, tabby cat", f"{expected[0]['score']:.3f}"):
        assert text in out
    assert "Overlays, maps and head scores are in out\nLook first at out/one-cat.png\n" in out
    # Whoever may read any new file may read these.
    Path("usual").touch()
    assert {path.stat().st_mode for path in Path("out").iterdir()} == {Path("usual").stat().st_mode}


def test_the_json_of_an_image(run, here, model):
    assert (
        run(
            "explain", "two.jpg", "-m", model, "-t", "cat", "--versus", "日本", "--method", "contribution", "-o", "out"
        )[0]
        == 0
    )
    entry = json.loads(Path("out/two.json").read_text())
    (expected,) = pipeline("gmar-explanation", model=model)(
        "two.jpg", target="cat", versus="日本", method="contribution"
    )
    (result,) = entry["results"]
    assert list(entry) == ["image", "seen_share", "results", "image_path_sha256", "files", "settings"]
    assert entry["seen_share"] == 1
    assert entry["image"] == "two.jpg"
    assert (result["label"], result["target"], result["versus"]) == ("cat", 0, "日本")
    assert result["score"] == pytest.approx(expected["score"])
    assert result["versus_score"] == pytest.approx(expected["versus_score"])
    assert result["box"] == pytest.approx(expected["box"])
    values = expected["head_contribution"]
    best = result["top_heads"][0]
    assert best["head_contribution"] == pytest.approx(values[best["layer"], best["head"]].item())
    assert abs(best["head_contribution"]) == pytest.approx(values.abs().max().item())
    assert entry["files"] == {"tensors": {"contribution": "two.safetensors"}, "overlays": ["two-cat-not-日本.png"]}
    settings = entry["settings"]
    assert settings == {
        "model": model, "revision": None, "target": ["cat"], "versus": "日本", "top_k": None,
        "method": ["contribution"], "norm": "l1", "versions": settings["versions"],
    }  # fmt: skip
    assert settings["versions"]["gmar_hf"] == gmar_hf.__version__
    assert set(settings["versions"]) == {"gmar_hf", "torch", "transformers"}


def test_one_target_has_no_axis_of_targets(run, here, model):
    """The file holds what `gmar_hf.explain` gives for the image."""
    assert run("explain", "one.png", "-m", model, "-t", "cat", "--method", "gmar", "-o", "out")[0] == 0
    written_explanation = gmar_hf.Explanation.load("out/one.safetensors")
    classifier, processor = loading.load_model(model, None), loading.load_image_processor(model, None)
    pixel_values = processor(read_image("one.png"), return_tensors="pt")["pixel_values"]
    expected = gmar_hf.explain(classifier, pixel_values, target=0).tensors()
    for name, tensor in written_explanation.tensors().items():
        torch.testing.assert_close(tensor, expected[name])


def test_signed_overlays_with_grid_and_caption(run, here, model):
    asked = ("explain", "two.jpg", "-m", model, "-t", "cat", "--method", "contribution", "-o", "out")
    printed(run(*asked, "--overlay", "signed", "--grid"))  # a caption is drawn by default
    (expected,) = pipeline("gmar-explanation", model=model)("two.jpg", target="cat", method="contribution")
    image = read_image("two.jpg")
    drawn = overlay(
        image, expected["attribution"], box=expected["box"], style="signed", grid=True, least_side=640,
        caption=caption_of(expected, image.size), sides=("for cat", "against it"),
    )  # fmt: skip
    with Image.open("out/two-cat.png") as picture:
        assert picture.height > 700
        assert picture.tobytes() == drawn.tobytes()


def test_heads_weighed_by_a_report(run, here, model):
    data = Path("data/cat")
    data.mkdir(parents=True)
    for seed in range(3):
        photo(seed).save(data / f"{seed}.png")
    printed(run("report", "--model", model, "--data", "data", "-o", "heads"))
    asked = ("explain", "two.jpg", "-m", model, "-t", "cat", "-o", "out", "--json")
    (entry,) = json.loads(printed(run(*asked, "--head-weights", "heads", "--method", "recommended,gmar")))
    explainer = pipeline("gmar-explanation", model=model)
    (expected,) = explainer("two.jpg", target="cat", method="gmar", head_weights="heads")
    weighed = gmar_hf.Explanation.load(f"out/{entry['files']['tensors']['gmar']}")
    torch.testing.assert_close(weighed.head_importance[0], expected["head_importance"])
    assert entry["results"][1]["head_weights_from"] == "all images"
    assert json.loads(Path("out/two.json").read_text())["settings"]["head_weights"] == "heads"
    assert "head-importance report" in refusal(run(*asked, "--head-weights", "data"))


def test_the_share_of_full_colour_and_the_style_are_options(run, here, model):
    """Of 16 patches half have the full colour: 8 of them, and 16 positions from 0 to 15 give the eighth from above."""
    asked = ("explain", "two.jpg", "-m", model, "-t", "cat", "--method", "recommended", "--no-caption", "-o", "out")
    printed(run(*asked, "--saturated", "0.5", "--overlay", "positive"))
    (expected,) = pipeline("gmar-explanation", model=model)("two.jpg", target="cat", method="recommended")
    attribution = expected["attribution"]
    limit = attribution.clip(0).flatten().sort().values[8].item() or attribution.max().item()
    drawn = overlay(
        read_image("two.jpg"), attribution, box=expected["box"], has_sign=True, limit=limit, least_side=640
    )
    with Image.open("out/two-cat.png") as picture:
        assert picture.tobytes() == drawn.tobytes()
    code, _, err = run(*asked, "--saturated", "1.5")
    assert code == 2
    assert "--saturated" in err


def test_no_number_is_minus_zero(capsys):
    head = {"layer": 0, "head": 1, "head_contribution": -0.0004}
    result = {"label": "cat", "score": -1e-5, "method": "recommended", "top_heads": [head]}
    print_table([{"image": "one.png", "results": [result], "files": {"overlays": ["one.png"]}}], Path("out"))
    out = capsys.readouterr().out
    assert "0.1: +0.00" in out
    assert "-0.0" not in out


def test_points_of_the_path(run, here, model):
    """They go to the method that has some; where none has, nothing is explained."""
    printed(run("explain", "two.jpg", "-m", model, "--num-points", "3", "-o", "out"))
    (entry,) = [json.loads(path.read_text()) for path in Path("out").glob("*.json")]
    assert entry["settings"]["num_points"] == 3
    found = gmar_hf.Explanation.load(f"out/{entry['files']['tensors']['recommended']}")
    assert found.settings["num_points"] == 3
    (expected,) = pipeline("gmar-explanation", model=model)("two.jpg", method="recommended", num_points=3)
    assert torch.allclose(found.attribution.squeeze(), expected["attribution"], atol=1e-6)
    code, _, err = run("explain", "two.jpg", "-m", model, "--num-points", "3", "--method", "gmar", "-o", "other")
    assert code == 1
    assert '`num_points` must come with method "path" or "recommended"' in " ".join(err.split())


def test_what_puzzles_is_remarked():
    head = {"layer": 1, "head": 2}
    signed = [{"method": name, "top_heads": [{**head, "head_contribution": 1.0}]} for name in ("gmar", "recommended")]
    weighed = {"method": "rollout", "top_heads": [{**head, "head_importance": 0.1}]}
    entries = [{"seen_share": 1.0, "results": signed[:1]}, {"image": "broken.png", "error": "It is none."}]
    assert remarks(entries) == []
    entries = [{"seen_share": 0.75, "results": signed}, {"seen_share": 0.5, "results": [weighed]}]
    assert remarks(entries) == [
        "Strongest heads differ between maps, even in sign. recommended: what a head added while all attention "
        "was switched on; gmar: what the label would lose, to first order, if a head were removed now; "
        "rollout: what weight a head has in its layer.",
        "The model saw only the middle of 2 of 2 pictures, 50% to 75% of each; the rest, which is grey, was cropped.",
    ]


def test_the_page_of_all_images(run, here, model):
    out = run(
        "explain",
        "one.png",
        here / "broken.png",
        here / "two.jpg",
        "-m",
        model,
        "-t",
        "cat",
        "-t",
        "日本",
        "--html",
        "-o",
        "out",
    )[1]
    assert "Look first at out/index.html: all of it on one page, which can be sent" in out
    text = Path("out/index.html").read_text(encoding="utf-8")
    assert str(here) not in text  # a page that is sent tells no folders
    page = Page(text)
    assert_self_contained(page)
    assert page.texts("h1") == [f"Explanations by {Path(model).name}"]
    assert [text.split(" → ")[0] for text in page.texts("h2")] == ["name: one", "name: two", "The maps"]
    assert page.texts("dt") == ["recommended", "gmar"]
    (expected,) = pipeline("gmar-explanation", model=model)(
        "two.jpg", target="日本", method="gmar", return_head_maps=True
    )
    data = json.loads(page.texts("script", type="application/json")[1])
    (shown,) = [one for one in data["maps"] if (one["method"], data["labels"][one["label"]]) == ("gmar", "日本")]
    # Of 16 patches 5 % are less than one: the strongest alone has the full colour.
    assert shown["scale"] == pytest.approx(expected["attribution"].max().item(), rel=1e-3)
    assert shown["signed"] is False
    scales = expected["head_maps"].flatten(-2).abs().amax(-1).flatten()
    assert data["heads"][shown["heads"]]["scales"] == pytest.approx(scales.tolist(), rel=1e-3)


def test_the_page_tells_images_of_one_name_apart(run, here, model):
    for folder in ("a", "b"):
        Path(folder).mkdir()
        shutil.copy("two.jpg", f"{folder}/two.jpg")
    run("explain", "a/two.jpg", "b/two.jpg", "-m", model, "--method", "rollout", "--html", "-o", "out")
    page = Page(Path("out/index.html").read_text(encoding="utf-8"))
    assert [text.split(" → ")[0] for text in page.texts("h2")] == ["name: two", "name: two-2", "The maps"]


def test_a_picture_that_was_there_is_kept(run, here, model):
    Path("out").mkdir()
    shutil.copy("one.png", "out/two-cat.png")
    for _ in range(2):  # our own pictures are drawn anew
        run("explain", "two.jpg", "-m", model, "-t", "cat", "--method", "rollout", "-o", "out")
        assert {path.name for path in Path("out").glob("*.png")} == {"two-cat.png", "two-cat-2.png"}
    assert Path("out/two-cat.png").read_bytes() == Path("one.png").read_bytes()


def test_the_recommended_map_and_gmar_side_by_side(run, here, model):
    out = printed(run("explain", "two.jpg", "-m", model, "-t", "cat", "-t", "日本", "--no-caption", "-o", "out"))
    assert written() == ["two-cat.png", "two-日本.png", "two.gmar.safetensors", "two.json", "two.safetensors"]
    expected = pipeline("gmar-explanation", model=model)(
        "two.jpg", target=["cat", "日本"], method=["recommended", "gmar"]
    )
    entry = json.loads(Path("out/two.json").read_text())
    names = [(result["label"], result["method"]) for result in entry["results"]]
    assert names == [(label, method) for label in ("cat", "日本") for method in ("recommended", "gmar")]
    assert names == [(result["label"], result["method"]) for result in expected]
    assert entry["results"][0]["completeness_gap"] == pytest.approx(expected[0]["completeness_gap"], rel=1e-4)
    for method, place in (("recommended", 0), ("gmar", 1)):
        explanation = gmar_hf.Explanation.load(f"out/{entry['files']['tensors'][method]}")
        assert explanation.settings["method"] == method
        maps = [expected[place]["attribution"], expected[place + 2]["attribution"]]
        torch.testing.assert_close(explanation.attribution, torch.stack(maps)[None])
    # Under a caption, a gap between them.
    with Image.open("out/two-cat.png") as picture:
        assert picture.width == 2 * 450 + 9
        left, right = (picture.crop((x, picture.height - 700, x + 450, picture.height)) for x in (0, 459))
    for drawn, result in ((left, expected[0]), (right, expected[1])):
        how = {"style": "signed", "has_sign": result["method"] == "recommended", "least_side": 640}
        laid = overlay(read_image("two.jpg"), result["attribution"], box=result["box"], **how)
        assert drawn.tobytes() == laid.tobytes()
    assert "recommended" in out


def test_no_file_of_a_method_takes_another_images_place(run, here, model):
    photo(0).save("one.gmar.png")
    assert run("explain", "one.png", "one.gmar.png", "-m", model, "-t", 0, "-o", "out")[0] == 0
    tensors = [json.loads(Path(f"out/{stem}.json").read_text())["files"]["tensors"] for stem in ("one", "one.gmar")]
    assert [list(each.values()) for each in tensors] == [
        ["one.safetensors", "one.gmar-2.safetensors"],
        ["one.gmar.safetensors", "one.gmar.gmar.safetensors"],
    ]


@pytest.mark.parametrize(
    ("method", "tensors"),
    [
        ("rollout", {"attribution", "head_importance"}),
        ("attention", {"attribution", "head_importance"}),
        ("gradient-rollout", {"attribution", "head_contribution"}),
        ("contribution", {"attribution", "head_contribution"}),
        ("removal", {"attribution", "head_contribution"}),
        ("path", {"attribution", "head_contribution"}),
    ],
)
def test_every_method(run, here, model, method, tensors):
    assert run("explain", "one.png", "-m", model, "--method", method, "--top-k", 2, "-o", "out")[0] == 0
    explanation = gmar_hf.Explanation.load("out/one.safetensors")
    assert explanation.attribution.shape == (1, 2, 4, 4)
    assert {
        name for name in ("attribution", "head_importance", "head_contribution") if name in explanation.tensors()
    } == tensors
    assert method in Path("out/one.json").read_text()


def test_labels_cannot_leave_the_folder_or_steer_the_terminal(run, here, model):
    targets = [part for label in [*LABELS[:-1], "11"] for part in ("-t", label)]  # digits would be an index
    out = printed(run("explain", "one.png", "-m", model, *targets, "-o", "out/deep"))
    overlays = json.loads(Path("out/deep/one.json").read_text())["files"]["overlays"]
    assert overlays == [
        "one-cat.png", "one-tabby_tabby_cat.png", "one-etc.png", "one-red_x.png", "one-b.png", "one-a_2J.png",
        f"one-{'long_' * 11}long.png", "one-A_b.png", "one-a_b-2.png", "one-日本.png", "one-unnamed.png", "one-7.png",
    ]  # fmt: skip
    assert written("out/deep") == sorted([*overlays, "one.gmar.safetensors", "one.json", "one.safetensors"])
    assert written("out") == ["deep"]
    assert "\x1b" not in out
    for shown in ("../../etc", "[red]x", "<b>&", "a\\x1b[2J", "日本"):
        assert shown in out


def test_equal_stems(run, here, model):
    sources = ["one.png", "more/one.bmp", "more/ONE.webp", "one.png"]
    assert run("explain", *sources, "-m", model, "-t", 0, "-o", "out")[0] == 0
    sources = {
        path: json.loads(Path("out", path).read_text())["image"] for path in written() if path.endswith(".json")
    }
    assert sources == {"one.json": "one.png", "one-2.json": "more/one.bmp", "ONE-3.json": "more/ONE.webp"}
    assert {"one-cat.png", "one-2-cat.png", "ONE-3-cat.png"} < set(written())


def test_equal_names_of_overlays(run, here, model):
    """Stem "x-A_b" with label "cat", stem "x" with a label of the same letters."""
    photo(0).save("x.png")
    photo(1).save("x-a_b.png")
    os.mkdir("images")
    os.rename("x-a_b.png", "images/x-cat.png")
    os.rename("x.png", "images/x.png")
    assert run("explain", "images", "-m", model, "-t", "cat", "-o", "images")[0] == 0
    with Image.open("images/x-cat.png") as untouched:  # it was an input, and no overlay takes its place
        assert untouched.tobytes() == photo(1).tobytes()
    overlays = [json.loads(Path(f"images/{stem}.json").read_text())["files"]["overlays"] for stem in ("x", "x-cat")]
    assert overlays == [["x-cat-2.png"], ["x-cat-cat.png"]]


def test_a_second_run_replaces_the_first(run, here, model):
    for method in ("gmar", "rollout"):
        assert run("explain", "one.png", "-m", model, "-t", "cat", "--method", method, "-o", "out")[0] == 0
    assert written() == ["one-cat.png", "one.json", "one.safetensors"]
    assert json.loads(Path("out/one.json").read_text())["settings"]["method"] == ["rollout"]


def test_a_second_run_leaves_out_what_the_first_has_drawn(run, here, model):
    for arguments in (["more", "--out", "more"], ["more", "--out", "more"], ["more/*", "--out", "out"]):
        code, out, _ = run("explain", *arguments, "-m", model, "-t", "cat", "--method", "rollout", "--json")
        images = [image["image"] for image in json.loads(out) if "results" in image]
        assert images == ["more/ONE.webp", "more/one.bmp"]
    drawn = "more/one-2-cat.png"
    code, out, _ = run("explain", drawn, "-m", model, "-t", "cat", "--method", "rollout", "-o", "again", "--json")
    assert code == 0  # who names it gets it
    assert json.loads(out)[0]["image"] == drawn
    # Nor does a survey or an evaluation of the folder take them for images.
    data = open_data("more", {}, use_labels=False)
    assert [data.read(index).name for index in range(len(data))] == ["ONE.webp", "one.bmp"]


def test_what_fails_leaves_no_folder(run, here, model):
    for options in (["-t", "cat", "--versus", "nobody"], ["-t", "cat", "-t", "0"], ["-t", "nobody"]):
        refusal(run("explain", "one.png", "-m", model, "-o", "new/deep/out", *options))
        assert not Path("new").exists()
    Path("mine").mkdir()
    assert run("explain", "broken.png", "-m", model, "-o", "mine/new")[0] == 1
    assert written("mine") == []  # which was there before


# Sources


def test_folders_globs_and_urls(run, here, model, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    image = (200, "image/png", Path("one.png").read_bytes())
    with serving({"/pets/a%20cat.png?size=3": image}) as address:
        url = f"{address}/pets/a%20cat.png?size=3"
        code, out, err = run("explain", "more", "t*.jpg", url, "-m", model, "--json", "-o", "out", "--batch-size", 3)
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert [entry["image"] for entry in summary] == ["more/ONE.webp", "more/one.bmp", "two.jpg", url]
    assert [entry["files"]["json"] for entry in summary] == ["ONE.json", "one-2.json", "two.json", "a_20cat.json"]


def test_a_name_that_is_not_utf8(run, here, model):
    name = os.fsdecode(b"caf\xe9.png")
    os.rename("one.png", name)
    code, out, _ = run("explain", "*.png", "-m", model, "--json", "-o", "out")
    assert code == 1  # of broken.png
    assert [entry["image"] for entry in json.loads(out)] == ["broken.png", name]
    assert json.loads(Path("out/caf.json").read_text())["image"] == name
    assert "caf\\udce9.png" in run("explain", name, "-m", model, "-o", "out")[1]


# What is printed


def test_one_bad_image_does_not_stop_the_others(run, here, model):
    sources = ["one.png", "broken.png", "none.png", "two.jpg"]
    code, out, err = run("explain", *sources, "-m", model, "--batch-size", 2, "-o", "out")
    assert code == 1
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("gmar-hf: broken.png: `image` must be of a format that Pillow reads; got 'broken.png'.")
    assert lines[1].startswith("gmar-hf: none.png: `image` must be a file that exists, an http(s) URL or")
    assert [name for name in written() if name.endswith(".json")] == ["one.json", "two.json"]
    assert "one.png" in out
    assert "broken.png" not in out


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "there is not enough memory for it. Shrink it, or lower `--batch-size`."),
        (KeyError("x"), "KeyError: 'x'"),
        (StopIteration(), "StopIteration"),
        (OSError(5, "Input/output error"), "[Errno 5] Input/output error"),
    ],
)
@pytest.mark.parametrize(
    "step", ["images.reading.read_image", "plotting.result_overlay.overlay_of", "_pipeline.results.strongest"]
)
def test_whatever_becomes_of_one_image_leaves_the_others_alone(run, here, model, monkeypatch, step, error, told):
    """Reading, drawing and writing: the second of four images fails, the others are complete."""
    module, name = f"gmar_hf.{step}".rsplit(".", 1)
    function, calls = getattr(importlib.import_module(module), name), []

    def fail(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise error
        return function(*args, **kwargs)

    monkeypatch.setattr(f"{module}.{name}", fail)
    sources = ["one.png", "two.jpg", "more/one.bmp", "more/ONE.webp"]
    code, out, err = run("explain", *sources, "-m", model, "--method", "gmar", "--json", "-o", "out")
    assert code == 1
    assert err == f"gmar-hf: two.jpg: {told}\n"
    entries = json.loads(out)
    assert ["error" in entry for entry in entries] == [False, True, False, False]
    for entry in entries:
        assert "error" in entry or Path("out", entry["files"]["json"]).is_file()


def test_images_are_in_memory_one_at_a_time(run, here, model, monkeypatch):
    """No two images that were read are alive at once, neither when they are explained nor when they are drawn."""
    alive = []

    def counted(source):
        image = read_image(source)
        alive[:] = [reference for reference in alive if reference() is not None]
        assert not alive
        alive.append(weakref.ref(image))
        return image

    monkeypatch.setattr("gmar_hf.images.reading.read_image", counted)
    for number in range(3):
        photo(number, (70, 50)).save(f"{number}.png")
    code, *_ = run("explain", "0.png", "1.png", "2.png", "-m", model, "-o", "out")
    assert code == 0


def test_one_image_that_spoils_its_batch(run, here, tmp_path_factory):
    """Without resizing the model takes one size only."""
    folder = save_model(tmp_path_factory.mktemp("flexible"))
    config = Path(folder, "preprocessor_config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "do_resize": False}))
    for number, size in enumerate([(32, 32), (40, 40), (32, 32)]):
        photo(number, size).save(f"{number}.png")
    code, out, err = run("explain", "0.png", "1.png", "2.png", "-m", folder, "--json", "-o", "out")
    assert code == 1
    assert err == (
        "gmar-hf: 1.png: `pixel_values` must be 32 x 32 pixels for ViTForImageClassification; got 40 x 40. "
        "Resize to that, or pass `interpolate_pos_encoding=True`.\n"
    )
    assert ["error" in entry for entry in json.loads(out)] == [False, True, False]


@pytest.mark.slow
def test_json_and_nothing_else_on_standard_output(here, model):
    """In a process of its own, with everything that anybody may warn of."""
    process = start(
        "explain", "one.png", "broken.png", "two.jpg", "more", "--model", model, "--target", "tabby, tabby cat",
        "--json", "--out", "out", python=("-W", "always"),
    )  # fmt: skip
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out[:1]) == (1, "["), err
    summary = json.loads(out)
    images = "one.png broken.png two.jpg more/ONE.webp more/one.bmp"
    assert [entry["image"] for entry in summary] == images.split()
    assert [entry["results"][0]["label"] for entry in summary if "results" in entry] == ["tabby, tabby cat"] * 4
    assert summary[1]["error"] in err
    (ours,) = (line for line in err.splitlines() if line.startswith("gmar-hf"))
    assert ours.startswith("gmar-hf: broken.png: ")


def test_json_lists_files_that_exist(run, here, model):
    code, out, _ = run("explain", "one.png", "-m", model, "--top-k", 2, "--json", "-o", "out")
    assert code == 0
    (entry,) = json.loads(out)
    files = entry["files"]
    assert sorted([files["json"], *files["tensors"].values(), *files["overlays"]]) == written()
    assert len(entry["results"]) == 4  # two labels by two methods


@pytest.mark.parametrize("asked", [(), ("--json",)])
def test_a_terminal_is_told_what_is_done(run, here, model, monkeypatch, asked):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    code, out, err = run("explain", "one.png", "-m", model, "--method", "gmar,rollout", "-o", "out", *asked)
    assert (code, err) == (0, f"Loading {model} ...\nExplaining 1 image by gmar, rollout ...\n")
    if asked:
        assert [result["method"] for result in json.loads(out)[0]["results"]] == ["gmar", "rollout"]


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("number", [4, 5])
def test_progress_is_shown_for_many_images_on_a_terminal(run, here, model, monkeypatch, terminal, number):
    for index in range(number):
        photo(index).save(f"{index}.png")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    code, out, err = run("explain", "[0-9].png", "-m", model, "-o", "out")
    assert code == 0
    assert ("image/s" in err or "5/5" in err) == (terminal and number == 5)
    if not err:
        assert "4.png" in out or number == 4


@pytest.mark.parametrize("command", [["explain", "one.png", "-o", "out"], ["check"]])
def test_an_untrained_head_is_refused(run, here, tmp_path_factory, command):
    config = zoo.ViTMSNConfig(**zoo.NARROW, **zoo.SQUARE)
    backbone = zoo.build(zoo.ViTMSNForImageClassification, config).vit
    folder = save_model(tmp_path_factory.mktemp("headless"), backbone)
    assert refusal(run(*command, "-m", folder)) == (
        f"`--model` must be a trained classifier; got '{folder}', which has no weights for classifier.bias, "
        "classifier.weight: they would be random, and so would what is explained. Use a model that was trained to "
        "classify images.\n"
    )
    assert not Path("out").exists()


def test_untrained_weights_of_the_encoder_are_told_of(run, here, tmp_path_factory):
    model = zoo.vit()
    folder = save_model(tmp_path_factory.mktemp("holed"), model)
    states = model.state_dict()
    del states["vit.layernorm.bias"]
    model.save_pretrained(folder, state_dict=states)
    code, _, err = run("explain", "one.png", "-m", folder, "-o", "out")
    assert code == 0
    assert err == (
        f"gmar-hf: {folder} has no weights for vit.layernorm.bias: "
        "these are random now, and what is explained is too.\n"
    )


# Targets


def test_targets_are_not_split_and_digits_are_an_index(run, here, model):
    code, out, _ = run("explain", "one.png", "-m", model, "-t", "tabby, tabby cat", "-t", "7", "--json", "-o", "out")
    assert code == 0
    assert [result["target"] for result in json.loads(out)[0]["results"]] == [1, 1, 7, 7]  # by two methods


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-t", "tabby"], "`target` must be one of the model's labels or an index; got 'tabby'. Near it: 'tabby,"),
        (["-t", "cat,7"], "`target` must be one of the model's labels or an index; got 'cat,7'. Near it: "),
        (["-t", "-1"], "`target` must be one of the model's labels or an index; got '-1'. Near it: "),
        (["-t", "9" * 5000], "`target` must be one of the model's labels or an index; got '9999"),
        (["-t", "12"], "`target` must be an index in [0, 11] or a label; got 12."),
        (["-t", "cat", "--versus", "99"], "`versus` must be an index in [0, 11] or a label; got 99."),
        (["--versus", "cat"], "`versus` must come with `target`"),
        (["-t", "cat", "--top-k", "2"], "`top_k` must not be given together with `target`"),
        (["--device", "warp:0"], "`--device` must be one that this machine has; got 'warp:0'. Use cpu."),
    ],
)
def test_bad_values_end_in_one_line(run, here, model, options, message):
    err = refusal(run("explain", "one.png", "-m", model, "-o", "out", "--json", *options), longest=6000)
    assert err.startswith(message)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["Missing argument"]),
        (["one.png", "--method", "magic"], ["magic", "gradient-rollout", "contribution"]),
        (["one.png", "--norm", "l3"], ["l3", "l1", "l2"]),
        (["one.png", "--top-k", "0"], ["--top-k", "1"]),
        (["one.png", "--batch-size", "0"], ["--batch-size", "1"]),
        (["one.png", "--batch-size", "many"], ["--batch-size", "integer"]),
        (["one.png", "--colour"], ["--colour"]),
    ],
)
def test_wrong_usage_exits_with_2(run, here, arguments, words):
    code, out, err = run("explain", *arguments)
    assert (code, out) == (2, "")
    assert all(word in err for word in words)
    assert "Traceback" not in err


# Bad models, folders, endings


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b'{"model_type": "bert"}'),  # not a classifier
        ("config.json", b"{"),
        ("model.safetensors", b"\xff" * 100),
        ("model.safetensors", None),
        ("preprocessor_config.json", None),
        ("*", None),
    ],
    ids=str,
)
def test_model_folders_that_cannot_be_loaded(run, here, name, content):
    for path in Path(save_model("bad")).glob(name):
        path.unlink() if content is None else path.write_bytes(content)
    err = refusal(run("explain", "one.png", "-m", "bad", "-o", "out"))
    assert err.startswith("`--model` must be the Hub id or the folder of an image classifier")
    assert "got 'bad' (" in err
    assert len(err) < 600
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["no/such/folder", "./none", "", "a b", "\x1b[2J"])
def test_models_that_are_missing(run, here, name):
    err = refusal(run("explain", "one.png", "-m", name, "-o", "out"))
    assert err.startswith("`--model` must be the Hub id or the folder of an image classifier")
    assert f"got {name!r} (" in err
    assert (f"got {name!r} (there is no such folder)" in err) == bool(name)  # which is no id of the Hub, either


def test_a_model_that_cannot_be_explained(run, here, tmp_path_factory):
    folder = save_model(tmp_path_factory.mktemp("convnext"), zoo.convnext())
    assert refusal(run("explain", "one.png", "two.jpg", "-m", folder, "-o", "out")).startswith(
        "ConvNextForImageClassification cannot be explained: "
    )
    assert not Path("out").exists()


def test_default_methods_are_those_that_the_model_has(run, here, tmp_path_factory):
    folder = save_model(tmp_path_factory.mktemp("swin"), zoo.swin())
    out = printed(run("explain", "one.png", "-m", folder, "-o", "out", "--html"))
    assert "recommended" in out
    assert "gmar" not in out.replace("gmar-hf", "")
    assert json.loads(Path("out/one.json").read_text())["settings"]["method"] == ["recommended"]
    explanation = gmar_hf.Explanation.load("out/one.safetensors")
    assert explanation.settings["num_heads"] == [2, 2, 4]
    err = refusal(run("explain", "one.png", "-m", folder, "-o", "other", "--method", "gmar"))
    assert err.startswith('one.png: `method` must be one of "contribution", "removal", "path", "recommended" for Swin')


def test_weights_that_are_nan(run, here, tmp_path_factory):
    model = zoo.vit()
    with torch.no_grad():
        model.classifier.weight[0, 0] = torch.nan
    folder = save_model(tmp_path_factory.mktemp("nan"), model)
    assert refusal(run("explain", "one.png", "-m", folder, "-o", "out")).startswith(
        "one.png: The logits must be finite; got NaN or infinity"
    )
    assert not Path("out").exists()


@pytest.mark.parametrize("out", ["one.png", "one.png/deeper", "x" * 300])
def test_folders_that_cannot_be_written(run, here, model, out):
    err = refusal(run("explain", "one.png", "-m", model, "-o", out))
    assert err.startswith(f"`--out` must be a folder that can be written; got {out!r} (")
    assert err.endswith("Choose another.\n")
    with Image.open("one.png") as image:
        assert image.tobytes() == photo(0).tobytes()


def test_a_link_to_a_folder_that_is_not_there(run, here, model):
    Path("link").symlink_to("nowhere")
    for out in ("link", "link/deeper"):
        err = refusal(run("explain", "one.png", "-m", model, "-o", out))
        assert "'link' is a link to 'nowhere', which is not there" in err
    Path("nowhere").mkdir()
    assert run("explain", "one.png", "-m", model, "-t", "cat", "-o", "link")[0] == 0
    assert Path("link").is_symlink()


@pytest.mark.parametrize("sources", [["empty"], ["*.gif"], ["one.png", "empty"]])
def test_nothing_to_explain(run, here, model, sources):
    Path("empty").mkdir()
    assert refusal(run("explain", *sources, "-m", model, "-o", "out")).startswith("`IMAGE` must ")
    assert not Path("out").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_no_file_is_ever_half_written(run, here, model, monkeypatch, error):
    def fail(path, content):
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        raise error

    monkeypatch.setattr(Path, "write_bytes", fail)
    code, out, err = run("explain", "one.png", "-m", model, "-t", "cat", "-o", "out")
    assert not Path("out").exists()  # all files of an image or none
    assert out == ""
    if isinstance(error, OSError):
        assert code == 1
        assert err == (
            "gmar-hf: one.png: `--out` must be a folder that can be written; got 'out' (No space left on device). "
            "Make room there, or choose another.\n"
        )
    else:
        assert code == 130


@pytest.mark.slow
def test_control_c(here, model):
    """In a process of its own, while it waits for an image."""
    waits, done = threading.Event(), threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self):
            waits.set()
            done.wait(60)

    with HTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/x.png"
        process = start("explain", "one.png", url, "--batch-size", "1", "--model", model, "-t", "cat", "--out", "out")
        while not waits.wait(0.1):
            assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        done.set()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "Look first at out/one-cat.png" in out
    assert err.endswith(
        "gmar-hf: interrupted. 1 of 2 images explained; what is made of them is kept in out. "
        "The same command begins anew.\n"
    )
    assert any(name.endswith(".json") for name in written())  # what was finished before stays
    assert not any(name.startswith(".") for name in written())


def test_texts_as_labels(here, run):
    name = save_model(here / "clip", clip())
    tokenizer().save_pretrained(name)
    told = run("explain", "one.png", "-m", name, "--label", "a cat", "--label", "a dog", "-t", "a dog", "--json")
    (image,) = json.loads(printed(told))
    assert {result["label"] for result in image["results"]} == {"a dog"}
    # Without texts there is nothing to explain, and a classifier needs none.
    assert "`--label` must be given (CLIPModel compares images with texts" in refusal(
        run("explain", "one.png", "-m", name)
    )


def test_texts_for_a_classifier(here, run, model):
    message = refusal(run("explain", "one.png", "-m", model, "--label", "a cat"))
    assert "which has labels of its own" in message


def test_versus_is_given_once(run, here, model):
    code, _, err = run("explain", "one.png", "-m", model, "-t", "cat", "--versus", "dog", "--versus", "bird")
    assert code == 2
    assert "must be given once; got 2. Run the command once for each." in " ".join(err.replace("│", " ").split())
