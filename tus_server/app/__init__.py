"""Composition root: settings -> stores -> engine -> ASGI application, and what runs it.

The only package that knows the concrete classes. What is not configured is not imported: the
drivers of Postgres and S3 take half a second and 44 MiB.
"""

from tus_server.app.asgi import App, create_app
from tus_server.app.brokering import open_broker
from tus_server.app.doctor import examine
from tus_server.app.offline import (
    find_running,
    migrate_state,
    open_reader,
    retry_offline,
    rewind_offline,
    terminate_offline,
)
from tus_server.app.reaping import Reapable, find_reapable, reap_now
from tus_server.app.serving import Prepared, prepare, run, run_worker

__all__ = [
    "App",
    "Prepared",
    "Reapable",
    "create_app",
    "examine",
    "find_reapable",
    "find_running",
    "migrate_state",
    "open_broker",
    "open_reader",
    "prepare",
    "reap_now",
    "retry_offline",
    "rewind_offline",
    "run",
    "run_worker",
    "terminate_offline",
]
