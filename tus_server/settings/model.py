"""Settings: one frozen object with everything an operator can choose."""

from pathlib import Path
from typing import Self

from pydantic import ValidationError, model_validator
from pydantic_core import InitErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from tus_server.jobs.names import JobRules
from tus_server.settings import urls
from tus_server.settings.api import ApiSettings
from tus_server.settings.direct import DirectSettings
from tus_server.settings.fields import PREFIX
from tus_server.settings.jobs import JobSettings
from tus_server.settings.lifetime import LifetimeSettings
from tus_server.settings.node import NodeSettings
from tus_server.settings.requests import RequestSettings
from tus_server.settings.serving import ServingSettings
from tus_server.settings.sources import find_config, read_config
from tus_server.settings.state import StateSettings
from tus_server.settings.store import StoreSettings
from tus_server.settings.together import find_clashes
from tus_server.settings.values import Unfit


# pydantic takes the fields of the last base first, and tables list them in that order.
class Settings(
    JobSettings,
    LifetimeSettings,
    RequestSettings,
    DirectSettings,
    StoreSettings,
    StateSettings,
    NodeSettings,
    ApiSettings,
    ServingSettings,
    BaseSettings,
):
    """Everything an operator can choose. Flags (init arguments) win, then TUS_*, then the file."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        validate_default=False,
        # What was given may be a URL with a password.
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the TOML file below the environment; .env files and secret folders are not read."""
        path = find_config(init_settings().get("config"))
        in_file = read_config(path, cls.model_fields) if path else {}
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=in_file)

    @property
    def state_path(self) -> Path:
        """The SQLite file, absolute."""
        if self.state_url is None:
            return self.data_dir.absolute() / "state.db"
        return urls.parse_sqlite_url(self.state_url).absolute()

    @property
    def store_path(self) -> Path:
        """The folder that has, or gets, the folder `objects`; absolute."""
        if self.store_url is None:
            return self.data_dir.absolute()
        return urls.parse_file_url(self.store_url).absolute()

    @property
    def job_rules(self) -> JobRules:
        """Which names of jobs lead somewhere."""
        return JobRules(
            prefixes=self.job_prefixes,
            allow_private=self.webhook_allow_private,
            has_queue=self.uses_postgres,
        )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        wrong = [
            InitErrorDetails(
                type="value_error",
                loc=(name,),
                input=getattr(self, name),
                ctx={"error": Unfit(remedy)},
            )
            for name, remedy in find_clashes(self).items()
        ]
        if wrong:
            raise ValidationError.from_exception_data("Settings", wrong, hide_input=True)
        return self
