"""Examining what is configured: whether a server would work here, and what to do where not."""

from collections.abc import AsyncIterator

from tus_server.app.doctor.node import examine_data_dir, find_node, find_server
from tus_server.app.doctor.stores import examine_objects, examine_state
from tus_server.findings import Finding
from tus_server.settings import Settings

__all__ = ["examine"]


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Look at everything; what is made on the way is removed, nothing else is changed."""
    yield find_server(settings)
    node = None
    if settings.uses_s3:
        node, finding = find_node(settings)
        yield finding
    async for finding in examine_data_dir(settings):
        yield finding
    async for finding in examine_state(settings, node):
        yield finding
    async for finding in examine_objects(settings):
        yield finding
