import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from gmar_hf import demo
from gmar_hf.demo.scene import GARMENT_SIZE, GARMENT_THRESHOLD, LABELS, SCENE_SIZE, SceneStyle, make_scene
from gmar_hf.errors import ArgumentError, ArtifactError

CLASSES = {
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassificationWithTeacher",
    "beit": "BeitForImageClassification",
}


def same(scene: dict, second: dict) -> bool:
    return (
        scene["image"].tobytes() == second["image"].tobytes()
        and scene["labels"] == second["labels"]
        and all(np.array_equal(scene["masks"][label], second["masks"][label]) for label in scene["labels"])
    )


@pytest.fixture
def garments():
    """Two classes of made-up garments: a square of even grey and one with a gradient, on black."""
    pictures = np.zeros((2, 3, GARMENT_SIZE, GARMENT_SIZE), np.uint8)
    pictures[0, :, 6:22, 6:22] = 200
    pictures[1, :, 4:24, 8:20] = np.linspace(40, 255, 20, dtype=np.uint8)[:, None]
    return list(pictures)


def test_the_same_seed_gives_the_same_scenes():
    assert all(map(same, demo.scenes(4, seed=3), demo.scenes(4, seed=3)))
    assert not any(map(same, demo.scenes(4, seed=3), demo.scenes(4, seed=4)))


def test_a_longer_list_begins_with_the_shorter_one():
    assert all(map(same, demo.scenes(2, seed=5), demo.scenes(6, seed=5)))
    assert demo.scenes(0) == []


@pytest.mark.parametrize("num_garments", [1, 2])
def test_form_of_a_scene(num_garments):
    for scene in demo.scenes(20, seed=1, num_garments=num_garments):
        assert scene["image"].mode == "RGB"
        assert scene["image"].size == (SCENE_SIZE, SCENE_SIZE)
        assert len(scene["labels"]) == num_garments
        assert scene["labels"] == sorted(scene["masks"])
        assert set(scene["labels"]) <= set(range(len(LABELS)))
        for mask in scene["masks"].values():
            assert mask.shape == (SCENE_SIZE, SCENE_SIZE)
            assert mask.dtype == bool
            assert mask.sum() > 50
            assert all(np.ptp(where) < 32 for where in mask.nonzero())


def test_masks_of_two_garments_are_disjoint():
    for scene in demo.scenes(40, seed=2):
        first, second = scene["masks"].values()
        assert not (first & second).any()


@pytest.mark.parametrize("num_garments", [1, 2])
def test_masks_are_exactly_the_pixels_that_the_garments_changed(garments, num_garments):
    black = [np.zeros_like(pictures) for pictures in garments]
    for seed in range(20):
        pixels, masks = make_scene(np.random.default_rng(seed), garments, num_garments)
        empty, no_masks = make_scene(np.random.default_rng(seed), black, num_garments)
        assert not any(mask.any() for mask in no_masks.values())
        covered = np.any(list(masks.values()), axis=0)
        np.testing.assert_array_equal((pixels != empty).any(axis=-1), covered)


@pytest.mark.parametrize("num_garments", [1, 2])
def test_without_a_garment_all_other_pixels_stay(num_garments):
    whole = demo.scenes(30, seed=4, num_garments=num_garments)
    for place in range(num_garments):
        for scene, lacking in zip(
            whole, demo.scenes(30, seed=4, num_garments=num_garments, without=place), strict=True
        ):
            label = scene["labels"][place]
            assert lacking["labels"] == [each for each in scene["labels"] if each != label]
            assert list(lacking["masks"]) == [each for each in scene["masks"] if each != label]
            for each, mask in lacking["masks"].items():
                assert np.array_equal(mask, scene["masks"][each])
            changed = (np.asarray(scene["image"]) != np.asarray(lacking["image"])).any(axis=-1)
            assert not changed[~scene["masks"][label]].any()
            assert changed.sum() > 0.98 * scene["masks"][label].sum()  # but for a pixel that is coloured as its ground


def test_what_is_seen_without_a_garment_is_the_ground(garments):
    """The ground of a seed is what stays where garments are black, that is, nowhere."""
    black = [np.zeros_like(pictures) for pictures in garments]
    for seed in range(10):
        ground, _ = make_scene(np.random.default_rng(seed), black, 2)
        _, masks = make_scene(np.random.default_rng(seed), garments, 2)
        for place in (0, 1):
            lacking, _ = make_scene(np.random.default_rng(seed), garments, 2, without=place)
            mask = masks[sorted(masks)[place]]
            np.testing.assert_array_equal(lacking[mask], ground[mask])


def test_garments_are_brighter_than_what_lies_around_them():
    for scene in demo.scenes(40, seed=3):
        pixels = np.asarray(scene["image"]).mean(axis=-1)
        background = pixels[~np.any(list(scene["masks"].values()), axis=0)]
        assert background.max() <= 0.4 * 255 + 1
        for mask in scene["masks"].values():
            assert pixels[mask].mean() > background.mean() + 30


def test_style_sets_size_and_background(garments):
    style = SceneStyle(min_size=44, max_size=44, brightness=0.0)
    pixels, masks = make_scene(np.random.default_rng(0), garments, 1, style)
    ((label, mask),) = masks.items()
    assert not pixels[~mask].any()
    # The picture's own extent of 16 (even) or 20 x 12 (gradient) pixels, scaled by 44 / 28 and blurred at the edges.
    height, width = ((16, 16), (20, 12))[label]
    assert np.ptp(mask.nonzero()[0]) + 1 == pytest.approx(height * 44 / 28, abs=2)
    assert np.ptp(mask.nonzero()[1]) + 1 == pytest.approx(width * 44 / 28, abs=2)


def test_every_bundled_garment_is_visible():
    from gmar_hf.demo.scene import _bundled_garments

    bundled = _bundled_garments()
    assert len(bundled) == len(LABELS)
    for pictures in bundled:
        assert pictures.shape == (64, GARMENT_SIZE, GARMENT_SIZE)
        assert pictures.dtype == np.uint8
        assert ((pictures >= GARMENT_THRESHOLD).sum((1, 2)) > 50).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_images": -1}, r"`num_images` must be a whole number of 0 or more; got -1\."),
        ({"num_images": 1, "seed": -2}, r"`seed` must be a whole number of 0 or more; got -2\."),
        ({"num_images": 1, "num_garments": 3}, r"`num_garments` must be a whole number in \[1, 2\]; got 3\."),
        ({"num_images": 1, "without": 2}, r"`without` must be a whole number in \[0, 1\]; got 2\."),
        ({"num_images": 1, "without": -1}, r"`without` must be a whole number in \[0, 1\]; got -1\."),
        ({"num_images": 0, "num_garments": 0}, r"`num_garments` must be a whole number in \[1, 2\]; got 0\."),
    ],
)
def test_scenes_refuse(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        demo.scenes(**arguments)


def test_scene_refuses_garments_that_cannot_stand_side_by_side(garments):
    with pytest.raises(ArgumentError, match=r"`style` must .* room for 2 garments .* got SceneStyle\(min_size=33"):
        make_scene(np.random.default_rng(0), garments, 2, SceneStyle(min_size=33, max_size=40))
    with pytest.raises(ArgumentError, match=r"`style` must have 1 <= min_size <= max_size <= 64"):
        make_scene(np.random.default_rng(0), garments, 1, SceneStyle(min_size=40, max_size=30))
    with pytest.raises(ArgumentError, match=r"`num_garments` must be a whole number in \[1, 2\]; got 0"):
        make_scene(np.random.default_rng(0), garments, 0)


@pytest.mark.parametrize("name", demo.MODELS)
def test_loaded_model(name):
    model, image_processor = demo.load(name)
    assert type(model).__name__ == CLASSES[name]
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert model.config.problem_type == "multi_label_classification"
    assert tuple(model.config.id2label[index] for index in range(len(LABELS))) == LABELS
    assert (model.config.num_hidden_layers, model.config.num_attention_heads) == (6, 8)
    pixel_values = image_processor(demo.scenes(1)[0]["image"], return_tensors="pt").pixel_values
    expected = torch.from_numpy(np.array(demo.scenes(1)[0]["image"])).permute(2, 0, 1)[None] / 127.5 - 1
    torch.testing.assert_close(pixel_values, expected)


@pytest.mark.parametrize("name", demo.MODELS)
def test_stored_model_is_small_and_half(name):
    path = Path(demo.__file__).parent / name / "model.safetensors"
    assert path.stat().st_size <= 1_700_000
    with safe_open(path, "pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118


def test_every_load_gives_a_model_of_its_own():
    first, second = demo.load("vit")[0], demo.load("vit")[0]
    with torch.no_grad():
        first.classifier.bias.add_(1)
    assert not torch.equal(first.classifier.bias, second.classifier.bias)
    assert first.config is not second.config


@pytest.mark.parametrize("name", demo.MODELS)
@pytest.mark.parametrize("num_scenes", [60, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.campaign])])
def test_models_rank_fresh_scenes(name, num_scenes):
    """Macro average precision over scenes of one and of two garments."""
    fresh = [
        *demo.scenes(num_scenes, seed=20_261, num_garments=1),
        *demo.scenes(num_scenes, seed=20_262, num_garments=2),
    ]
    model, image_processor = demo.load(name)
    pixel_values = image_processor([scene["image"] for scene in fresh], return_tensors="pt").pixel_values
    with torch.no_grad():
        logits = torch.cat([model(pixel_values=part).logits for part in pixel_values.split(100)]).numpy()
    precisions = []
    for label in range(len(LABELS)):
        hits = np.array([label in fresh[index]["labels"] for index in np.argsort(-logits[:, label])])
        precisions.append((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())
    assert np.mean(precisions) > 0.85


def test_unknown_model_names_the_known_ones():
    with pytest.raises(ArgumentError, match=r"`name` must be one of \"vit\", \"deit\", \"beit\"; got 'swin'\."):
        demo.load("swin")


def test_missing_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("gmar_hf.demo.models._FOLDER", tmp_path)
    with pytest.raises(ArtifactError, match=r"The demo model 'vit' is missing from .*vit\. Install gmar-hf again\."):
        demo.load("vit")


@pytest.mark.campaign
@pytest.mark.slow
def test_loading_says_nothing_about_torchvision():
    code = "from gmar_hf import demo\nfor name in demo.MODELS: demo.load(name)"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(demo.__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "torchvision" not in done.stderr
    assert "warning" not in done.stderr.lower()


def test_licence_of_the_data_ships_beside_it():
    text = (Path(demo.__file__).parent / "LICENSE-fashion-mnist.txt").read_text()
    assert "Copyright (c) 2017 Zalando SE" in text
    assert "The above copyright notice and this permission notice shall be included" in text
