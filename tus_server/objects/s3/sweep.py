"""Removing what a row does not have. Only what has exactly the key of that row is ever touched."""

from tus_server.core.states import UNFINISHED
from tus_server.core.upload import Upload
from tus_server.objects.s3.bucket import Bucket
from tus_server.objects.s3.failures import Refused
from tus_server.objects.s3.keys import find_tail_generation, tail_prefix
from tus_server.objects.s3.losses import Losses
from tus_server.ports import Confirm

MAX_ROUNDS = 100


async def recover(bucket: Bucket, losses: Losses, upload: Upload, confirm: Confirm) -> None:
    """See ports.ObjectStore.

    What was there before the lease was confirmed is of its holder, or of one before: so a sweeper
    that stands still on its way aborts nothing that a later holder has begun.
    """
    if upload.object_key is None:
        return
    # Also of a finished upload: aborting what an object was made of can break it (Swift).
    kept = upload.multipart_id
    parked = upload.tail.generation if upload.tail and upload.tail.node is None else None
    tails = await _find_tails(bucket, upload.object_key, kept=parked)
    await _abort_all_but(bucket, upload, kept, confirm)
    for key in tails:
        await bucket.delete_object(key)
    # What clients send to the store by themselves may change at any time: the next look tells.
    if upload.state in UNFINISHED and upload.committed_bytes and not upload.is_direct:
        await _check_parts(bucket, losses, upload)


async def free(bucket: Bucket, upload: Upload) -> None:
    """See ports.ObjectStore."""
    if upload.object_key is None:
        return
    if upload.multipart_id is not None:
        await bucket.abort(upload, upload.multipart_id)
    await abort_all(bucket, upload)
    await bucket.delete_object(upload.object_key)
    for key in await _find_tails(bucket, upload.object_key, kept=None):
        await bucket.delete_object(key)


async def abort_all(bucket: Bucket, upload: Upload) -> None:
    """Abort the multipart uploads of a key, where no holder of any lease counts on one."""
    await _abort_all_but(bucket, upload, upload.multipart_id, _need_not)


async def _need_not() -> None:
    pass


async def _abort_all_but(
    bucket: Bucket, upload: Upload, kept: str | None, confirm: Confirm
) -> None:
    """Abort the multipart uploads of a key; `confirm` is awaited between each look and its aborts.

    Looked at from the start again after each round, and not from a marker: versitygw 1.8 refuses
    the markers it gives.
    """
    for _ in range(MAX_ROUNDS):
        ids, more = await bucket.list_multipart_ids(upload)
        await confirm()
        foreign = [found for found in ids if found != kept]
        for found in foreign:
            await bucket.abort(upload, found)
        if not more or not foreign:
            break
    bucket.doubted.discard(upload.id)


async def _find_tails(bucket: Bucket, key: str, *, kept: int | None) -> list[str]:
    """Give the keys of the parked tails of an upload, but that of generation `kept`."""
    tails = []
    async for found in bucket.list_keys(tail_prefix(key)):
        generation = find_tail_generation(key, found)
        if generation is not None and generation != kept:
            tails.append(found)
    return tails


async def _check_parts(bucket: Bucket, losses: Losses, upload: Upload) -> None:
    """Raise unless as many bytes are stored as are committed."""
    try:
        stored = await bucket.list_parts(upload) if upload.multipart_id is not None else {}
    except Refused:
        stored = {}
    size = sum(part.size for part in stored.values())
    if size < upload.committed_bytes:
        raise losses.conclude(
            upload, f"Upload {upload.id}: S3 has {size} of {upload.committed_bytes} bytes."
        )
    losses.found(upload)
