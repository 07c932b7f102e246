"""What a store can be trusted with, found by sending it wrong values.

Only a refusal proves anything, since a store may repeat the name of a checksum and verify nothing;
and only where the same request with the right value is taken, since a store may refuse what it does
not know. What it refuses is not sent to it again. About ten small requests under a key of their
own, once per start.
"""

import uuid

from tus_server.core.errors import SettingsInvalid, StorageFull, StoreUnavailable
from tus_server.disk.threads import FileThreads
from tus_server.objects.s3.bucket import multipart_etag
from tus_server.objects.s3.client import S3Client
from tus_server.objects.s3.failures import EXISTS, Refused
from tus_server.objects.s3.options import Capabilities, ChecksumMode, S3Options
from tus_server.objects.s3.tries import CRC, MD5, WRONG_CRC, Fields, Reply, Tries, completions

_ONLY_NEW: Fields = {"IfNoneMatch": "*"}


async def probe(client: S3Client, options: S3Options, threads: FileThreads) -> Capabilities:
    """Find out what the store does. Raises: SettingsInvalid (a right is missing)."""
    key = f"{options.prefix}tus-server-probe-{uuid.uuid4().hex}"
    try:
        return await _Probe(Tries(client, options, threads, key), options.checksum).run()
    except Refused as exc:
        raise SettingsInvalid(
            f"The bucket {options.bucket} refuses {exc.operation} below the prefix"
            f" {options.prefix!r} ({exc.code}): see TUS_STORE_URL and the rights of the key."
        ) from exc
    except (StoreUnavailable, StorageFull) as exc:
        raise SettingsInvalid(
            f"The bucket {options.bucket} cannot be written ({exc.detail.removesuffix('.')}): see"
            " TUS_STORE_URL and the store."
        ) from exc


class _Probe:
    def __init__(self, tries: Tries, checksum: str) -> None:
        self._tries = tries
        self._chosen = None if checksum == "auto" else ChecksumMode(checksum)
        # What bodies are sent with. What an operator has chosen is not tried.
        self._checksums = [MD5] if self._chosen else [CRC, MD5]
        self._etag = ""

    async def run(self) -> Capabilities:
        try:
            puts = await self._puts()
            mode, completes, etag = await self._completes(await self._begin())
        finally:
            await self._tries.abort()
            await self._tries.call("delete_object")
        etags = etag.strip('"') == multipart_etag([self._etag])
        return Capabilities(self._chosen or mode, puts, completes, etags)

    async def _puts(self) -> bool:
        """Put the object; tell whether the store puts it only where there is none."""
        reply = Reply()
        for condition in (_ONLY_NEW, {}):
            for checksum in self._checksums:
                fields = condition | checksum
                reply = await self._tries.put(fields)
                # The driver repeats what was cut: it may have met the object of its first attempt.
                if reply.code in EXISTS and (await self._tries.call("head_object")).taken:
                    reply = Reply({})
                if reply.taken:
                    self._checksums = [checksum]
                    return bool(condition) and (await self._tries.put(fields)).proves
        raise reply.failure

    async def _begin(self) -> ChecksumMode:
        """Begin a multipart upload with one part, and tell whether parts are compared."""
        if CRC in self._checksums and (await self._tries.begin(crc=True)).taken:
            wrong = await self._tries.part(WRONG_CRC)
            right = await self._tries.part(CRC)
            if right.taken and wrong.proves:
                self._etag = right.etag
                return ChecksumMode.PART
            await self._tries.abort()
        (await self._tries.begin(crc=False)).require()
        self._etag = (await self._tries.part(MD5)).require().etag
        return ChecksumMode.NONE

    async def _completes(self, mode: ChecksumMode) -> tuple[ChecksumMode, bool, str]:
        """Complete; give the mode, whether an object that is there is left alone, and the ETag."""
        ways = completions(self._etag, crc=mode is ChecksumMode.PART)
        # The object of put() is there: this has to be refused, and leaves the upload open.
        reply = await self._tries.complete(ways[0] | _ONLY_NEW)
        if reply.taken:
            if mode is ChecksumMode.NONE:
                return mode, False, reply.etag
            # What it says to a wrong checksum of the whole needs another upload.
            (await self._tries.begin(crc=True)).require()
            self._etag = (await self._tries.part(CRC)).require().etag
            ways = completions(self._etag, crc=True)
        tried = [(way, False) for way in ways]
        if reply.proves:
            await self._tries.call("delete_object")
            tried.insert(0, (ways[0] | _ONLY_NEW, True))
        for way, conditional in tried:
            whole = "ChecksumCRC64NVME" in way
            if whole:
                wrong = await self._tries.complete(way | WRONG_CRC)
                if wrong.taken:
                    return mode, conditional, wrong.etag
            reply = await self._tries.complete(way)
            if not reply.taken:
                continue
            if whole and wrong.proves and await self._tries.tells_crc():
                mode = ChecksumMode.FULL_OBJECT
            if way is ways[-1]:
                mode = ChecksumMode.NONE  # it refuses the checksums of the parts
            return mode, conditional, reply.etag
        raise reply.failure
