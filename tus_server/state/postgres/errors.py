"""What the driver raises, as errors of ours."""

import asyncio
import re
import socket
import ssl
from urllib.parse import urlsplit

import asyncpg

from tus_server.core.errors import SettingsInvalid, StateUnavailable, StorageFull

# asyncpg derives InternalClientError from Exception alone. It is what a query may end with on a
# connection that the server has just closed (asyncpg issues 784 and 1069, 0.32): a lost one.
DRIVER_ERRORS = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

# Classes of SQLSTATE that tell of a wrong statement or value: a defect, not a state of the server.
_DEFECTS = {"22", "23", "42"}
_NO_RIGHT = "42501"
_DISK_FULL = "53100"
# Connection exceptions; 57P01 admin_shutdown .. 57P05 (57014 alone leaves the session alive); and
# 25006 read_only_sql_transaction: what was the primary is a standby now, ask again who it is.
_LOST = ("08", "57P", "25006")


def is_lost(error: BaseException) -> bool:
    """Tell whether the connection that raised `error` is gone, so that another may do better."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state.startswith(_LOST)
    if isinstance(error, asyncpg.DataError):
        return False
    return isinstance(error, DRIVER_ERRORS)


def translated(error: Exception) -> Exception:
    """Give the error to raise for one of DRIVER_ERRORS; `error` itself when it is a defect."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        if state == _DISK_FULL:
            return StorageFull("The disk of Postgres is full.")
        if state[:2] in _DEFECTS and state != _NO_RIGHT:
            return error
    elif isinstance(error, asyncpg.DataError):
        return error
    return StateUnavailable(f"Postgres: {_one_line(error)}")


def at_start(error: BaseException, url: str, setting: str = "TUS_STATE_URL") -> SettingsInvalid:
    """Give the one sentence that tells an operator what is wrong with a URL; never its password."""
    where, user, database = _place(url)
    text = _one_line(error)
    tls = isinstance(error, ssl.SSLError) or "SSL" in text or "encryption" in text
    if isinstance(error, socket.gaierror):
        what = f"the host of {where} cannot be resolved: correct the name"
    elif "unsupported startup parameter" in text:
        what = (
            f"{where} is a pooler: set TUS_STATE_PREPARED=false, and TUS_STATE_LISTEN_URL to"
            " Postgres itself; one that knows prepared statements needs"
            " ignore_startup_parameters = statement_timeout instead"
        )
    elif tls:
        what = f"TLS with {where} fails ({text}): correct sslmode, sslrootcert, or the certificate"
    elif isinstance(error, asyncpg.InvalidCatalogNameError):
        what = f"there is no database {database!r} at {where}: create it, or correct the name"
    elif isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        what = f"{where} refuses the user {user!r} ({text}): correct user and password"
    elif isinstance(error, asyncpg.InsufficientPrivilegeError):
        what = f"the user {user!r} lacks a right at {where} ({text}): GRANT it"
    elif isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        what = f"{where} does not answer: check the address, the firewall, and that Postgres runs"
    elif isinstance(error, OSError):
        what = f"nothing answers at {where} ({text}): start Postgres, or correct the address"
    elif isinstance(error, (ValueError, asyncpg.ClientConfigurationError)):
        what = f"the URL is not one of Postgres ({text}): postgresql://USER:PASSWORD@HOST/DATABASE"
    else:
        what = f"{where} refuses the connection ({text}): see the log of Postgres"
    return SettingsInvalid(f"{setting}: {_without_password(what, url)}.")


def _place(url: str) -> tuple[str, str, str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "localhost", parts.port or 5432
    except ValueError:
        return "the address", "", ""
    return f"{host}:{port}", parts.username or "", parts.path.lstrip("/")


def _without_password(text: str, url: str) -> str:
    try:
        password = urlsplit(url).password
    except ValueError:
        password = None
    if password:
        text = text.replace(password, "***")
    return re.sub(r"//[^/@\s]*@", "//***@", text)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return text or type(error).__name__
