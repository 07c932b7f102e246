"""Clients of other people: tuspy and curl, in both protocols, on good lines and on bad ones."""

import hashlib
import io
import shutil
import subprocess
from base64 import b64encode
from contextlib import closing
from pathlib import Path

import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed
from tusclient.storage.filestorage import FileStorage
from tusclient.uploader import Uploader

from tests.support.fault_proxy import FaultProxy, How
from tests.support.records import Records
from tests.support.server import ServerProcess
from tests.support.tus import BODY_TYPE, Tus, pattern

MIB = 1024 * 1024
NAME = "na\u00efve \u6587\u4ef6.bin"


def path_of(url: str) -> str:
    """Give the path of an absolute URL."""
    return "/" + url.split("/", 3)[3]


# --- tuspy


class Stream(io.BytesIO):
    """A file in memory; tuspy 1.1.0 closes what it takes a fingerprint of, and then reads it."""

    def close(self) -> None:
        pass


def uploader(port: int, content: bytes, **options: object) -> Uploader:
    client = TusClient(f"http://127.0.0.1:{port}/files/")
    return client.uploader(file_stream=Stream(content), **options)


@pytest.mark.parametrize("size", [1, 1000, 3 * MIB + 1])
@pytest.mark.parametrize("chunk_size", [MIB, 2**62])
def test_tuspy_uploads_a_file_with_its_metadata(
    tus: Tus, records: Records, size: int, chunk_size: int
) -> None:
    content = pattern(size)
    upload = uploader(
        tus.port, content, chunk_size=chunk_size, metadata={"filename": NAME, "note": ""}
    )

    upload.upload()

    url = path_of(upload.url)
    head = tus.head(url)
    encoded = b64encode(NAME.encode()).decode()
    assert upload.offset == size
    assert head["upload-metadata"].rstrip() == f"filename {encoded},note"
    assert tus.content(url) == content
    assert records.events(url) == ["verified"]


def test_tuspy_uploads_an_empty_file(tus: Tus) -> None:
    """T45, T48: one POST, with an empty Upload-Metadata."""
    upload = uploader(tus.port, b"")

    upload.upload()

    assert tus.content(path_of(upload.url)) == b""


def test_tuspy_resumes_where_it_stopped(tus: Tus, tmp_path: Path) -> None:
    content = pattern(2 * MIB)
    with closing(FileStorage(str(tmp_path / "urls.json"))) as storage:
        options = {"store_url": True, "url_storage": storage, "chunk_size": 300_000}
        first = uploader(tus.port, content, **options)
        first.upload(stop_at=900_000)
        second = uploader(tus.port, content, **options)
        resumed_at = second.offset
        second.upload()

    assert resumed_at == 900_000
    assert second.url == first.url
    assert tus.content(path_of(second.url)) == content


def test_tuspy_repeats_the_length_of_a_deferred_upload(tus: Tus) -> None:
    """T59, T60: with every PATCH, and with the retry after a lost answer."""
    content = pattern(MIB)
    url = tus.new()
    client = TusClient(
        f"http://127.0.0.1:{tus.port}/files/", headers={"Upload-Length": str(len(content))}
    )

    upload = client.uploader(
        file_stream=io.BytesIO(content),
        url=f"http://127.0.0.1:{tus.port}{url}",
        chunk_size=300_000,
    )
    upload.upload()

    assert tus.head(url)["upload-length"] == str(len(content))
    assert tus.content(url) == content


@pytest.mark.parametrize("how", ["reset", "close"])
def test_tuspy_retries_through_a_line_that_breaks(
    server: ServerProcess, tus: Tus, how: How
) -> None:
    content = pattern(4 * MIB)

    with FaultProxy(server.port) as proxy:
        upload = uploader(proxy.port, content, chunk_size=2 * MIB, retries=5, retry_delay=0)
        upload.upload_chunk()
        proxy.up.cut_after(MIB, how=how, times=2)
        upload.upload()

        assert proxy.up.cuts_left == 0
    assert tus.content(path_of(upload.url)) == content


def test_tuspy_is_told_when_an_upload_is_gone(tus: Tus) -> None:
    """C3, T19: tuspy would take an offset from any status."""
    upload = uploader(tus.port, b"hello", chunk_size=2)
    upload.upload_chunk()
    tus.delete(path_of(upload.url))

    with pytest.raises(TusUploadFailed):
        upload.upload_chunk()
    with pytest.raises(TusCommunicationError):
        upload.get_offset()


def test_tuspy_sends_a_checksum_with_every_chunk(tus: Tus) -> None:
    """T78, T80, T88: sha1, in base64."""
    content = pattern(2 * MIB + 1)
    upload = uploader(tus.port, content, chunk_size=MIB, upload_checksum=True)

    upload.upload()

    assert tus.content(path_of(upload.url)) == content


# --- curl


class Curl:
    """curl in a folder of its own; fails the test when curl does."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.base = f"http://127.0.0.1:{port}"

    def run(self, *arguments: str, stdin: bytes = b"") -> str:
        """Speak tus with `arguments`, a path for a URL; give the reply's head and body."""
        return self.bare("-H", "Tus-Resumable: 1.0.0", *arguments, stdin=stdin)

    def bare(self, *arguments: str, stdin: bytes = b"", fails: bool = False) -> str:
        """Do the same with no field but those of the arguments.

        fails: curl will, in a way of its own, and tells of what it got before.
        """
        absolute = [self.base + word if word.startswith("/files") else word for word in arguments]
        done = subprocess.run(
            ["curl", "-sS", "-i", "--max-time", "60", *absolute],
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done.stdout.decode("latin-1")


def field(answer: str, name: str) -> str:
    """Give a field of the last head in what curl printed."""
    values = [
        line.partition(":")[2].strip()
        for line in answer.splitlines()
        if line.lower().startswith(f"{name}:")
    ]
    assert values, answer
    return values[-1]


@pytest.fixture
def curl(tmp_path: Path, server: ServerProcess) -> Curl:
    """curl, or a skip that says so."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    return Curl(tmp_path, server.port)


PATCH = ("-X", "PATCH", "-H", f"Content-Type: {BODY_TYPE}")


def test_curl_creates_resumes_and_downloads(curl: Curl, tus: Tus) -> None:
    content = pattern(3_000_000)
    half = 1_500_000
    curl.folder.joinpath("second.bin").write_bytes(content[half:])

    created = curl.run("-X", "POST", "-H", f"Upload-Length: {len(content)}", "/files/")
    url = field(created, "location")
    curl.run(*PATCH, "-H", "Upload-Offset: 0", "--data-binary", "@-", url, stdin=content[:half])
    offset = field(curl.run("-I", url), "upload-offset")
    last = curl.run(*PATCH, "-H", f"Upload-Offset: {offset}", "--data-binary", "@second.bin", url)
    curl.run("-o", "copy.bin", "--no-include", url)

    assert " 201 Created" in created
    assert offset == str(half)
    assert " 204 " in last
    assert curl.folder.joinpath("copy.bin").read_bytes() == content
    assert " 204 " in curl.run("-X", "DELETE", url)
    assert " 404 " in curl.run("-I", url)


@pytest.mark.parametrize("expect", ["Expect:", "Expect: 100-continue"])
def test_curl_sends_a_stream_in_chunks(curl: Curl, tus: Tus, expect: str) -> None:
    """T68, T121: -T - has no length to tell."""
    content = pattern(2_000_000)
    url = tus.new()

    answer = curl.run(*PATCH, "-H", "Upload-Offset: 0", "-H", expect, "-T", "-", url, stdin=content)

    assert field(answer, "upload-offset") == str(len(content))
    assert ("100 Continue" in answer) == (expect != "Expect:")
    assert tus.patch(url, len(content), length=len(content)).status == 204
    assert tus.content(url) == content


def test_curl_creates_with_the_file_itself(curl: Curl, tus: Tus) -> None:
    """T66, T67."""
    content = pattern(2_000_000)
    curl.folder.joinpath("file.bin").write_bytes(content)

    answer = curl.run(
        "-H", f"Upload-Length: {len(content)}", "-H", f"Content-Type: {BODY_TYPE}",
        "--data-binary", "@file.bin", "/files/",
    )  # fmt: skip

    assert field(answer, "upload-offset") == str(len(content))
    assert tus.content(field(answer, "location")) == content


def test_curl_can_read_why_a_large_body_is_refused(curl: Curl, tus: Tus) -> None:
    """C6: while it is still sending."""
    url = tus.new(5)

    answer = curl.run(
        *PATCH, "-H", "Upload-Offset: 0", "-H", "Expect:", "--data-binary", "@-", url,
        stdin=bytes(20 * MIB),
    )  # fmt: skip

    assert " 413 " in answer
    assert '"code": "body_too_large"' in answer


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_curl_has_a_chunk_checked(curl: Curl, tus: Tus, algorithm: str) -> None:
    """T84..T87: one that differs is dropped, and the right one is taken then."""
    content = pattern(1_000_000)
    url = tus.new(len(content))
    digest = b64encode(hashlib.new(algorithm, content).digest()).decode()
    send = (
        *PATCH, "-H", "Upload-Offset: 0", "-H", f"Upload-Checksum: {algorithm} {digest}",
        "--data-binary", "@-", url,
    )  # fmt: skip

    refused = curl.run(*send, stdin=pattern(len(content), seed=1))
    taken = curl.run(*send, stdin=content)

    assert " 460 " in refused.splitlines()[0]
    assert field(taken, "upload-offset") == str(len(content))
    assert tus.content(url) == content


def test_curl_joins_two_uploads(curl: Curl, tus: Tus) -> None:
    """T98, T101, T102, T114: relative URLs and absolute ones."""
    pieces = [pattern(700_000, seed=1), pattern(300_000, seed=2)]
    urls = []
    for piece in pieces:
        curl.folder.joinpath("piece.bin").write_bytes(piece)
        made = curl.run(
            "-H", "Upload-Concat: partial", "-H", f"Upload-Length: {len(piece)}",
            "-H", f"Content-Type: {BODY_TYPE}", "--data-binary", "@piece.bin", "/files/",
        )  # fmt: skip
        urls.append(field(made, "location"))
    final = f"Upload-Concat: final;{urls[1]} {curl.base}{urls[0]}"

    joined = curl.run("-X", "POST", "-H", final, "/files/")

    assert tus.content(field(joined, "location")) == pieces[1] + pieces[0]


def test_curl_downloads_the_rest_of_a_file(curl: Curl, tus: Tus) -> None:
    """T127: -C - asks for a range."""
    content = pattern(1_000_000)
    url = tus.stored(content)
    copy = curl.folder / "copy.bin"
    copy.write_bytes(content[:400_000])

    curl.run("--no-include", "-C", "-", "-o", "copy.bin", url)

    assert copy.read_bytes() == content


def test_curl_downloads_under_the_name_the_file_had(curl: Curl, tus: Tus) -> None:
    """T55."""
    url = tus.stored(b"hello", metadata=f"filename {b64encode(b'report 1.txt').decode()}")

    curl.run("--no-include", "-O", "-J", url)

    assert curl.folder.joinpath("report 1.txt").read_bytes() == b"hello"


# --- curl, in the IETF draft


def test_curl_uploads_a_file_with_one_more_field(curl: Curl, tus: Tus) -> None:
    """R25: that is all the draft wants of a client that never resumes."""
    content = pattern(1_000_000)
    curl.folder.joinpath("file.bin").write_bytes(content)

    answer = curl.bare("-H", "Upload-Complete: ?1", "--data-binary", "@file.bin", "/files/")

    assert " 201 " in answer.splitlines()[0]
    assert field(answer, "upload-complete") == "?1"
    url = field(answer, "location")
    assert url.startswith(curl.base)
    assert tus.content(path_of(url)) == content


@pytest.mark.parametrize("version", ["5", "6", "8", "10"])
def test_curl_resumes_a_file_that_was_cut_off(
    curl: Curl, server: ServerProcess, tus: Tus, version: str
) -> None:
    """R22, R33, R48: by the URL of the 104, which came before the line broke."""
    content = pattern(3_000_000)
    spoken = ("-H", f"Upload-Draft-Interop-Version: {version}")
    curl.folder.joinpath("file.bin").write_bytes(content)
    with FaultProxy(server.port) as proxy:
        proxy.up.cut_after(1_000_000)
        cut = Curl(curl.folder, proxy.port)
        heads = cut.bare(
            *spoken, "-H", "Upload-Complete: ?1", "--data-binary", "@file.bin", "/files/",
            fails=True,
        )  # fmt: skip
    url = f"{curl.base}{path_of(field(heads, 'location'))}"

    offset = int(field(curl.bare(*spoken, "-I", url), "upload-offset"))
    rest = content[offset:]
    last = curl.bare(
        *spoken, "-X", "PATCH", "-H", "Content-Type: application/partial-upload",
        "-H", f"Upload-Offset: {offset}", "-H", "Upload-Complete: ?1",
        "--data-binary", "@-", url, stdin=rest,
    )  # fmt: skip

    assert 0 < offset < len(content)
    assert field(last, "upload-complete") == "?1"
    assert tus.content(path_of(url)) == content
