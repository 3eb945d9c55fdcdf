"""Mosaics of a data set's own photos, and what is measured on them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from gmar_hf import ArgumentError, demo, metrics
from gmar_hf.data.mosaics import CELL_SIZE, group_photos
from gmar_hf.evaluation import Evaluation, MapMethod, evaluate, make_mosaics


@pytest.fixture(scope="module")
def vit():
    return demo.load("vit")


@pytest.fixture(scope="module")
def photos(vit):
    """Scenes of three sizes, as if each showed what the model ranks first; every third label is wrong."""
    model, image_processor = vit
    scenes = [
        scene["image"].resize((64, 64 + 2 * (number % 3))) for number, scene in enumerate(demo.scenes(60, seed=7))
    ]
    with torch.no_grad():
        firsts = model(**image_processor(scenes, return_tensors="pt")).logits.argmax(-1).tolist()
    return [
        {"image": scene, "label": (first + (number % 3 == 0)) % 6}
        for number, (scene, first) in enumerate(zip(scenes, firsts, strict=True))
    ]


def scored(vit, image):
    model, image_processor = vit
    with torch.no_grad():
        return model(**image_processor(image, return_tensors="pt")).logits[0].sigmoid()


def test_groups_by_hand():
    photos = [(0, "a"), (1, "a"), (2, "b"), (3, "a"), (4, "c"), (5, "b"), (6, "b"), (7, "c")]
    taken = iter(photos)
    # a goes into the first group, the next a begins a second, and so on; c completes the first.
    assert group_photos(taken, 3, limit=1) == [[(0, "a"), (2, "b"), (4, "c")]]
    assert next(taken) == (5, "b")  # no more have been looked at
    assert group_photos(photos, 3) == [[(0, "a"), (2, "b"), (4, "c")], [(1, "a"), (5, "b"), (7, "c")]]
    assert group_photos(photos[:4], 3) == []


def test_mosaics_are_of_photos_that_the_model_is_sure_of(vit, photos):
    mosaics = make_mosaics(*vit[:1], photos, vit[1], seed=3, least_score=0.5)
    assert len(mosaics) >= 2
    used = [place for group in mosaics.groups for place, _ in group]
    assert len(set(used)) == len(used) == 4 * len(mosaics)
    for group in mosaics.groups:
        assert len({label for _, label in group}) == 4
        for place, label in group:
            scores = scored(vit, photos[place]["image"])
            assert photos[place]["label"] == label == scores.argmax()
            assert scores[label] >= 0.5
    item = mosaics[1]
    assert item["label"] == [label for _, label in mosaics.groups[1]]
    for cell, (place, label) in enumerate(mosaics.groups[1]):
        image = photos[place]["image"]
        down = (image.height - 64) // 2
        square = image.crop((0, down, 64, down + 64)).resize((CELL_SIZE, CELL_SIZE), Image.Resampling.BICUBIC)
        ys, xs = np.nonzero(item["masks"][label])
        assert (ys.min() // CELL_SIZE, xs.min() // CELL_SIZE) == divmod(cell, 2)
        assert len(ys) == CELL_SIZE**2
        shown = np.asarray(item["image"])[ys, xs].reshape(CELL_SIZE, CELL_SIZE, 3)
        assert np.array_equal(shown, np.asarray(square))


def test_a_seed_decides_and_fewer_are_the_first(vit, photos):
    model, image_processor = vit
    options = dict(least_score=0.5)
    all_of_them = make_mosaics(model, photos, image_processor, **options)
    again = make_mosaics(model, photos, image_processor, batch_size=7, **options)
    assert again.groups == all_of_them.groups
    one = make_mosaics(model, photos, image_processor, limit=1, **options)
    assert one.groups == all_of_them.groups[:1]
    assert make_mosaics(model, photos, image_processor, seed=1, **options).groups != all_of_them.groups
    unshuffled = make_mosaics(model, photos, image_processor, seed=None, **options)
    first = next(
        place for place, photo in enumerate(photos)
        if (scores := scored(vit, photo["image"])).argmax() == photo["label"] and scores.max() >= 0.5
    )  # fmt: skip
    assert unshuffled.groups[0][0][0] == first


def bright_cell(model, pixel_values, target):
    """The first row's class gets the upper left cell, the second the upper right, and so on, less a bit elsewhere."""
    maps = torch.full((len(target), 8, 8), -0.1)
    for place, label in enumerate(target.tolist()):
        top, left = divmod(label % 4, 2)
        maps[place, 4 * top : 4 * top + 4, 4 * left : 4 * left + 4] = 1.0
    return maps


def test_figures_of_mosaics(vit, photos, tmp_path):
    model, image_processor = vit
    settings = dict(methods=[MapMethod("bright", bright_cell)], mosaics=2, limit=2)
    found = evaluate(model, photos, image_processor, output_dir=tmp_path, **settings)
    assert [metric.key for metric in found.metrics] == ["grid_pointing_game", "right_quadrant", "class_sensitivity"]
    mosaics = make_mosaics(model, photos, image_processor, limit=2)
    rows = [(index, label) for index, group in enumerate(mosaics.groups) for _, label in group]
    assert [(row.index, row.target) for row in found.rows] == rows
    right = [float(number % 4 == label % 4) for number, (_, label) in enumerate(rows)]
    assert 0 < sum(right) < len(rows)
    assert found.of("bright", "right_quadrant").tolist() == right
    assert found.of("bright", "grid_pointing_game").tolist() == right
    # The settings tell which: another seed, another run.
    saved = json.loads((tmp_path / "results.json").read_text())["settings"]
    assert (saved["mosaics"], saved["target"]) == (2, "label")
    assert saved["datasets"][0]["id"].endswith(", as mosaics")
    other = evaluate(model, photos, image_processor, shuffle_seed=5, **settings)
    assert other.settings["datasets"] != found.settings["datasets"]
    # Made before and handed over they are the same.
    given = evaluate(model, mosaics, image_processor, methods=settings["methods"], metrics=["right_quadrant"])
    assert given.of("bright", "right_quadrant").tolist() == right


def test_a_stopped_run_goes_on_with_the_same_mosaics(vit, photos, tmp_path):
    model, image_processor = vit
    drawn = []

    def stopping(model, pixel_values, target):
        drawn.append(len(target))
        if len(drawn) == 2:
            raise ArgumentError("stop")
        return bright_cell(model, pixel_values, target)

    settings = dict(methods=[MapMethod("bright", stopping)], mosaics=2, limit=3, batch_size=1, output_dir=tmp_path)
    with pytest.raises(ArgumentError, match="stop"):
        evaluate(model, photos, image_processor, **settings)
    with pytest.raises(ArgumentError, match="the data were others"):
        evaluate(model, photos, image_processor, shuffle_seed=8, **settings)
    num_before = len(drawn)
    found = evaluate(model, photos, image_processor, **settings)
    assert len({row.index for row in found.rows}) == 3
    assert (
        Evaluation.load(tmp_path).of("bright", "right_quadrant").tolist()
        == found.of("bright", "right_quadrant").tolist()
    )
    assert len(drawn) - num_before < 3 + 3 + 1  # two batches and the pictures; not all three once more


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"mosaics": 3},
            r"of so few photos that each is of another class; got 3 \(9 photos\), where .* has 6 classes",
        ),
        ({"mosaics": 1}, "`mosaics` must be a whole number of 2 or more; got 1"),
        ({"mosaics": 2, "masks": "folder"}, "`masks` must be None with `mosaics`, which need none; got both"),
        ({"mosaics": 2, "use_labels": False}, "must be of known length and have labels for `mosaics`"),
        ({"metrics": ["right_quadrant"]}, r"must not name right_quadrant for images that are no mosaics .*mosaics=2"),
    ],
)
def test_what_cannot_be_done(vit, photos, changed, message):
    with pytest.raises(ArgumentError, match=message):
        evaluate(vit[0], photos, vit[1], methods=["random"], **changed)


def test_no_photo_that_the_model_is_sure_of(vit, photos):
    wrong = [{**photo, "label": (photo["label"] + 3) % 6} for photo in photos[1:3]]
    with pytest.raises(ArgumentError, match=r"photos of 4 classes, one label each, .* 0\.9 or more; it has not"):
        make_mosaics(vit[0], wrong, vit[1])


class TestRightQuadrant:
    def test_by_hand(self):
        # Sums of the cells: 3, 1, -5 + 2, 0; then all alike.
        maps = torch.tensor([[[3.0, 1.0], [-3.0, 0.0]]] * 4 + [[[1.0, 1.0], [1.0, 1.0]]] * 2)
        found = metrics.right_quadrant(maps, torch.tensor([0, 1, 2, 3, 0, 3]))
        assert found.tolist() == [1, 0, 0, 0, 1, 0]

    def test_a_patch_in_the_middle_is_shared(self):
        # Of three by three patches the cells have 1 + .5 + .5 + .25 patches each.
        maps = torch.tensor([[[0.0, 0, 0], [0, 0, 4], [0, 0, 1]], [[0, 0, 0], [0, 4, 0], [0, 0, -1]]])
        assert metrics.right_quadrant(maps, torch.tensor([3, 0])).tolist() == [1, 1]
        assert metrics.right_quadrant(maps, torch.tensor([1, 3])).tolist() == [0, 0]

    def test_other_grids(self):
        maps = torch.tensor([[[1.0, 2.0, 5.0]]])
        assert metrics.right_quadrant(maps, torch.tensor([2]), grid=(1, 3)).tolist() == [1]
        with pytest.raises(ArgumentError, match=r"in \[0, 2\], one for each of the 1 maps; got \[3\]"):
            metrics.right_quadrant(maps, torch.tensor([3]), grid=(1, 3))
        with pytest.raises(ArgumentError, match=r"one for each of the 1 maps; got \[0, 0\]"):
            metrics.right_quadrant(maps, torch.tensor([0, 0]), grid=(1, 3))
