"""Resumable uploads: tus 1.0.0 over SQLite and local disk."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tus_server.app import create_app
    from tus_server.settings import Settings

__version__ = "0.1.0"
__all__ = ["Settings", "__version__", "create_app"]


def __getattr__(name: str) -> Any:
    """Import public names when they are used: `tus-server --help` needs none of them."""
    if name == "create_app":
        from tus_server.app import create_app

        return create_app
    if name == "Settings":
        from tus_server.settings import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
