"""What can go wrong with the Hub: each of its client's errors in one sentence that says what to do."""

import json
import re
import socket
import traceback
from http import HTTPStatus
from http.client import responses
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers.image_utils import httpx  # httpx, or httpx2 as of huggingface_hub 2

from gmar_hf.utils.text import shown

UNREACHABLE = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol, httpx.InvalidURL,
)  # fmt: skip

LOG_IN = "log in with `hf auth login` or pass `token`"


def explain_failure(error: BaseException, repo_id: str) -> str | None:
    """What must be, what is and what to do, on one line.

    Args:
        error (`BaseException`): Raised while the Hub's client was at work.
        repo_id (`str`): The repository that was asked for.

    Returns:
        `str`, or None for an error that is not of the client, its HTTP library or a connection.
    """
    repo = shown(repo_id)
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    uncached = ", and it is not in the local cache" * any(isinstance(link, LocalEntryNotFoundError) for link in chain)
    uploading = any(isinstance(link, RuntimeError) and "Error while uploading" in str(link) for link in chain)
    for link in chain:  # from the outside in: what is outside may say no more than that something failed
        if isinstance(link, HfHubHTTPError):
            return _refusal(link, repo, uncached, uploading)
        if reason := _failure(link, repo, uncached):
            return reason
    if isinstance(error, LocalEntryNotFoundError):
        return (
            f"'{repo}' must be in the local cache (`local_files_only=True`); got nothing of this revision there. "
            "Load it once without `local_files_only`."
        )
    if not _is_from_client(error):
        return None
    if isinstance(error, json.JSONDecodeError):
        return _no_hub("an answer that is not JSON")
    if isinstance(error, OSError) and error.errno:
        return (
            f"the Hub's cache must be writable; got {shown(error.strerror)} ({shown(error.filename)!r}). "
            "Make room, or set HF_HOME to another folder."
        )
    return (
        f"huggingface_hub must succeed; got {type(error).__name__} ({shown(error)}). "
        "Change what it names, or try again."
    )


def _failure(error: BaseException, repo: str, uncached: str) -> str | None:
    """Of an error that came about on this side."""
    text = shown(error)
    if isinstance(error, LocalTokenNotFoundError):
        return f"`token` must be one of the Hub's; got none. Please {LOG_IN}."
    if isinstance(error, HFValidationError):
        return (
            f"`repo_id` must be a name on the Hub ('owner/name', of letters, digits, '-', '_' and '.') or a folder "
            f"that exists; got '{repo}'. Check it."
        )
    if isinstance(error, OfflineModeIsEnabled):
        return (
            f"the Hub must be in reach; got offline mode (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set){uncached}. "
            "Unset it and start Python again."
        )
    if isinstance(error, FileMetadataError):
        return _no_hub("a file without commit or ETag" + uncached)
    if isinstance(error, httpx.LocalProtocolError | UnicodeEncodeError) and _is_from_client(error):
        # The error shows the token, which this must not.
        return f"`token` must be one of the Hub's; got one with letters that none has. Please {LOG_IN}."
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return (
            f"the Hub must answer in time; got silence from {_endpoint()}{uncached}. "
            "Try again, or raise HF_HUB_DOWNLOAD_TIMEOUT and HF_HUB_ETAG_TIMEOUT (seconds)."
        )
    # huggingface_hub 1.5 closes its client when a connection fails, and then tries again with that.
    is_closed = isinstance(error, RuntimeError) and "client has been closed" in text
    is_lost = isinstance(error, ConnectionError) and text.startswith("Couldn't reach")  # what `datasets` makes of it
    if is_closed or is_lost or isinstance(error, (*UNREACHABLE, ConnectionRefusedError, socket.gaierror)):
        return (
            f"the Hub must be in reach; got no connection to {_endpoint()} ({text}){uncached}. "
            "Check the network, the proxy and HF_ENDPOINT, and try again."
        )
    if isinstance(error, httpx.HTTPError | ConnectionError):
        return (
            f"the connection to the Hub must hold; got one to {_endpoint()} that broke off ({text}){uncached}. "
            "Try again."
        )
    if isinstance(error, OSError) and text.startswith("Consistency check failed"):
        return f"the download must be whole; got a part of it ({text}). Try again."
    return None


def _refusal(error: HfHubHTTPError, repo: str, uncached: str, uploading: bool) -> str:
    """Of an answer that says no."""
    status = error.response.status_code
    answer = f"{status} {responses.get(status, '')}".rstrip()
    said = f" ({shown(error.server_message)})" if error.server_message else ""
    place = re.search(
        r"/(?:resolve|revision|preupload|commit|tree)/([^/?]+)/?([^?]*)", str(error.response.request.url)
    )
    revision, path = (shown(unquote(part)) for part in place.groups()) if place else ("another", "another")
    if isinstance(error, GatedRepoError):
        return (
            f"`repo_id` must be a repository that you were given access to; got '{repo}', which is gated{uncached}. "
            f"Ask for access at {_endpoint()}/{repo}, then {LOG_IN}."
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"`repo_id` must be a repository that is on the Hub and that you may see; got '{repo}'{uncached}. "
            f"Check the name; if it is private, {LOG_IN}."
        )
    if isinstance(error, RevisionNotFoundError):
        return (
            f"`revision` must be a branch, a tag or a commit of '{repo}'; got '{revision}'. "
            "Leave it out for the main branch, or make it first (huggingface_hub.create_branch)."
        )
    if isinstance(error, RemoteEntryNotFoundError):
        return (
            f"'{repo}' must hold the file '{path}'; got none at revision '{revision}'. Check that this is the "
            "repository you mean."
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return f"the Hub must be asked less often; got {answer}{uncached}. Try again {_when(error)}."
    if status >= 500 or status == HTTPStatus.REQUEST_TIMEOUT:
        return f"the Hub must answer; got {answer} from {_endpoint()}{said}{uncached}. Try again later."
    if uploading:
        return f"what is uploaded must arrive as it was sent; got {answer}{said}. Try again."
    if status == HTTPStatus.UNAUTHORIZED:
        got = "one that it does not know" if "authorization" in error.response.request.headers else "none"
        return (
            f"`token` must be one of the Hub's; got {got}{uncached}. Please {LOG_IN} ({_endpoint()}/settings/tokens)."
        )
    if status == HTTPStatus.FORBIDDEN:
        return (
            f"`token` must give the right to it; got {answer} for '{repo}'{said}{uncached}. Use a token with that "
            f"right ({_endpoint()}/settings/tokens), or a `repo_id` of your own."
        )
    if status in (HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED):
        return f"'{repo}' must not change meanwhile; got {answer}{said}. Try again."
    return f"the Hub must accept what it is asked; got {answer} for '{repo}'{said}. Change what it names."


def _no_hub(got: str) -> str:
    return f"{_endpoint()} must be a Hub; got {got}. Check HF_ENDPOINT, and that no proxy or login page is in between."


def _endpoint() -> str:
    """The Hub's address; without the name and password that somebody may have put in it."""
    parts = urlsplit(constants.ENDPOINT)
    return shown(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())


def _when(error: HfHubHTTPError) -> str:
    headers = error.response.headers
    reset = re.search(r"\br\s*=\s*0\s*;\s*t\s*=\s*(\d+)", headers.get("RateLimit", ""))  # '"api";r=0;t=55'
    seconds = reset[1] if reset else headers.get("Retry-After", "")
    return f"after {seconds} seconds" if seconds.isdecimal() else "later"


def _is_from_client(error: BaseException) -> bool:
    """Whether the client raised it, rather than code of this package that the client called back."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package in ("huggingface_hub", "gmar_hf"):
            return package == "huggingface_hub"
    return False
