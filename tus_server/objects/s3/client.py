"""The driver: one session and one client per process, and how a call is made with it.

Every attempt has its own deadline (aiobotocore's read_timeout bounds neither the sending of a body
nor the wait for `100 Continue`), is repeated where that is safe, and ends in our errors.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.handlers import add_expect_header
from botocore.utils import parse_timestamp

from tus_server.core.errors import SettingsInvalid
from tus_server.core.parts import MIB
from tus_server.objects.s3.body import PartBody
from tus_server.objects.s3.failures import DRIVER_ERRORS, Refused, unavailable
from tus_server.objects.s3.options import S3Options
from tus_server.objects.s3.signing import Keys

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
# Connections are bounded by what uses them: the calls by semaphores, downloads by their readers.
MAX_CONNECTIONS = 10_000
SMALL_CALLS = 64  # at a time, of those without a body
COPIES = 16  # at a time, of calls that let the store copy; they take long
# Some stores copy the parts together before they answer a Complete.
LONGEST_ANSWERS = 10  # times read_timeout_s

Answer = Mapping[str, Any]


class S3Client:
    """Makes calls. Raises, from every method: Refused (only codes in `accept`), StoreUnavailable,
    StorageFull.
    """

    def __init__(self, driver: Any, options: S3Options, credentials: Any) -> None:
        """credentials: those the driver signs with; None: there are none."""
        self.driver = driver
        self._options = options
        self._credentials = credentials
        self._bodies = asyncio.Semaphore(options.max_concurrency)
        self._small = asyncio.Semaphore(SMALL_CALLS)
        self._copies = asyncio.Semaphore(COPIES)

    async def call(
        self,
        operation: str,
        *,
        accept: frozenset[str] = frozenset(),
        timeout_s: float | None = None,
        attempts: int | None = None,
        failures: list[Exception] | None = None,
        **arguments: Any,
    ) -> Answer:
        """Make a small call that may be repeated. `operation`: a method of the driver.

        failures: takes what the attempts before the last one ended with.
        """
        return await self._repeat(operation, None, accept, arguments, timeout_s, attempts, failures)

    async def send(
        self,
        operation: str,
        make_body: Callable[[], PartBody],
        *,
        accept: frozenset[str] = frozenset(),
        **arguments: Any,
    ) -> Answer:
        """Make a call that carries a body. No connection uses the body's memory afterwards."""
        return await self._repeat(operation, make_body, accept, arguments)

    async def presign(self, operation: str, *, expires_s: int, **arguments: Any) -> str:
        """Give a URL for a call that somebody else makes. Credentials may be fetched for it."""
        async with self._signing(operation):
            url: str = await self.driver.generate_presigned_url(
                operation, Params=arguments, ExpiresIn=expires_s
            )
        return url

    async def keys(self) -> Keys:
        """Give what calls are signed with now. It may be fetched, or renewed, for this."""
        async with self._signing("credentials"):
            if self._credentials is None:
                raise NoCredentialsError
            found = await self._credentials.get_frozen_credentials()
        # botocore 1.40: no method tells it. Only credentials for a time have it.
        expires_at = getattr(self._credentials, "_expiry_time", None)
        return Keys(found.access_key, found.secret_key, found.token, expires_at)

    @asynccontextmanager
    async def _signing(self, operation: str) -> AsyncIterator[None]:
        options = self._options
        try:
            async with asyncio.timeout(options.connect_timeout_s + options.read_timeout_s):
                yield
        except ClientError as exc:
            raise Refused(operation, exc).translated() from exc
        except DRIVER_ERRORS as exc:
            raise unavailable(operation, exc) from exc

    async def _repeat(
        self,
        operation: str,
        make_body: Callable[[], PartBody] | None,
        accept: frozenset[str],
        arguments: dict[str, Any],
        timeout_s: float | None = None,
        attempts: int | None = None,
        failures: list[Exception] | None = None,
    ) -> Answer:
        loop = asyncio.get_running_loop()
        last_begin_s = loop.time() + (timeout_s or self._options.operation_timeout_s)
        pause_s = FIRST_PAUSE_S
        failed = 0
        while True:
            try:
                if make_body is None:
                    return await self._attempt(operation, timeout_s, arguments)
                return await self._attempt_with(operation, make_body(), failed > 0, arguments)
            except Refused as exc:
                if exc.code in accept:
                    raise
                if not exc.passing:
                    raise exc.translated() from exc
                failure: Exception = exc
            except DRIVER_ERRORS as exc:
                failure = exc
            failed += 1
            if failures is not None:
                failures.append(failure)
            if failed >= (attempts or self._options.attempts) or loop.time() > last_begin_s:
                raise unavailable(operation, failure) from failure
            await asyncio.sleep(pause_s * (0.5 + random.random()))  # noqa: S311 - spreads load
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _attempt(
        self, operation: str, timeout_s: float | None, arguments: dict[str, Any]
    ) -> Answer:
        options = self._options
        limit_s = timeout_s or options.connect_timeout_s + options.read_timeout_s
        # What streams to a reader must not keep others from S3.
        if operation == "get_object":
            async with asyncio.timeout(limit_s):
                return await self._ask(operation, arguments)
        if operation == "upload_part_copy":
            slot = self._slot(self._copies, limit_s)
        else:
            slot = self._slot(self._small, options.operation_timeout_s)
        async with slot, asyncio.timeout(limit_s):
            return await self._ask(operation, arguments)

    async def _attempt_with(
        self, operation: str, body: PartBody, again: bool, arguments: dict[str, Any]
    ) -> Answer:
        # A store that refuses a part before it has read it may cut the connection, and its answer
        # is lost. `Expect: 100-continue` lets it answer first, and costs a round trip: so it is
        # asked for where it is likely to help.
        body.expects_continue = again
        options = self._options
        limit_s = options.operation_timeout_s * max(1, len(body) / (64 * MIB))
        if len(body) <= MIB:
            limit_s = min(limit_s, options.connect_timeout_s + options.read_timeout_s)
        async with self._slot(self._bodies, options.operation_timeout_s):
            try:
                async with asyncio.timeout(limit_s):
                    return await self._ask(operation, arguments | {"Body": body})
            finally:
                await body.end()

    @asynccontextmanager
    async def _slot(self, slots: asyncio.Semaphore, wait_s: float) -> AsyncIterator[None]:
        """Wait for one of the calls that may run at a time. Raises: TimeoutError."""
        async with asyncio.timeout(wait_s):
            await slots.acquire()
        try:
            yield
        finally:
            slots.release()

    async def _ask(self, operation: str, arguments: dict[str, Any]) -> Answer:
        try:
            answer: Answer = await getattr(self.driver, operation)(**arguments)
        except ClientError as exc:
            raise Refused(operation, exc) from exc
        return answer


def expect_continue(params: dict[str, Any], **_: object) -> None:
    """Ask for `100 Continue` where the body wants it."""
    body = params.get("body")
    if isinstance(body, PartBody) and body.expects_continue:
        params["headers"]["Expect"] = "100-continue"


def resolve_by_bucket(driver: Any) -> None:
    """Let the endpoint of a bucket be worked out once, and not for every key.

    botocore 1.40, endpoint_provider.py: Key, Prefix and CopySource are parameters of S3's endpoint
    rules. No rule reads them, but they are part of what the cache of endpoints goes by, so it
    never has one: a third of the time of a small call. To be deleted when they are not.
    """
    definitions = getattr(getattr(driver, "_ruleset_resolver", None), "_param_definitions", {})
    for name in ("Key", "Prefix", "CopySource"):
        definitions.pop(name, None)


def parse_time(value: Any) -> datetime:
    """Give a time in an answer of S3.

    Every part in a listing has one, and botocore 1.40 asks dateutil for each: a page of a thousand
    parts would keep the loop for a tenth of a second longer.
    """
    if isinstance(value, str) and value.endswith("Z"):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    found: datetime = parse_timestamp(value)
    return found


@asynccontextmanager
async def open_client(options: S3Options) -> AsyncIterator[S3Client]:
    """Open the one client of this process. Raises: SettingsInvalid."""
    path_style = options.path_style
    if path_style is None:
        path_style = options.endpoint_url is not None
    try:
        core = get_session()
        core.get_component("response_parser_factory").set_parser_defaults(
            timestamp_parser=parse_time
        )
        session = aioboto3.Session(botocore_session=core)
        region = options.region or session.region_name or os.environ.get("AWS_REGION")
        if region is None and options.endpoint_url is None:
            raise SettingsInvalid("No region for S3: set AWS_DEFAULT_REGION, or one in a profile.")
        config = AioConfig(
            signature_version="s3v4",
            s3={
                "addressing_style": "path" if path_style else "virtual",
                # Every part carries its CRC: a SHA-256 of it would cost a second per gigabyte.
                "payload_signing_enabled": False,
            },
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"total_max_attempts": 1},
            connect_timeout=options.connect_timeout_s,
            # Every attempt has a deadline of its own; this one is for the longest, Complete.
            read_timeout=LONGEST_ANSWERS * options.read_timeout_s,
            max_pool_connections=MAX_CONNECTIONS,
            # The default one lists every feature in use, for a tenth of the cost of a small call.
            user_agent="tus-server",
        )
        credentials = await session.get_credentials()
        context = session.client(
            "s3",
            region_name=region or "us-east-1",
            endpoint_url=options.endpoint_url,
            config=config,
        )
        driver = await context.__aenter__()
    except ValueError as exc:
        raise SettingsInvalid(f"TUS_S3_ENDPOINT_URL is no usable URL: {exc}.") from exc
    except BotoCoreError as exc:
        raise SettingsInvalid(f"The settings of AWS (AWS_*, profile) are wrong: {exc}") from exc
    try:
        # botocore asks for `100 Continue` with every body that is like a file.
        driver.meta.events.unregister("before-call.s3", add_expect_header)
        driver.meta.events.register("before-call.s3", expect_continue)
        resolve_by_bucket(driver)
        yield S3Client(driver, options, credentials)
    finally:
        await context.__aexit__(None, None, None)
