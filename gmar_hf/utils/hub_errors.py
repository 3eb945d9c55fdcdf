"""What can go wrong with the Hub: each of its client's errors in one sentence that says what to do."""

import json
import re
import socket
import traceback
from collections.abc import Callable, Sequence
from http.client import responses
from typing import Any
from urllib.parse import unquote

from huggingface_hub import constants, errors
from transformers.image_utils import httpx  # httpx, or httpx2 as of huggingface_hub 2

from gmar_hf.utils.text import is_web_page, shown

UNREACHABLE = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol, httpx.InvalidURL,
)  # fmt: skip

_NO_PROXY = "Check HF_ENDPOINT, and that no proxy or login page is in between."

Condition = Callable[[BaseException, dict[str, Any]], bool]
Row = tuple[Condition, str, str, str]


def _is(*kinds: type[BaseException]) -> Condition:
    return lambda error, facts: isinstance(error, kinds)


def _answers(*statuses: int) -> Condition:
    return lambda error, facts: facts["status"] in statuses


_is_uncached = _is(errors.LocalEntryNotFoundError)


def _shows_token(error: BaseException, facts: dict[str, Any]) -> bool:
    is_unencodable = isinstance(error, UnicodeEncodeError) and _is_from_client(error)
    return is_unencodable or isinstance(error, httpx.LocalProtocolError)


def _is_out_of_reach(error: BaseException, facts: dict[str, Any]) -> bool:
    # huggingface_hub 1.5 closes its client when a connection fails, and then tries again with that.
    is_closed = isinstance(error, RuntimeError) and "client has been closed" in facts["text"]
    is_lost = isinstance(error, ConnectionError) and facts["text"].startswith("Couldn't reach")  # says `datasets`
    return is_closed or is_lost or isinstance(error, (*UNREACHABLE, ConnectionRefusedError, socket.gaierror))


def _has_broken_off(error: BaseException, facts: dict[str, Any]) -> bool:
    is_partial = isinstance(error, OSError) and facts["text"].startswith("Consistency check failed")  # a download
    return is_partial or isinstance(error, httpx.HTTPError | ConnectionError)


# fmt: off
# When a row applies, what must be, what is and what to do. The first row that applies is the one: narrow ones come
# first. To every "what is" is added that nothing is in the local cache, where the client has looked there too.
_ROWS: list[Row] = [
    # Answers that say no.
    (_is(errors.GatedRepoError), "`repo_id` must be a repository that you were given access to",
     "'{repo}', which is gated", "Ask for access at {hub}/{repo}, then {log_in}."),
    (_is(errors.RepositoryNotFoundError), "`repo_id` must be a repository that is on the Hub and that you may see",
     "'{repo}'", "Check the name; if it is private, {log_in}."),
    (_is(errors.RevisionNotFoundError), "`revision` must be a branch, a tag or a commit of '{repo}'", "'{revision}'",
     "Leave it out for the main branch, or make it first (huggingface_hub.create_branch)."),
    (_is(errors.RemoteEntryNotFoundError), "'{repo}' must hold the file '{path}'", "none at revision '{revision}'",
     "Check that this is the repository you mean."),
    (_answers(429), "the Hub must be asked less often", "{answer}", "Try again {when}."),
    (_answers(408, *range(500, 1000)), "the Hub must answer", "{answer} from {hub}{said}", "Try again later."),
    (lambda error, facts: facts["status"] and facts["is_upload"],
     "what is uploaded must arrive as it was sent", "{answer}{said}", "Try again."),
    (_answers(401), "`token` must be one of the Hub's", "{token}", "Please {log_in} ({hub}/settings/tokens)."),
    (_answers(403), "`token` must give the right to it", "{answer} for '{repo}'{said}",
     "Use a token with that right ({hub}/settings/tokens), or a `repo_id` of your own."),
    (_answers(409, 412), "'{repo}' must not change meanwhile", "{answer}{said}", "Try again."),
    (_is(errors.HfHubHTTPError), "the Hub must accept what it is asked", "{answer} for '{repo}'{said}",
     "Change what it names."),
    # Errors that come about on this side.
    (_is(errors.LocalTokenNotFoundError), "`token` must be one of the Hub's", "none", "Please {log_in}."),
    (_is(errors.HFValidationError), "`repo_id` must be a name on the Hub ('owner/name', of letters, digits, '-', '_' "
     "and '.') or a folder that exists", "'{repo}'", "Check it."),
    (_is(errors.OfflineModeIsEnabled), "the Hub must be in reach",
     "offline mode (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set)", "Unset it and start Python again."),
    (_is(errors.FileMetadataError), "{hub} must be a Hub", "a file without commit or ETag", _NO_PROXY),
    (_shows_token, "`token` must be one of the Hub's", "one with letters that none has", "Please {log_in}."),
    (_is(httpx.TimeoutException, TimeoutError), "the Hub must answer in time", "silence from {hub}",
     "Try again, or raise HF_HUB_DOWNLOAD_TIMEOUT and HF_HUB_ETAG_TIMEOUT (seconds)."),
    (_is_out_of_reach, "the Hub must be in reach", "no connection to {hub} ({text})",
     "Check the network, the proxy and HF_ENDPOINT, and try again."),
    (_has_broken_off, "the connection to the Hub must hold", "one to {hub} that broke off ({text})", "Try again."),
]
# For the outermost error, where no link of the chain is in the rows above.
_LAST_ROWS: list[Row] = [
    (_is_uncached, "'{repo}' must be in the local cache (`local_files_only=True`)",
     "nothing of this revision there", "Load it once without `local_files_only`."),
    (lambda error, facts: isinstance(error, json.JSONDecodeError) and is_web_page(error.doc), "{hub} must be a Hub",
     "a web page (HTML) for an answer", _NO_PROXY),
    (_is(json.JSONDecodeError), "{hub} must be a Hub", "an answer that is not JSON", _NO_PROXY),
    (lambda error, facts: isinstance(error, OSError) and bool(error.errno), "the Hub's cache must be writable",
     "{reason} ({file!r})", "Make room, or set HF_HOME to another folder."),
    (_is(BaseException), "huggingface_hub must succeed", "{kind} ({text})", "Change what it names, or try again."),
]
# fmt: on


def explain_failure(error: BaseException, repo_id: str) -> str | None:
    """Return what must be, what is and what to do, on one line.

    Args:
        error (`BaseException`): What was raised while the Hub's client was at work.
        repo_id (`str`): The repository that was asked for.

    Returns:
        `str`: The sentences; None for an error that is not of the client, its HTTP library or a connection.
    """
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    uncached = ", and it is not in the local cache" * any(_is_uncached(link, {}) for link in chain)
    is_upload = any(isinstance(link, RuntimeError) and "Error while uploading" in str(link) for link in chain)
    for link in chain:  # from the outside in: what is outside may say no more than that something failed
        if sentences := _fill(_ROWS, link, {**_facts(link, repo_id), "is_upload": is_upload}, uncached):
            return sentences
    if _is_uncached(error, {}) or _is_from_client(error):
        return _fill(_LAST_ROWS, error, _facts(error, repo_id), "")
    return None


def _fill(rows: Sequence[Row], error: BaseException, facts: dict[str, Any], uncached: str) -> str | None:
    for applies, must, is_now, advice in rows:
        if applies(error, facts):
            return f"{must}; got {is_now}{uncached}. {advice}".format(**facts)
    return None


def _facts(error: BaseException, repo_id: str) -> dict[str, Any]:
    """Return what the rows' sentences may say of an error, all of it safe to show."""
    facts: dict[str, Any] = {
        "repo": shown(repo_id),
        "hub": shown(re.sub("//[^/?#]*@", "//", constants.ENDPOINT)),  # somebody may have put a password in it
        "log_in": "log in with `hf auth login` or pass `token`",
        "kind": type(error).__name__,
        "text": shown(error),
        "reason": shown(getattr(error, "strerror", None)),
        "file": shown(getattr(error, "filename", None)),
        "status": 0,
    }
    if isinstance(error, errors.HfHubHTTPError):
        status, headers, request = error.response.status_code, error.response.headers, error.response.request
        place = re.search(r"/(?:resolve|revision|preupload|commit|tree)/([^/?]+)/?([^?]*)", str(request.url))
        reset = re.search(r"\br\s*=\s*0\s*;\s*t\s*=\s*(\d+)", headers.get("RateLimit", ""))  # '"api";r=0;t=55'
        seconds = reset[1] if reset else headers.get("Retry-After", "")
        facts |= {
            "status": status,
            "answer": f"{status} {responses.get(status, '')}".rstrip(),
            "said": f" ({shown(error.server_message)})" if error.server_message else "",
            "revision": shown(unquote(place[1])) if place else "another",
            "path": shown(unquote(place[2])) if place else "another",
            "token": "one that it does not know" if "authorization" in request.headers else "none",
            "when": f"after {seconds} seconds" if seconds.isdecimal() else "later",
        }
    return facts


def _is_from_client(error: BaseException) -> bool:
    """Tell whether the client raised it, rather than code of this package that the client called back."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package in ("huggingface_hub", "gmar_hf"):
            return package == "huggingface_hub"
    return False
