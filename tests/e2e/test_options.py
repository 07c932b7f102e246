"""Core protocol: OPTIONS (T9, T34-T37, T79)."""

import pytest

from tests.conftest import ServerFactory
from tests.e2e.values import MAX_SIZE, UNKNOWN, shown
from tests.support.http import Fields
from tests.support.tus import Tus

EXTENSIONS = (
    "creation,creation-with-upload,creation-defer-length,termination,checksum,checksum-trailer,"
    "expiration,concatenation,concatenation-unfinished"
)
REQUESTS: list[Fields] = [
    {"Tus-Resumable": None},
    {"Tus-Resumable": "1.0.0"},
    {"Tus-Resumable": "0.2.2"},
    {"Tus-Resumable": ["1.0.0", "0.2.2"]},
    {
        "Tus-Resumable": None,
        "Origin": "https://app.example.com",
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "tus-resumable,upload-offset,content-type",
    },
]


@pytest.mark.parametrize("target", ["/files/", "/files", "*", UNKNOWN, "upload", "finished"])
@pytest.mark.parametrize("fields", REQUESTS, ids=shown)
def test_options_tells_the_configuration_everywhere(tus: Tus, target: str, fields: Fields) -> None:
    """T34, T35, T36, T37."""
    if target == "upload":
        target = tus.new(5)
    elif target == "finished":
        target = tus.stored(b"hello")

    reply = tus.options(target, fields)

    assert reply.status == 204
    assert reply["tus-version"] == "1.0.0"
    assert reply["tus-resumable"] == "1.0.0"
    assert reply["tus-extension"] == EXTENSIONS
    assert reply["tus-checksum-algorithm"] == "sha1,sha256,sha512,md5,crc32,crc32c,crc64nvme"
    assert reply["tus-max-size"] == str(MAX_SIZE)
    assert reply.names("accept-patch") == {
        "application/offset+octet-stream",
        "application/partial-upload",
    }
    assert "upload-limit" in reply
    assert "content-length" not in reply
    assert "transfer-encoding" not in reply


def test_options_leaves_the_connection_open(tus: Tus) -> None:
    """T34: nothing follows the header of a 204."""
    with tus.connect() as connection:
        for _ in range(3):
            connection.send_head("OPTIONS", tus.base)

            assert connection.read_reply().status == 204


def test_options_by_override_is_options(tus: Tus) -> None:
    """T14, T34."""
    reply = tus.request("POST", tus.base, {"X-HTTP-Method-Override": "OPTIONS"})

    assert reply.status == 204
    assert reply["tus-version"] == "1.0.0"


def test_expiration_is_not_advertised_where_nothing_expires(fresh_server: ServerFactory) -> None:
    """T9, T70."""
    tus = Tus(fresh_server(TUS_EXPIRES_AFTER_S="0").port)

    assert tus.options()["tus-extension"] == EXTENSIONS.replace("expiration,", "")
