"""A bucket seen from outside, for tests of whole servers."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.support.s3 import S3Service

T = TypeVar("T")


class Bucket:
    """Looks into one bucket, for tests with or without a loop of their own.

    One client for all looks, on a thread and a loop of its own: making one costs more than ten
    requests.
    """

    def __init__(self, service: S3Service, name: str) -> None:
        self.service = service
        self.name = name
        self._stack = AsyncExitStack()
        self._client: Any = None

    def __enter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1)
        self._runner = asyncio.Runner()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        with self._thread:
            self._thread.submit(self._runner.run, self._stack.aclose()).result()
            self._thread.submit(self._runner.close).result()

    def find_keys(self) -> list[str]:
        """Find the keys of all objects."""

        async def keys(client: Any) -> list[str]:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
            return [item["Key"] async for page in pages for item in page.get("Contents", [])]

        return self._run(keys)

    def find_multiparts(self) -> list[tuple[str, str]]:
        """Find key and id of all multipart uploads that were neither completed nor aborted."""

        async def multiparts(client: Any) -> list[tuple[str, str]]:
            answer = await client.list_multipart_uploads(Bucket=self.name)
            return [(item["Key"], item["UploadId"]) for item in answer.get("Uploads", [])]

        return self._run(multiparts)

    def part_sizes(self, key: str, multipart_id: str) -> list[int]:
        """Give the sizes of the parts that a multipart upload has."""

        async def sizes(client: Any) -> list[int]:
            answer = await client.list_parts(Bucket=self.name, Key=key, UploadId=multipart_id)
            return [part["Size"] for part in answer.get("Parts", [])]

        return self._run(sizes)

    def read(self, key: str) -> bytes:
        """Give the content of an object."""

        async def read(client: Any) -> bytes:
            answer = await client.get_object(Bucket=self.name, Key=key)
            content: bytes = await answer["Body"].read()
            return content

        return self._run(read)

    def describe(self, key: str) -> dict[str, Any]:
        """Give what HeadObject tells of an object."""

        async def head(client: Any) -> dict[str, Any]:
            found: dict[str, Any] = await client.head_object(Bucket=self.name, Key=key)
            return found

        return self._run(head)

    def send_part(self, key: str, multipart_id: str, number: int, content: bytes) -> None:
        """Send a part of whatever size, as who has the keys can."""

        async def send(client: Any) -> None:
            await client.upload_part(
                Bucket=self.name,
                Key=key,
                UploadId=multipart_id,
                PartNumber=number,
                Body=content,
            )

        self._run(send)

    def delete(self, key: str) -> None:
        """Lose an object."""

        async def delete(client: Any) -> None:
            await client.delete_object(Bucket=self.name, Key=key)

        self._run(delete)

    def _run(self, ask: Callable[[Any], Awaitable[T]]) -> T:
        async def run() -> T:
            if self._client is None:
                self._client = await self._stack.enter_async_context(self.service.client())
            return await ask(self._client)

        return self._thread.submit(self._runner.run, run()).result()
