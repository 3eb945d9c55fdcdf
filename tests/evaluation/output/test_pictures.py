"""The images on the page of an evaluation: which ones, and whether their maps are those that were measured."""

import numpy as np
import pytest
import torch
from PIL import Image

import gmar_hf
from gmar_hf import demo
from gmar_hf.evaluation import MAP_METHODS, Metric, Row, evaluate
from gmar_hf.evaluation.output.pictures import draw_pictures, telling_rows
from gmar_hf.plotting import overlay
from tests.helpers.evaluations import METRICS, made

DIFFERENCE = Metric("insertion_minus_deletion", "insertion_minus_deletion", "blur", True)


def of_figures(figures, indices, metric=DIFFERENCE):
    """An evaluation whose second metric has these figures (rows, methods), the first ones that would mislead."""
    figures = np.array(figures, dtype=float)
    names = [f"method-{number}" for number in range(figures.shape[1])]
    return made(
        metrics=[METRICS[0], metric],
        methods=[{"name": one, "forwards": 1.0, "baseline": None, "milliseconds": 1.0, "about": ""} for one in names],
        rows=[Row(f"item {index}", 0, "cat", 0.5, True, index) for index in indices],
        values=np.stack([np.arange(figures.size).reshape(figures.shape) % 7, figures], axis=2),
    )


def test_the_furthest_apart_come_first():
    figures = [[0.5, 0.5, 0.5], [0, 1, 0], [0.2, 0.4, 0.3], [-1, 1, 1]]
    assert telling_rows(of_figures(figures, range(4))) == [3, 1, 2, 0]


def test_each_image_comes_once_by_its_most_telling_class():
    figures = [[0, 0.1], [0, 0.9], [0, 0.5], [0, 0.2]]
    assert telling_rows(of_figures(figures, [0, 0, 1, 1])) == [1, 2]


def test_figures_that_there_are_not_say_nothing():
    nan = np.nan
    assert telling_rows(of_figures([[nan, nan], [0, 0.1], [nan, 5], [0, 0.2]], range(4)))[:2] == [3, 1]


def test_twelve_at_most():
    generator = np.random.default_rng(0)
    evaluation = of_figures(generator.uniform(size=(40, 3)), range(40))
    spread = evaluation.values[:, :, 1].var(axis=1)
    assert telling_rows(evaluation) == np.argsort(-spread)[:12].tolist()


def test_without_the_difference_the_first_figure_decides():
    evaluation = of_figures([[0, 1], [0, 3], [0, 2]], range(3), Metric("saco", "saco", None, True))
    first = evaluation.values[:, :, 0]
    assert telling_rows(evaluation) == np.argsort(-first.var(axis=1), kind="stable").tolist()


def test_maps_are_of_the_rows_class_and_place():
    model, image_processor = demo.load("vit")
    scenes = demo.scenes(3, seed=50)
    names = ["contribution", "edges"]
    metrics = ["insertion_minus_deletion"]
    found = evaluate(model, scenes, image_processor, methods=names, metrics=metrics, num_steps=4, target="label")
    methods = [MAP_METHODS[name] for name in names]
    data = gmar_hf.data.open_data(scenes, model.config.id2label)
    pictures = draw_pictures(found, model, data, image_processor, methods, torch.device("cpu"))
    assert [picture.row for picture in pictures] == [found.rows[place] for place in telling_rows(found)]
    for picture in pictures:
        image = scenes[picture.row.index]["image"].convert("RGB")
        pixels = image_processor([image], return_tensors="pt")["pixel_values"]
        place = found.rows.index(picture.row)
        for number, method in enumerate(methods):
            (attribution,) = method.draw(model, pixels, torch.tensor([picture.row.target]))
            enlarged = image.resize((128, 128), Image.Resampling.NEAREST)
            shown = overlay(enlarged, attribution, box=(0, 0, 128, 128))
            assert picture.overlays[method.name].tobytes() == shown.tobytes(), method.name
            assert picture.figures[method.name] == found.values[place, number, 0]


class Vanishing(torch.utils.data.Dataset):
    """Scenes, of which one can be read only until the figures are there."""

    def __init__(self, scenes):
        self.scenes, self.error = scenes, None

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        if index == 1 and self.error is not None:
            raise self.error
        return self.scenes[index]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("gone"), "`dataset` must not change while it is evaluated; 'item 1' cannot be read now."),
        (MemoryError(), "MemoryError"),
        (
            KeyError("x"),
            "`data` must give all of its items; item 1 of 3 of the Vanishing raised KeyError ('x'). Mend it or leave "
            "it out.",
        ),
    ],
)
def test_an_image_that_cannot_be_drawn_is_named_and_left_out(capsys, error, told):
    model, image_processor = demo.load("vit")
    scenes = Vanishing([{"image": scene["image"], "label": scene["labels"][0]} for scene in demo.scenes(3, seed=50)])
    names, metrics = ["edges", "random"], ["insertion_minus_deletion"]
    found = evaluate(model, scenes, image_processor, methods=names, metrics=metrics, num_steps=2, target="label")
    data = gmar_hf.data.open_data(scenes, model.config.id2label)
    scenes.error = error
    capsys.readouterr()
    methods = [MAP_METHODS[name] for name in names]
    pictures = draw_pictures(found, model, data, image_processor, methods, torch.device("cpu"))
    assert sorted(picture.row.index for picture in pictures) == [0, 2]
    assert capsys.readouterr().err == f"No picture of 'item 1': {told}\n"
