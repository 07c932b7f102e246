"""The companionEndpoint of Uppy's S3 plugin, one request: a form, which this server receives."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ServerFactory
from tests.support.companion import BOUNDARY, Plugin, render_form
from tests.support.http import Connection, ConnectionEnded, Reply, request
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.tus import Tus, pattern
from tests.support.waiting import wait_until

SIZE = 300_000
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture
def plugin(server: ServerProcess) -> Plugin:
    return Plugin(server.port)


def new(plugin: Plugin, filename: str = "note.txt", **metadata: object) -> dict[str, Any]:
    reply = plugin.params(filename, name=filename, relativePath=None, **metadata)
    assert reply.status == 200, reply
    told: dict[str, Any] = json.loads(reply.body)
    return told


def path_of(location: str) -> str:
    return "/" + location.split("/", 3)[3]


def begin(plugin: Plugin, params: dict[str, Any], content: bytes, sent: int) -> Connection:
    """Send a form as far as `sent` bytes of its file; on return the server has read them."""
    head, _, end = render_form(params["fields"], content)
    connection = Connection(plugin.port)
    size = len(head) + len(content) + len(end)
    connection.send_head("POST", path_of(params["url"]), FORM | {"Content-Length": str(size)})
    connection.send(head + content[:sent])
    connection.wait_taken()
    return connection


@pytest.mark.parametrize("size", [0, 1, SIZE, 20_000_000])
@pytest.mark.parametrize("told", [False, True], ids=["size unknown", "size told"])
def test_a_form_becomes_a_file(
    plugin: Plugin, tus: Tus, records: Records, size: int, told: bool
) -> None:
    content = pattern(size)
    params = new(plugin, "ü 1.txt", **({"size": size} if told else {}))

    sent = plugin.send_form(params, content)

    assert sent.status == 201
    location = plugin.location(params)
    assert sent["location"] == location
    assert records.state(location) == "verified"
    assert records.events(location) == ["verified"]
    file = tus.get(path_of(location))
    assert file.body == content
    assert "filename*=UTF-8''%C3%BC%201.txt" in file["content-disposition"]


def test_the_answer_is_what_the_plugin_reads(plugin: Plugin) -> None:
    params = new(plugin)

    assert params["method"] == "POST"
    assert params["url"] == f"http://127.0.0.1:{plugin.port}/files/"
    assert set(params["fields"]) == {"key", "signature"}
    assert params["headers"] == {}


def test_curl_sends_a_form_too(plugin: Plugin, tus: Tus, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    path = tmp_path / "file.bin"
    path.write_bytes(pattern(SIZE))
    params = new(plugin)
    fields = [f"-F{name}={value}" for name, value in params["fields"].items()]

    command = ["curl", "-sS", "--fail", *fields, f"-Ffile=@{path}", params["url"]]
    subprocess.run(command, check=True, capture_output=True, timeout=60)

    assert tus.content(path_of(plugin.location(params))) == pattern(SIZE)


# --- lines that break


def test_a_form_that_was_cut_is_sent_again(plugin: Plugin, tus: Tus, records: Records) -> None:
    content = pattern(SIZE)
    params = new(plugin)
    begin(plugin, params, content, SIZE // 2).reset()

    sent = plugin.send_form(params, content)

    assert sent.status == 201
    assert tus.content(path_of(plugin.location(params))) == content
    assert records.events(plugin.location(params)) == ["verified"]


def test_a_form_takes_over_from_one_that_hangs(plugin: Plugin, tus: Tus) -> None:
    content = pattern(SIZE)
    params = new(plugin)
    hanging = begin(plugin, params, content, SIZE // 2)

    sent = plugin.send_form(params, content)

    assert sent.status == 201
    assert tus.content(path_of(plugin.location(params))) == content
    hanging.close()


def test_a_form_survives_a_server_that_is_killed(fresh_server: ServerFactory) -> None:
    server = fresh_server()
    plugin = Plugin(server.port)
    content = pattern(20_000_000)
    params = new(plugin)
    connection = begin(plugin, params, content, 12_000_000)
    server.kill()
    server.start()

    sent = plugin.send_form(params, content)

    assert sent.status == 201
    assert Tus(server.port).content(path_of(plugin.location(params))) == content
    connection.close()


def test_a_form_whose_answer_was_lost_is_answered_again(
    plugin: Plugin, tus: Tus, records: Records
) -> None:
    content = pattern(SIZE)
    params = new(plugin)

    first, again = plugin.send_form(params, content), plugin.send_form(params, content)

    assert (first.status, again.status) == (201, 201)
    assert again["location"] == first["location"]
    assert records.events(first["location"]) == ["verified"]


def test_other_content_is_not_mixed_with_what_has_arrived(plugin: Plugin, tus: Tus) -> None:
    content, other = pattern(SIZE), pattern(SIZE, seed=1)
    params = new(plugin)
    begin(plugin, params, content, SIZE // 2).reset()

    refused(plugin.send_form(params, other), 422, "idempotency_key_reused")
    assert plugin.send_form(params, content).status == 201
    refused(plugin.send_form(params, other), 422, "idempotency_key_reused")

    assert tus.content(path_of(plugin.location(params))) == content


# --- what is refused


def refused(reply: Reply, status: int, code: str) -> None:
    assert (reply.status, reply.problem()["code"]) == (status, code), reply


def test_a_form_of_another_upload_is_refused(plugin: Plugin, tus: Tus, records: Records) -> None:
    params, other = new(plugin), new(plugin)
    fields = params["fields"]
    foreign = tus.new(5).rpartition("/")[2]

    for changed, status, code in (
        ({"signature": other["fields"]["signature"]}, 403, "signature_refused"),
        ({"signature": ""}, 403, "signature_refused"),
        ({"signature": "ü"}, 403, "signature_refused"),
        ({"key": other["fields"]["key"]}, 403, "signature_refused"),
        ({"key": foreign, "signature": ""}, 403, "signature_refused"),
        ({"key": "0" * 32}, 404, "upload_not_found"),
        ({"key": "../x"}, 404, "upload_not_found"),
    ):
        refused(plugin.send_form(params | {"fields": fields | changed}, b"hello"), status, code)
    for name in ("key", "signature"):
        rest = {kept: fields[kept] for kept in fields if kept != name}
        refused(plugin.send_form(params | {"fields": rest}, b"hello"), 400, "malformed_request")
    assert records.state(plugin.location(params)) == "initiated"
    assert plugin.send_form(params, b"hello").status == 201


def test_a_form_of_another_size_is_refused(plugin: Plugin) -> None:
    params = new(plugin, size=5)

    for content in (b"hell", b"hello!"):
        refused(plugin.send_form(params, content), 400, "length_changed")
    assert plugin.send_form(params, b"hello").status == 201


def test_a_file_over_the_limit_is_refused(fresh_server: ServerFactory) -> None:
    plugin = Plugin(fresh_server(TUS_MAX_SIZE="1000").port)

    assert plugin.params("a", size=1001).status == 413
    refused(plugin.send_form(new(plugin), bytes(1001)), 413, "upload_too_large")
    assert plugin.send_form(new(plugin), bytes(1000)).status == 201


def test_a_form_expires(fresh_server: ServerFactory) -> None:
    plugin = Plugin(fresh_server(TUS_SIGN_EXPIRES_S="1").port)
    params = new(plugin, size=5)

    # Of another size, which does not complete it.
    wait_until(lambda: plugin.send_form(params, b"hell").status == 403, "the form has expired")

    refused(plugin.send_form(params, b"hello"), 403, "signature_refused")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"x"),
        (f"multipart/form-data; boundary={BOUNDARY}", b""),
        (f"multipart/form-data; boundary={BOUNDARY}", b"hello"),
        (f"multipart/form-data; boundary={BOUNDARY}", b"x" * 100_000),
        (f"multipart/form-data; boundary={BOUNDARY}", f"--{BOUNDARY}--\r\n".encode()),
        (f"multipart/form-data; boundary={BOUNDARY}", f"--{BOUNDARY}\r\n".encode() * 9000),
    ],
)
def test_what_is_no_form_is_refused(
    plugin: Plugin, records: Records, content_type: str, body: bytes
) -> None:
    with records.nothing_created():
        reply = request(plugin.port, "POST", "/files/", {"Content-Type": content_type}, body)

    refused(reply, 400, "malformed_request")


def test_a_field_behind_the_file_is_refused(plugin: Plugin) -> None:
    params = new(plugin)
    head, content, end = render_form(params["fields"], b"hello")
    field = f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="x"\r\n\r\ny'.encode()

    reply = request(plugin.port, "POST", "/files/", FORM, head + content + field + end)

    # Its bytes would be some of the file.
    refused(reply, 400, "malformed_request")
    assert plugin.send_form(params, b"hello").status == 201


def test_a_form_without_a_length_is_refused(plugin: Plugin) -> None:
    body = b"".join(render_form(new(plugin)["fields"], b"hello"))

    refused(
        request(plugin.port, "POST", "/files/", FORM, body, chunked=True), 400, "malformed_request"
    )


def test_a_form_that_ends_inside_its_end_is_not_complete(
    plugin: Plugin, tus: Tus, records: Records
) -> None:
    params = new(plugin)
    head, content, end = render_form(params["fields"], b"hello")
    with Connection(plugin.port) as connection:
        size = len(head) + len(content) + len(end)
        connection.send_head("POST", "/files/", FORM | {"Content-Length": str(size)})
        connection.send(head + content + end[:-3])
        connection.half_close()
        with pytest.raises(ConnectionEnded):
            connection.read_reply()

    assert records.state(plugin.location(params)) in ("initiated", "receiving")
    assert plugin.send_form(params, b"hello").status == 201
    assert tus.content(path_of(plugin.location(params))) == b"hello"


def test_forms_are_for_the_creation_url_alone(plugin: Plugin, tus: Tus) -> None:
    params = new(plugin)
    body = b"".join(render_form(params["fields"], b"hello"))

    upload = f"/files/{params['fields']['key']}"
    assert request(plugin.port, "POST", upload, FORM, body).status in (405, 412)
    # With its version named it is a request of tus.
    refused(tus.request("POST", "/files/", FORM, body), 415, "unsupported_media_type")


def test_pages_of_any_origin_may_send_a_form(plugin: Plugin) -> None:
    """As with tus: what has to be shown is in the form."""
    params = new(plugin)
    origin = {"Origin": "https://app.example.com"}
    body = b"".join(render_form(params["fields"], b"hello"))

    asked = request(
        plugin.port, "OPTIONS", "/files/", origin | {"Access-Control-Request-Method": "POST"}
    )
    sent = request(plugin.port, "POST", "/files/", FORM | origin, body)

    assert "post" in asked.names("access-control-allow-methods")
    assert sent.status == 201
    assert sent["access-control-allow-origin"] == "*"
