"""What comes back from a server: the offset asked for, or the failure it amounts to."""

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import RemoteDisconnected
from typing import Any, Final

_MAY_PASS: Final = frozenset({408, 409, 423, 425, 429})
_NEVER_PASSES: Final = frozenset({501, 505})
_MAX_SHOWN_CHARS: Final = 200


class TransferFailed(Exception):
    """The file has not arrived; the message is one sentence. `may_pass`: trying again may help."""

    def __init__(self, sentence: str, *, may_pass: bool = False, retry_after_s: float = 0) -> None:
        super().__init__(sentence)
        self.may_pass = may_pass
        self.retry_after_s = retry_after_s


class ServerUnreachable(TransferFailed):
    """No answer came."""


class UploadGone(TransferFailed):
    """The server does not have the upload (any more)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server said; `headers` takes names in any case, `content` is the start of it."""

    status: int
    reason: str
    headers: Mapping[str, str]
    content: bytes


def read_offset(method: str, url: str, reply: Reply) -> int:
    """Read the offset out of the reply to HEAD or PATCH. Raises: UploadGone, TransferFailed."""
    if reply.status in (404, 410):
        raise UploadGone(f"the server does not have {url} any more")
    if reply.status not in (200, 204):
        raise refusal(method, url, reply)
    text = reply.headers.get("upload-offset", "")
    if not (text.isascii() and text.isdecimal()):
        raise TransferFailed(f"{url} answered {method} without an Upload-Offset")
    return int(text)


def refusal(method: str, url: str, reply: Reply) -> TransferFailed:
    """Make the error for a reply of a tus server that is not the one hoped for."""
    if "tus-resumable" not in reply.headers and not _is_trouble(reply.status):
        where = reply.headers.get("location")
        hint = f"; it points to {where}" if where and 300 <= reply.status < 400 else ""
        said = _said(method, url, reply)
        return TransferFailed(f"{said}, so it seems to be no tus server{hint}")
    return plain_refusal(method, url, reply)


def plain_refusal(
    method: str, url: str, reply: Reply, *, may_pass: bool | None = None
) -> TransferFailed:
    """Make the error for a reply as it is. may_pass None: what the status says."""
    said = _said(method, url, reply)
    detail = find_detail(reply.headers, reply.content)
    after = reply.headers.get("retry-after", "")
    return TransferFailed(
        f"{said}: {detail}" if detail else said,
        may_pass=passes(reply.status) if may_pass is None else may_pass,
        retry_after_s=float(after) if after.isascii() and after.isdecimal() else 0,
    )


def _said(method: str, url: str, reply: Reply) -> str:
    return f"{url} answered {method} with {reply.status} {reply.reason}".rstrip()


def _is_trouble(status: int) -> bool:
    """Tell whether a server, or a proxy before it, says that it cannot do so just now."""
    return status >= 500 and status not in _NEVER_PASSES


def passes(status: int) -> bool:
    """Tell whether the same request may succeed later, by the status of a reply."""
    return status in _MAY_PASS or _is_trouble(status)


def find_problem(reply: Reply) -> dict[str, Any]:
    """Give the problem document (RFC 9457) of a reply; empty where it has none."""
    if "json" not in reply.headers.get("content-type", ""):
        return {}
    try:
        problem = json.loads(reply.content)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def find_store_error(reply: Reply) -> tuple[str, str]:
    """Give code and message of an error of the S3 API; empty where a reply has none."""
    return _find_element("Code", reply.content), _find_element("Message", reply.content)


def find_detail(headers: Mapping[str, str], content: bytes) -> str:
    """Find what a reply says about itself.

    That is of a problem document (RFC 9457) or an error of the S3 API, or its first line.
    """
    kind = headers.get("content-type", "")
    said = ""
    if "json" in kind:
        problem = find_problem(Reply(0, "", headers, content))
        said = str(problem.get("detail") or problem.get("title") or "")
    elif "xml" in kind:
        said = _find_element("Message", content)
    elif kind.startswith("text/plain"):
        said = content.decode("utf-8", "replace").strip().partition("\n")[0]
    return said.strip().removesuffix(".")[:_MAX_SHOWN_CHARS]


def _find_element(name: str, content: bytes) -> str:
    # No parser: the content may be cut off, and comes from anywhere.
    found = re.search(rf"<{name}>([^<]*)</{name}>", content.decode("utf-8", "replace"))
    return html.unescape(found[1]).strip() if found else ""


def innermost_words(exc: BaseException) -> str:
    """Give the plainest words in a chain of wrapped errors."""
    words = ""
    seen: BaseException | None = exc
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            words = seen.strerror
        elif isinstance(seen, TimeoutError):
            words = "timed out"
        elif isinstance(seen, RemoteDisconnected):
            words = "it has closed the connection"
        reason = getattr(seen, "reason", None)
        nested = [arg for arg in (reason, *seen.args) if isinstance(arg, BaseException)]
        seen = nested[0] if nested else seen.__cause__ or seen.__context__
    return words or type(exc).__name__
