"""The rows of direct uploads: direct-upload and s3-direct-books."""

from __future__ import annotations

import json
import os
from urllib.parse import urlsplit

from bench.job import Outcome
from bench.load.closed_loop import Script
from bench.load.replies import RowFailed, expect
from bench.load.session import Session
from bench.load.small import Tally, measure

_JSON = b"Content-Type: application/json\r\n"


def direct_upload(session: Session) -> Outcome:
    """Every client begins an upload, sends it by one signed PUT, completes it, and starts over."""
    tally = Tally()
    size = session.sizes.small_bytes
    host, content = urlsplit(session.url).netloc.encode(), os.urandom(size)

    def render(method: bytes, path: bytes, body: bytes, fields: bytes = b"") -> bytes:
        head = b"%s %s HTTP/1.1\r\nHost: %s\r\n" % (method, path, host)
        return head + fields + b"Content-Length: %d\r\n\r\n" % len(body) + body

    begin = json.dumps({"kind": "single", "size": size, "filename": "bench.bin"}).encode()
    post = render(b"POST", b"/api/uploads", begin, _JSON)

    def client() -> Script:
        while True:
            begun = json.loads(expect((yield post), 201).body)
            url = urlsplit(begun["put"]["url"])
            put = render(b"PUT", f"{url.path}?{url.query}".encode(), content)
            etag = expect((yield put), 200).header(b"etag")
            if etag is None:
                raise RowFailed("the answer to a PUT has no ETag")
            report = {"parts": [{"part_number": 1, "etag": etag.decode()}]}
            path = f"/api/uploads/{begun['id']}/complete".encode()
            expect((yield render(b"POST", path, json.dumps(report).encode(), _JSON)), 202)
            tally.done += 1

    return measure(session, tally, (client() for _ in range(session.sizes.clients)))


def direct_books(session: Session) -> Outcome:
    """Every client lets the server begin, sign and complete one upload after another."""
    tally = Tally()
    post = session.requests.post(length=0)

    def client() -> Script:
        while True:
            expect((yield post), 204)
            tally.done += 1

    return measure(session, tally, (client() for _ in range(session.sizes.clients)))
