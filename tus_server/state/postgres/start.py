"""Opening the first connection: what is wrong is told in one sentence that names the remedy."""

import structlog

from tus_server.core.errors import SettingsInvalid, TusServerError
from tus_server.state.postgres.errors import DRIVER_ERRORS, at_start
from tus_server.state.postgres.inspect import Facts, inspect
from tus_server.state.postgres.options import PostgresOptions
from tus_server.state.postgres.pool import Session, close, connect
from tus_server.state.postgres.schema import expect_current

log = structlog.get_logger(__name__)


async def open_checked(options: PostgresOptions, *, writes: bool = False) -> Session:
    """Connect to a database of the right schema.

    writes: and check whether the server can be relied on. Raises: SettingsInvalid, SchemaMismatch.
    """
    try:
        connection = await connect(options)
    except (TimeoutError, ValueError, *DRIVER_ERRORS) as exc:
        raise at_start(exc, options.url) from exc
    try:
        async with connection.transaction():  # for the sake of poolers
            await expect_current(connection)
            if writes:
                _judge(await inspect(connection))
    except TusServerError:
        connection.terminate()
        raise
    except (TimeoutError, *DRIVER_ERRORS) as exc:
        connection.terminate()
        raise at_start(exc, options.url) from exc
    except BaseException:
        connection.terminate()
        raise
    return connection


async def check_schema(options: PostgresOptions) -> None:
    """Raise SchemaMismatch or SettingsInvalid unless a server could start."""
    connection = await open_checked(options)
    await close(connection)


def _judge(facts: Facts) -> None:
    if faults := facts.faults():
        raise SettingsInvalid(" ".join(faults))
    for sentence in facts.warnings():
        log.warning("postgres.not_durable", detail=sentence)
