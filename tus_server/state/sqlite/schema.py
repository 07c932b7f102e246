"""Opening the database file: pragmas, schema version, numbered migrations."""

import sqlite3
from importlib.resources import files
from pathlib import Path

from tus_server.core.errors import DataDirUnusable, SchemaMismatch
from tus_server.folders import sync_folder

APPLICATION_ID = 0x74757331  # 'tus1': tells the file from any other SQLite database
VERSION = 4  # migrations/000n.sql takes a file from n - 1 to n; schema.sql is the sum of all


def connect(path: Path, *, durable: bool, read_only: bool = False) -> sqlite3.Connection:
    """Open `path`, creating or migrating the schema; read_only only looks.

    durable False drops the fsync of each commit, never their order. Raises:
    SchemaMismatch (another application's file, or written by a newer version), DataDirUnusable.
    """
    try:
        db = sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False)
    except sqlite3.DatabaseError as exc:
        raise DataDirUnusable(f"The state database {path} cannot be opened: {exc}.") from exc
    try:
        _prepare(db, path, durable=durable, read_only=read_only)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path, *, durable: bool, read_only: bool) -> None:
    try:
        version = _check_version(db, path)
        if read_only:
            db.execute("PRAGMA query_only = ON")
            if version == 0:
                raise SchemaMismatch(f"{path} holds no uploads yet.")
            if version < VERSION:
                raise SchemaMismatch(
                    f"The state database {path} has schema {version}, of an older version of this"
                    f" server; this one knows {VERSION}: start it to bring the file up to date."
                )
            return
        # FULL: every commit is fsynced before it is reported (P1); NORMAL in WAL mode is not.
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        if version < VERSION:
            _bring_up_to_date(db, version)
        db.execute("PRAGMA foreign_keys = ON")  # not before: a migration replaces tables
        if durable:
            sync_folder(path.parent)
    except sqlite3.DatabaseError as exc:
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_NOTADB:
            raise SchemaMismatch(f"{path} is not an SQLite database of this server.") from exc
        raise DataDirUnusable(f"The state database {path} cannot be opened: {exc}.") from exc


def _check_version(db: sqlite3.Connection, path: Path) -> int:
    """Give the version of our schema, 0 for a new file. Changes nothing in the file."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    application: int = db.execute("PRAGMA application_id").fetchone()[0]
    if version > VERSION and application == APPLICATION_ID:
        raise SchemaMismatch(
            f"The state database {path} has schema {version}, written by a newer version of this"
            f" server; this one knows {VERSION}: install that version, or use another data"
            " directory (TUS_DATA_DIR)."
        )
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or version or tables):
        raise SchemaMismatch(f"{path} belongs to another application; set TUS_STATE_URL.")
    return version


def _bring_up_to_date(db: sqlite3.Connection, version: int) -> None:
    names = (
        ["schema.sql"]
        if version == 0
        else [f"migrations/{step:04}.sql" for step in range(version + 1, VERSION + 1)]
    )
    package = files(__package__)
    script = "".join(package.joinpath(name).read_text(encoding="utf-8") for name in names)
    db.executescript(
        f"BEGIN IMMEDIATE; {script}; PRAGMA application_id = {APPLICATION_ID};"
        f" PRAGMA user_version = {VERSION}; COMMIT;"
    )
