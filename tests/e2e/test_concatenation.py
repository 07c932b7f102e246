"""Concatenation: partial uploads, and final ones that consist of them (T98-T118)."""

from collections.abc import Iterator, Sequence

import pytest

from tests.conftest import ServerFactory, check_log
from tests.e2e.conftest import LIMITED_MAX_SIZE, LIMITED_PART_SIZE
from tests.e2e.values import UNKNOWN, shown
from tests.support.checksums import checksum
from tests.support.http import Fields, FieldValue, Reply, render_head
from tests.support.records import Records, upload_id
from tests.support.server import ServerProcess
from tests.support.stock import StockServer
from tests.support.tus import BODY_TYPE, Tus, encode_metadata, pattern
from tests.support.waiting import wait_until

PART = LIMITED_PART_SIZE


def partial(
    tus: Tus, content: bytes, *, length: int | None = -1, fields: Fields | None = None
) -> str:
    """Create a partial upload that has `content` so far; length -1: that is all of it."""
    declared = len(content) if length == -1 else length
    given: Fields = {"Upload-Concat": "partial", **(fields or {})}
    reply = tus.create(declared, body=content, fields=given)
    assert reply.status == 201, reply
    return reply["location"]


def final(tus: Tus, urls: Sequence[str], fields: Fields | None = None) -> Reply:
    """POST a final upload of these."""
    given: Fields = {"Upload-Concat": "final;" + " ".join(urls), **(fields or {})}
    return tus.request("POST", tus.base, given)


def joined(tus: Tus, urls: Sequence[str], fields: Fields | None = None) -> str:
    """Create a final upload and give its URL."""
    reply = final(tus, urls, fields)
    assert reply.status == 201, reply
    return reply["location"]


def wait_done(tus: Tus, url: str) -> Reply:
    """Give the reply to a HEAD of a final upload once it is done."""

    def probe() -> Reply | None:
        reply = tus.head(url)
        assert reply.status in (200, 423), reply
        return reply if "upload-offset" in reply else None

    found = wait_until(probe, "the final upload is done")
    assert found is not None
    return found


# --- what is offered


def test_concatenation_is_advertised(tus: Tus) -> None:
    """T98, T105."""
    assert tus.options().names("tus-extension") >= {"concatenation", "concatenation-unfinished"}


# --- the usual way


def test_partials_become_one_upload_in_the_given_order(tus: Tus, records: Records) -> None:
    """T99-T103, T110, T113: b, a."""
    a, b = partial(tus, b"world"), partial(tus, b"hello ")

    reply = final(tus, [b, a])

    url = reply["location"]
    assert reply.status == 201
    assert "upload-offset" not in reply or reply["upload-offset"] == "11"
    head = wait_done(tus, url)
    assert (head["upload-offset"], head["upload-length"]) == ("11", "11")
    assert head["upload-concat"] == f"final;{b} {a}"
    assert "upload-expires" not in head
    assert tus.content(url) == b"hello world"
    assert records.events(url) == ["verified"]


def test_a_partial_upload_tells_what_it_is(tus: Tus) -> None:
    """T99, T111, T112, T113: known length, and deferred."""
    known, deferred = partial(tus, b"he", length=5), partial(tus, b"he", length=None)

    head = tus.head(known)
    assert (head["upload-offset"], head["upload-length"]) == ("2", "5")
    assert head["upload-concat"] == "partial"
    assert "upload-defer-length" not in head
    head = tus.head(deferred)
    assert (head["upload-offset"], head["upload-defer-length"]) == ("2", "1")
    assert "upload-length" not in head
    assert head["upload-concat"] == "partial"
    assert "upload-concat" not in tus.head(tus.new(5))


def test_a_partial_upload_is_no_event(tus: Tus, records: Records) -> None:
    """T100: the application hears of what it is part of, only."""
    whole, empty = partial(tus, b"hello"), partial(tus, b"")
    pieces = partial(tus, b"wo", length=5)
    tus.append(pieces, 2, b"rld")

    assert [records.events(url) for url in (whole, empty, pieces)] == [[], [], []]
    assert records.events(joined(tus, [whole, pieces])) == ["verified"]


def test_upload_concat_says_nothing_outside_post(tus: Tus) -> None:
    """T99: tus-js-client sends it with HEAD and PATCH too."""
    url = partial(tus, b"", length=5)

    for value in ("partial", "nonsense", "final;/files/x"):
        assert tus.head(url, {"Upload-Concat": value}).status == 200
    assert tus.patch(url, 0, b"hello", fields={"Upload-Concat": "partial"}).status == 204
    assert tus.content(joined(tus, [url])) == b"hello"


@pytest.mark.parametrize("count", [1, 2, 100])
def test_any_number_of_partials_is_joined(tus: Tus, count: int) -> None:
    """T101-T103."""
    pieces = [pattern(number % 7 * 100 + number, seed=number) for number in range(count)]

    url = joined(tus, [partial(tus, piece) for piece in pieces])

    assert wait_done(tus, url)["upload-length"] == str(sum(map(len, pieces)))
    assert tus.content(url) == b"".join(pieces)


SIZES: dict[str, list[int]] = {
    "all empty": [0, 0, 0],
    "one empty": [0],
    "empty between": [0, 5, 0, 0, 7, 0],
    "tiny": [1, 1, 1, 1, 1],
    "around a part": [PART - 1, 1, PART, PART + 1],
    "large and tiny": [2 * PART + 3, 1, 0, PART // 2],
    "all that is taken": [LIMITED_MAX_SIZE - PART, PART],
}


@pytest.mark.parametrize("case", SIZES)
def test_partials_of_any_size_are_joined(limited: Tus, case: str) -> None:
    """T102, T103."""
    pieces = [pattern(size, seed=number) for number, size in enumerate(SIZES[case])]

    url = joined(limited, [partial(limited, piece) for piece in pieces])

    head = wait_done(limited, url)
    assert head["upload-offset"] == head["upload-length"] == str(sum(SIZES[case]))
    assert limited.content(url) == b"".join(pieces)
    whole = b"".join(pieces)
    if len(whole) > 10:
        assert limited.get(url, {"Range": "bytes=3-8"}).body == whole[3:9]


def test_a_partial_may_be_used_more_than_once(tus: Tus) -> None:
    """T107: in one final upload, and in several, while it is kept."""
    a, b = partial(tus, b"ab"), partial(tus, b"-")

    first = joined(tus, [a, b, a, a])
    second = joined(tus, [b, a])

    assert tus.content(first) == b"ab-abab"
    assert tus.content(second) == b"-ab"


def test_a_final_upload_has_its_own_metadata_only(tus: Tus) -> None:
    """T106."""
    theirs, own = encode_metadata({"filename": "part.bin"}), encode_metadata({"filename": "a.txt"})
    a = partial(tus, b"hello", fields={"Upload-Metadata": theirs})

    bare, named = joined(tus, [a]), joined(tus, [a], {"Upload-Metadata": own})

    assert "upload-metadata" not in tus.head(bare)
    assert tus.head(named)["upload-metadata"] == own
    assert "a.txt" in tus.get(named)["content-disposition"]
    assert "part.bin" not in str(tus.get(bare).fields)


def test_a_final_upload_is_ended_like_any_other(tus: Tus, records: Records) -> None:
    """T94, T96: and its partials stay what they are."""
    a = partial(tus, b"hello")
    url = joined(tus, [a])

    assert tus.delete(url).status == 204
    for method in ("HEAD", "DELETE", "GET"):
        assert tus.request(method, url).status == 404
    assert records.events(url) == ["verified", "deleted"]
    assert tus.content(joined(tus, [a])) == b"hello"


def test_checked_partials_are_joined(tus: Tus) -> None:
    """T82, T99: parallel uploads with checksums."""
    fields = {"Upload-Checksum": checksum("sha256", b"hello")}
    wrong = tus.create(5, body=b"hullo", fields={"Upload-Concat": "partial", **fields})

    assert wrong.status == 460
    assert tus.content(joined(tus, [partial(tus, b"hello", fields=fields)] * 2)) == b"hellohello"


# --- before the partials are complete


def test_a_final_upload_waits_for_its_partials(tus: Tus, records: Records) -> None:
    """T105, T109, T103: created first, done when the last of them is."""
    a, b = partial(tus, b"", length=5), partial(tus, b"wo", length=5)

    url = joined(tus, [a, b])

    for expected in range(3):
        head = tus.head(url)
        assert head.status == 200
        assert head["upload-concat"] == f"final;{a} {b}"
        assert head["upload-length"] == "10"
        assert "upload-offset" not in head
        assert "upload-defer-length" not in head
        assert tus.get(url).status == 404
        assert records.events(url) == []
        if expected == 0:
            tus.append(a, 0, b"hello")
        elif expected == 1:
            assert tus.patch(b, 2, b"r").status == 204
    assert tus.append(b, 3, b"ld") == 5
    head = wait_done(tus, url)
    assert (head["upload-offset"], head["upload-length"]) == ("10", "10")
    assert tus.content(url) == b"helloworld"
    assert records.events(url) == ["verified"]


def test_the_length_of_a_final_upload_is_told_as_soon_as_it_is_known(tus: Tus) -> None:
    """T112: one partial with a deferred length hides it."""
    a, b = partial(tus, b"", length=None), partial(tus, b"world")

    url = joined(tus, [a, b])

    assert "upload-length" not in tus.head(url)
    assert "upload-defer-length" not in tus.head(url)
    assert tus.patch(a, 0, b"hel", length=5).status == 204
    assert tus.head(url)["upload-length"] == "10"
    assert "upload-offset" not in tus.head(url)
    tus.append(a, 3, b"lo")
    assert wait_done(tus, url)["upload-length"] == "10"
    assert tus.content(url) == b"helloworld"


def test_several_final_uploads_wait_for_the_same_partial(tus: Tus) -> None:
    """T105, T107."""
    a, b = partial(tus, b"", length=5), partial(tus, b"-")
    urls = [joined(tus, [a]), joined(tus, [b, a, b]), joined(tus, [a, a])]

    tus.append(a, 0, b"hello")

    for url, content in zip(urls, (b"hello", b"-hello-", b"hellohello"), strict=True):
        wait_done(tus, url)
        assert tus.content(url) == content


def test_a_final_upload_may_be_ended_while_it_waits(tus: Tus, records: Records) -> None:
    """T94."""
    a = partial(tus, b"", length=5)
    url = joined(tus, [a])

    assert tus.delete(url).status == 204
    assert tus.head(url).status == 404
    assert tus.append(a, 0, b"hello") == 5
    assert tus.content(joined(tus, [a])) == b"hello"
    assert records.events(url) == ["canceled"]


@pytest.mark.parametrize("how", ["delete", "another one"])
def test_a_final_upload_whose_partial_is_lost_is_404(tus: Tus, how: str) -> None:
    """T105: it can never be finished."""
    a, b = partial(tus, b"", length=5), partial(tus, b"", length=5)
    url = joined(tus, [a, b])

    assert tus.delete(a).status == 204
    if how == "another one":
        tus.append(b, 0, b"world")

    wait_until(lambda: tus.head(url).status == 404, "it is gone")
    assert tus.get(url).status == 404
    assert tus.patch(url, 0, b"x").status in (403, 404)


def test_a_killed_server_finishes_a_final_upload(fresh_server: ServerFactory) -> None:
    """T105, P5: what waits is joined after a restart, whenever its last partial comes."""
    server = fresh_server()
    tus = Tus(server.port)
    a, b = partial(tus, b"", length=5), partial(tus, b"world")
    url = joined(tus, [a, b])

    server.kill()
    server.start()
    assert "upload-offset" not in tus.head(url)
    tus.append(a, 0, b"hello")

    assert wait_done(tus, url)["upload-offset"] == "10"
    assert tus.content(url) == b"helloworld"
    assert Records(server.data_dir).events(url) == ["verified"]


# --- no bytes for a final upload


@pytest.mark.parametrize("state", ["done", "waiting"])
def test_a_patch_of_a_final_upload_is_403(tus: Tus, state: str) -> None:
    """T108: whatever it says."""
    a = partial(tus, b"hello" if state == "done" else b"", length=5)
    url = joined(tus, [a])
    before = tus.status(url)

    for offset, body, fields in (
        (0, b"hello", {}),
        (5, b"", {}),
        (5, b"!", {}),
        (3, b"", {}),
        (99, b"hello", {}),
        (0, b"", {"Upload-Length": "5"}),
        (5, b"hello", {"Upload-Checksum": checksum("sha1", b"other")}),
    ):
        for chunked in (False, True):
            reply = tus.patch(url, offset, body, fields=fields, chunked=chunked)
            assert reply.status == 403, (offset, body, fields)
            assert reply.problem()["code"] == "final_upload"
    assert tus.status(url) == before
    if state == "waiting":
        tus.append(a, 0, b"hello")
        wait_done(tus, url)
    assert tus.content(url) == b"hello"


def test_a_patch_of_a_final_upload_gets_no_100(tus: Tus) -> None:
    """T68, T108."""
    url = joined(tus, [partial(tus, b"hello")])
    fields = {"Content-Type": BODY_TYPE, "Upload-Offset": "5", "Content-Length": "5"}

    with tus.connect() as connection:
        connection.send_head("PATCH", url, tus.fields | fields | {"Expect": "100-continue"})

        assert connection.read_one_head().status == 403


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_a_final_upload_with_a_body_is_403(tus: Tus, records: Records, chunked: bool) -> None:
    """T116."""
    a = partial(tus, b"hello")

    with records.nothing_created():
        fields: Fields = {"Upload-Concat": f"final;{a}", "Content-Type": BODY_TYPE}
        reply = tus.request("POST", tus.base, fields, b"hello", chunked=chunked)

        assert reply.status == 403
        assert "location" not in reply


# --- refused


@pytest.mark.parametrize(
    "field", [{"Upload-Length": "5"}, {"Upload-Length": "0"}, {"Upload-Defer-Length": "1"}], ids=str
)
def test_a_final_upload_has_no_length_of_its_own(tus: Tus, records: Records, field: Fields) -> None:
    """T104."""
    a = partial(tus, b"hello")

    with records.nothing_created():
        assert final(tus, [a], field).status == 400


BAD_VALUES: list[FieldValue] = [
    "",
    "Partial",
    "final",
    "final;",
    "final; ",
    "finals;UPLOAD",
    "final UPLOAD",
    "partial;UPLOAD",
    "final;UPLOAD,UPLOAD",
    "final;UPLOAD\tUPLOAD",
    "final;\xe4",
    "final;" + UNKNOWN,
    "final;UPLOAD " + UNKNOWN,
    "final;/files/",
    "final;/files",
    "final;/",
    "final;/other/ID",
    "final;/ID",
    "final;http://[/files/ID",
    "final;UPLOADx",
    "final;/files/../etc/passwd",
    "final;" + "/a " * 1001,
    "final;" + "UPLOAD " * 200 + "/a",
    ["partial", "partial"],
    ["final;UPLOAD", "UPLOAD"],
]


@pytest.mark.parametrize("value", BAD_VALUES, ids=shown)
def test_any_other_upload_concat_is_400(tus: Tus, records: Records, value: FieldValue) -> None:
    """T115."""
    a = partial(tus, b"hello")

    def filled(text: str) -> str:
        return text.replace("UPLOAD", a).replace("ID", upload_id(a))

    assert value is not None
    given = filled(value) if isinstance(value, str) else [filled(str(one)) for one in value]
    is_final = "final" in str(value)
    with records.nothing_created():
        fields: Fields = {"Upload-Concat": given} | ({} if is_final else {"Upload-Length": "5"})
        reply = tus.request("POST", tus.base, fields)

        assert reply.status == 400
        assert reply.problem()["code"] in ("malformed_header", "unusable_partial")
        assert "location" not in reply


@pytest.mark.parametrize("kind", ["ordinary", "unfinished", "final", "deleted"])
def test_only_partial_uploads_can_be_joined(tus: Tus, records: Records, kind: str) -> None:
    """T115: also behind one that could be."""
    a = partial(tus, b"hello")
    url = {
        "ordinary": lambda: tus.stored(b"hello"),
        "unfinished": lambda: tus.new(5),
        "final": lambda: joined(tus, [a]),
        "deleted": lambda: partial(tus, b"hello"),
    }[kind]()
    if kind == "deleted":
        assert tus.delete(url).status == 204

    with records.nothing_created():
        for urls in ([url], [a, url], [url, a]):
            reply = final(tus, urls)
            assert reply.status == 400
            assert reply.problem()["code"] == "unusable_partial"


def test_a_sum_beyond_the_maximum_is_413(limited: Tus, limited_server: ServerProcess) -> None:
    """T117: of known lengths, of what has arrived, and with repetitions."""
    half = LIMITED_MAX_SIZE // 2 + 1
    a, b = partial(limited, b"", length=half), partial(limited, b"", length=half)

    with Records(limited_server.data_dir).nothing_created():
        assert final(limited, [a, b]).status == 413
        assert final(limited, [a, a]).status == 413
    assert final(limited, [a]).status == 201


def test_partial_urls_take_many_forms(tus: Tus) -> None:
    """T114: by their path alone; and HEAD gives each back as it came (T113)."""
    a = partial(tus, b"ab")
    known = upload_id(a)
    forms = [
        a,
        a + "/",
        f"http://127.0.0.1:{tus.port}{a}",
        f"https://files.example.com{a}/",
        f"//other.example.net:1{a}",
        known,
        f"./{known}",
        a.replace("f", "%66", 1),
        f"{a}?x=1",
    ]

    url = joined(tus, forms)

    assert wait_done(tus, url)["upload-concat"] == "final;" + " ".join(forms)
    assert tus.content(url) == b"ab" * len(forms)


def test_upload_concat_is_given_back_as_it_came(tus: Tus) -> None:
    """T113: more spaces than needed included."""
    a = partial(tus, b"ab")
    raw = f"final;{a}  {a}"
    request = render_head("POST", tus.base, tus.fields | {"Host": "a", "Upload-Concat": raw})

    with tus.connect() as connection:
        connection.expect_reply_to("POST")
        connection.send(request)
        url = connection.read_reply()["location"]

    assert wait_done(tus, url)["upload-concat"] == raw
    assert tus.content(url) == b"abab"


# --- who may


@pytest.fixture(scope="module")
def guarded(body_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StockServer]:
    """A server where each sees only own uploads."""
    data_dir = tmp_path_factory.mktemp("guarded-concat") / "data"
    http = "fast" if body_path == "fast" else "httptools"
    with StockServer("guarded", http, data_dir) as server:
        yield server
        check_log(server.log)


def test_a_partial_of_somebody_else_is_as_if_unknown(guarded: StockServer) -> None:
    """T118: the same reply, so nobody learns that it is there."""
    ann, bob = (
        Tus(guarded.port, fields={"Authorization": f"Bearer {name}"}) for name in ("ann", "bob")
    )
    theirs, own = partial(ann, b"hello"), partial(bob, b"world")
    records = Records(guarded.data_dir)

    with records.nothing_created():
        foreign, unknown = final(bob, [own, theirs]), final(bob, [own, UNKNOWN])

        assert foreign.status == unknown.status == 400
        assert foreign.problem() == unknown.problem()
    assert ann.content(joined(ann, [theirs])) == b"hello"
    assert bob.content(joined(bob, [own])) == b"world"
    assert ann.head(joined(bob, [own])).status == 404


# --- what becomes of partials


def test_partials_are_kept_where_that_is_wanted(fresh_server: ServerFactory) -> None:
    """T107."""
    server = fresh_server(TUS_KEEP_PARTIALS="true", TUS_EXPIRES_AFTER_S="0")
    tus = Tus(server.port)
    a = partial(tus, b"hello")

    url = joined(tus, [a])

    assert tus.content(url) == b"hello"
    assert "upload-expires" not in tus.head(a)
    assert tus.content(joined(tus, [a, a])) == b"hellohello"


def test_used_partials_expire(fresh_server: ServerFactory) -> None:
    """T107: an hour later, also where nothing else expires."""
    server = fresh_server(TUS_EXPIRES_AFTER_S="0")
    tus = Tus(server.port)
    a = partial(tus, b"hello")
    assert "upload-expires" not in tus.head(a)

    url = joined(tus, [a])

    wait_done(tus, url)
    wait_until(lambda: "upload-expires" in tus.head(a), "the partial is going to expire")
    assert "upload-expires" not in tus.head(url)


@pytest.mark.full
@pytest.mark.parametrize("count", [10])
def test_large_partials_are_joined(tus: Tus, count: int) -> None:
    """T102: with the parts that the server has by default."""
    size = 20 * 1024 * 1024 + 1
    pieces = [pattern(size, seed=number) for number in range(count)]

    url = joined(tus, [partial(tus, piece) for piece in pieces])

    assert wait_done(tus, url)["upload-length"] == str(count * size)
    assert tus.content(url) == b"".join(pieces)
