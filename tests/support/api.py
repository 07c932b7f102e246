"""A client of the JSON API for tests: every reply is held to the server's own description."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

import httpx
import pytest

from tests.conftest import check_log
from tests.support.openapi import Document
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

PART_SIZE = 64 * 1024
MAX_SIZE = 10 * 1024**3


class Api:
    """The API of a server. fields: go with every request; prefix: what the server is mounted at."""

    def __init__(
        self, port: int, *, fields: Mapping[str, str] | None = None, prefix: str = ""
    ) -> None:
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers=dict(fields or {}), timeout=60.0
        )
        self.prefix = prefix
        self.document = Document(self.client.get(f"{prefix}/api/openapi.json").json(), prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.client.close()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send any request to the API."""
        reply = self.client.request(method, f"{self.prefix}/api{path}", **options)
        self.document.check(reply)
        return reply

    def begin(
        self,
        kind: str = "single",
        size: int | None = 5,
        *,
        key: str | None = None,
        **about: Any,
    ) -> dict[str, Any]:
        """Begin an upload that has to begin; give it."""
        reply = self.try_to_begin(kind, size, key=key, **about)
        assert reply.status_code == 201, reply.text
        view: dict[str, Any] = reply.json()
        return view

    def try_to_begin(
        self,
        kind: str = "single",
        size: int | None = 5,
        *,
        key: str | None = None,
        **about: Any,
    ) -> httpx.Response:
        fields = {} if key is None else {"Idempotency-Key": key}
        body = {"kind": kind, **about} | ({} if size is None else {"size": size})
        return self.request("POST", "/uploads", json=body, headers=fields)

    def find(self, upload_id: str) -> dict[str, Any]:
        view: dict[str, Any] = self.get(upload_id).json()
        return view

    def get(self, upload_id: str) -> httpx.Response:
        return self.request("GET", f"/uploads/{upload_id}")

    def page(self, **query: Any) -> dict[str, Any]:
        reply = self.request("GET", "/uploads", params=query)
        assert reply.status_code == 200, reply.text
        page: dict[str, Any] = reply.json()
        return page

    def post(
        self,
        upload_id: str,
        verb: str,
        body: Any = None,
        *,
        fields: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a verb of an upload: `complete`, `accept`, `parts/sign`, ..."""
        options = {} if body is None else {"json": body}
        return self.request(
            "POST", f"/uploads/{upload_id}/{verb}", headers=dict(fields or {}), **options
        )

    def delete(self, upload_id: str) -> httpx.Response:
        return self.request("DELETE", f"/uploads/{upload_id}")

    def parts(self, upload_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]]
        found = self.request("GET", f"/uploads/{upload_id}/parts").json()["parts"]
        return found

    def sign(self, upload_id: str, numbers: Sequence[int] | None = None) -> list[dict[str, Any]]:
        body = None if numbers is None else {"part_numbers": list(numbers)}
        reply = self.post(upload_id, "parts/sign", body)
        assert reply.status_code == 200, reply.text
        signed: list[dict[str, Any]] = reply.json()["parts"]
        return signed

    def send(self, signed: Mapping[str, Any], content: bytes) -> httpx.Response:
        """Make a signed request."""
        return httpx.request(
            signed["method"],
            signed["url"],
            content=content,
            headers=signed["headers"],
            timeout=60.0,
        )

    def send_all(self, upload_id: str, content: bytes) -> list[dict[str, Any]]:
        """Send every part; give the report for complete."""
        report = []
        for part in self.parts(upload_id):
            (signed,) = self.sign(upload_id, [part["part_number"]])
            piece = content[part["start"] : part["start"] + part["size"]]
            reply = self.send(signed, piece)
            assert reply.status_code == 200, reply.text
            report.append({"part_number": part["part_number"], "etag": reply.headers["etag"]})
        return report

    def upload(self, content: bytes = b"hello", kind: str = "single", **about: Any) -> str:
        """Upload by a direct upload until it is verified; give the id."""
        view = self.begin(kind, len(content), **about)
        report = self.send_all(view["id"], content)
        fields = {"Prefer": "wait=30"}
        reply = self.post(view["id"], "complete", {"parts": report}, fields=fields)
        assert reply.status_code == 200, reply.text
        assert state_of(reply.json()) == "verified", reply.text
        return str(view["id"])

    def wait_for(self, upload_id: str, state: str) -> dict[str, Any]:
        """Wait until an upload is in a state; give it."""
        wait_until(lambda: state_of(self.find(upload_id)) == state, f"it is {state}")
        return self.find(upload_id)


def state_of(view: Mapping[str, Any]) -> str:
    """Give the current state of an upload."""
    return str(view["status"]["current"]["state"])


def states_of(view: Mapping[str, Any]) -> list[str]:
    """Give all states of an upload, oldest first."""
    status = view["status"]
    return [change["state"] for change in [*reversed(status["prior"]), status["current"]]]


def code_of(reply: httpx.Response) -> tuple[int, str]:
    """Give status and code of a refusal."""
    assert reply.headers["content-type"] == "application/problem+json", reply.text
    problem = reply.json()
    assert problem["status"] == reply.status_code
    assert problem["title"]
    return reply.status_code, problem["code"]


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with small parts and no token, shared by all tests of the API."""
    with ExitStack() as stack:
        process = ServerProcess(
            tmp_path_factory.mktemp("api") / "data",
            TUS_DIRECT_PART_SIZE=str(PART_SIZE),
            TUS_MAX_SIZE=str(MAX_SIZE),
        )
        yield stack.enter_context(process)
        check_log(process.log)


@pytest.fixture(scope="session")
def _api(api_server: ServerProcess) -> Iterator[Api]:
    with Api(api_server.port) as client:
        yield client


@pytest.fixture
def api(_api: Api) -> Api:
    """A client of that server."""
    return _api
