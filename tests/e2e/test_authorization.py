"""Who may do what, as far as the protocol shows it (T4, T14, T68; check 2 and 7)."""

from collections.abc import Iterator

import pytest

from tests.e2e.values import UNKNOWN
from tests.support.http import Reply
from tests.support.stock import StockServer
from tests.support.tus import BODY_TYPE, Tus

METHODS = ["HEAD", "PATCH", "DELETE", "GET"]


@pytest.fixture(scope="module")
def guarded_server(
    body_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StockServer]:
    """A server with tests.support.gate.Gate as its authorizer."""
    data_dir = tmp_path_factory.mktemp("guarded") / "data"
    http = "fast" if body_path == "fast" else "httptools"
    with StockServer("guarded", http, data_dir) as server:
        yield server


def user(server: StockServer, name: str | None) -> Tus:
    fields = {"Origin": "https://app.example.com"}
    if name is not None:
        fields["Authorization"] = f"Bearer {name}"
    return Tus(server.port, fields=fields)


def ask(tus: Tus, method: str, url: str) -> Reply:
    fields = {"Content-Type": BODY_TYPE, "Upload-Offset": "2", "Upload-Length": "5"}
    return tus.request(method, url, fields, b"llo" if method == "PATCH" else b"")


@pytest.mark.parametrize("method", ["POST", *METHODS])
def test_without_credentials_it_is_401(guarded_server: StockServer, method: str) -> None:
    """T4, T129: readable for a page, and with the version."""
    target = "/files/" if method == "POST" else user(guarded_server, "ann").new(5)

    reply = ask(user(guarded_server, None), method, target)

    assert reply.status == 401
    assert reply["www-authenticate"]
    assert reply["tus-resumable"] == "1.0.0"
    assert reply["access-control-allow-origin"] == "*"
    assert "upload-offset" not in reply
    assert "location" not in reply


def test_what_is_not_allowed_is_403(guarded_server: StockServer) -> None:
    """T4, T129."""
    reply = user(guarded_server, "guest").create(5)

    assert reply.status == 403
    assert reply["tus-resumable"] == "1.0.0"
    assert reply["access-control-allow-origin"] == "*"
    assert "location" not in reply


@pytest.mark.parametrize("method", ["POST", "HEAD", "PATCH", "DELETE", "GET"])
def test_a_defect_is_500_and_still_a_reply_of_ours(
    guarded_server: StockServer, method: str
) -> None:
    """T4, T129. C1: a HEAD that fails in any other way than 423 lets a client begin at byte 0."""
    target = "/files/" if method == "POST" else UNKNOWN

    reply = ask(user(guarded_server, "defect"), method, target)

    assert reply.status == (423 if method == "HEAD" else 500)
    assert reply["tus-resumable"] == "1.0.0"
    assert reply["access-control-allow-origin"] == "*"
    assert "upload-offset" not in reply
    if method != "HEAD":
        assert reply.problem()["code"] == "internal_error"
        assert b"ordered by a test" not in reply.body


def test_a_preflight_needs_no_credentials(guarded_server: StockServer) -> None:
    """T129: browsers send none with it."""
    assert user(guarded_server, None).options().status == 204


def test_the_override_is_the_method_that_is_authorized(guarded_server: StockServer) -> None:
    """T14: neither can a DELETE be hidden, nor does a hidden method count."""
    keeper = user(guarded_server, "keeper")
    url = keeper.new(5)

    hidden = keeper.request("POST", url, {"X-HTTP-Method-Override": "DELETE"})
    turned = keeper.request("DELETE", url, {"X-HTTP-Method-Override": "HEAD"})

    assert hidden.status == 403
    assert turned.status == 200
    assert keeper.delete(url).status == 403
    assert keeper.offset(url) == 0


@pytest.mark.parametrize("finished", [False, True], ids=["unfinished", "finished"])
@pytest.mark.parametrize("versioned", [True, False], ids=["tus", "bare"])
def test_another_users_upload_is_as_one_that_never_was(
    guarded_server: StockServer, finished: bool, versioned: bool
) -> None:
    """T8, T18, T96: nothing tells that it exists."""
    ann, bob = user(guarded_server, "ann"), user(guarded_server, "bob")
    url = ann.stored(b"hello" if finished else b"he", length=5)
    fields = {} if versioned else {"Tus-Resumable": None}

    with ann.unchanged(url, b"hello"):
        for method in METHODS:
            theirs = bob.request(method, url, fields | {"Upload-Offset": "2"})
            nobodys = bob.request(method, UNKNOWN, fields | {"Upload-Offset": "2"})

            assert theirs.status == nobodys.status, method
            assert theirs.body == nobodys.body, method
            assert theirs.status in (404, 412, 415), method
        assert bob.patch(url, 2, b"llo").status == 404
        assert bob.delete(url).status == 404


def test_who_may_not_gets_no_100(guarded_server: StockServer) -> None:
    """T68: the body is not asked for."""
    url = user(guarded_server, "ann").new(5)
    fields = {
        "Content-Type": BODY_TYPE,
        "Content-Length": "5",
        "Upload-Length": "5",
        "Upload-Offset": "0",
        "Expect": "100-continue",
    }

    for name, method, target, status in (
        (None, "PATCH", url, 401),
        ("bob", "PATCH", url, 404),
        ("guest", "POST", "/files/", 403),
    ):
        tus = user(guarded_server, name)
        with tus.connect() as connection:
            connection.send_head(method, target, tus.fields | fields)

            assert connection.read_one_head().status == status
