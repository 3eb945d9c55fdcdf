"""Loading by the library `datasets`: from the Hub, from folders that it saved, and from folders with Parquet files."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled

from gmar_hf.data.sample import describe, digest
from gmar_hf.data.table_files import table_fingerprint
from gmar_hf.errors import ArgumentError, GMARError, HubError
from gmar_hf.utils.hub import check_in_reach, hub_errors, no_folder
from gmar_hf.utils.text import shown

Loaded = tuple[Any, dict[str, Any]]  # a table, and its entry in a report


def is_loaded(data: Any) -> bool:
    """Tell whether something is a data set of `datasets`, a stream or a dict of splits."""
    library = sys.modules.get("datasets")  # who has such an object has imported it
    return library is not None and isinstance(
        data, library.Dataset | library.IterableDataset | library.DatasetDict | library.IterableDatasetDict
    )


def from_object(data: Any, split: str | None = None) -> Loaded:
    """Take a data set that the user has loaded, or one out of a dict of its splits.

    Raises:
        ArgumentError: If there are several splits and none was chosen, or the chosen one is not there.
    """
    if isinstance(data, dict):
        data = data[choose_split(list(data), split)]
    elif split is not None and split != str(data.split):
        raise ArgumentError(
            f"`split` must be None for a data set without splits to choose from; got {split!r}. Leave it out."
        )
    name = getattr(data.info, "dataset_name", None) or type(data).__name__
    return data, _entry(name, table_fingerprint(data), data)


def from_hub(repo_id: str, split: str | None, revision: str | None, streaming: bool) -> Loaded:
    """Load a data set of the Hub.

    Raises:
        ArgumentError: If it cannot be loaded, or has several splits and none was chosen.
        HubError: If the Hub cannot be reached or refuses.
    """
    table = _load(repo_id, split, revision, streaming)
    entry = _entry(repo_id, "", table, is_local=False, revision=revision)
    parts = (repo_id, table.info.config_name, revision, table.split, table.features)
    entry["fingerprint"] = digest("stream of the Hub", *parts) if streaming else table_fingerprint(table)
    return table, entry


def from_parquet(folder: Path, files: list[tuple[str, int]], split: str | None, streaming: bool) -> Loaded:
    """Load a folder with Parquet files, whose relative paths and sizes identify it, wherever it lies.

    Raises:
        ArgumentError: If it cannot be loaded, or has several splits and none was chosen.
    """
    table = _load(str(folder), split, None, streaming)
    fingerprint = digest("parquet", table.split, *(f"{name}\0{size}" for name, size in files))
    return table, _entry(folder.absolute().name, fingerprint, table)


def is_saved(folder: Path) -> bool:
    """Tell whether `save_to_disk` made a folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def from_saved(folder: Path, split: str | None) -> Loaded:
    """Load a folder that `save_to_disk` made.

    Raises:
        ArgumentError: If it cannot be loaded, or has several splits and none was chosen.
    """
    library = _library(str(folder))
    with _errors(str(folder)):
        data = library.load_from_disk(str(folder))
    table, entry = from_object(data, split)
    return table, entry | {"id": folder.absolute().name}


def choose_split(splits: list[str], split: str | None) -> str:
    """Return the split that is meant.

    Raises:
        ArgumentError: If it is not there, or none is named and there are several.
    """
    if split is None and len(splits) == 1:
        return splits[0]
    if split not in splits:
        raise ArgumentError(
            f"`split` must be one of {', '.join(map(repr, splits))}; got {split!r}. Choose the one to survey."
        )
    return split


def _load(name: str, split: str | None, revision: str | None, streaming: bool) -> Any:
    library = _library(name)
    with _errors(name):
        if split is None:
            split = choose_split(library.get_dataset_split_names(name, revision=revision), None)
        return library.load_dataset(name, split=split, revision=revision, streaming=streaming)


def _entry(
    name: str, fingerprint: str, table: Any, is_local: bool = True, revision: str | None = None
) -> dict[str, Any]:
    split = None if table.split is None else str(table.split)
    num_images = len(table) if hasattr(table, "__len__") else None
    return describe(name, fingerprint, is_local, revision, split, num_images)


def _library(name: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        before = "" if os.path.exists(name) else f"{no_folder(name)} "
        raise ArgumentError(
            f"{before}`data` must be images where the library `datasets` is not installed (it reads data sets of the "
            f"Hub, Parquet files and what it saved itself); got neither ({error}). "
            f"{'Check the path, or for such a data set run' if before else 'Run'} `pip install datasets`."
        ) from error
    return datasets


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """Turn what loading raises into errors of this package; loaders run into errors of any kind."""
    doing, is_here = f"load the data set {name!r}", os.path.exists(name)
    before = "" if is_here else no_folder(name)
    # Three layers: the Hub's failures, what `datasets` hides of them, and all that is left.
    try:
        with hub_errors(f"datasets/{name}", doing, before):
            try:
                if not is_here and not _is_cached(name):
                    check_in_reach(name, "dataset")
                yield
            except Exception as error:
                _raise_what_is_hidden(error, name, f"{before} To {doing}".lstrip())
                raise
    except GMARError:
        raise
    except Exception as error:
        raise ArgumentError(
            f"`data` must be what `datasets` can load; got {name!r} ({type(error).__name__}: {shown(error, 400)}). "
            "Change what it names, or load it yourself and pass the data set."
        ) from error


def _is_cached(repo_id: str) -> bool:
    """Tell whether anything of a data set may be in the caches of the Hub's client or of `datasets`."""
    if Path(constants.HF_HUB_CACHE, f"datasets--{repo_id.replace('/', '--')}").exists():
        return True

    def plain(name: str) -> str:  # in the cache of `datasets`, capitals become underscores
        return re.sub(r"[/_]", "", name).lower()

    cache = Path(_library(repo_id).config.HF_DATASETS_CACHE)
    return cache.is_dir() and any(plain(folder.name) == plain(repo_id) for folder in cache.iterdir())


def _raise_what_is_hidden(error: Exception, name: str, doing: str) -> None:
    """Raise what went wrong where `datasets` has cut the Hub's error off from its own, which does not tell."""
    # `datasets` has one class of error for what is missing, gated or without such a revision: its text tells.
    is_missing, text = type(error).__name__ == "DatasetNotFoundError", str(error)
    if is_missing and "gated" in text:
        raise HubError(
            f"{doing}, you must have been given access to it; got a gated data set. Ask for access at "
            f"{constants.ENDPOINT}/datasets/{name}, then log in with `hf auth login`."
        ) from error
    if is_missing and "Revision" not in text:
        raise ArgumentError(
            f"`data` must be a folder that exists, or a data set on the Hub that you may see; got {name!r}. "
            "Check the name; if it is a private data set, log in with `hf auth login`."
        ) from error
    if isinstance(error, ConnectionError) and "ffline" in text:
        raise OfflineModeIsEnabled(text) from error
