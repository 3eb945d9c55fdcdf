"""A head-importance report as a folder of files, and back."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from gmar_hf.errors import ArgumentError, ArtifactError
from gmar_hf.report.card import is_unedited, write_card
from gmar_hf.report.figures import FIGURES, png
from gmar_hf.report.head_means import HeadMeans
from gmar_hf.report.moments import Moments
from gmar_hf.report.page import PAGE_FILE, PAGE_NOUN
from gmar_hf.report.settings import check_heads, check_moments, plain_settings
from gmar_hf.report.statistics import KEYS, OUTCOMES, summarize
from gmar_hf.report.traits import HeadTraits
from gmar_hf.utils.files import folder_error, make_folder, replacing
from gmar_hf.utils.own_files import check_replaceable

TENSORS_FILE, SETTINGS_FILE, CARD_FILE = "report.safetensors", "config.json", "README.md"
SCHEMA_VERSION = 1
_DTYPES = {
    "groups": torch.int64,
    "count": torch.int64,
    "mean": torch.float64,
    "squares": torch.float64,
    "weight_sample": torch.float32,
}


def write_report(
    folder: Path,
    settings: Mapping[str, Any],
    moments: Moments,
    weight_sample: torch.Tensor,
    means: HeadMeans | None = None,
    traits: HeadTraits | None = None,
    *,
    overwrite_card: bool,
) -> None:
    """Write a report's files into a folder, which is made. config.json comes last: where it is, the rest is too.

    Args:
        folder (`Path`): Where; files of an older report are replaced.
        settings (`Mapping[str, Any]`), moments ([`Moments`]), weight_sample (`torch.Tensor`), means ([`HeadMeans`],
            *optional*), traits ([`HeadTraits`], *optional*): What the report holds.
        overwrite_card (`bool`): Whether to replace a README.md that somebody has written or edited.

    Raises:
        ArgumentError: If the folder cannot be written, or holds a file of one of these names that is of something
            else, such as a model's config.json. On a full disk an older report in it stays whole.
    """
    check_no_others("`save_directory`", folder)
    content = _tensors_file(moments, weight_sample, means, traits)
    written = {
        **settings,
        "schema_version": SCHEMA_VERSION,
        "tensors_sha256": hashlib.sha256(content).hexdigest(),
    }
    # The last is the first to take its place when the block ends.
    files = {SETTINGS_FILE: (json.dumps(written, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()}
    card = folder / CARD_FILE
    if overwrite_card or may_replace_card(card):
        files[CARD_FILE] = write_card(settings, moments, means, traits).encode()
    overall = summarize(moments)
    files |= {f"{score}.png": png(overall, score) for score in FIGURES}
    files[TENSORS_FILE] = content
    try:
        make_folder("`save_directory`", folder)
        with ExitStack() as stack:
            for name, data in files.items():
                stack.enter_context(replacing(folder / name)).write_bytes(data)
            (folder / SETTINGS_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise folder_error("`save_directory`", folder, error) from error


def may_replace_card(path: Path) -> bool:
    """Tell whether there is no card, or one that we wrote and nobody has edited."""
    try:
        return is_unedited(path.read_bytes().decode())
    except FileNotFoundError:
        return True
    except (OSError, ValueError):  # whatever it is, it is not ours
        return False


def check_no_others(argument: str, folder: Path, *, with_page: bool = False) -> None:
    """Refuse a folder in which a report would take the place of something else, such as a model's config.json.

    Args:
        argument (`str`): What the error calls it, backticks and all.
        folder (`Path`): Where a report is to be written.
        with_page (`bool`, defaults to False): Whether its page is, too.

    Raises:
        ArgumentError: If it holds a file of the same name that is no report's.
    """
    names = (SETTINGS_FILE, TENSORS_FILE, *(f"{score}.png" for score in FIGURES))
    check_replaceable(argument, folder, (*names, PAGE_FILE) if with_page else names, PAGE_NOUN)


def check_no_report(folder: Path) -> None:
    """Refuse a folder that holds a finished report.

    Args:
        folder (`Path`): Where a new one is to be written.

    Raises:
        ArgumentError: If there is one, whole or in part.
    """
    if (folder / SETTINGS_FILE).exists():
        raise ArgumentError(
            f"`output_dir` (`--out`) must not hold a finished report; {str(folder)!r} does. Choose another folder, or "
            "replace it with `force=True` (`--force`)."
        )


def read_settings(path: str | os.PathLike[str], name: str) -> tuple[dict[str, Any], str]:
    """Read a report's config.json.

    Args:
        path (`str` or `os.PathLike`): The file.
        name (`str`): What the error calls the report.

    Returns:
        `tuple[dict[str, Any], str]`: The settings, and the SHA-256 of the file of tensors that belongs to them.

    Raises:
        ArtifactError: If it is missing, no report's, corrupt or of another version.
    """
    with _reading(name, SETTINGS_FILE):
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not {"schema_version", "tensors_sha256"} <= content.keys():
            raise ArtifactError(
                f"{name!r} must be a head-importance report; its {SETTINGS_FILE} is of something else. Give the "
                "folder or repository that `HeadImportanceReport.save_pretrained` or `push_to_hub` wrote."
            )
        version, digest = content.pop("schema_version"), content.pop("tensors_sha256")
        if type(version) is not int or version != SCHEMA_VERSION:
            raise ArtifactError(
                f"{name!r} must have schema version {SCHEMA_VERSION}; got {version!r:.40}. Install the gmar_hf that "
                "wrote it."
            )
        if not isinstance(digest, str):
            raise ArgumentError("tensors_sha256 is no string")
        return plain_settings(content), digest


def read_tensors(
    path: str | os.PathLike[str], name: str, settings: Mapping[str, Any], digest: str
) -> tuple[Moments, torch.Tensor, HeadMeans | None, HeadTraits | None]:
    """Read a report's report.safetensors.

    Args:
        path (`str` or `os.PathLike`): The file.
        name (`str`): What the error calls the report.
        settings (`Mapping[str, Any]`), digest (`str`): What [`read_settings`] returns.

    Returns:
        `tuple[Moments, torch.Tensor, HeadMeans | None, HeadTraits | None]`: Moments of all groups, the sampled
            weights, the heads' means, which reports of older versions lack, and their traits, if they were looked for.

    Raises:
        ArtifactError: If it is missing, corrupt, or does not belong to the settings.
    """
    with _reading(name, TENSORS_FILE):
        content = Path(path).read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ArgumentError(f"its sha256 is not the one in {SETTINGS_FILE}")
        tensors = load(content)
        moments = _all_groups(tensors, len(settings["model"]["labels"]) * len(OUTCOMES))
        check_moments(settings, moments)
        count = settings["counts"]["num_explanations"]
        means = HeadMeans.from_tensors(tensors, count)
        traits = HeadTraits.from_tensors(tensors, settings.get("traits"), count)
        check_heads(settings, means, traits)
        return moments, tensors["weight_sample"], means, traits


@contextmanager
def _reading(name: str, file: str) -> Iterator[None]:
    """Turn whatever fails in the block, which reads a file of the report `name`, into one of two sentences."""
    try:
        yield
    except ArtifactError:
        raise
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{name!r} must be a head-importance report; got one without {file}, which is no report or half of one. "
            "Save it again."
        ) from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"{name!r} must be a complete report; its {file} is corrupt ({error}). Save it again."
        ) from error


def _tensors_file(
    moments: Moments, weight_sample: torch.Tensor, means: HeadMeans | None, traits: HeadTraits | None
) -> bytes:
    groups = moments.count.nonzero().flatten()
    tensors = {
        "groups": groups,
        "count": moments.count[groups],
        "mean": moments.mean[groups],
        "squares": moments.squares[groups],
        "weight_sample": weight_sample.contiguous(),
        **({} if means is None else means.tensors()),
        **({} if traits is None else traits.tensors()),
    }
    # One entry of metadata: safetensors writes several in any order, and the same report gives the same bytes.
    return save(tensors, {"format": "gmar_hf.head_importance"})


def _all_groups(tensors: Mapping[str, torch.Tensor], num_groups: int) -> Moments:
    """Return the moments of all groups from a file's tensors, which hold those of groups with members only."""
    for key, dtype in _DTYPES.items():
        if key not in tensors or tensors[key].dtype != dtype:
            raise ArgumentError(f"it must have {key!r} as {str(dtype).removeprefix('torch.')}")
    groups, count, mean, squares = (tensors[key] for key in ("groups", "count", "mean", "squares"))
    sizes = [tuple(tensor.shape[:1]) for tensor in (groups, count, mean, squares)]
    if (
        groups.ndim != 1
        or sizes != [sizes[0]] * 4
        or count.ndim != 1
        or mean.ndim != 4
        or mean.shape != squares.shape
        or mean.shape[1] != len(KEYS)
        or tensors["weight_sample"].ndim != 1
    ):
        raise ArgumentError(
            f"its tensors have shapes {', '.join(str(tuple(tensor.shape)) for tensor in tensors.values())}"
        )
    if len(groups) and not (groups[0] >= 0 and (groups.diff() > 0).all() and groups[-1] < num_groups):
        raise ArgumentError(f"'groups' must be ascending numbers in [0, {num_groups - 1}]")
    if not (count > 0).all():
        raise ArgumentError("'count' must be positive")
    if not torch.isfinite(tensors["weight_sample"]).all():
        raise ArgumentError("'weight_sample' must be finite")
    moments = Moments.empty(num_groups, tuple(mean.shape[1:]))
    moments.count[groups], moments.mean[groups], moments.squares[groups] = count, mean, squares
    return Moments(moments.count, moments.mean, moments.squares)  # looks at the signs
