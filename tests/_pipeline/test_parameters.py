import numpy as np
import pytest
import torch

from gmar_hf._pipeline.parameters import check_batching, sort_parameters
from gmar_hf.errors import ArgumentError, ArgumentTypeError, ImageError
from tests.helpers.explainers import make_explainer, photo

LABELS = {0: "cat", 1: "dog", 2: "bird"}


def sort(before=(), **given):
    return sort_parameters(given, dict(before), LABELS)


def test_what_was_not_given_is_not_filled_in():
    assert sort() == ({}, {}, {})


def test_each_step_gets_its_own():
    preprocess, forward, postprocess = sort(
        timeout=3, target="dog", method="rollout", residual_weight=0.5, interpolate_pos_encoding=True,
        return_overlay=True, function_to_apply="none",
    )  # fmt: skip
    assert preprocess == {"timeout": 3, "return_overlay": True}
    assert forward == {
        "top_k": None, "target": [1], "method": "rollout", "residual_weight": 0.5, "interpolate_pos_encoding": True,
    }  # fmt: skip
    assert list(postprocess) == ["return_overlay", "function_to_apply"]
    assert postprocess["function_to_apply"] == "none"


@pytest.mark.parametrize(
    ("before", "given", "expected"),
    [
        ({}, dict(top_k=2), dict(top_k=2, target=None, versus=None)),
        ({}, dict(top_k=9), dict(top_k=9, target=None, versus=None)),  # the forward knows how many there are
        ({}, dict(target=["bird", 0]), dict(top_k=None, target=[2, 0])),
        ({}, dict(target=torch.tensor([2, 0])), dict(top_k=None, target=[2, 0])),
        ({}, dict(target=np.array(1), versus=torch.tensor(0)), dict(top_k=None, target=[1], versus=0)),
        ({}, dict(target=1, versus="cat"), dict(top_k=None, target=[1], versus=0)),
        (dict(target=[1]), dict(versus=0), dict(versus=0)),
        (dict(target=[1], versus=0), dict(target=2), dict(top_k=None, target=[2])),
        (dict(target=[1], versus=0), dict(top_k=2), dict(top_k=2, target=None, versus=None)),
        (dict(target=[1], versus=0), dict(versus=None), dict(versus=None)),
        (dict(target=[1]), dict(target=None), dict(target=None)),
        (dict(top_k=2), dict(top_k=None), dict(top_k=None)),
    ],
)
def test_a_call_replaces_what_held_before(before, given, expected):
    assert sort(before, **given)[1] == expected


@pytest.mark.parametrize(
    ("before", "given", "message"),
    [
        ({}, dict(top_k=1, target=0), "`top_k` must not be given together with `target`"),
        ({}, dict(versus=0), "`versus` must come with `target`"),
        (dict(target=[1], versus=0), dict(target=None), "`versus` must come with `target`"),
        (
            dict(target=[1], versus=0),
            dict(target=0),
            "`versus` must be another class than `target`; got 'cat' for both",
        ),
        ({}, dict(method="none"), "`method` must be one of"),
        ({}, dict(target=["dog", 1]), "`target` must name each class once; got 'dog' twice"),
        ({}, dict(method=["gmar", "gmar"]), "`method` must name each one once; got 'gmar' twice"),
        ({}, dict(timeout=-1), "`timeout` must be a number of seconds above 0; got -1"),
        ({}, dict(timeout="5"), "`timeout` must be a number of seconds above 0; got '5'"),
        *[
            ({}, {name: value}, f"`{name}` must be True or False; got {value!r}")
            for name, value in {
                "return_heatmap": "no",
                "return_overlay": 1,
                "overlay_grid": "false",
                "overlay_caption": None,
                "return_explanation": [],
                "return_head_maps": "no",
                "interpolate_pos_encoding": "no",
            }.items()
        ],
        ({}, dict(residual_weight=-1), "`residual_weight` must be a number that is 0 or more"),
        ({}, dict(start_layer=-1), "`start_layer` must be a whole number"),
    ],
)
def test_what_does_not_fit_is_refused(before, given, message):
    with pytest.raises(ArgumentError) as caught:
        sort(before, **given)
    assert str(caught.value).startswith(message)


def test_what_was_given_is_left_alone():
    given = dict(target="cat", timeout=3, method="gmar")
    sort_parameters(given, {}, LABELS)
    assert given == dict(target="cat", timeout=3, method="gmar")


def test_unknown_names_list_the_known():
    with pytest.raises(
        ArgumentTypeError, match=r"^`tops` is not a parameter of this pipeline. There are: top_k, target"
    ):
        sort(tops=3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(batch_size=0), "`batch_size` must be a whole number of 1 or more; got 0"),
        (dict(batch_size="8"), "`batch_size` must be a whole number of 1 or more; got '8'"),
        (dict(num_workers=-1), "`num_workers` must be a whole number of 0 or more; got -1"),
    ],
)
def test_numbers_that_transformers_takes_for_itself(given, message):
    check_batching({"batch_size": 8, "num_workers": None})
    with pytest.raises(ArgumentError, match=message):
        check_batching(given)
    with pytest.raises(ArgumentError, match=message):
        make_explainer()(photo(0), **given)
    with pytest.raises(ArgumentError, match=message):
        make_explainer(**given)


@pytest.mark.parametrize("k", [-1, 0, 1.5, "3", True])
def test_numbers_of_heads(k):
    with pytest.raises(ArgumentError, match=f"`k` must be a whole number of 1 or more; got {k!r}"):
        make_explainer()(photo(0))[0].top_heads(k)


def test_any_iterator_is_one_of_images():
    explain = make_explainer()
    images = [photo(0), photo(1)]
    expected = [result[0]["score"] for result in explain(images)]
    for iterator in (iter(images), map(photo, (0, 1)), (image for image in images)):
        assert [result[0]["score"] for result in explain(iterator)] == expected


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_what_a_worker_finds_is_told_as_it_is_told_without():
    explain, images = make_explainer(), [photo(), "/no/such.jpg"]
    with pytest.raises(ImageError) as expected:
        explain(images)
    with pytest.raises(ImageError) as found:
        explain(images, num_workers=1)
    assert str(found.value) == str(expected.value)
