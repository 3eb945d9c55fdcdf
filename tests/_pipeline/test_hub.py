"""What a user types first, whole: a ViT-B/16 by its name on the Hub, downloaded, and a picture explained."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

import gmar_hf
from tests.helpers import hub_server
from tests.helpers.explainers import photo

NAME = "google/vit-base-patch16-224"
TARGET = "tabby, tabby cat"
# As it stands in that repository, from before image processors had types.
PREPROCESSOR = {
    "do_normalize": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": 224,
}  # fmt: skip
PROGRAM = f"""
import json, sys
import gmar_hf
from safetensors.torch import save_file
from transformers import pipeline

explain = pipeline("gmar-explanation", model={NAME!r})
results = explain(sys.argv[1]) + explain(sys.argv[1], target={TARGET!r}, method="contribution")
tensors = ("attribution", "head_importance", "head_contribution")
for place, result in enumerate(results):
    save_file({{name: result[name] for name in tensors if result[name] is not None}}, f"{{place}}.safetensors")
    result["heatmap"].save(f"{{place}}.png")
print(json.dumps([{{name: result[name] for name in ("label", "score", "target", "box")}} for result in results]))
"""


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A repository like the real one, of 346 MB, with other weights."""
    folder = tmp_path_factory.mktemp("vit-base")
    labels = {index: f"class {index}" for index in range(1000)} | {281: TARGET}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = ViTConfig(
            num_labels=1000, id2label=labels, label2id={label: index for index, label in labels.items()}
        )
        model = ViTForImageClassification(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    yield folder
    shutil.rmtree(folder)


def run(program, hub, folder, *arguments, **environment):
    """Standard output of a Python program that knows the Hub as a user's knows it, by the environment."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))},
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "home"),
        "no_proxy": "127.0.0.1",
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.slow
def test_the_pipeline_with_a_model_from_the_hub(model_folder, tmp_path):
    image = photo(size=(320, 240))
    image.save(tmp_path / "photo.png")
    with hub_server.serving() as hub:
        hub.add(NAME, {path.name: path for path in model_folder.iterdir()})
        printed = run(PROGRAM, hub, tmp_path, tmp_path / "photo.png")
        downloads = [request for request in hub.requests if request.startswith("GET ") and "/resolve/" in request]
        files = sorted(request.rpartition("/")[2] for request in downloads)
        assert files == ["config.json", "model.safetensors", "preprocessor_config.json"]
    # The Hub is gone now, and the second time nobody asks for it.
    assert run(PROGRAM, hub, tmp_path, tmp_path / "photo.png", HF_HUB_OFFLINE="1") == printed
    shutil.rmtree(tmp_path / "home")
    found = json.loads(printed)

    model = ViTForImageClassification.from_pretrained(model_folder).eval()
    pixel_values = ViTImageProcessorPil()(images=image, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        probabilities = model(pixel_values).logits.softmax(-1)[0]
    predicted = int(probabilities.argmax())
    assert predicted != 281
    for place, (target, method) in enumerate([(predicted, "gmar"), (281, "contribution")]):
        expected = gmar_hf.explain(model, pixel_values, target, method)
        result = found[place]
        assert (result["target"], result["label"]) == (target, model.config.id2label[target])
        assert result["score"] == pytest.approx(float(probabilities[target]), rel=1e-4)
        assert result["box"] == [0, 0, 320, 240]
        tensors = load_file(tmp_path / f"{place}.safetensors")
        assert tensors["attribution"].shape == (14, 14)
        assert_close(tensors["attribution"], expected.attribution[0])
        assert_close(tensors["head_contribution"], expected.head_contribution[0])
        if method == "gmar":
            assert_close(tensors["head_importance"], expected.head_importance[0])
        positive = expected.attribution.clamp(min=0)[None] / expected.attribution.max()
        drawn = torch.nn.functional.interpolate(positive, size=(240, 320), mode="bilinear")[0, 0]
        with Image.open(tmp_path / f"{place}.png") as heatmap:
            assert heatmap.mode == "L"
            assert np.abs(np.asarray(heatmap) - drawn.numpy() * 255).max() <= 1
