"""Which protocol a request belongs to, and what is the same in both (tus page, sections 1, 4)."""

from collections.abc import Iterator

import pytest

from tests.e2e.values import UNKNOWN
from tests.support.http import Reply
from tests.support.rufh import INTEROP, WIRES, Rufh, Wire
from tests.support.stock import StockServer
from tests.support.tus import Tus

NEWEST = WIRES[-1]
VERSION_8 = WIRES[3]


@pytest.fixture
def plain_rufh(tus: Tus) -> Rufh:
    """A client that names no version."""
    return Rufh(tus.port, NEWEST)


def test_the_fields_of_tus_go_before_those_of_rufh(tus: Tus) -> None:
    """Row 4: RUFH-only fields are ignored."""
    reply = tus.create(5, fields={INTEROP: "6", "Upload-Complete": "?1"})

    assert reply.status == 201
    assert reply["tus-resumable"] == "1.0.0"
    assert INTEROP not in reply
    assert reply.interim == ()
    assert tus.offset(reply["location"]) == 0


def test_a_flag_alone_creates_in_the_newest_text(plain_rufh: Rufh) -> None:
    """Row 6."""
    reply = plain_rufh.create(b"hello", done=True)

    assert reply.status == 201
    assert reply.interim == ()
    plain_rufh.check_common(reply)


def test_nothing_at_all_is_tus_without_its_version(tus: Tus) -> None:
    """Row 8."""
    reply = tus.request("POST", tus.base, {"Tus-Resumable": None}, b"hello")

    assert reply.status == 412
    assert reply["tus-version"] == "1.0.0"


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
def test_an_upload_url_alone_is_answered_in_the_protocol_of_the_upload(
    tus: Tus, plain_rufh: Rufh, method: str
) -> None:
    """Row 9."""
    ours, theirs = plain_rufh.stored(b"he"), tus.stored(b"he", length=5)
    fields = plain_rufh.append_fields(2, True) if method == "PATCH" else {}
    body = b"llo" if method == "PATCH" else b""

    in_rufh = plain_rufh.request(method, ours, fields, body)
    in_tus = plain_rufh.request(method, theirs, fields, body)
    unknown = plain_rufh.request(method, UNKNOWN, fields, body)

    assert in_rufh.status == (201 if method == "PATCH" else 204)
    assert "tus-resumable" not in in_rufh
    assert in_tus.status == 412
    assert in_tus["tus-version"] == "1.0.0"
    assert unknown.status == 404


@pytest.mark.parametrize("method", ["HEAD", "PATCH"])
def test_the_other_protocol_is_400(tus: Tus, rufh: Rufh, method: str) -> None:
    """Section 1: an upload keeps the protocol that created it."""
    theirs, ours = tus.stored(b"he", length=5), rufh.stored(b"he", length=5)
    if rufh.wire.interop is None:
        return
    if method == "HEAD":
        over_rufh, over_tus = rufh.head(theirs), tus.head(rufh.path(ours))
    else:
        over_rufh = rufh.append(theirs, 2, b"llo", done=True)
        over_tus = tus.patch(rufh.path(ours), 2, b"llo")

    assert over_rufh.status == over_tus.status == 400
    assert over_tus["tus-resumable"] == "1.0.0"
    rufh.check_common(over_rufh)
    assert tus.offset(theirs) == rufh.offset(ours) == 2


def test_get_and_delete_work_from_either(tus: Tus, rufh: Rufh) -> None:
    """Section 1, row 3."""
    theirs, ours = tus.stored(b"hello"), rufh.path(rufh.finished(b"world"))

    assert rufh.get(theirs).body == b"hello"
    assert tus.get(ours).body == b"world"
    assert tus.request("GET", ours).body == b"world"
    assert tus.delete(ours).status == 204
    # Without any version a tus upload is met in tus, which wants one (T8).
    assert rufh.delete(theirs).status == (204 if rufh.wire.interop else 412)


def test_the_method_override_comes_first(rufh: Rufh) -> None:
    """Row 1: for every protocol."""
    url = rufh.stored(b"he")
    fields = rufh.append_fields(2, True) | {"X-HTTP-Method-Override": "PATCH"}

    appended = rufh.request("POST", url, fields, b"llo")
    head = rufh.request("POST", url, {"X-HTTP-Method-Override": "HEAD"})

    assert (appended.status, rufh.is_done(appended)) == (201, True)
    assert (head.status, head["upload-offset"]) == (204, "5")


@pytest.mark.parametrize("path", ["/files", "/files/"])
def test_both_forms_of_the_creation_url_answer(rufh: Rufh, path: str) -> None:
    """T130, R21."""
    reply = rufh.request("POST", path, rufh.flag(True), b"hello")

    assert reply.status == 201
    assert f"{reply['location']}/".count("/files/") == 1
    assert rufh.head(f"{reply['location']}/").status == 204


def test_a_head_block_that_is_too_large_is_431(rufh: Rufh) -> None:
    """T128: as a reply of the protocol."""
    reply = rufh.create(b"hello", done=True, fields={"X-Padding": "x" * 40_000})

    assert reply.status == 431
    rufh.check_common(reply)


@pytest.mark.parametrize("what", ["201", "204", "400", "404", "405", "409", "415"])
def test_a_page_can_read_every_reply(rufh: Rufh, what: str) -> None:
    """T129, section 4."""
    page = Rufh(rufh.port, rufh.wire, fields={"Origin": "https://app.example.com"})
    url = page.new()
    if what == "415" and not page.wire.needs_type:
        return
    reply = {
        "201": lambda: page.create(b"hello", done=True),
        "204": lambda: page.head(url),
        "400": lambda: page.append(url, "x", b"hello", done=True),
        "404": lambda: page.head(UNKNOWN),
        "405": lambda: page.request("PUT", page.base, page.flag(True), b"hello"),
        "409": lambda: page.append(url, 3, b"hello", done=False),
        "415": lambda: page.append(url, 0, b"hello", done=True, fields={"Content-Type": "a/b"}),
    }[what]()

    assert reply.status == int(what)
    assert reply["access-control-allow-origin"] == "*"
    exposed = reply.names("access-control-expose-headers")
    told = {name.lower() for name, _ in reply.fields}
    ours = {name for name in told if name.startswith(("upload-", "tus-", "location"))}
    assert ours <= exposed


# --- authorization


@pytest.fixture(scope="module")
def guarded_server(
    body_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StockServer]:
    """A server with tests.support.gate.Gate as its authorizer."""
    data_dir = tmp_path_factory.mktemp("guarded-rufh") / "data"
    http = "fast" if body_path == "fast" else "httptools"
    with StockServer("guarded", http, data_dir) as server:
        yield server


def user(server: StockServer, wire: Wire, name: str) -> Rufh:
    return Rufh(server.port, wire, fields={"Authorization": f"Bearer {name}"})


def shape(reply: Reply) -> object:
    """Give what can be told from a reply."""
    fields = [field for field in reply.fields if field[0].lower() != "date"]
    return reply.status, fields, reply.body


@pytest.mark.parametrize("state", ["unfinished", "finished"])
@pytest.mark.parametrize("method", ["HEAD", "GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("wire", [VERSION_8, NEWEST], ids=str)
def test_anothers_upload_is_as_one_that_never_was(
    guarded_server: StockServer, wire: Wire, method: str, state: str
) -> None:
    """R81, P9: not even its protocol or its offset is told."""
    ann, bob = user(guarded_server, wire, "ann"), user(guarded_server, wire, "bob")
    url = ann.finished(b"hello") if state == "finished" else ann.stored(b"he")
    fields = ann.append_fields(1, True) if method == "PATCH" else {}

    hers = bob.request(method, url, fields, b"")
    nobodys = bob.request(method, UNKNOWN, fields, b"")

    assert hers.status == 404
    assert shape(hers) == shape(nobodys)
    assert ann.head(url).status == 204


@pytest.mark.parametrize("wire", [VERSION_8, NEWEST], ids=str)
def test_a_malformed_append_to_anothers_upload_tells_nothing(
    guarded_server: StockServer, wire: Wire
) -> None:
    """R81: the syntax is looked at first, and the reply says nothing of the upload."""
    ann, bob = user(guarded_server, wire, "ann"), user(guarded_server, wire, "bob")
    url = ann.stored(b"he")

    reply = bob.append(url, "x", b"llo", done=True)

    assert "upload-offset" not in reply
    assert reply.status == (400 if wire.interop else 404)


@pytest.mark.parametrize("wire", [VERSION_8], ids=str)
def test_without_credentials_it_is_401(guarded_server: StockServer, wire: Wire) -> None:
    """Section 2.3."""
    nobody = Rufh(guarded_server.port, wire)

    reply = nobody.create(b"hello", done=True)

    assert reply.status == 401
    assert reply["www-authenticate"]
    assert "upload-complete" not in reply
    nobody.check_common(reply)


@pytest.mark.parametrize("wire", [VERSION_8], ids=str)
def test_who_may_not_create_is_told_so_without_a_104(
    guarded_server: StockServer, wire: Wire
) -> None:
    """P8, section 2.3."""
    reply = user(guarded_server, wire, "guest").create(b"hello", done=True)

    assert reply.status == 403
    assert reply.interim == ()
    assert "upload-complete" not in reply
