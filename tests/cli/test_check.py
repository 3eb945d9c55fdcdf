"""`gmar-hf check`: what it finds out about a model, and its verdict."""

import json
from pathlib import Path

import pytest
import torch

from gmar_hf.explanation import parity
from tests.helpers import zoo
from tests.helpers.commands import printed, refusal, save_model


def check(run, folder):
    code, out, err = run("check", "--model", folder, "--json")
    assert err == ""
    return code, json.loads(out)


@pytest.mark.parametrize(
    ("name", "prefix", "grid", "reads"),
    [
        ("vit", 1, [4, 4], "the class token"),
        ("vit_landscape", 1, [3, 5], "the class token"),
        ("deit_teacher", 2, [3, 5], "both"),
        ("beit_relative", 1, [3, 5], "the patches"),
        ("siglip", 0, [4, 4], "the patches"),
        ("clip", 1, [4, 4], "the patches"),
        ("dinov2_registers", 3, [4, 4], "class token and patches"),
    ],
)
def test_models_that_can_be_explained(run, tmp_path, name, prefix, grid, reads):
    model = zoo.MODELS[name]()
    code, summary = check(run, save_model(tmp_path, model))
    assert (code, summary["verdict"]) == (0, "ok")
    assert summary["class"] == type(model).__name__
    assert (summary["prefix_tokens"], summary["grid"]) == (prefix, grid)
    assert summary["pixels"] == list(zoo.image_size(model))
    config = zoo.vision_config(model)
    assert (summary["layers"], summary["heads"]) == (config.num_hidden_layers, config.num_attention_heads)
    assert set(summary["errors"]) == {
        "logits", "head_score (L1)", "head_score (L2)", "head_contribution", "head_maps", "attribution",
    }  # fmt: skip
    assert max(summary["errors"].values()) < 1e-5
    shares = summary["readout"]
    assert len(shares["prefix"]) == prefix
    assert sum(shares["prefix"]) + shares["patches"] == pytest.approx(1, abs=1e-3)
    if reads == "the class token":
        assert (shares["prefix"], shares["patches"]) == ([1.0], 0.0)
    elif reads == "the patches":
        assert shares["patches"] == 1.0
    elif reads == "both":
        assert shares["patches"] == 0.0
        assert min(shares["prefix"]) > 0.1
    else:  # whether the registers are read depends on transformers' version
        assert shares["prefix"][0] > 0.1
        assert shares["patches"] > 0.1
    assert summary["image_processor"] == "ViTImageProcessorPil: maps can be placed on images"


def test_the_table(run, tmp_path):
    out = printed(run("check", "-m", save_model(tmp_path, zoo.deit_teacher())))
    for text in (
        "DeiTForImageClassificationWithTeacher", "3 x 3", "2 prefix + 3 x 5 patches", "all patches together 0.00",
        "error of head_contribution", "maps can be placed on images", "ok: the engine agrees with explicit attention",
    ):  # fmt: skip
        assert text in out
    assert f"Explain an image with: gmar-hf explain IMAGE --model {tmp_path}" in out


@pytest.mark.parametrize("name", ["data2vec_vision", "swin", "convnext", "resnet"])
def test_models_that_cannot_be_explained(run, tmp_path, name):
    model = zoo.REFUSED[name]()
    code, summary = check(run, save_model(tmp_path, model))
    assert (code, summary["verdict"]) == (1, "unsupported")
    assert summary["class"] == type(model).__name__
    assert summary["reason"].startswith(type(model).__name__)
    code, out, err = run("check", "-m", tmp_path)
    assert (code, err) == (1, "")
    assert type(model).__name__ in out
    assert "Explain an image with" not in out


def test_an_engine_that_differs_is_told_of(run, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "TOLERANCE", 0.0)
    folder = save_model(tmp_path)
    code, summary = check(run, folder)
    assert (code, summary["verdict"]) == (1, "differs")
    assert "please report this model" in run("check", "-m", folder)[1]


def test_without_an_image_processor(run, tmp_path):
    folder = save_model(tmp_path)
    Path(folder, "preprocessor_config.json").unlink()
    code, summary = check(run, folder)
    assert (code, summary["verdict"]) == (0, "ok")
    assert summary["image_processor"].startswith("none that can be loaded: `gmar-hf explain` needs one")


def test_models_that_are_missing(run, tmp_path):
    assert refusal(run("check", "-m", tmp_path / "none", "--json")).startswith(
        "`--model` must be the Hub id or the folder of an image classifier"
    )
    assert run("check")[0] == 2  # the model has to be named


def test_weights_that_are_nan(run, tmp_path):
    model = zoo.vit()
    with torch.no_grad():
        model.classifier.weight[0, 0] = torch.nan
    assert refusal(run("check", "-m", save_model(tmp_path, model))).startswith(
        "The logits must be finite; got NaN or infinity for image(s) [0, 1]"
    )
