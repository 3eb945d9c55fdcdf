"""What an evaluation will cost: how often the model runs for maps and for figures."""

from collections.abc import Iterable, Sequence

from gmar_hf.evaluation.maps.method import MapMethod
from gmar_hf.evaluation.rows_and_columns import Metric
from gmar_hf.metrics.registry import METRICS
from gmar_hf.utils.text import printable, quantity


def count_forwards(columns: Iterable[Metric], num_steps: int, num_patches: int) -> int:
    """Count how often the model runs to measure one map.

    Args:
        columns (`Iterable` of [`Metric`]): What is measured.
        num_steps (`int`): Of the insertion and deletion curves.
        num_patches (`int`): Of an image.

    Example:
        >>> names = ("insertion", "deletion", "sparseness")  # both curves are made at once
        >>> count_forwards([Metric(name, name, "blur", None) for name in names], num_steps=16, num_patches=64)
        32
    """
    # The curves of a filling are made once, however many figures are read off them.
    counted = {
        ("curves", column.baseline) if METRICS[column.function].needs == "curves" else column.key: column.function
        for column in columns
    }
    forwards = [METRICS[function].forwards for function in counted.values()]
    return sum(count(num_steps, num_patches) for count in forwards if count is not None)


def forwards_of_class(
    methods: Sequence[MapMethod], columns: Sequence[Metric], *, num_steps: int, num_patches: int
) -> tuple[float, int]:
    """Count how often the model runs for one explained class of an image: for all maps, and for all figures.

    Args:
        methods, columns, num_steps, num_patches: See [`describe_cost`]. Maps whose cost is not known count nothing.
    """
    costs = [method.forwards(num_patches) for method in methods]
    # Metrics that compare two classes need a map for the other one, too, and some ask for maps of noisy images.
    entries = [METRICS[column.function] for column in columns]
    num_maps = 1 + any(entry.needs == "other_maps" for entry in entries) + sum(entry.num_maps for entry in entries)
    of_maps = num_maps * sum(cost for cost in costs if cost is not None)
    return of_maps, len(methods) * count_forwards(columns, num_steps, num_patches)


def describe_cost(
    methods: Sequence[MapMethod],
    columns: Sequence[Metric],
    *,
    num_steps: int,
    num_patches: int,
    num_images: int,
    explains_labels: bool,
) -> str:
    """Say what an evaluation will cost, in forwards; a backward counts as one.

    Args:
        methods (`Sequence` of [`MapMethod`]): The maps.
        columns (`Sequence` of [`Metric`]): The figures.
        num_steps (`int`): Of the insertion and deletion curves.
        num_patches (`int`): Of an image.
        num_images (`int`): That are left to look at.
        explains_labels (`bool`): Whether every label of an image is explained, or one class.
    """
    of_maps, of_figures = forwards_of_class(methods, columns, num_steps=num_steps, num_patches=num_patches)
    each = "for each label" if explains_labels else "for one class each"
    unknown = [printable(method.name) for method in methods if method.forwards(num_patches) is None]
    together = of_maps + of_figures
    told = (
        f"An explained class of an image costs about {together:,.0f} forwards of the model: {of_maps:,.0f} for "
        f"{quantity(len(methods), 'map')} and {of_figures:,} for {quantity(len(columns), 'figure')} of each; about "
        f"{together * num_images:,.0f} for {quantity(num_images, 'image')}, {each}."
    )
    return told + (f" What {', '.join(unknown)} costs is not known, and comes on top." if unknown else "")
