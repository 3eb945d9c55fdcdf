"""Which ranks of heads the standard errors leave open, by hand."""

import pytest
import torch

from gmar_hf.report.certainty import FEW_IMAGES, open_ranks, remarks
from gmar_hf.report.statistics import HeadStatistics


def statistics(means, errors):
    """Of heads in two layers."""
    mean, error = (torch.tensor(values, dtype=torch.float64).reshape(2, -1) for values in (means, errors))
    return HeadStatistics(100, {"contribution_abs": mean}, {}, {"contribution_abs": error})


@pytest.mark.parametrize(
    ("means", "errors", "expected"),
    [
        ([4, 3, 2, 1], [0.1] * 4, []),
        ([1, 3, 3.05, 2], [0.1] * 4, [(1, 2)]),  # 3.05 and 3
        ([5, 4, 3, 2], [0.6, 0.8, 0, 0], [(1, 2)]),  # 1 apart, and the errors' hypotenuse is 1
        ([5, 3.99, 3, 2], [0.6, 0.8, 0, 0], []),
        ([5, 4.9, 3, 2.9], [0.2] * 4, [(1, 2), (3, 4)]),
        ([5, 4.8, 4.6, 4.4], [0.2] * 4, [(1, 4)]),  # each is too near to the one before it
        ([5, 4.9, 4.6, 3], [0.5, 0, 0.1, 0.1], [(1, 3)]),  # the third is apart from the second, not from the first
        ([5, 5, 5, 5], [0.0] * 4, [(1, 4)]),
        ([5, 5, 5, 5], [torch.inf] * 4, []),  # of one explanation nobody knows an error
    ],
)
def test_ranks_within_errors(means, errors, expected):
    assert open_ranks(statistics(means, errors)) == expected


def test_only_the_heads_that_tables_show_are_told():
    assert open_ranks(statistics([*range(20, 10, -1), 1, 1], [0.1] * 12)) == []


def test_the_remarks():
    apart = statistics([4, 3, 2, 1], [0.1] * 4)
    assert remarks(apart, FEW_IMAGES) == []
    (few,) = remarks(apart, 8)
    assert few == (
        "This is of 8 images only: the ranking is a first look, and its standard errors are themselves uncertain. "
        "Take 30 images at least."
    )
    (close,) = remarks(statistics([5, 4.9, 3, 2.9], [0.2] * 4), 1000)
    assert close.startswith("Ranks 1 to 2 and 3 to 4 lie within their neighbours' standard errors")
