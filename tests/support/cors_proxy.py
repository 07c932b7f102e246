"""What a bucket with CORS rules says to browsers, before an S3 service that has no such rules.

S3 sees the Host that was signed, so that a server with this endpoint signs URLs that lead here.
"""

import contextlib
import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.s3 import S3Service

TIMEOUT_S = 60.0
_HOP = {"connection", "expect", "keep-alive", "transfer-encoding", "content-length"}


@contextmanager
def add_cors(service: S3Service, origin: str) -> Iterator[str]:
    """Give the endpoint of a service as pages of `origin` may use it."""
    answers = {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "ETag"}
    handler = type("_Bound", (_Handler,), {"target": service.address, "answers": answers})
    with _Server(("127.0.0.1", 0), handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hung up


class _Handler(BaseHTTPRequestHandler):
    target: tuple[str, int]
    answers: dict[str, str]
    protocol_version = "HTTP/1.1"

    def _answer(self, status: int, fields: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in [*fields, *self.answers.items()]:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _allow(self) -> None:
        asked = self.headers.get("Access-Control-Request-Headers", "")
        allowed = [("Access-Control-Allow-Methods", "PUT")]
        self._answer(
            204, allowed + ([("Access-Control-Allow-Headers", asked)] if asked else []), b""
        )

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fields = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        with contextlib.closing(http.client.HTTPConnection(*self.target, timeout=TIMEOUT_S)) as s3:
            s3.request(
                self.command, self.path, body or None, fields | {"Content-Length": str(len(body))}
            )
            reply = s3.getresponse()
            content = reply.read()
        kept = [(name, value) for name, value in reply.getheaders() if name.lower() not in _HOP]
        if self.command == "HEAD" and reply.headers["content-length"]:
            kept.append(("Content-Length", reply.headers["content-length"]))
        self._answer(reply.status, kept, content)

    do_OPTIONS = _allow
    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def log_message(self, *args: object) -> None:
        pass
