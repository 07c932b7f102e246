"""State in one SQLite file, owned by one process."""

from tus_server.state.sqlite.reader import SqliteReader
from tus_server.state.sqlite.store import SqliteState

__all__ = ["SqliteReader", "SqliteState"]
