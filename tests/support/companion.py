"""What @uppy/aws-s3 sends, request by request, without a browser."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from tests.support.http import Fields, Reply, request

PART_BYTES = 5 * 1024 * 1024
BOUNDARY = "----WebKitFormBoundaryKc2kNEAAXqGMX7wp"

PartList = Sequence[tuple[int, str]]


@dataclass(frozen=True)
class Begun:
    """A multipart upload the plugin has begun."""

    upload_id: str
    key: str


class Plugin:
    """The plugin with `companionEndpoint` on a server; fields go with every request to it."""

    def __init__(
        self, port: int, *, endpoint: str = "/companion", fields: Fields | None = None
    ) -> None:
        self.port = port
        self._endpoint = f"{endpoint}/s3"
        self._fields = dict(fields or {})

    # --- one request

    def params(self, filename: str, kind: str = "text/plain", **metadata: object) -> Reply:
        told = {"filename": filename, "type": kind}
        told |= {f"metadata[{name}]": str(value) for name, value in metadata.items()}
        return self.ask("GET", f"/params?{urlencode(told)}")

    def send_form(self, params: Mapping[str, Any], content: bytes) -> Reply:
        """POST the form that params() was answered with, as a browser does."""
        body = b"".join(render_form(params["fields"], content))
        fields = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        return self.send("POST", params["url"], body, fields)

    def location(self, params: Mapping[str, Any]) -> str:
        """Give the URL that the plugin takes for that of the upload."""
        bare = urlsplit(params["url"])._replace(query="", fragment="").geturl()
        return f"{bare.rstrip('/')}/{quote(params['fields']['key'])}"

    # --- many parts

    def begin(self, filename: str, kind: str = "text/plain", **metadata: object) -> Reply:
        told = {"filename": filename, "type": kind, "metadata": metadata}
        return self.ask("POST", "/multipart", told)

    def new(self, size: int, filename: str = "film.bin") -> Begun:
        """Begin an upload, which must succeed."""
        reply = self.begin(filename, name=filename, relativePath=None, size=size)
        assert reply.status == 200, reply
        found = json.loads(reply.body)
        return Begun(found["uploadId"], found["key"])

    def sign(self, begun: Begun, number: int | str) -> Reply:
        return self.ask("GET", f"/multipart/{begun.upload_id}/{number}?{_key(begun)}")

    def send_part(self, begun: Begun, number: int, content: bytes) -> str:
        """Sign a part and send it, which must succeed; give its ETag as the plugin keeps it."""
        signed = self.sign(begun, number)
        assert signed.status == 200, signed
        sent = self.send("PUT", json.loads(signed.body)["url"], content)
        assert sent.status == 200, sent
        return sent["etag"].strip('"')

    def list_parts(self, begun: Begun) -> Reply:
        return self.ask("GET", f"/multipart/{begun.upload_id}?{_key(begun)}")

    def complete(self, begun: Begun, parts: PartList) -> Reply:
        told = {"parts": [{"PartNumber": number, "ETag": etag} for number, etag in parts]}
        return self.ask("POST", f"/multipart/{begun.upload_id}/complete?{_key(begun)}", told)

    def abort(self, begun: Begun) -> Reply:
        return self.ask("DELETE", f"/multipart/{begun.upload_id}?{_key(begun)}")

    # ---

    def ask(self, method: str, path: str, told: object = None) -> Reply:
        """Ask the companion."""
        fields: dict[str, Any] = dict(self._fields)
        body = b""
        if told is not None:
            body = told if isinstance(told, bytes) else json.dumps(told).encode()
            fields["Content-Type"] = "application/json"
        return request(self.port, method, f"{self._endpoint}{path}", fields, body)

    def send(self, method: str, url: str, content: bytes, fields: Fields | None = None) -> Reply:
        """Send bytes to a URL that the companion gave, wherever that leads."""
        parts = urlsplit(url)
        assert parts.port is not None
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        return request(parts.port, method, target, fields, content)


def cut(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Give number and bytes of the parts that the plugin cuts a file into."""
    for number, start in enumerate(range(0, len(content), PART_BYTES), 1):
        yield number, content[start : start + PART_BYTES]


def render_form(fields: Mapping[str, str], content: bytes) -> tuple[bytes, bytes, bytes]:
    """Give the bytes of a form as Chromium sends it: before its file, the file, behind it."""
    head = "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    head += (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="blob"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode(), content, f"\r\n--{BOUNDARY}--\r\n".encode()


def _key(begun: Begun) -> str:
    return urlencode({"key": begun.key})
