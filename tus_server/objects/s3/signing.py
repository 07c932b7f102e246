"""Signed URLs by which clients send parts: AWS Signature Version 4 in the query, for many at once.

botocore needs half a millisecond for one, since it works out everything anew. Here what parts of an
upload have in common is worked out once; where the bucket is, is still botocore's to say.
"""

import hmac
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from urllib.parse import parse_qsl, quote, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"
# Clients send both by themselves. A length that is signed binds the size of the body.
SIGNED_HEADERS = "content-length;host"
_TIME = "%Y%m%dT%H%M%SZ"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Keys:
    """What requests are signed with. expires_at: from when on the store refuses them, if ever."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """Where the objects of a bucket are. base: what their URLs have before the key."""

    base: str
    region: str

    @property
    def host(self) -> str:
        """The Host that clients send: without the port where it is the usual one."""
        parts = urlsplit(self.base)
        name = parts.hostname or ""
        host = f"[{name}]" if ":" in name else name
        usual = parts.port is None or parts.port == _PORTS.get(parts.scheme)
        return host if usual else f"{host}:{parts.port}"


class PartSigner:
    """Signs, as of one moment, the requests that send parts of one multipart upload."""

    def __init__(
        self,
        address: Address,
        keys: Keys,
        *,
        key: str,
        multipart_id: str,
        signed_at: datetime,
        expires_s: int,
    ) -> None:
        """key: of the object. signed_at: in whole seconds; the URLs end expires_s after it."""
        day, time = signed_at.strftime("%Y%m%d"), signed_at.strftime(_TIME)
        scope = (day, address.region, "s3", "aws4_request")
        url = address.base + quote(key, safe="/~")
        fields = {
            "X-Amz-Algorithm": ALGORITHM,
            "X-Amz-Credential": "/".join((keys.access_key, *scope)),
            "X-Amz-Date": time,
            "X-Amz-Expires": str(expires_s),
            "X-Amz-SignedHeaders": SIGNED_HEADERS,
            "uploadId": multipart_id,
        }
        if keys.token is not None:
            fields["X-Amz-Security-Token"] = keys.token
        # By name, as it is signed; the number of the part has its place right before uploadId.
        *common, upload_id = (f"{name}={_quoted(fields[name])}" for name in sorted(fields))
        self._url = f"{url}?"
        self._before = "&".join([*common, "partNumber="])
        self._behind = f"&{upload_id}"
        self._path = f"PUT\n{urlsplit(url).path}\n"
        self._host = f"\nhost:{address.host}\n\n{SIGNED_HEADERS}\nUNSIGNED-PAYLOAD"
        self._heading = "\n".join((ALGORITHM, time, "/".join(scope), ""))
        self._signing_key = f"AWS4{keys.secret_key}".encode()
        for step in scope:
            self._signing_key = hmac.digest(self._signing_key, step.encode(), "sha256")

    def sign(self, number: int, size: int) -> str:
        """Give the URL for part `number` of `size` bytes."""
        query = f"{self._before}{number}{self._behind}"
        request = f"{self._path}{query}\ncontent-length:{size}{self._host}"
        text = self._heading + sha256(request.encode()).hexdigest()
        signature = hmac.digest(self._signing_key, text.encode(), "sha256").hex()
        return f"{self._url}{query}&X-Amz-Signature={signature}"


def find_address(reference: str, key: str) -> Address:
    """Find out where a bucket is by a URL of it that botocore has signed, for a plain `key`."""
    url = urlsplit(reference)
    scope = dict(parse_qsl(url.query))["X-Amz-Credential"].split("/")
    return Address(reference.partition("?")[0].removesuffix(key), region=scope[-3])


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")
