"""How to reach Postgres, and how long to wait for it."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """What the settings say.

    listen_url: for the one connection that waits for notifications, where `url` leads to a
    pooler (None: the same). statement_timeout_s: one operation, waiting for a connection
    included. retry_s: how long a commit waits for Postgres to come back. prepared_statements
    False: behind a pooler in transaction mode that does not know them. lease_s: how long a lease
    lasts that nobody renews.
    """

    url: str = field(repr=False)  # has a password
    listen_url: str | None = field(default=None, repr=False)
    pool_size: int = 10
    connect_timeout_s: float = 5.0
    statement_timeout_s: float = 10.0
    retry_s: float = 30.0
    prepared_statements: bool = True
    lease_s: float = 10.0
