"""`gmar-hf check`: what it finds out about a model, and its verdict."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from transformers import ViTImageProcessorPil
from transformers.models.vit.modeling_vit import ViTMLP

from gmar_hf.explanation import architectures, parity
from gmar_hf.explanation.methods import METHODS
from tests.helpers import zoo
from tests.helpers.commands import printed, refusal, save_model
from tests.helpers.explainers import image_processor


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
    assert set(summary["gradient_errors"]) == {"0", "1", "2"}
    assert max(summary["gradient_errors"].values()) < summary["gradient_tolerance"] == 0.005
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


def test_windows(run, tmp_path):
    folder = save_model(tmp_path, zoo.swin_padded())
    code, summary = check(run, folder)
    assert (code, summary["verdict"]) == (0, "ok")
    assert (summary["layers"], summary["heads"], summary["in_stages"]) == (5, [1, 1, 2, 2, 4], True)
    out = " ".join(printed(run("check", "-m", folder)).split())
    assert "5 x 1, 1, 2, 2, 4" in out
    assert "7 x 9 patches" in out


def test_hiera(run, tmp_path):
    code, summary = check(run, save_model(tmp_path, zoo.hiera()))
    assert (code, summary["verdict"]) == (0, "ok")
    assert (summary["layers"], summary["heads"], summary["in_stages"]) == (4, [1, 2, 2, 4], True)
    assert summary["gradient_tolerance"] == 0.1


@pytest.mark.parametrize("name", ["pvt_v2_linear", "convnext", "resnet"])
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


def test_a_gradient_that_is_not_the_models_is_told_of(run, tmp_path, monkeypatch):
    forward = ViTMLP.forward
    monkeypatch.setattr(ViTMLP, "forward", lambda self, x: forward(self, x).detach() + 0 * x)
    folder = save_model(tmp_path)
    code, summary = check(run, folder)
    assert (code, summary["verdict"]) == (1, "wrong gradient")
    assert max(summary["errors"].values()) < 1e-5  # both sides are wrong alike
    code, out, _ = run("check", "-m", folder)
    assert code == 1
    assert "wrong gradient: it is more than 5e-03 from finite differences of the logits" in " ".join(out.split())
    assert "Explain an image with" not in out


def test_without_an_image_processor(run, tmp_path):
    folder = save_model(tmp_path)
    Path(folder, "preprocessor_config.json").unlink()
    code, summary = check(run, folder)
    assert (code, summary["verdict"]) == (0, "ok")
    assert summary["image_processor"].startswith("none that can be loaded: `gmar-hf explain` needs one")
    assert summary["pixels"] == [32, 32]  # the config's
    assert "Explain an image with" not in printed(run("check", "-m", folder))


class TestTheSizeIsTheProcessors:
    @pytest.mark.parametrize("name", ["dinov2_registers", "beit_shared"])
    def test_models_that_take_any(self, run, tmp_path, name):
        folder = save_model(tmp_path, zoo.MODELS[name]())
        image_processor((24, 40)).save_pretrained(folder)
        code, summary = check(run, folder)
        assert (code, summary["verdict"]) == (0, "ok")
        assert (summary["pixels"], summary["grid"]) == ([24, 40], [3, 5])

    def test_models_that_take_another(self, run, tmp_path):
        folder = save_model(tmp_path)
        image_processor((24, 40)).save_pretrained(folder)
        code, summary = check(run, folder)
        assert (code, summary["verdict"]) == (1, "unsupported")
        assert summary["reason"].startswith("`pixel_values` must be 32 x 32 pixels for ViTForImageClassification")

    def test_a_processor_whose_pixels_cannot_be_placed(self, run, tmp_path, monkeypatch):
        monkeypatch.setattr(ViTImageProcessorPil, "resize", lambda self, image, size, **kwargs: image[:, :32, :32])
        monkeypatch.setattr(ViTImageProcessorPil, "__module__", "elsewhere")
        out = printed(run("check", "-m", save_model(tmp_path)))
        assert "has its own `resize`" in out or "is not built on them" in out
        assert "Explain an image with" not in out


def test_models_that_are_missing(run, tmp_path):
    assert refusal(run("check", "-m", tmp_path / "none", "--json")).startswith(
        "`--model` must be the Hub id or the folder of an image classifier"
    )
    assert run("check")[0] == 2  # the model has to be named, unless all are meant
    assert run("check", "--all", "-m", tmp_path)[0] == 2


def test_weights_that_are_nan(run, tmp_path):
    model = zoo.vit()
    with torch.no_grad():
        model.classifier.weight[0, 0] = torch.nan
    assert refusal(run("check", "-m", save_model(tmp_path, model))).startswith(
        "The logits must be finite; got NaN or infinity for image(s) [0, 1]"
    )


class TestAll:
    @pytest.fixture(autouse=True)
    def two(self, monkeypatch):
        known = {each.name: each for each in architectures.architectures()}
        names = ["ViTForImageClassification", "ImageGPTForImageClassification"]
        monkeypatch.setattr(architectures, "architectures", lambda: [known[name] for name in names])

    def test_the_table(self, run):
        out = printed(run("check", "--all"))
        served, refused = [line.split("│")[1:-1] for line in out.splitlines() if "ForImageClassification" in line]
        assert [cell.strip() for cell in served[:3]] == ["image-classification", "ViTForImageClassification", "all"]
        assert float(served[3]) < 1e-5
        assert [cell.strip() for cell in refused[2:]] == ["-", "-", "it takes `input_ids`, no `pixel_values`"]

    def test_json(self, run):
        served, refused = json.loads(printed(run("check", "--all", "--json")))
        assert (served["methods"], served["is_right"], served["sentence"]) == ([*METHODS], True, "")
        assert (refused["methods"], refused["error"]) == ([], None)
        assert refused["sentence"].startswith(
            "ImageGPTForImageClassification cannot be explained: it takes `input_ids`"
        )

    def test_one_that_is_wrong(self, run, monkeypatch):
        monkeypatch.setattr(architectures, "TOLERANCE", 0.0)
        code, out, err = run("check", "--all")
        assert (code, err) == (1, "")
        assert "differs from explicit attention" in out


def test_a_model_whose_own_forward_fails(run, tmp_path):
    """Swin pads a map to whole windows, but not to windows larger than the map."""
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=7
    )
    model = transformers.SwinForImageClassification(config)
    code, summary = check(run, save_model(tmp_path, model))
    assert (code, summary["verdict"]) == (1, "unsupported")
    assert "its forward fails on these images (The size of tensor" in summary["reason"]
