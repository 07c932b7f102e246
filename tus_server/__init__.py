"""Resumable uploads: tus 1.0.0, RUFH, and direct uploads to the store."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tus_server.app import create_app, open_broker
    from tus_server.broker import Broker
    from tus_server.settings import Settings

__version__ = "0.1.0"
__all__ = ["Broker", "Settings", "__version__", "create_app", "open_broker"]


def __getattr__(name: str) -> Any:
    """Import public names when they are used: `tus-server --help` needs none of them."""
    if name in ("create_app", "open_broker"):
        from tus_server import app

        return getattr(app, name)
    if name == "Broker":
        from tus_server.broker import Broker

        return Broker
    if name == "Settings":
        from tus_server.settings import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
