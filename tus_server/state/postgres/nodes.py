"""Telling the other nodes that this one is there, under which name."""

import asyncpg

from tus_server.core.errors import NodeNameTaken
from tus_server.ports import Node
from tus_server.state.postgres.errors import DRIVER_ERRORS, at_start
from tus_server.state.postgres.options import PostgresOptions
from tus_server.state.postgres.pool import Session
from tus_server.state.postgres.rows import SQL

# A name is free when its node has not been heard of for this long. Heartbeats are seconds apart.
SILENT_S = 60.0
# Any number that other applications are unlikely to lock: 'tusnode1'.
_LOCK = 0x7475736E6F646531


async def register(connection: Session, options: PostgresOptions, node: Node) -> None:
    """Write the node down. Raises: NodeNameTaken, SettingsInvalid."""
    try:
        async with connection.transaction():
            # One at a time: two workers of a new node would both insert its row, and the index on
            # labels, which ON CONFLICT (id) says nothing about, can be the first to notice.
            await connection.execute(SQL["lock"], _LOCK)
            await connection.execute(SQL["retire_label"], node.id, node.label, SILENT_S)
            await connection.execute(SQL["register_node"], node.id, node.label)
    except asyncpg.UniqueViolationError as exc:
        raise NodeNameTaken(
            f"Another node, with another data directory, runs under the name {node.label!r}: give"
            " this one a name of its own (TUS_NODE_NAME), or stop the other one."
        ) from exc
    except (TimeoutError, *DRIVER_ERRORS) as exc:
        raise at_start(exc, options.url) from exc
