"""The companionEndpoint of Uppy's S3 plugin, many parts: request by request as the plugin asks."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import ServerFactory
from tests.support.companion import PART_BYTES, Begun, Plugin, cut
from tests.support.http import Reply, request
from tests.support.records import Records
from tests.support.server import REPOSITORY, ServerProcess
from tests.support.stock import StockServer
from tests.support.tus import Tus, pattern

SIZE = 2 * PART_BYTES + 17
TOKEN = "a-token-of-32-characters-or-more"


@pytest.fixture
def plugin(server: ServerProcess) -> Plugin:
    return Plugin(server.port)


def told(reply: Reply) -> Any:
    assert reply.status == 200, reply
    assert reply["content-type"] == "application/json"
    return json.loads(reply.body)


def send_all(plugin: Plugin, begun: Begun, content: bytes) -> list[tuple[int, str]]:
    return [(number, plugin.send_part(begun, number, piece)) for number, piece in cut(content)]


def path_of(location: str) -> str:
    return "/" + location.split("/", 3)[3]


def test_parts_become_a_file(plugin: Plugin, tus: Tus, records: Records) -> None:
    content = pattern(SIZE)
    begun = plugin.new(SIZE, "film.mp4")
    parts = send_all(plugin, begun, content)

    completed = told(plugin.complete(begun, parts))

    assert completed["location"] == f"http://127.0.0.1:{tus.port}/files/{begun.upload_id}"
    assert completed["key"] == begun.key
    assert records.state(completed["location"]) == "verified"
    file = tus.get(path_of(completed["location"]))
    assert file.body == content
    assert 'filename="film.mp4"' in file["content-disposition"]


def test_metadata_is_kept_without_what_was_for_the_server(plugin: Plugin, records: Records) -> None:
    reply = plugin.begin("a.txt", size=1, part_size=5, relativePath=None, caption="ü", n=1)
    begun = told(reply)

    rows = records.query("SELECT metadata FROM uploads WHERE id = ?", begun["uploadId"])
    assert rows == [("caption w7w=,n MQ==,filename YS50eHQ=,filetype dGV4dC9wbGFpbg==",)]


def test_a_page_loaded_again_sends_what_is_missing(plugin: Plugin, tus: Tus) -> None:
    content = pattern(SIZE)
    begun = plugin.new(SIZE)
    pieces = dict(cut(content))
    assert told(plugin.list_parts(begun)) == []
    etag = plugin.send_part(begun, 2, pieces[2])

    listed = told(plugin.list_parts(begun))

    assert listed == [{"PartNumber": 2, "Size": PART_BYTES, "ETag": f'"{etag}"'}]
    sent = [(number, plugin.send_part(begun, number, pieces[number])) for number in (1, 3)]
    # As it was listed: with its quotes.
    completed = told(plugin.complete(begun, [sent[0], (2, listed[0]["ETag"]), sent[1]]))
    assert tus.content(path_of(completed["location"])) == content


def test_an_answer_that_was_lost_is_given_again(plugin: Plugin, tus: Tus, records: Records) -> None:
    content = pattern(SIZE)
    begun = plugin.new(SIZE)
    parts = send_all(plugin, begun, content)
    first = told(plugin.complete(begun, parts))

    listed = told(plugin.list_parts(begun))
    again = told(plugin.complete(begun, [(one["PartNumber"], one["ETag"]) for one in listed]))

    assert len(listed) == 3
    assert again == first
    assert records.events(first["location"]) == ["verified"]


def test_a_part_that_is_sent_again_replaces_the_first(plugin: Plugin, tus: Tus) -> None:
    content = pattern(SIZE)
    begun = plugin.new(SIZE)
    stale = plugin.send_part(begun, 1, pattern(PART_BYTES, seed=1))
    parts = send_all(plugin, begun, content)

    refused = plugin.complete(begun, [(1, stale), *parts[1:]])
    completed = told(plugin.complete(begun, parts))

    assert (refused.status, refused.problem()["code"]) == (409, "parts_differ")
    assert refused.problem()["part"] == 1
    assert tus.content(path_of(completed["location"])) == content


def test_the_plugin_may_cut_larger_parts(plugin: Plugin, tus: Tus) -> None:
    content, size = pattern(SIZE), PART_BYTES + 10
    reply = told(plugin.begin("a", size=SIZE, part_size=size))
    begun = Begun(reply["uploadId"], reply["key"])

    parts = [
        (number, plugin.send_part(begun, number, content[start : start + size]))
        for number, start in ((1, 0), (2, size))
    ]

    assert tus.content(path_of(told(plugin.complete(begun, parts))["location"])) == content


def test_a_small_file_is_one_part(plugin: Plugin, tus: Tus) -> None:
    begun = plugin.new(5)

    parts = send_all(plugin, begun, b"hello")

    assert tus.content(path_of(told(plugin.complete(begun, parts))["location"])) == b"hello"


def test_the_page_of_the_docs_is_the_one_that_is_tested() -> None:
    """tests/browser/test_s3_plugin.py has it in Chromium."""
    script = (REPOSITORY / "tests/browser/s3_plugin/uploader.js").read_text("utf-8")

    assert f"```js\n{script}```" in (REPOSITORY / "docs/direct-uploads.md").read_text("utf-8")


# --- what is refused


def test_without_the_size_the_page_is_told_what_it_lacks(plugin: Plugin, records: Records) -> None:
    with records.nothing_created():
        refused = plugin.begin("a", name="a")

    assert (refused.status, refused.problem()["code"]) == (400, "malformed_request")
    assert "setFileMeta(id, { size:" in refused.problem()["detail"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"metadata": 1}', b'{"metadata": {"size": -1}}']
)
def test_a_beginning_that_makes_no_sense_is_refused(plugin: Plugin, body: bytes) -> None:
    refused = plugin.ask("POST", "/multipart", body)

    assert (refused.status, refused.problem()["code"]) == (400, "malformed_request")


def test_names_of_metadata_that_cannot_be_kept_are_refused(plugin: Plugin) -> None:
    refused = plugin.begin("a", size=1, **{"two words": "x"})

    assert (refused.status, refused.problem()["code"]) == (400, "malformed_metadata")


def test_a_file_over_the_limit_is_refused(fresh_server: ServerFactory) -> None:
    plugin = Plugin(fresh_server(TUS_MAX_SIZE="1000").port)

    assert plugin.begin("a", size=1001).status == 413
    assert plugin.begin("a", size=1000).status == 200


def test_a_body_without_end_is_not_read_to_its_end(plugin: Plugin) -> None:
    refused = plugin.ask("POST", "/multipart", b" " * (5 * 1024 * 1024))

    assert (refused.status, refused.problem()["code"]) == (413, "request_too_large")


def test_what_a_page_may_send_without_asking_is_not_taken(plugin: Plugin, records: Records) -> None:
    with records.nothing_created():
        refused = request(
            plugin.port,
            "POST",
            "/companion/s3/multipart",
            {"Content-Type": "text/plain"},
            b'{"metadata": {"size": 1}}',
        )

    assert (refused.status, refused.problem()["code"]) == (415, "unsupported_media_type")


def test_id_and_key_belong_together(plugin: Plugin) -> None:
    one, other = plugin.new(5), plugin.new(5)
    wrong = [replace(one, key=other.key), replace(one, key=""), Begun("0" * 32, "0" * 32)]
    wrong += [Begun("no-id", "no-id"), Begun("%2E%2E", "..")]

    for begun in wrong:
        for reply in (
            plugin.sign(begun, 1),
            plugin.list_parts(begun),
            plugin.complete(begun, []),
            plugin.abort(begun),
        ):
            assert (reply.status, reply.problem()["code"]) == (404, "upload_not_found")
    assert plugin.ask("GET", f"/multipart/{one.upload_id}").status == 404
    assert plugin.sign(one, 1).status == 200


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("0", "unknown_part"),
        ("4", "unknown_part"),
        ("x", "malformed_request"),
        ("-1", "malformed_request"),
    ],
)
def test_a_part_that_is_not_planned_is_not_signed(plugin: Plugin, number: str, code: str) -> None:
    refused = plugin.sign(plugin.new(SIZE), number)

    assert (refused.status, refused.problem()["code"]) == (400, code)


def test_a_part_of_another_size_is_not_taken(plugin: Plugin) -> None:
    begun = plugin.new(SIZE)
    url = told(plugin.sign(begun, 3))["url"]

    for content in (b"x" * 16, b"x" * 18):
        refused = plugin.send("PUT", url, content)
        assert (refused.status, refused.problem()["code"]) == (403, "signature_refused")
    assert told(plugin.list_parts(begun)) == []


@pytest.mark.parametrize(
    ("numbers", "status", "code"),
    [
        ([], 409, "parts_differ"),
        ([1], 409, "parts_differ"),
        ([1, 1], 400, "malformed_request"),
        ([1, 2, 9], 400, "unknown_part"),
    ],
)
def test_a_completion_of_other_parts_changes_nothing(
    plugin: Plugin, tus: Tus, numbers: list[int], status: int, code: str
) -> None:
    content = pattern(SIZE)
    begun = plugin.new(SIZE)
    sent = send_all(plugin, begun, content)

    refused = plugin.complete(begun, [(number, dict(sent).get(number, "x")) for number in numbers])

    assert (refused.status, refused.problem()["code"]) == (status, code)
    completed = told(plugin.complete(begun, sent))
    assert tus.content(path_of(completed["location"])) == content


def test_a_completion_that_makes_no_sense_is_refused(plugin: Plugin) -> None:
    begun = plugin.new(5)
    path = f"/multipart/{begun.upload_id}/complete?key={begun.key}"

    for body in (b"", b"{}", b'{"parts": [1]}', b'{"parts": [{"PartNumber": 1}]}'):
        refused = plugin.ask("POST", path, body)
        assert (refused.status, refused.problem()["code"]) == (400, "malformed_request")


def test_uploads_of_other_kinds_have_no_parts(plugin: Plugin, tus: Tus) -> None:
    upload_id = tus.new(5).rpartition("/")[2]
    begun = Begun(upload_id, upload_id)

    for reply in (plugin.sign(begun, 1), plugin.list_parts(begun), plugin.complete(begun, [])):
        assert (reply.status, reply.problem()["code"]) == (400, "no_direct_upload")


def test_nothing_else_is_there(plugin: Plugin) -> None:
    for path in ("", "/nothing", "/multipart/", f"/multipart/{'0' * 32}/1/2"):
        reply = plugin.ask("GET", path)
        assert (reply.status, reply.problem()["code"]) == (404, "not_found")
    for method, path, allowed in (
        ("GET", "/multipart", {"post"}),
        ("POST", "/params", {"get", "head"}),
        ("PUT", f"/multipart/{'0' * 32}", {"get", "head", "delete"}),
    ):
        reply = plugin.ask(method, path)
        assert (reply.status, reply.problem()["code"]) == (405, "method_not_allowed")
        assert reply.names("allow") == allowed


def test_answers_are_not_kept(plugin: Plugin) -> None:
    """What was signed is for whoever has it."""
    begun = plugin.new(5)

    for reply in (plugin.params("a"), plugin.sign(begun, 1), plugin.sign(begun, 2)):
        assert reply["cache-control"] == "no-store"


# --- giving up


def test_an_upload_that_is_aborted_is_gone(plugin: Plugin, records: Records) -> None:
    begun = plugin.new(SIZE)
    etag = plugin.send_part(begun, 1, pattern(PART_BYTES))
    url = told(plugin.sign(begun, 2))["url"]

    assert told(plugin.abort(begun)) == {}

    assert records.state(begun.upload_id) == "canceled"
    assert records.files(begun.upload_id) == []
    assert plugin.send("PUT", url, pattern(PART_BYTES)).status == 409
    for reply in (
        plugin.sign(begun, 2),
        plugin.list_parts(begun),
        plugin.complete(begun, [(1, etag)]),
    ):
        assert (reply.status, reply.problem()["state"]) == (409, "canceled")
    assert told(plugin.abort(begun)) == {}


def test_a_finished_file_is_no_more_to_be_aborted(plugin: Plugin, tus: Tus) -> None:
    begun = plugin.new(5)
    location = told(plugin.complete(begun, send_all(plugin, begun, b"hello")))["location"]

    refused = plugin.abort(begun)

    assert (refused.status, refused.problem()["state"]) == (409, "verified")
    assert tus.content(path_of(location)) == b"hello"


# --- who may


def test_the_token_of_the_application_is_asked_for(fresh_server: ServerFactory) -> None:
    server = fresh_server(TUS_API_TOKEN=TOKEN)
    right = {"Authorization": f"Bearer {TOKEN}"}
    begun = Plugin(server.port, fields=right).new(5)

    for fields in ({}, {"Authorization": "Bearer wrong"}):
        plugin = Plugin(server.port, fields=fields)
        for reply in (
            plugin.params("a"),
            plugin.begin("a", size=1),
            plugin.sign(begun, 1),
            plugin.list_parts(begun),
            plugin.complete(begun, []),
            plugin.abort(begun),
        ):
            assert (reply.status, reply.problem()["code"]) == (401, "unauthenticated")
    # What was signed needs nothing else.
    assert Plugin(server.port, fields=right).send_part(begun, 1, b"hello")


def test_without_a_token_no_page_of_another_origin_may(plugin: Plugin) -> None:
    foreign = Plugin(plugin.port, fields={"Origin": "https://evil.example"})

    reply = foreign.begin("a", size=1)

    assert reply.status == 403
    assert "access-control-allow-origin" not in reply


def test_pages_that_are_named_may_read_answers(fresh_server: ServerFactory) -> None:
    origin = "https://app.example.com"
    server = fresh_server(TUS_API_TOKEN=TOKEN, TUS_CORS_ORIGINS=origin)
    fields = {"Origin": origin, "Authorization": f"Bearer {TOKEN}"}
    plugin = Plugin(server.port, fields=fields)
    preflight = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }

    asked = request(server.port, "OPTIONS", "/companion/s3/multipart", preflight)
    begun = plugin.new(5)
    url = told(plugin.sign(begun, 1))["url"]
    sent = plugin.send("PUT", url, b"hello", {"Origin": origin})

    assert asked.status == 204
    assert {"authorization", "content-type"} <= asked.names("access-control-allow-headers")
    assert asked["access-control-allow-origin"] == origin
    for reply in (plugin.list_parts(begun), plugin.sign(begun, 9), sent):
        assert reply["access-control-allow-origin"] == origin
    assert "etag" in sent.names("access-control-expose-headers")


def test_it_can_be_switched_off(fresh_server: ServerFactory) -> None:
    assert Plugin(fresh_server(TUS_API="off").port).params("a").status == 404


def test_urls_are_those_that_the_client_can_use(fresh_server: ServerFactory) -> None:
    server = fresh_server(
        TUS_API_TOKEN=TOKEN, TUS_PUBLIC_URL="https://up.example.com", TUS_BASE_PATH="/u/"
    )
    plugin = Plugin(server.port, fields={"Authorization": f"Bearer {TOKEN}"})
    begun = plugin.new(0)
    params = told(plugin.params("a"))

    assert told(plugin.sign(begun, 1))["url"].startswith("https://up.example.com/direct/")
    assert params["url"] == "https://up.example.com/u/"
    assert plugin.location(params) == f"https://up.example.com/u/{params['fields']['key']}"


def test_it_works_inside_another_application(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("inside") / "data"
    with StockServer("mounted", "httptools", folder) as server:
        prefix = server.base.removesuffix("/files/")
        plugin = Plugin(server.port, endpoint=f"{prefix}/companion")
        tus = Tus(server.port)
        begun = plugin.new(5)

        completed = told(plugin.complete(begun, send_all(plugin, begun, b"hello")))
        params = told(plugin.params("a"))
        sent = plugin.send_form(params, b"world")

        assert path_of(completed["location"]).startswith(server.base)
        assert tus.content(path_of(completed["location"])) == b"hello"
        assert sent.status == 201
        assert tus.content(path_of(plugin.location(params))) == b"world"
