"""Opening the S3 store: settings and metadata of uploads in the words of S3."""

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from tus_server.core.upload import Upload
from tus_server.disk.threads import FileThreads
from tus_server.folders import make_lasting_folder
from tus_server.ports import Blocks
from tus_server.settings import Settings
from tus_server.wire.content import describe_content
from tus_server.wire.metadata import parse_metadata

if TYPE_CHECKING:
    from tus_server.objects.s3 import Capabilities, Described, ParkedTails, S3Objects, S3Options


async def open_s3(
    settings: Settings,
    blocks: Blocks,
    threads: FileThreads,
    stack: AsyncExitStack,
    capabilities: "Capabilities | None",
) -> "tuple[S3Objects, ParkedTails]":
    """Open the store on `stack`; without `capabilities` it is tried out what the service can do.

    Raises: SettingsInvalid, StoreUnavailable.
    """
    from tus_server.objects.s3 import S3Objects

    # Spill files have no name: nothing to sweep, gone with the process.
    spill_dir = settings.data_dir.absolute() / "spill"
    make_lasting_folder(spill_dir)
    objects = await stack.enter_async_context(
        S3Objects(
            s3_options(settings),
            blocks=blocks,
            spill_dir=spill_dir,
            threads=threads,
            describe=_describe,
            capabilities=capabilities,
            # A few large parts must not take all the memory there is for bodies.
            kept_bytes=settings.buffer_bytes // 4,
        )
    )
    return objects, objects.tails


def s3_options(settings: Settings) -> "S3Options":
    """Give what the S3 store takes of the settings."""
    from tus_server.objects.s3 import S3Options
    from tus_server.objects.s3.options import MAX_OBJECT_SIZE

    return S3Options(
        bucket=settings.s3_bucket,
        prefix=settings.s3_prefix,
        endpoint_url=settings.s3_endpoint_url,
        path_style=settings.s3_path_style,
        region=settings.s3_region,
        key_template=settings.s3_key_template,
        part_size_bytes=settings.part_size,
        equal_parts=settings.s3_equal_parts,
        checksum=settings.s3_checksum,
        parallel_parts=settings.s3_parallel_parts,
        max_concurrency=settings.s3_max_concurrency,
        connect_timeout_s=settings.s3_connect_timeout_s,
        read_timeout_s=settings.s3_read_timeout_s,
        operation_timeout_s=settings.s3_timeout_s,
        attempts=settings.s3_attempts,
        storage_class=settings.s3_storage_class,
        sse=settings.s3_sse,
        sse_kms_key_id=settings.s3_sse_kms_key_id,
        acl=settings.s3_acl,
        tags=settings.s3_tagging,
        presign_expires_s=settings.s3_presign_expires_s,
        # What nobody may send needs no part numbers: the parts of deferred lengths stay smaller.
        max_object_size=min(settings.max_size or MAX_OBJECT_SIZE, MAX_OBJECT_SIZE),
    )


def _describe(upload: Upload) -> "Described":
    from tus_server.objects.s3 import Described

    content = describe_content(upload.metadata)
    metadata = {
        key: value.decode("utf-8", errors="replace")
        for key, value in parse_metadata(upload.metadata).items()
    }
    return Described(content.content_type, content.disposition, metadata)
