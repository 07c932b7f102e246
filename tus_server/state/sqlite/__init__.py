"""State in one SQLite file, owned by one process."""

from tus_server.state.sqlite.store import SqliteReader, SqliteState

__all__ = ["SqliteReader", "SqliteState"]
