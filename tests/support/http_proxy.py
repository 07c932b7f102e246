"""A proxy that knows HTTP requests: it keeps a list of them, answers itself, or holds them back.

    with HttpProxy(server.port) as proxy:
        proxy.answer("PUT", 503, times=2)           # the next two PUTs are not passed on
        proxy.lose_answer("POST")                   # done, and nobody hears of it
        held = proxy.hold("PUT", after=3)           # three pass, those behind wait, bodies and all
        ...
        held.wait_reached()
        held.release()
        proxy.count("PUT")

A request is passed on once it is here as a whole, with the Host it came with. In front of an S3
service it works too: what was signed for its address stays so.
"""

import contextlib
import http.client
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.support.waiting import DEADLINE_S

_HOP = {"connection", "expect", "keep-alive", "transfer-encoding"}


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that was answered. status 0: by nobody, since the other side hung up."""

    method: str
    target: str
    headers: Mapping[str, str]
    size: int
    status: int


@dataclass(eq=False)
class _Rule:
    method: str
    target: re.Pattern[str]
    after: int
    times: float

    def takes(self, method: str, target: str) -> bool:
        if method != self.method or not self.target.search(target) or not self.times:
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return True


@dataclass(eq=False)
class _Answer(_Rule):
    status: int = 503
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(eq=False)
class _Loss(_Rule):
    """What is asked is done, and nobody hears of it."""


@dataclass(eq=False)
class Held(_Rule):
    """Requests that wait. targets: theirs, as they arrive."""

    targets: list[str] = field(default_factory=list)
    _reached: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)
    _is_dropped: bool = False

    def wait_reached(self) -> None:
        """Return once a request waits here."""
        assert self._reached.wait(DEADLINE_S), f"no {self.method} came to be held"

    def release(self) -> None:
        """Let those that wait go on, and all that come."""
        self._released.set()

    def drop(self) -> None:
        """Hang up on those that wait, and let all that come go on."""
        self._is_dropped = True
        self._released.set()

    def keep(self, target: str) -> bool:
        """Wait; tell whether to go on then."""
        if self._released.is_set():
            return True
        self.targets.append(target)
        self._reached.set()
        self._released.wait()
        return not self._is_dropped


class HttpProxy:
    """See the module. seen: the requests, in the order of their answers."""

    def __init__(self, port: int) -> None:
        self.target_port = port
        self.seen: list[Seen] = []
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        handler = type("_Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for rule in self._rules:
            if isinstance(rule, Held):
                rule.release()
        self._server.shutdown()
        self._server.server_close()

    def answer(
        self,
        method: str,
        status: int,
        *,
        target: str = "",
        after: int = 0,
        times: int = 1,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer requests to targets like that, once `after` of them have passed."""
        pattern = re.compile(target)
        self._rules.append(_Answer(method, pattern, after, times, status, body, headers or {}))

    def lose_answer(self, method: str, *, target: str = "", after: int = 0, times: int = 1) -> None:
        """Pass requests on, and hang up instead of answering."""
        self._rules.append(_Loss(method, re.compile(target), after, times))

    def hold(self, method: str, *, target: str = "", after: int = 0, times: float = 1e9) -> Held:
        """Hold requests back, once `after` of them have passed."""
        held = Held(method, re.compile(target), after, times)
        self._rules.append(held)
        return held

    def find(self, method: str, target: str = "") -> list[Seen]:
        """Give the requests that were answered well."""
        return [
            each
            for each in self.seen
            if each.method == method and re.search(target, each.target) and 200 <= each.status < 300
        ]

    def count(self, method: str, target: str = "") -> int:
        return len(self.find(method, target))

    def rule_for(self, method: str, target: str) -> _Rule | None:
        with self._lock:
            return next((rule for rule in self._rules if rule.takes(method, target)), None)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that was killed


class _Handler(BaseHTTPRequestHandler):
    proxy: HttpProxy
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size)
        if len(body) < size:
            self.close_connection = True
            return
        rule = self.proxy.rule_for(self.command, self.path)
        if isinstance(rule, Held) and not rule.keep(self.path):
            status, headers, content = 0, {}, b""
        elif isinstance(rule, _Answer):
            status, headers, content = rule.status, dict(rule.headers), rule.body
        else:
            status, headers, content = self._ask(body)
            if isinstance(rule, _Loss):
                status = 0
        self.proxy.seen.append(
            Seen(self.command, self.path, dict(self.headers.items()), size, status)
        )
        if not status:
            self.close_connection = True
            return
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        fields = {n: v for n, v in self.headers.items() if n.lower() not in _HOP}
        asked = http.client.HTTPConnection("127.0.0.1", self.proxy.target_port, timeout=60)
        with contextlib.closing(asked):
            try:
                asked.request(self.command, self.path, body, fields)
                reply = asked.getresponse()
                content = reply.read()
            except (OSError, http.client.HTTPException):
                return 0, {}, b""
        left_out = _HOP if self.command == "HEAD" else _HOP | {"content-length"}
        given = {n: v for n, v in reply.getheaders() if n.lower() not in left_out}
        return reply.status, given, content

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _pass_on

    def log_message(self, format: str, *args: object) -> None:
        pass
