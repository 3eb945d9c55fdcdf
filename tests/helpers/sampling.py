"""Long tables of near-equal cases: the default run takes a sample of them, `pytest -m slow` the rest."""

import random
from collections.abc import Collection, Iterable
from itertools import product
from typing import Any

import pytest


def sample(rows: Iterable[Any], number: int = 0, seed: int = 0) -> list[Any]:
    """Mark all rows as slow but for a seeded sample in which every value of every column occurs.

    Args:
        rows: Rows of `pytest.mark.parametrize`: tuples, or single values where there is one argument.
        number: Rows that stay in the default run; more stay where their values do not all occur in fewer.
        seed: Seed of the choice. Tables of one form that should not share their sample take another.

    Returns:
        All rows in their order.
    """
    rows = list(rows)
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    seen: set[tuple[int, str]] = set()
    chosen: set[int] = set()
    for index in order:
        row = rows[index]
        values = {(column, repr(value)) for column, value in enumerate(row if isinstance(row, tuple) else (row,))}
        if not values <= seen:
            seen |= values
            chosen.add(index)
    chosen |= set([index for index in order if index not in chosen][: max(0, number - len(chosen))])
    return [row if index in chosen else _slow(row) for index, row in enumerate(rows)]


def sample_product(*columns: Collection[Any], number: int = 0, seed: int = 0) -> list[Any]:
    """Return the rows of a cross product, all but a [`sample`] of them marked as slow."""
    return sample(product(*columns), number, seed)


def pick(values: Iterable[Any], number: int, seed: int = 0) -> list[Any]:
    """Mark all values of one argument as slow but for a seeded choice of `number`."""
    values = list(values)
    chosen = set(random.Random(seed).sample(range(len(values)), number))
    return [value if index in chosen else _slow(value) for index, value in enumerate(values)]


def in_a_campaign(*values: Any) -> Any:
    """Mark a row of `pytest.mark.parametrize`, of a test that is slow as it is, as one for campaigns only."""
    return pytest.param(*values, marks=pytest.mark.campaign)


def _slow(row: Any) -> Any:
    return pytest.param(*(row if isinstance(row, tuple) else (row,)), marks=pytest.mark.slow)
