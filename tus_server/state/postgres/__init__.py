"""State in Postgres, shared by many nodes."""

from tus_server.state.postgres.inspect import Facts, inspect
from tus_server.state.postgres.options import PostgresOptions
from tus_server.state.postgres.pool import connect
from tus_server.state.postgres.reads import PostgresReader
from tus_server.state.postgres.schema import migrate
from tus_server.state.postgres.start import check_schema
from tus_server.state.postgres.store import PostgresState

__all__ = [
    "Facts",
    "PostgresOptions",
    "PostgresReader",
    "PostgresState",
    "check_schema",
    "connect",
    "inspect",
    "migrate",
]
