"""Settings: what an operator can choose, from flags, environment, TOML file and defaults."""

from tus_server.settings.load import load_settings, unknown_environment
from tus_server.settings.model import Settings
from tus_server.settings.together import idle_settings

__all__ = ["Settings", "idle_settings", "load_settings", "unknown_environment"]
