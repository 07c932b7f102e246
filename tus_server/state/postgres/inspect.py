"""What a server of Postgres is like: what the start, and a doctor, have to know."""

from dataclasses import dataclass

from tus_server.state.postgres.pool import Session
from tus_server.state.postgres.rows import SQL
from tus_server.state.postgres.schema import find_version

MIN_VERSION = 13
_TABLES = "uploads,upload_parts,upload_members,status_history,outbox,nodes,duties,probe"


@dataclass(frozen=True, slots=True)
class Facts:
    """schema: version of the tables, 0 without any. missing_rights: "INSERT on uploads", ..."""

    server_version: str
    major_version: int
    fsync: bool
    synchronous_commit: str
    is_read_only: bool
    schema: int
    missing_rights: tuple[str, ...]

    def faults(self) -> list[str]:
        """Give what keeps the server from working, as sentences."""
        found = []
        if self.major_version < MIN_VERSION:
            found.append(
                f"Postgres {self.server_version} is too old: TUS_STATE_URL must lead to"
                f" {MIN_VERSION} or later."
            )
        if self.is_read_only:
            found.append(
                "Postgres takes no writes (a standby, or default_transaction_read_only):"
                " TUS_STATE_URL must lead to the primary."
            )
        if self.missing_rights:
            found.append(
                f"The user of TUS_STATE_URL lacks {', '.join(self.missing_rights)}: GRANT it."
            )
        return found

    def warnings(self) -> list[str]:
        """Give what works and still loses acknowledged bytes one day, as sentences."""
        found = []
        if not self.fsync:
            found.append(
                "Postgres runs with fsync = off: a power cut there loses acknowledged bytes, or"
                " the database. Switch it on."
            )
        if self.synchronous_commit == "off":
            found.append(
                "Postgres runs with synchronous_commit = off: a crash there loses acknowledged"
                " bytes. Switch it on for the database of TUS_STATE_URL."
            )
        return found


async def inspect(connection: Session) -> Facts:
    """Look. Raises what the driver raises."""
    row = await connection.fetchrow(SQL["server_facts"])
    assert row is not None
    schema = await find_version(connection)
    missing = await connection.fetch(SQL["missing_rights"], _TABLES)
    return Facts(
        server_version=row[0],
        major_version=row[1] // 10000,
        fsync=row[2] == "on",
        synchronous_commit=row[3],
        is_read_only=row[4],
        schema=schema,
        missing_rights=tuple(one[0] for one in missing),
    )
