"""What an operator should know of the store, each thing tried out: for `tus-server doctor`.

Everything is written to keys of its own below the prefix, and removed again.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from tus_server.core.errors import SettingsInvalid, StorageFull, StoreUnavailable
from tus_server.core.parts import MIB
from tus_server.disk.threads import FileThreads
from tus_server.findings import (
    Finding,
    Verdict,
    failed,
    note,
    ok,
    refused,
    skipped,
    warning,
    within,
)
from tus_server.objects.s3.assembling import Assembling
from tus_server.objects.s3.client import S3Client, open_client
from tus_server.objects.s3.failures import ANY, DRIVER_ERRORS, Refused
from tus_server.objects.s3.options import Capabilities, ChecksumMode, S3Options
from tus_server.objects.s3.probe import probe
from tus_server.objects.s3.rights import Rights
from tus_server.objects.s3.start import check_bucket

# S3 refuses requests that are 15 minutes off; a clock on its way there is found before.
SKEW_LIMIT_S = 60.0
TIMEOUT_S = 30.0
PARTS_TIMEOUT_S = 120.0
# One who waits for a report would rather be told that it failed once.
_PATIENCE = {"attempts": 2, "connect_timeout_s": 5.0, "read_timeout_s": 10.0}
_ORDER = tuple(ChecksumMode)  # the best one first
_MEANS = {
    ChecksumMode.FULL_OBJECT: "a wrong part is refused, and a wrong whole",
    ChecksumMode.PART: "a wrong part is refused; of the whole, size and ETags are compared",
    ChecksumMode.NONE: "no CRC-64 is compared; parts are sent with their MD5",
}
_NO_RULES = frozenset({"NoSuchLifecycleConfiguration", "NotImplemented", "MethodNotAllowed"})


async def inspect(options: S3Options, threads: FileThreads) -> AsyncIterator[Finding]:
    """Try out what the server will need, one thing after the other; ends where none can follow."""
    patient = replace(
        options, **{name: min(most, getattr(options, name)) for name, most in _PATIENCE.items()}
    )
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(open_client(patient))
            await check_bucket(client, patient)
        except SettingsInvalid as exc:
            yield refused("S3 bucket", exc.detail)
            yield skipped("all else in S3", "the bucket cannot be used")
            return
        where = options.endpoint_url or "Amazon S3"
        region = client.driver.meta.region_name
        yield ok("S3 bucket", f"{options.bucket} at {where}, region {region}")
        inspection = _Inspection(client, patient, threads)
        left: str | None
        try:
            async for finding in inspection.run():
                yield finding
        finally:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    left = await inspection.clean()
            except TimeoutError:
                left = inspection.key
        if left:
            yield warning("S3 clean-up", f"{left} could not be removed", "remove it by hand.")


class _Inspection:
    def __init__(self, client: S3Client, options: S3Options, threads: FileThreads) -> None:
        self._client = client
        self._options = options
        self._threads = threads
        self.key = f"{options.prefix}tus-server-doctor-{uuid.uuid4().hex}"
        self._bucket: dict[str, Any] = {"Bucket": options.bucket}
        self._target: dict[str, Any] = {**self._bucket, "Key": self.key}

    async def run(self) -> AsyncIterator[Finding]:
        yield await within("S3 clock", TIMEOUT_S, self._tried("S3 clock", self._clock))
        missing = False
        rights = Rights(self._client, self._options, self._threads, self.key)
        async for right in rights.use_all():
            missing |= right.verdict is not Verdict.OK
            yield right
        if missing:
            yield skipped("S3 parts and checksums", "a call they need did not work")
        else:
            for what, check in (
                ("S3 parts", self._parts),
                ("S3 small parts", self._small_parts),
            ):
                yield await within(what, PARTS_TIMEOUT_S, self._tried(what, check))
            async for finding in self._capabilities():
                yield finding
        what = "S3 lifecycle"
        yield await within(what, TIMEOUT_S, self._tried(what, self._lifecycle))

    async def clean(self) -> str | None:
        """Remove object and multipart uploads of our key; give the key if that did not work."""
        gone = await self._ask("delete_object", **self._target)
        listed = await self._ask("list_multipart_uploads", Prefix=self.key, **self._bucket)
        for found in (listed or {}).get("Uploads") or ():
            if found["Key"] == self.key:
                await self._ask(
                    "abort_multipart_upload", UploadId=found["UploadId"], **self._target
                )
        if gone is not None:
            return None
        there = await self._ask("head_object", **self._target)
        return None if there is None else self.key

    async def _ask(self, operation: str, **arguments: Any) -> Any:
        try:
            return await self._client.call(operation, accept=ANY, **arguments)
        except (Refused, StoreUnavailable, StorageFull, *DRIVER_ERRORS):
            return None

    async def _tried(self, what: str, check: Callable[[str], Awaitable[Finding]]) -> Finding:
        try:
            return await check(what)
        except (Refused, StoreUnavailable, StorageFull) as exc:
            return failed(what, str(exc), "find out what the store had against it: see its log.")

    # --- checks

    async def _clock(self, what: str) -> Finding:
        answer = await self._client.call("list_objects_v2", accept=ANY, MaxKeys=1, **self._bucket)
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        try:
            apart_s = abs((datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds())
        except (TypeError, ValueError):
            return note(what, "S3 does not tell the time")
        text = f"{apart_s:.0f} s apart"
        if apart_s > SKEW_LIMIT_S:
            remedy = "set the clock of this machine (NTP): at 15 minutes S3 refuses every request."
            return failed(what, text, remedy)
        return ok(what, text)

    async def _parts(self, what: str) -> Finding:
        """Make objects as the server does: of parts of different sizes, but in the equal mode."""
        size, equal = self._options.min_part_size, self._options.equal_parts
        assembling = Assembling(self._client, self._options, self._threads, self._target)
        answer = await assembling.find_refusal([size, size if equal else size + MIB, 1])
        if answer is None:
            sizes = "equal sizes" if equal else "different sizes"
            return ok(what, f"of {size / MIB:g} MiB and more, of {sizes}")
        if not equal and await assembling.find_refusal([size, size, 1]) is None:
            return failed(
                what, f"of different sizes are refused ({answer})", "set TUS_S3_EQUAL_PARTS=true."
            )
        return failed(
            what,
            f"of {size / MIB:g} MiB are refused ({answer})",
            "use a store that takes parts of this size, as S3 does.",
        )

    async def _small_parts(self, what: str) -> Finding:
        assembling = Assembling(self._client, self._options, self._threads, self._target)
        answer = await assembling.find_refusal([1, 1])
        smallest = f"{self._options.min_part_size / MIB:g} MiB"
        if answer is None:
            return note(what, f"are taken here; the server sends none below {smallest}")
        return ok(what, f"are refused, as S3 does ({answer}); the server sends none")

    async def _capabilities(self) -> AsyncIterator[Finding]:
        what = "S3 checksums"
        found: list[Capabilities] = []

        async def look() -> Finding:
            asked = replace(self._options, checksum="auto")
            try:
                found.append(await probe(self._client, asked, self._threads))
            except SettingsInvalid as exc:
                return refused(what, exc.detail)
            return self._judge_checksum(what, found[0].checksum)

        yield await within(what, TIMEOUT_S, look())
        if not found:
            return
        yield self._judge_conditions("S3 conditional writes", found[0])
        yield (
            ok("S3 ETags", "of multipart objects are made from those of the parts")
            if found[0].multipart_etags
            else note("S3 ETags", "of multipart objects tell nothing; the size is compared")
        )

    def _judge_checksum(self, what: str, does: ChecksumMode) -> Finding:
        chosen = self._options.checksum
        if chosen != "auto" and _ORDER.index(ChecksumMode(chosen)) < _ORDER.index(does):
            return failed(
                what,
                f"TUS_S3_CHECKSUM is {chosen}, the store does {does}: {_MEANS[does]}",
                "set TUS_S3_CHECKSUM=auto.",
            )
        text = f"{does}: {_MEANS[does]}"
        return note(what, text) if does is ChecksumMode.NONE else ok(what, text)

    def _judge_conditions(self, what: str, does: Capabilities) -> Finding:
        kept = {
            "PutObject": does.conditional_puts,
            "CompleteMultipartUpload": does.conditional_completes,
        }
        ignoring = [operation for operation, keeps in kept.items() if not keeps]
        if not ignoring:
            return ok(what, "If-None-Match: * is kept")
        return warning(
            what,
            f"If-None-Match: * is not kept by this store ({', '.join(ignoring)})",
            "use one that does: a server that stalls for longer than its lease could replace an"
            " object.",
        )

    async def _lifecycle(self, what: str) -> Finding:
        """Look for a rule that ends what even a lost server leaves behind."""
        ends = "; the server ends what it has begun by itself"
        try:
            answer = await self._client.call(
                "get_bucket_lifecycle_configuration", accept=ANY, attempts=1, **self._bucket
            )
        except Refused as exc:
            text = "no rules" if exc.code in _NO_RULES else f"cannot be read ({exc.code})"
            return note(what, text + ends)
        except (StoreUnavailable, StorageFull) as exc:
            return note(what, exc.detail.removesuffix(".") + ends)
        days = [
            rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]
            for rule in answer.get("Rules", ())
            if rule.get("Status") == "Enabled" and "AbortIncompleteMultipartUpload" in rule
        ]
        if not days:
            return note(what, f"no rule for incomplete multipart uploads{ends}")
        return note(
            what,
            f"incomplete multipart uploads end after {min(days)} days, and so do uploads that"
            " take longer",
        )
