"""Finding the columns of a table that hold images, labels and masks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from gmar_hf.errors import ArgumentError


@dataclass(frozen=True)
class Columns:
    """The columns in which a table holds images, labels and masks.

    Args:
        image (`str`): The column of images.
        label (`str`, *optional*): The column of labels, if it has one.
        names (`list[str]`, *optional*): What the class numbers in it mean; None where they are the model's.
        mask (`str`, *optional*): The column of masks, if it has one and it was asked for.
    """

    image: str
    label: str | None
    names: list[str] | None = None
    mask: str | None = None

    @property
    def all(self) -> list[str]:
        """The columns that are read."""
        return [name for name in (self.image, self.label, self.mask) if name is not None]


def find_columns(
    features: Mapping[str, Any],
    use_labels: bool = True,
    label_map: Mapping[str, str | int] | None = None,
    use_masks: bool = False,
) -> Columns:
    """Find the columns that hold images, labels and masks.

    Args:
        features (`Mapping`): A table's columns and their types.
        use_labels (`bool`): Whether to look for labels.
        label_map (`Mapping`, *optional*): What the user gave.
        use_masks (`bool`, defaults to False): Whether to look for masks.

    Raises:
        ArgumentError: If no column holds images, labels or masks are of a type that they never are, or there is a
            `label_map` without labels.
    """
    mask = _mask_column(features) if use_masks else None
    features = {name: feature for name, feature in features.items() if name != mask}
    # The only column of type Image, or else one of a usual name.
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    image = images[0] if len(images) == 1 else next((n for n in ("image", "img") if n in (images or features)), None)
    shown = ", ".join(f"{name!r} ({kind_of(feature)})" for name, feature in features.items())
    if image is None:
        raise ArgumentError(
            f'`data` must have a column of images (the only one of type Image, or one called "image" or "img"); got '
            f"{shown}. Rename a column with `rename_column`."
        )
    # A usual name comes before a type; a column of nothing but None holds no labels.
    label = None
    if use_labels:
        classes = [name for name, feature in features.items() if type(_element(feature)).__name__ == "ClassLabel"]
        only = classes if len(classes) == 1 else []
        label = next((name for name in ("label", "labels", *only) if name in features and name != image), None)
        if label is not None and kind_of(features[label]) == "null":
            label = None
    if label is None:
        if label_map is not None:
            raise ArgumentError(
                f'`label_map` (`--label-map`) must be None for a data set without labels (a column "label" or '
                f'"labels", or the only one of type ClassLabel); got one for columns {shown}. Leave it out, or '
                "rename a column."
            )
        return Columns(image, None, mask=mask)
    # Class labels bring their names; bare numbers are the indices of the model, bare texts its labels.
    element = _element(features[label])
    if type(element).__name__ == "ClassLabel":
        return Columns(image, label, list(element.names), mask)
    if type(element).__name__ != "Value" or not ("int" in element.dtype or "string" in element.dtype):
        raise ArgumentError(
            f"`data` must have labels that are ints, strings or class labels, or lists of them; got "
            f"{kind_of(features[label])} in column {label!r}. Cast the column, or leave labels out with "
            "`use_labels=False` (`--no-labels`)."
        )
    return Columns(image, label, mask=mask)


def guessed_features(table: Any) -> dict[str, Any]:
    """Guess the types of a stream's columns by its first row."""
    import datasets

    def guess(value: Any) -> Any:
        if isinstance(value, list):
            return [guess(value[0] if value else None)]
        if isinstance(value, Image.Image) or (isinstance(value, Mapping) and "bytes" in value):
            return datasets.Image()
        names = {bool: "bool", float: "float64", str: "string"}
        return datasets.Value(names.get(type(value), "int64"))  # of None: may be numbers later on

    # Of no rows there is nothing to guess: the missing column of images is told elsewhere.
    rows = list(table.with_format(None).take(1))
    return {name: guess(value) for name, value in rows[0].items()} if rows else {}


def _mask_column(features: Mapping[str, Any]) -> str | None:
    if "mask" in features and type(features["mask"]).__name__ == "Image":
        return "mask"
    for name in ("mask", "masks"):
        if name in features and kind_of(features[name]) != "null":
            raise ArgumentError(
                f'`data` must have its masks in a column "mask" of type Image, one for each row; got '
                f"{kind_of(features[name])} in column {name!r}. Cast it with `cast_column`, drop it with "
                "`remove_columns`, or pass a list of dicts whose `masks` tell the mask of each class."
            )
    return None


def _element(feature: Any) -> Any:
    """Return what a feature is a list of, or else the feature."""
    if isinstance(feature, list | tuple) and len(feature) == 1:
        return feature[0]
    return getattr(feature, "feature", feature)


def kind_of(feature: Any) -> str:
    """Return what an error calls the type of a column."""
    element = _element(feature)
    name = element.dtype if type(element).__name__ == "Value" else type(element).__name__
    return f"list of {name}" if element is not feature else name
