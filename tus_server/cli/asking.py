"""One request to a server and its reply, with the deadlines of all of them."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import requests

from tus_server.cli.file_section import FileSection
from tus_server.cli.replies import Reply, ServerUnreachable, innermost_words

# Seconds. The first also bounds the sending of one block: 64 KiB, so 1 KiB/s is fast enough.
_CONNECT_TIMEOUT_S: Final = 60.0
_ANSWER_TIMEOUT_S: Final = 300.0
_MAX_REPLY_SIZE: Final = 64 * 1024


def ask(
    session: requests.Session,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: FileSection | bytes | None = None,
    *,
    max_reply_size: int = _MAX_REPLY_SIZE,
) -> Reply:
    """Make one request and read its reply, of its content the start. Raises: ServerUnreachable."""
    try:
        reply = session.request(
            method,
            url,
            headers=headers,
            data=body,
            timeout=(_CONNECT_TIMEOUT_S, _ANSWER_TIMEOUT_S),
            allow_redirects=False,
            stream=True,
        )
        with reply:
            # Not all of it: any server may be at that URL.
            content = bytearray()
            for block in reply.iter_content(_MAX_REPLY_SIZE):
                content += block
                if len(content) >= max_reply_size:
                    break
    except requests.RequestException as exc:
        raise ServerUnreachable(
            f"{shown_url(url)} does not answer ({innermost_words(exc)})", may_pass=True
        ) from exc
    return Reply(reply.status_code, reply.reason or "", reply.headers, bytes(content))


def shown_url(url: str) -> str:
    """Give a URL for a person to read: without its query, where the secrets of signed ones are."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
