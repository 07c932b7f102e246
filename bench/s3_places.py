"""The S3 servers behind the servers under test: a real one, and the sink.

The real one is a versitygw, unless BENCH_S3=http://HOST:PORT/BUCKET names another; what a client
has to know for that is taken from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bench.install import VERSITYGW, install_go_program
from bench.servers import Launch, free_port, started

_BUCKET = "bench"
_KEYS = {
    "AWS_ACCESS_KEY_ID": "bench-access",
    "AWS_SECRET_ACCESS_KEY": "bench-secret",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Place:
    """A bucket on a running S3 server. counts_url, state_port: see servers.Endpoint.

    environment: what its clients need in theirs. is_ours: it goes away with all that is in it.
    """

    endpoint: str
    bucket: str = _BUCKET
    environment: dict[str, str] = field(default_factory=_KEYS.copy)
    is_ours: bool = True
    counts_url: str | None = None
    state_port: int | None = None


def install_real_place() -> None:
    """Raise CannotInstall unless real_place() has something to give."""
    if "BENCH_S3" not in os.environ:
        install_go_program(VERSITYGW)


@contextmanager
def real_place(folder: Path) -> Iterator[S3Place]:
    """A bucket on a real S3 server; a versitygw has its objects in a new folder under `folder`.

    Raises: CannotStart.
    """
    if address := os.environ.get("BENCH_S3"):
        parts = urlsplit(address)
        region = os.environ.get("AWS_REGION", _KEYS["AWS_REGION"])
        yield S3Place(
            endpoint=f"{parts.scheme}://{parts.netloc}",
            bucket=parts.path.strip("/"),
            environment={"AWS_REGION": region, "AWS_DEFAULT_REGION": region},
            is_ours=False,
        )
        return
    binary = install_go_program(VERSITYGW)
    objects = folder / "objects"
    # To its posix backend a folder is a bucket.
    (objects / _BUCKET).mkdir(parents=True)
    port = free_port()
    serve = ["--quiet", "--keep-alive", "--health", "/healthy", "--port", f"127.0.0.1:{port}"]
    launch = Launch(
        # ETags from a CRC: an MD5 of every part would make it slower than the servers under test.
        command=[str(binary), *serve, "posix", "--data-integrity-etag", str(objects)],
        environment={
            "ROOT_ACCESS_KEY": _KEYS["AWS_ACCESS_KEY_ID"],
            "ROOT_SECRET_KEY": _KEYS["AWS_SECRET_ACCESS_KEY"],
        },
        ready=("GET", "/healthy"),
    )
    with started("versitygw", launch, port, folder / "versitygw.log"):
        yield S3Place(endpoint=f"http://127.0.0.1:{port}")


@contextmanager
def sink_place(folder: Path, *, postgres_port: int | None = None) -> Iterator[S3Place]:
    """A sink; with postgres_port it also counts the round trips to that Postgres.

    Then state_port of the place is what Postgres is to be reached by. Raises: CannotStart.
    """
    port = free_port()
    command = [sys.executable, "-m", "bench.sink", "--port", str(port)]
    relay_port = None
    if postgres_port is not None:
        relay_port = free_port()
        command += ["--relay", str(relay_port), str(postgres_port)]
    launch = Launch(command=command, ready=("GET", "/__counts"))
    with started("sink", launch, port, folder / "sink.log"):
        endpoint = f"http://127.0.0.1:{port}"
        yield S3Place(endpoint=endpoint, counts_url=f"{endpoint}/__counts", state_port=relay_port)
