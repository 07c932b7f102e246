"""Settings of where the state of uploads is, and how long it may take to answer."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel

from tus_server.settings import urls
from tus_server.settings.fields import OPTIONAL, count, seconds, setting

_StateUrl = Annotated[str, AfterValidator(urls.check_state_url)]
_PostgresUrl = Annotated[str, AfterValidator(urls.check_postgres_url)]


class StateSettings(BaseModel):
    """SQLite or Postgres."""

    state_url: Annotated[_StateUrl | None, OPTIONAL] = setting(
        "Where the state of uploads is: sqlite:///relative.db, sqlite:////absolute/path.db or"
        " postgresql://user:password@host:5432/database?sslmode=verify-full",
        "give sqlite:///relative.db, sqlite:////absolute/path.db or"
        " postgresql://user:password@host:5432/database with % codes for special characters",
        default=None,
        shown="state.db in the data dir",
        repr=False,
    )
    state_listen_url: Annotated[_PostgresUrl | None, OPTIONAL] = setting(
        "Postgres itself, where TUS_STATE_URL is a PgBouncer: for the one connection that listens",
        "give postgresql://user:password@host:5432/database with % codes for special characters",
        default=None,
        shown="TUS_STATE_URL",
        repr=False,
    )
    state_pool_size: int = count("Postgres connections of a process", default=10, most=1000)
    state_connect_timeout_s: float = seconds(
        "Seconds to make a connection to Postgres", default=5.0
    )
    state_timeout_s: float = seconds(
        "Seconds for one statement, waiting for a free connection included", default=10.0
    )
    state_retry_s: float = seconds(
        "Seconds that the commit of stored bytes waits for a Postgres that is away",
        default=30.0,
        zero=True,
    )
    state_prepared: bool = setting(
        "Whether Postgres prepares statements; false behind a PgBouncer that does not know them",
        "give true or false",
        default=True,
    )
    migrate: bool = setting(
        "Whether to bring the tables in Postgres up to date at start; else `tus-server migrate`",
        "give true or false",
        default=False,
    )

    @property
    def uses_postgres(self) -> bool:
        """Whether the state is in Postgres; else in SQLite, at state_path."""
        return self.state_url is not None and urls.is_postgres_url(self.state_url)
