"""Settings: what an operator can choose, from flags, environment, TOML file and defaults."""

from tus_server.settings.load import load_settings, unknown_environment
from tus_server.settings.model import Settings

__all__ = ["Settings", "load_settings", "unknown_environment"]
