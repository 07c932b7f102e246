"""Examining this node: its data directory, and who it is."""

from collections.abc import AsyncIterator

from tus_server import datadir
from tus_server.app.doctor.folder import LITTLE_BYTES, examine_folder
from tus_server.core.errors import DataDirInUse, DataDirUnusable
from tus_server.findings import Finding, note, ok, refused
from tus_server.node import FILE_NAME, load_node
from tus_server.ports import Node
from tus_server.settings import Settings


def find_node(settings: Settings) -> tuple[Node | None, Finding]:
    """Give the node of the data directory, if there is one yet; makes none."""
    what = "node"
    try:
        if not (settings.data_dir / FILE_NAME).exists():
            return None, note(what, "its identity is made at the first start")
        node = load_node(settings.data_dir, settings.node_name)
    except (DataDirUnusable, OSError) as exc:
        return None, refused(
            what, getattr(exc, "detail", f"The data directory cannot be read: {exc}")
        )
    return node, ok(what, f"{node.label}, id {node.id}")


def find_server(settings: Settings) -> Finding:
    """Tell whether a server runs on the data directory; either is right."""
    what = "server"
    try:
        url = datadir.find_server(settings.data_dir)
    except DataDirInUse as exc:
        return note(what, exc.detail)
    except NotADirectoryError:
        url = None
    except OSError as exc:
        return refused(
            what,
            f"The lock of {settings.data_dir} cannot be read ({exc.strerror}): run this as the"
            " user of the server.",
        )
    return note(what, f"runs at {url}" if url else "none runs on this data directory")


async def examine_data_dir(settings: Settings) -> AsyncIterator[Finding]:
    """Try the data directory out."""
    needed_bytes, why = LITTLE_BYTES, "a few uploads"
    if settings.uses_s3:
        bodies = settings.buffer_bytes + settings.s3_max_concurrency * settings.part_size
        needed_bytes = settings.workers * bodies
        why = "the parts on their way to S3 in all workers; tails come on top"
    async for finding in examine_folder(
        "data dir", settings.data_dir.absolute(), needed_bytes=needed_bytes, why=why
    ):
        yield finding
