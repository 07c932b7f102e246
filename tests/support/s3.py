"""Real S3 services for tests: Swift with a fault filter, versitygw, and any endpoint of one's own.

SWIFT_PYTHON      interpreter of a venv with Swift; without it one is built in the cache folder
VERSITYGW         path of the versitygw binary (default: the one on PATH)
TEST_S3_ENDPOINT  with _ACCESS_KEY, _SECRET_KEY and _REGION: one more service
"""

import asyncio
import ctypes
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aioboto3
import botocore.session
from aiobotocore.config import AioConfig

from tests.support.once import one_at_a_time

HERE = Path(__file__).resolve().parent
SWIFT_REQUIREMENT = "swift==2.38.3"
PR_SET_PDEATHSIG = 1

# A server opens one client, the tests hundreds, and each would read the service model again:
# 55 ms of 62.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)


@dataclass(frozen=True, slots=True)
class S3Service:
    """A service that runs. pids: of its processes, for those who stop or kill them."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    pids: dict[str, int] = field(default_factory=dict)
    rules_path: Path | None = None

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.endpoint.removeprefix("http://").partition(":")
        return host, int(port)

    @property
    def environment(self) -> dict[str, str]:
        """What a server needs in its environment to use it."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
        }

    def client(self, endpoint: str | None = None) -> Any:
        """A client of the test's own; an async context manager."""
        config = AioConfig(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"total_max_attempts": 1},
            connect_timeout=2,
            read_timeout=10,
        )
        session = _session(self.access_key, self.secret_key, self.region)
        return session.client("s3", endpoint_url=endpoint or self.endpoint, config=config)

    def set_faults(self, *rules: dict[str, Any]) -> None:
        """Replace the rules of swift_faults.py; without arguments: no faults."""
        assert self.rules_path, f"{self.name} cannot inject faults"
        new = self.rules_path.with_suffix(".new")
        new.write_text(json.dumps(rules))
        new.replace(self.rules_path)  # the filter never sees half a file
        self._hits_path.unlink(missing_ok=True)

    def fault_hits(self) -> list[dict[str, Any]]:
        """Give the requests that ran into a rule."""
        with suppress(FileNotFoundError):
            return [json.loads(line) for line in self._hits_path.read_text().splitlines()]
        return []

    @property
    def _hits_path(self) -> Path:
        assert self.rules_path, f"{self.name} cannot inject faults"
        return self.rules_path.with_name(self.rules_path.name + ".hits")

    def make_bucket(self) -> str:
        """Make a bucket of a test's own. On local services it ends with the service."""
        name = f"test-{uuid.uuid4().hex}"
        run_apart(self._create(name))
        return name

    async def _create(self, bucket: str) -> None:
        async with self.client() as client:
            await client.create_bucket(Bucket=bucket)

    def drop_bucket(self, bucket: str) -> None:
        """Empty and remove a bucket of a service that stays."""
        if self.name == "external":
            run_apart(self._drop(bucket))

    async def _drop(self, bucket: str) -> None:
        async with self.client() as client:
            for found in (await client.list_multipart_uploads(Bucket=bucket)).get("Uploads", []):
                await client.abort_multipart_upload(
                    Bucket=bucket, Key=found["Key"], UploadId=found["UploadId"]
                )
            async for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                for item in page.get("Contents", []):
                    await client.delete_object(Bucket=bucket, Key=item["Key"])
            await client.delete_bucket(Bucket=bucket)


def run_apart(work: Any) -> Any:
    """Run a coroutine to its end, also where a loop runs already: on a thread of its own."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


@functools.cache
def _session(access_key: str, secret_key: str, region: str) -> aioboto3.Session:
    """Shared: each new session reads botocore's service model again, 0.1 s."""
    return aioboto3.Session(access_key, secret_key, region_name=region)


def swift_python() -> str:
    """Give the interpreter that has Swift: of a venv of its own, for it brings many pins."""
    if named := os.environ.get("SWIFT_PYTHON"):
        return named
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tus-server-tests"
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    venv = cache / f"{SWIFT_REQUIREMENT.replace('==', '-')}-{version}"
    with one_at_a_time(venv):
        if not venv.exists():
            building = Path(tempfile.mkdtemp(prefix="building-", dir=cache))
            subprocess.run([sys.executable, "-m", "venv", building], check=True)
            install = [building / "bin" / "python", "-m", "pip", "install", "-q", SWIFT_REQUIREMENT]
            subprocess.run(install, check=True)
            building.rename(venv)
    return str(venv / "bin" / "python")


@contextmanager
def run_swift(
    *, directory: Path | None = None, port: int = 0, min_part_size: int | None = None
) -> Iterator[S3Service]:
    """Run Swift with the fault filter. directory, port: to start again on the same data."""
    command = [swift_python(), str(HERE / "swift_server" / "swift_s3.py")]
    command += ["--die-with-parent", "--faults", "--port", str(port)]
    if min_part_size is not None:
        command += ["--min-part", str(min_part_size)]
    if directory is not None:
        command += ["--dir", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        try:
            assert launcher.stdout is not None
            line = launcher.stdout.readline()
            if not line:
                raise RuntimeError("Swift did not start")
            ready = json.loads(line)
            yield S3Service(
                "swift",
                ready["endpoint"],
                ready["access_key"],
                ready["secret_key"],
                ready["region"],
                ready["pids"],
                Path(ready["faults"]),
            )
        finally:
            launcher.terminate()


def make_certificate(folder: Path) -> tuple[Path, Path] | None:
    """Make a self-signed certificate for loopback; give it and its key, None without openssl."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(
            [*command, "-out", certificate, "-keyout", key], check=True, capture_output=True
        )
    except FileNotFoundError:
        return None
    return certificate, key


def versitygw_binary() -> str | None:
    """Give the path of versitygw, if there is one."""
    return os.environ.get("VERSITYGW") or shutil.which("versitygw")


@contextmanager
def run_versitygw(
    binary: str, directory: Path, *, port: int | None = None, iam_dir: Path | None = None
) -> Iterator[S3Service]:
    """Run versitygw over `directory`, whose file system must keep user xattrs.

    iam_dir: where it keeps other users than its root.
    """
    if port is None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    service = S3Service("versitygw", f"http://127.0.0.1:{port}", "testkey", "testsecret")
    environment = os.environ | {
        "ROOT_ACCESS_KEY": service.access_key,
        "ROOT_SECRET_KEY": service.secret_key,
    }
    command = [binary, "--quiet", "--keep-alive", "--port", f"127.0.0.1:{port}"]
    if iam_dir is not None:
        command += ["--iam-dir", str(iam_dir)]
    command += ["posix", str(directory)]
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_die_with_parent,
    ) as process:
        try:
            _wait_for(service.address, process)
            yield replace(service, pids={"versitygw": process.pid})
        finally:
            process.terminate()


def external() -> S3Service | None:
    """Give the service the environment names, if it names one."""
    endpoint = os.environ.get("TEST_S3_ENDPOINT")
    if endpoint is None:
        return None
    return S3Service(
        "external",
        endpoint,
        os.environ["TEST_S3_ACCESS_KEY"],
        os.environ["TEST_S3_SECRET_KEY"],
        os.environ.get("TEST_S3_REGION", "us-east-1"),
    )


def _wait_for(address: tuple[str, int], process: "subprocess.Popen[bytes]") -> None:
    deadline_s = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(address, timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError("versitygw did not start") from None
            time.sleep(0.02)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
