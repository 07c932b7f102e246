"""A versitygw with a user whose rights a test chooses."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.s3 import S3Service, run_apart, run_versitygw, versitygw_binary

USER = "ann"
SECRET = "secret-of-ann"


@dataclass(frozen=True, slots=True)
class S3Users:
    """root: may everything. user: may what allow() has said for a bucket."""

    root: S3Service
    user: S3Service

    def allow(self, bucket: str, actions: Sequence[str]) -> None:
        """Let the user do `actions` in a bucket, and nothing else."""
        statement = {
            "Effect": "Allow",
            "Principal": [USER],
            "Action": list(actions),
            "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})

        async def put() -> None:
            async with self.root.client() as client:
                await client.put_bucket_policy(Bucket=bucket, Policy=policy)

        run_apart(put())


@pytest.fixture(scope="session")
def s3_users() -> Iterator[S3Users]:
    """A service with users, where versitygw is found."""
    binary = versitygw_binary()
    if binary is None:
        pytest.skip("no versitygw binary (set VERSITYGW, or put it on PATH)")
    with tempfile.TemporaryDirectory(prefix="versitygw-users-") as folder:
        users, files = Path(folder) / "users", Path(folder) / "files"
        users.mkdir()
        files.mkdir()
        with run_versitygw(binary, files, iam_dir=users) as root:
            command = [binary, "admin", "--access", root.access_key, "--secret", root.secret_key]
            command += ["--endpoint-url", root.endpoint, "create-user"]
            command += ["--access", USER, "--secret", SECRET, "--role", "user"]
            subprocess.run(command, check=True, capture_output=True, env=os.environ)
            yield S3Users(root, replace(root, access_key=USER, secret_key=SECRET))
