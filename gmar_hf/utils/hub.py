"""The Hub's client, with errors that say what to do, and with a look at what it brings."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from gmar_hf.errors import GMARError, HubError
from gmar_hf.utils.hub_errors import UNREACHABLE, explain_failure
from gmar_hf.utils.text import shown

_CONNECT_TIMEOUT = 10.0  # seconds


@contextmanager
def hub_errors(repo_id: str, doing: str, before: str = "") -> Iterator[None]:
    """Turn whatever the Hub's client raises in the block into a `HubError`; other errors pass.

    Args:
        repo_id (`str`): The repository that the block is about.
        doing (`str`): What the block does, such as "push the report".
        before (`str`, defaults to ""): A sentence that comes first, such as that of [`no_folder`].

    Raises:
        HubError: If the client, its HTTP library or a connection fails in the block.

    Example:
        >>> from huggingface_hub import hf_hub_download
        >>> with hub_errors("not/a/name", "load the report"):
        ...     _ = hf_hub_download("not/a/name", "config.json")
        Traceback (most recent call last):
        ...
        gmar_hf.errors.HubError: To load the report, `repo_id` must be a name on the Hub ('owner/name', of letters, \
digits, '-', '_' and '.') or a folder that exists; got 'not/a/name'. Check it.
    """
    try:
        yield
    except GMARError:
        raise
    except Exception as error:
        reason = explain_failure(error, repo_id)
        if reason is None:
            raise
        raise HubError(f"{before}{' ' * bool(before)}To {doing}, {reason}") from error


def no_folder(name: str) -> str:
    """Return a sentence for a name that could have been a folder's: who has mistyped a path thinks of no Hub."""
    return f"No folder here is called '{shown(name)}'."


def check_in_reach(repo_id: str, repo_type: str, **settings: Any) -> None:
    """Ask once whether the Hub is in reach, where nothing of a repository is in the cache.

    Its client tries for half a minute, and writes a line each time. What else may be wrong it finds out itself.

    Args:
        repo_id (`str`): The repository.
        repo_type (`str`): "model" or "dataset".
        settings: Further arguments of `HfApi`.

    Raises:
        `UNREACHABLE`: If there is no connection.
    """
    if constants.HF_HUB_OFFLINE:
        return
    try:
        HfApi(**settings).repo_info(repo_id, repo_type=repo_type, timeout=_CONNECT_TIMEOUT)
    except UNREACHABLE:
        raise
    except Exception:
        return


def download(repo_id: str, file: str, **settings: Any) -> Path:
    """Download a file of a model repository and compare its hash, which `hf_hub_download` does not.

    A file that changed on its way, or in the cache since, is downloaded once more: it would stay there for ever.

    Args:
        repo_id (`str`): The repository.
        file (`str`): Its path there.
        settings: Further arguments of `hf_hub_download`, whose errors pass.

    Returns:
        `Path`: The file in the cache.

    Raises:
        HubError: If the content has not the hash that the Hub tells of.
    """
    path = Path(hf_hub_download(repo_id, file, **settings))
    if _is_intact(path):
        return path
    name = f"'{shown(file)}' of '{shown(repo_id)}'"
    if settings.get("local_files_only") or constants.HF_HUB_OFFLINE:
        raise HubError(
            f"{name} must be in the local cache as it came; got a file that has changed. Load it once from the Hub."
        )
    path = Path(hf_hub_download(repo_id, file, **settings | {"force_download": True}))
    if not _is_intact(path):
        raise HubError(f"{name} must arrive as it is on the Hub; got another content, twice. Try again later.")
    return path


def remote_card(repo_id: str, revision: str | None = None, token: str | bool | None = None) -> str | None:
    """Return the card of a model repository as it is on the Hub now, past every cache.

    Args:
        repo_id (`str`): The repository.
        revision (`str`, *optional*): Its branch, tag or commit; the main branch by default.
        token (`str` or `bool`, *optional*): The one you logged in with by default; False for none.

    Returns:
        `str`: The text of README.md, with U+FFFD for what is not UTF-8; None without such a repository, revision or
        file.

    Raises:
        HubError: If the Hub cannot be reached or refuses to give it.
    """
    with hub_errors(repo_id, "read the repository's card"), TemporaryDirectory() as empty_cache:
        try:
            path = hf_hub_download(
                repo_id, constants.REPOCARD_NAME, revision=revision, token=token, cache_dir=empty_cache
            )
        except GatedRepoError:  # of the kind of the next, but there is a card
            raise
        except (RepositoryNotFoundError, RevisionNotFoundError, RemoteEntryNotFoundError):
            return None
        return Path(path).read_bytes().decode(errors="replace")


def _is_intact(path: Path) -> bool:
    """Tell whether a file in the Hub's cache, a link to one that is named after its hash, has that hash."""
    name, content = path.resolve().name, path.read_bytes()
    if re.fullmatch("[0-9a-f]{64}", name):
        return hashlib.sha256(content).hexdigest() == name
    if re.fullmatch("[0-9a-f]{40}", name):  # of a git blob
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == name
    return True  # no link: some systems have none
