"""Cross-origin access: which web pages may use us, and how they are told (Fetch, 3.2)."""

import re
import warnings
from collections.abc import Sequence
from functools import lru_cache

from tus_server.core.errors import SettingsInvalid

# Full lists, for `*` is no wildcard here once credentials are on.
ALLOW_METHODS = "GET, HEAD, POST, PATCH, DELETE, OPTIONS"
ALLOW_HEADERS = (
    "Authorization, Content-Type, Content-Disposition, Content-Encoding, Content-Digest, "
    "Repr-Digest, Want-Repr-Digest, Range, If-Range, If-None-Match, X-Requested-With, "
    "X-Request-ID, X-HTTP-Method-Override, Tus-Resumable, Upload-Length, Upload-Offset, "
    "Upload-Metadata, Upload-Defer-Length, Upload-Concat, Upload-Checksum, Upload-Complete, "
    "Upload-Incomplete, Upload-Draft-Interop-Version, Incremental"
)
EXPOSE_HEADERS = (
    "Location, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm, "
    "Upload-Offset, Upload-Length, Upload-Metadata, Upload-Defer-Length, Upload-Concat, "
    "Upload-Expires, Upload-Complete, Upload-Incomplete, Upload-Limit, "
    "Upload-Draft-Interop-Version, Accept-Patch, Tus-Error, Retry-After, X-Request-ID, "
    "Content-Disposition, Content-Range, Accept-Ranges, ETag, Repr-Digest"
)
MAX_AGE = "86400"  # seconds; browsers cap it

# Any scheme, for apps in a web view have their own (capacitor://localhost).
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<any>\*\.)?"
    r"(?P<host>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?P<port>:[0-9]{1,5})?"
)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_MAX_ORIGIN_CHARS = 512  # bounds what a costly pattern is run on; a host name has at most 253


class Origins:
    """The origins whose pages may use us.

    A pattern is `*` (any origin; alone), an origin (`https://example.com`), an origin with `*.`
    for one or more labels (`https://*.example.com`), or `~` and a regular expression. Each is
    matched against the whole origin, case included: browsers send lower case.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises: SettingsInvalid."""
        self.is_any = "*" in patterns
        if self.is_any and len(patterns) > 1:
            raise SettingsInvalid("The origin '*' lets everyone in, so it must stand alone.")
        self._exact: set[str] = set()
        self._patterns: list[re.Pattern[str]] = []
        if not self.is_any:
            for pattern in patterns:
                self._add(pattern)

    def allows(self, origin: str) -> bool:
        """Tell whether pages of `origin` may use us."""
        if self.is_any or origin in self._exact:
            return True
        # The reply repeats what a pattern lets in, so it must be safe as a field value.
        if len(origin) > _MAX_ORIGIN_CHARS or not (origin.isascii() and origin.isprintable()):
            return False
        return any(pattern.fullmatch(origin) for pattern in self._patterns)

    def _add(self, pattern: str) -> None:
        if pattern.startswith("~"):
            try:
                with warnings.catch_warnings():
                    # `[[`: a later Python may read it otherwise, and let others in.
                    warnings.simplefilter("error", FutureWarning)
                    self._patterns.append(re.compile(pattern[1:]))
            except (re.error, OverflowError, FutureWarning) as exc:
                raise SettingsInvalid(
                    f"The origin {pattern!r} is no regular expression: {exc}."
                ) from exc
            return
        # Not `null` either: any page can have that origin, in a sandboxed frame.
        match = _ORIGIN.fullmatch(pattern.lower())
        if match is None:
            raise SettingsInvalid(
                f"The origin {pattern!r} is neither scheme://host[:port] without a path, nor such "
                "a one with '*.' before the host, nor '~' and a regular expression, nor '*'."
            )
        scheme, port = match["scheme"], match["port"] or ""
        if port == _DEFAULT_PORTS.get(scheme):
            port = ""  # browsers leave it out
        if match["any"]:
            suffix = re.escape(f".{match['host']}{port}")
            self._patterns.append(
                re.compile(rf"{re.escape(scheme)}://[a-z0-9_-]+(?:\.[a-z0-9_-]+)*{suffix}")
            )
        else:
            self._exact.add(f"{scheme}://{match['host']}{port}")


def render_cors(
    origin: str | None,
    origins: Origins,
    *,
    credentials: bool,
    preflight: bool,
    request_private_network: bool = False,
    allow_methods: str = ALLOW_METHODS,
    allow_headers: str = ALLOW_HEADERS,
    expose_headers: str = EXPOSE_HEADERS,
) -> list[tuple[bytes, bytes]]:
    """Render the fields that let a page of `origin` use a reply; the list is the caller's.

    `credentials` has no effect with `*`, nor has `request_private_network`: a server that lets
    every site in must not open its network to all of them as well.
    `preflight`: OPTIONS. It carries the exposed names too, for a page may send OPTIONS itself.
    `origin` None: the fields of `*` all the same, since a cache may give the reply to a page later.
    """
    if origins.is_any:
        allow_origin: str | None = "*"
    else:
        allow_origin = origin if origin is not None and origins.allows(origin) else None
    return list(
        _rendered(
            allow_origin,
            credentials,
            preflight,
            request_private_network,
            allow_methods,
            allow_headers,
            expose_headers,
        )
    )


# One entry per origin in use: an origin that is refused shares the entry of None.
@lru_cache(maxsize=1024)
def _rendered(
    allow_origin: str | None,
    credentials: bool,
    preflight: bool,
    request_private_network: bool,
    allow_methods: str,
    allow_headers: str,
    expose_headers: str,
) -> tuple[tuple[bytes, bytes], ...]:
    fields: dict[str, str] = {}
    if allow_origin is not None:
        fields["access-control-allow-origin"] = allow_origin
        fields["access-control-expose-headers"] = expose_headers
        if credentials and allow_origin != "*":
            fields["access-control-allow-credentials"] = "true"
        if preflight:
            fields["access-control-allow-methods"] = allow_methods
            fields["access-control-allow-headers"] = allow_headers
            fields["access-control-max-age"] = MAX_AGE
            if request_private_network and allow_origin != "*":
                fields["access-control-allow-private-network"] = "true"
    if allow_origin != "*":
        # Also when refused: a cache must not give this reply to an origin that is allowed.
        fields["vary"] = "Origin"
    return tuple((name.encode(), value.encode("latin-1")) for name, value in fields.items())
