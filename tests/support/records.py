"""What a server has on disk, looked at from outside: rows, events, files."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any


def upload_id(url: str) -> str:
    """Give the id at the end of an upload URL."""
    return url.rstrip("/").rpartition("/")[2]


class Records:
    """The data directory of a server, which may be running."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a SELECT on the state database."""
        path = self.data_dir / "state.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            return db.execute(sql, parameters).fetchall()

    def make_due(self) -> None:
        """Let no event wait for its next attempt any longer, as if hours had gone by."""
        with closing(sqlite3.connect(self.data_dir / "state.db", timeout=30)) as db, db:
            db.execute("UPDATE outbox SET due_at = 0 WHERE delivered_at IS NULL")

    def count_uploads(self, *, after: int = 0) -> int:
        """Count the uploads created behind the row `after` that have not ended."""
        ended = "('deleted', 'error', 'canceled', 'expired')"
        sql = f"SELECT count(*) FROM uploads WHERE seq > ? AND state NOT IN {ended}"
        return int(self.query(sql, after)[0][0])

    def _last_upload(self) -> int:
        return int(self.query("SELECT coalesce(max(seq), 0) FROM uploads")[0][0])

    def state(self, url: str) -> str:
        """Give the state of an upload."""
        return str(self.query("SELECT state FROM uploads WHERE id = ?", upload_id(url))[0][0])

    def events(self, url: str) -> list[str]:
        """Give the events of an upload in the outbox, oldest first."""
        sql = "SELECT kind FROM outbox WHERE upload_id = ? ORDER BY id"
        return [str(row[0]) for row in self.query(sql, upload_id(url))]

    def files(self, url: str) -> list[Path]:
        """Give the files an upload has in the store."""
        return sorted(self.data_dir.glob(f"objects/*/*/{upload_id(url)}*"))

    def count_files(self) -> int:
        """Count the files in the store."""
        return sum(path.is_file() for path in self.data_dir.glob("objects/*/*/*"))

    @contextmanager
    def nothing_created(self) -> Iterator[None]:
        """Check that no upload and no file is left behind."""
        last, files = self._last_upload(), self.count_files()
        yield
        # Of those before some may end meanwhile: the server gives them up when it likes.
        assert self.count_uploads(after=last) == 0
        # Fewer: what tests before have left to the recovery loop is removed meanwhile.
        assert self.count_files() <= files
