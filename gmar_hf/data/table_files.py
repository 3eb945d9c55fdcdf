"""Data sets and streams of the library `datasets`, read row by row; their columns are found first."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from gmar_hf.data.columns import Columns, find_columns, guessed_features, kind_of
from gmar_hf.data.item_errors import item_errors
from gmar_hf.data.label_reader import LabelReader
from gmar_hf.data.sample import MapData, Sample, StreamData, digest
from gmar_hf.errors import ArgumentError, GMARError, ImageError
from gmar_hf.images.decoding import decoding_error
from gmar_hf.images.image_file import file_name, is_bad_image, is_of_pillow, read_bytes, read_file, reason
from gmar_hf.images.mask_reading import check_size, mask_of_bytes, mask_of_file, mask_of_image
from gmar_hf.images.reading import read_named
from gmar_hf.utils.hub import hub_errors

_Read = TypeVar("_Read")
_SHUFFLE_BUFFER = 1000  # samples among which a stream is shuffled


class _Table(ABC):
    """What a data set and a stream of `datasets` have in common: the columns that are read, and their reader.

    Args:
        table (`datasets.Dataset` or `datasets.IterableDataset`): As the user has it.
        identity (`dict`): Its entry in a report.
        id2label (`Mapping[int, str]`): The model's labels.
        label_map (`Mapping[str, str | int]`, *optional*): From its class names to labels or indices.
        use_labels (`bool`): Whether to look for labels.
        use_masks (`bool`): Whether to look for masks.

    Raises:
        ArgumentError: If it has no images, masks that are no images, or labels that are none of the model's.
    """

    has_labels: Any  # a bool, which a stream of other kinds may not know yet
    has_masks: Any

    def __init__(
        self,
        table: Any,
        identity: dict[str, Any],
        id2label: Mapping[int, str],
        label_map: Mapping[str, str | int] | None = None,
        use_labels: bool = True,
        use_masks: bool = False,
    ) -> None:
        self._check(table)
        features = table.features or guessed_features(table)
        columns = find_columns(features, use_labels, label_map, use_masks)
        labels = LabelReader(id2label, label_map, columns.names)
        labels.check(self._known_labels(table, features, columns))  # now, rather than after hours
        self._reader = _RowReader(table, columns, labels, identity)
        self._table = _narrowed(table, columns)
        self.identity = identity
        self.has_labels = columns.label is not None
        self.has_masks = columns.mask is not None

    @abstractmethod
    def _check(self, table: Any) -> None:
        """Refuse a table that cannot be read."""

    @abstractmethod
    def _known_labels(self, table: Any, features: Mapping[str, Any], columns: Columns) -> Iterable[Any]:
        """Return the labels of which it is known before any row is read that they occur, or may."""


class TableData(_Table, MapData):
    """A `datasets.Dataset`."""

    def _check(self, table: Any) -> None:
        if not len(table):
            raise ArgumentError("`data` must hold at least one image; got a data set of 0 rows. Check its split.")
        if table.format["type"] == "custom":
            raise ArgumentError(
                "`data` must give its rows as they are (nobody can tell what labels mean behind a transform); got a "
                "data set with a transform. Remove it with `with_format(None)`, and pass an `image_processor`."
            )

    def _known_labels(self, table: Any, features: Mapping[str, Any], columns: Columns) -> Iterable[Any]:
        return () if columns.label is None else _distinct(table, columns.label)

    def __len__(self) -> int:
        return len(self._table)

    def read(self, index: int) -> Sample:
        with item_errors(f"row {index} of {len(self)}"):
            row = self._table[int(index)]
        return self._reader.sample(row, f"row {index}")


class TableStream(_Table, StreamData):
    """A `datasets.IterableDataset`.

    Of its class names every one must be known, because which of them occur only shows in the end.
    """

    def _check(self, table: Any) -> None:
        if getattr(table, "_distributed", None) is not None:
            raise ArgumentError(
                "`data` must not be split among processes yet (samples would be lost); got a stream that "
                "`split_dataset_by_node` made. Pass the whole one."
            )

    def _known_labels(self, table: Any, features: Mapping[str, Any], columns: Columns) -> Iterable[Any]:
        if table.features is None and columns.label is not None and "string" not in kind_of(features[columns.label]):
            raise ArgumentError(
                f"`data` must have known features: without them nobody can tell what the numbers in column "
                f"{columns.label!r} mean (`map` forgets a stream's class names). Pass `features=` to `map`, cast the "
                "column, or leave labels out with `use_labels=False` (`--no-labels`)."
            )
        return columns.names or ()

    def _share(self, rank: int, num_processes: int, skip: int) -> Iterator[Sample]:
        from datasets.distributed import split_dataset_by_node

        # Not `skip` of the data set: where whole shards cannot be dealt out it counts the samples of all processes.
        rows = islice(iter(split_dataset_by_node(self._table, rank, num_processes)), skip, None)
        of = f" of process {rank}" if num_processes > 1 else ""
        number = skip
        while (row := self._next(rows, f"row {number}{of}")) is not None:
            yield self._reader.sample(row, f"row {number}{of}")
            number += 1

    def _next(self, rows: Iterator[Mapping[str, Any]], what: str) -> Mapping[str, Any] | None:
        try:
            with item_errors(what, unless=is_of_pillow), hub_errors(self._reader.repo_id, "read the data set"):
                return next(rows, None)
        except Exception as error:
            if not is_of_pillow(error):
                raise
            raise ArgumentError(
                f"`data` must not be a stream that decodes images itself (a broken one ends it); got one "
                f"({reason(error)}). Call `decode(False)` on it as soon as it is loaded."
            ) from error

    def shuffled(self, seed: int) -> "TableStream":
        stream = copy(self)
        stream._table = self._table.shuffle(seed=seed, buffer_size=_SHUFFLE_BUFFER)
        return stream


class _RowReader:
    def __init__(self, table: Any, columns: Columns, labels: LabelReader, identity: Mapping[str, Any]) -> None:
        self.columns, self.labels = columns, labels
        self.repo_id = f"datasets/{identity['id']}"
        self._tokens = getattr(table, "_token_per_repo_id", None)

    def sample(self, row: Mapping[str, Any], place: str) -> Sample:
        # The row is named by its place and its file, never by the folder that the file lies in.
        picture = _as_file(row[self.columns.image])
        file = file_name(picture["path"] if isinstance(picture, Mapping) else picture)
        name = f"{place} ({file})" if file else place
        labels = None if self.columns.label is None else self.labels.read(row[self.columns.label], name)
        try:
            image = self._read(picture, name, read_file, read_bytes, read_named)
            if image is None:
                raise ImageError(f"`image` must be given; got None in {name}. Leave such rows out.")
            mask = self._mask(row, place)
        except ImageError as error:
            return Sample(name, None, labels, reason(error))
        return Sample(name, image, labels, masks=None if mask is None else {None: check_size(mask, image, name)})

    def _mask(self, row: Mapping[str, Any], place: str) -> np.ndarray | None:
        if self.columns.mask is None:
            return None
        picture = _as_file(row[self.columns.mask])
        return self._read(picture, f"mask of {place}", mask_of_file, mask_of_bytes, mask_of_image)

    def _read(
        self,
        picture: Any,
        name: str,
        from_file: Callable[[str, str], _Read],
        from_bytes: Callable[[bytes, str], _Read],
        from_image: Callable[[Image.Image, str], _Read],
    ) -> _Read | None:
        """Read an image file, wherever its bytes are; None where there is none."""
        if isinstance(picture, Image.Image):  # of a stream that decodes below what was done to it since
            return from_image(picture, name)
        content, path = (picture["bytes"], picture["path"]) if picture else (None, None)
        if content is not None:
            return from_bytes(content, name)
        if path is None:
            return None
        if "://" not in path or os.path.exists(path):
            return from_file(path, name)
        return from_image(self._fetched(path, name), name)

    def _fetched(self, url: str, name: str) -> Image.Image:
        import datasets

        feature = datasets.Image()
        try:
            with hub_errors(self.repo_id, "read an image"):
                return feature.decode_example({"bytes": None, "path": url}, token_per_repo_id=self._tokens)
        except GMARError:
            raise
        except Exception as error:
            if is_bad_image(error) and not isinstance(error, ConnectionError | TimeoutError):
                raise decoding_error(error, repr(name)) from error
            raise


def _as_file(picture: Any) -> Any:
    """Return a cell of a column of images as `datasets` has it without decoding."""
    if isinstance(picture, str):
        return {"bytes": None, "path": picture}
    return {"bytes": picture, "path": None} if isinstance(picture, bytes) else picture


def table_fingerprint(table: Any) -> str:
    """Return what identifies a table, as cheaply as `datasets` knows it; call it before anything is cast.

    A Dataset's is its own, which is the same in every process (but not for what was shuffled without a seed, or
    mapped with a function that cannot be hashed). A stream's is weak: that of its name, its split and its columns, so
    parts of one stream have the same.
    """
    info = table.info
    if hasattr(table, "_fingerprint"):
        return digest("datasets.Dataset", table._fingerprint)
    parts = (info.dataset_name, info.config_name, info.version, table.split, table.features)
    return digest("datasets.IterableDataset", *parts)


def _narrowed(table: Any, columns: Columns) -> Any:
    """Keep only what is read, and images as files' bytes, so that a broken one is found by us, in its row."""
    import datasets

    feature = datasets.Image(decode=False)
    if table.features is None:
        return table.with_format(None).select_columns(columns.all)
    if hasattr(table, "decode"):  # of streams: undoes the threads that would decode before any cast
        table = table.decode(False)
    table = table.with_format(None).select_columns(columns.all)
    if columns.mask is not None:  # of type Image already
        table = table.cast_column(columns.mask, feature)
    try:
        return table.cast_column(columns.image, feature)
    except (TypeError, ValueError, NotImplementedError) as error:  # pyarrow's errors are among them
        raise ArgumentError(
            f"`data` must have images in its column {columns.image!r}; got {kind_of(table.features[columns.image])} "
            f'({reason(error):.200}). Rename the column that has them to "image".'
        ) from error


def _distinct(table: Any, column: str) -> list[Any]:
    from pyarrow import compute, types  # type: ignore[import-untyped]

    # Column by column in Arrow: no image is decoded for it.
    labels: set[Any] = set()
    for batch in table.select_columns([column]).with_format("arrow").iter(batch_size=100_000):
        values = batch.column(0)
        while types.is_list(values.type) or types.is_large_list(values.type) or types.is_fixed_size_list(values.type):
            values = compute.list_flatten(values)
        labels.update(compute.unique(values).to_pylist())
    return sorted(labels - {None})
