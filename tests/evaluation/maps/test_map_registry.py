"""The registry of maps and its controls; head weights of one's own."""

import itertools
import sys
from functools import partial
from types import ModuleType

import numpy as np
import pytest
import torch

import gmar_hf
from gmar_hf import ArgumentError
from gmar_hf.evaluation import DEFAULT_METHODS, MAP_METHODS, MapMethod, find_map_methods, register_map_method
from gmar_hf.explanation.methods import METHODS
from gmar_hf.models.patches import sum_over_patches
from tests.helpers import zoo
from tests.helpers.sampling import sample_product

FAMILIES = ("vit_landscape", "deit_teacher", "beit_relative", "dinov2_registers", "siglip", "clip")
LIGHT = [name for name, method in MAP_METHODS.items() if not method.needs]


def draw(name, model, images, target):
    return MAP_METHODS[name].draw(model, images, torch.as_tensor(target))


@pytest.mark.parametrize(("make", "name"), sample_product(FAMILIES, LIGHT))
def test_every_method_gives_a_map_of_the_models_patches(name, make):
    model = zoo.MODELS[make]()
    images = zoo.pixel_values(model, batch=2)
    height, width = zoo.patch_size(model)
    maps = draw(name, model, images, [1, 3])
    assert maps.shape == (2, images.shape[2] // height, images.shape[3] // width)
    assert maps.isfinite().all()
    assert torch.equal(maps, draw(name, model, images, [1, 3]))


def test_what_is_said_of_a_map_stands_alone():
    """Tables list any of the maps, in any order."""
    assert not [name for name, method in MAP_METHODS.items() if method.about.startswith(("the same", "that"))]


def test_every_method_of_explain_can_be_measured():
    options = [method.draw.keywords["options"] for method in MAP_METHODS.values() if isinstance(method.draw, partial)]
    assert {each["method"] for each in options} == set(METHODS)


@pytest.mark.parametrize("name", ["random", "gmar-shuffled"])
def test_chance_depends_on_image_and_class_alone(name):
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=3)
    batch = draw(name, model, images, [0, 1, 2])
    turned = draw(name, model, images.flip(0), [2, 1, 0])
    assert torch.allclose(turned.flip(0), batch, atol=1e-6)
    assert torch.allclose(draw(name, model, images[1:2], [1])[0], batch[1], atol=1e-6)
    assert not torch.allclose(draw(name, model, images[1:2], [2])[0], batch[1], atol=1e-4)
    assert not torch.allclose(batch[0], batch[1], atol=1e-4)


def test_shuffled_weights_are_the_same_weights_in_another_order():
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=1)
    weights = gmar_hf.explain(model, images, 0).head_importance[0]
    shuffled = [
        torch.stack([layer[list(order)] for layer, order in zip(weights, orders, strict=True)])
        for orders in itertools.product(itertools.permutations(range(3)), repeat=3)  # of three heads in three layers
    ]
    # Each way to deal the weights out is an image of one batch.
    batch = images.expand(len(shuffled), -1, -1, -1)
    candidates = gmar_hf.explain(model, batch, 0, head_weights=torch.stack(shuffled)).attribution
    maps = draw("gmar-shuffled", model, images, [0])
    assert (candidates - maps).abs().amax(dim=(1, 2)).min() < 1e-6


def test_uniform_weights_are_rollout():
    model = zoo.beit_relative()
    images = zoo.pixel_values(model, batch=2)
    rollout = gmar_hf.explain(model, images, 0, method="rollout").attribution
    assert torch.allclose(draw("gmar-uniform", model, images, [0, 0]), rollout, atol=1e-6)


def test_edges_by_hand():
    """One bright column of pixels: the Sobel operator answers beside it, 4 on either side."""
    model = zoo.vit()
    images = torch.zeros(1, 3, 32, 32)
    images[:, 0, :, 12] = 1
    maps = draw("edges", model, images, [0])
    expected = torch.zeros(4, 4)
    expected[:, 1] = 2 * 4 * 8  # columns 11 and 13, eight rows of a patch
    assert torch.allclose(maps[0], expected)


def test_the_blob_is_in_the_middle():
    maps = draw("centre-blob", zoo.vit_landscape(), torch.zeros(2, 3, 24, 40), [0, 0])
    assert maps[0].argmax() == 7
    assert maps[0, 1, 2] == 1
    assert maps[0, 0, 2] == pytest.approx(np.exp(-((1 / 3) ** 2) / (2 * 0.25**2)))
    assert torch.allclose(maps[0], maps[0].flip(0).flip(1))


def test_pixels_beyond_the_last_patch_are_left_out():
    values = torch.zeros(1, 3, 35, 33)
    values[0, :, 32:, :] = 100
    values[0, 2, 9, 31] = 1.0
    values[0, 0, 8, 24] = -3.0
    maps = sum_over_patches(zoo.vit(), values)
    assert maps.shape == (1, 4, 4)
    assert maps[0, 1, 3] == -2
    assert maps.abs().sum() == 2


def test_costs_count_forwards():
    """What the tables say is what the model is asked for: forwards and backwards, counted at its first layer."""
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=1)
    passes = []

    def count(module, args, output):
        passes.append("forward")
        tokens = output if isinstance(output, torch.Tensor) else output[0]
        if tokens.requires_grad:
            tokens.register_hook(lambda _: passes.append("backward"))

    model.vit.layers[0].register_forward_hook(count)
    for name in LIGHT:
        passes.clear()
        draw(name, model, images, [0])
        assert MAP_METHODS[name].forwards(16) == len(passes), name
    assert MAP_METHODS["occlusion"].forwards(16) == 17


def test_a_method_of_ones_own(monkeypatch):
    methods = dict(MAP_METHODS)
    for module in ("map_registry", "map_lookup"):
        monkeypatch.setattr(f"gmar_hf.evaluation.maps.{module}.MAP_METHODS", methods)

    def mine(model, pixel_values, target):
        return torch.ones(len(pixel_values), 2, 2)

    method = register_map_method("my-map-2", mine, cost=3, baseline="zero")
    assert find_map_methods(["rollout", "my-map-2"])[1] is method
    assert (method.forwards(4), method.baseline) == (3, "zero")
    assert method.about == ""
    mine.__doc__ = "Ones.\n\nMore of it."
    assert register_map_method("my-map-3", mine).about == "Ones."
    assert register_map_method("my-map-4", mine, about="all alike").about == "all alike"
    assert register_map_method("my-map-5", partial(mine)).about == ""
    with pytest.raises(ArgumentError, match="`name` must not be taken; got 'my-map-2'"):
        register_map_method("my-map-2", mine)
    for name in ("rollout", "gmar", "recommended"):  # the last two are what `explain` calls rows of other names
        with pytest.raises(ArgumentError, match=f"`name` must not be taken; got '{name}'"):
            register_map_method(name, mine)
        with pytest.raises(ArgumentError, match=f"own by the name of another; got '{name}'. Rename it."):
            find_map_methods([MapMethod(name=name, draw=mine)])
    for name in ("My map", "", "-a", "a--b", "a_b", 1, None):
        with pytest.raises(ArgumentError, match="`name` must be of lower case letters, digits and hyphens"):
            register_map_method(name, mine)
    with pytest.raises(ArgumentError, match="`draw` must be a function; got str"):
        register_map_method("other", "mine")


def test_a_function_is_found_by_its_module(monkeypatch):
    module = ModuleType("my_maps")
    module.Draw_Mine = lambda model, pixel_values, target: torch.zeros(len(pixel_values), 2, 2)
    module.nothing = 3
    monkeypatch.setitem(sys.modules, "my_maps", module)
    (found,) = find_map_methods(["my_maps:Draw_Mine"])
    assert (found.name, found.forwards(4), found.draw, found.about) == ("draw-mine", None, module.Draw_Mine, "")
    for name, words in (
        ("my_maps:other", "must name a function that its module has; got 'my_maps:other'"),
        ("no_such_module_here:f", "can be imported"),
        ("my_maps:nothing", "must name a function; got 'my_maps:nothing'"),
        ("nothing", r"must be among gmar, contribution, removal, path, recommended, .*; got 'nothing'\.$"),
        ("recomended", r"Did you mean 'recommended'\?$"),
        ("gmar-l", r"got 'gmar-l'\. Did you mean 'gmar-l2' or 'gmar-l1'\?$"),
        (":", "can be imported"),
    ):
        with pytest.raises(ArgumentError, match=words):
            find_map_methods([name])


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = r"'grad-cam' needs torchcam. Run `pip install torchcam`"
    with pytest.raises(ArgumentError, match=words):
        find_map_methods(["rollout", "grad-cam"])
    assert [method.name for method in find_map_methods(DEFAULT_METHODS)] == list(DEFAULT_METHODS)


def test_a_list_is_asked_for():
    for names in ("rollout", []):
        with pytest.raises(ArgumentError, match="`methods` must be a list of names"):
            find_map_methods(names)
    twice = MapMethod("rollout", MAP_METHODS["edges"].draw)
    with pytest.raises(ArgumentError, match="each one once; got 'rollout' twice"):
        find_map_methods(["rollout", twice])


class TestHeadWeights:
    def test_the_gradients_own_weights_give_its_map(self):
        model = zoo.deit()
        images = zoo.pixel_values(model, batch=2)
        gmar = gmar_hf.explain(model, images, [0, 1])
        given = gmar_hf.explain(model, images, [0, 1], head_weights=7 * gmar.head_importance)
        assert torch.allclose(given.attribution, gmar.attribution, atol=1e-6)
        assert torch.allclose(given.head_importance, gmar.head_importance, atol=1e-6)
        assert given.head_contribution is None
        assert given.settings["head_weights"]["tensor"].startswith(
            f"tensor of shape {tuple(gmar.head_importance.shape)}, "
        )

    def test_one_for_all_images_and_targets(self):
        model = zoo.vit()
        images = zoo.pixel_values(model, batch=2)
        weights = torch.rand(3, 3, generator=torch.Generator().manual_seed(0)) + 0.1
        one = gmar_hf.explain(model, images, [[0, 1], [2, 3]], head_weights=weights)
        assert one.attribution.shape == (2, 2, 4, 4)
        assert torch.allclose(one.head_importance[1, 0], weights / weights.sum(dim=1, keepdim=True), atol=1e-6)
        each = gmar_hf.explain(model, images, [0, 2], head_weights=weights.expand(2, 3, 3))
        assert torch.allclose(each.attribution, one.attribution[:, 0], atol=1e-6)

    @pytest.mark.parametrize(
        ("weights", "words"),
        [
            (torch.ones(3), r"of shape \(3, 3\), or \(2, 3, 3\) .*; got \(3,\)"),
            (torch.ones(3, 3, 3), r"got \(3, 3, 3\)"),
            (torch.tensor([[1.0, -1, 1]] * 3), "be finite and not negative"),
            (torch.tensor([[1.0, torch.nan, 1]] * 3), "be finite and not negative"),
            (torch.tensor([[1.0, 0, 0], [0, 0, 0], [1, 1, 1]]), "some head above 0 in every layer"),
        ],
    )
    def test_others_are_refused(self, weights, words):
        model = zoo.vit()
        with pytest.raises(ArgumentError, match=rf"`head_weights` must .*{words}"):
            gmar_hf.explain(model, zoo.pixel_values(model, batch=2), 0, head_weights=weights)

    def test_only_with_gmar(self):
        model = zoo.vit()
        with pytest.raises(ArgumentError, match="`head_weights` must come with a method that weighs heads"):
            gmar_hf.explain(model, zoo.pixel_values(model), 0, "contribution", head_weights=torch.ones(3, 3))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_explain_is_found_by_its_name(name):
    """Under that name or, where two of its settings stand side by side, under the one with the method's own."""
    (method,) = find_map_methods([name])
    model = zoo.vit()
    images, target = zoo.pixel_values(model, batch=1), torch.tensor([1])
    expected = gmar_hf.explain(model, images, target, method=name).attribution
    torch.testing.assert_close(method.draw(model, images, target), expected)
