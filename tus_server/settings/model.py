"""Settings: one frozen object with everything an operator can choose."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from tus_server.core.upload import MAX_ANNOUNCED_INTEGER
from tus_server.settings import values
from tus_server.settings.fields import PREFIX, setting
from tus_server.settings.sources import find_config, read_config

KIB: Final = 1024
MIB: Final = 1024 * KIB

_Word = BeforeValidator(values.fold_case)
_Optional = BeforeValidator(values.blank_is_unset)
_PublicUrl = Annotated[str, AfterValidator(values.parse_public_url)]
_StateUrl = Annotated[str, AfterValidator(values.check_sqlite_url)]
_StoreUrl = Annotated[str, AfterValidator(values.check_file_url)]
_CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(values.split_list)]


class Settings(BaseSettings):
    """Everything an operator can choose. Flags (init arguments) win, then TUS_*, then the file."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        validate_default=False,
        # What was given may be a URL with a password.
        hide_input_in_errors=True,
    )

    config: Annotated[Path | None, _Optional] = setting(
        "TOML file with settings: the names below in lower case, without TUS_",
        "give the path of a file",
        default=None,
        shown="./tus-server.toml if there is one",
    )
    host: Annotated[str, AfterValidator(values.parse_host)] = setting(
        "Address to listen on",
        "give an IP address or a host name, without scheme and port",
        default="127.0.0.1",
    )
    port: int = setting(
        "TCP port to listen on; 0 takes any free one",
        "give a number from 0 to 65535",
        default=8080,
        ge=0,
        le=65535,
    )
    base_path: Annotated[str, AfterValidator(values.parse_base_path)] = setting(
        "Path of the creation URL; uploads are below it",
        "give a path such as /files/ of letters, digits and - . _ ~",
        default="/files/",
    )
    public_url: Annotated[_PublicUrl | None, _Optional] = setting(
        "Scheme and host that clients use, such as https://files.example.com, for Location",
        "give scheme and host such as https://files.example.com, without query and password",
        default=None,
        shown="as the request says",
    )
    data_dir: Annotated[Path, BeforeValidator(values.parse_path)] = setting(
        "Folder of everything the server keeps; one server per folder",
        "give the path of a folder",
        default=Path("./tus-data"),
    )
    state_url: Annotated[_StateUrl | None, _Optional] = setting(
        "Where the state of uploads is: sqlite:///relative.db or sqlite:////absolute/path.db",
        "give sqlite:///relative.db or sqlite:////absolute/path.db",
        default=None,
        shown="state.db in the data dir",
    )
    store_url: Annotated[_StoreUrl | None, _Optional] = setting(
        "Where the bytes of uploads are: file:relative or file:///absolute/folder",
        "give file:relative or file:///absolute/folder",
        default=None,
        shown="objects in the data dir",
    )
    max_size: Annotated[ByteSize | None, _Optional] = setting(
        "Size of the largest upload, in bytes or as 10 GiB",
        "give a size from 1 to 2^53-1 bytes, such as 10 GiB",
        default=None,
        shown="2^53-1",
        ge=1,
        le=MAX_ANNOUNCED_INTEGER,
    )
    behind_proxy: Annotated[_CommaList, AfterValidator(values.check_proxies)] = setting(
        "Proxies whose `Forwarded` and `X-Forwarded-*` count: addresses, networks, `unix`, `*`",
        "give addresses or networks with commas between, 'unix' or '*'",
        default=(),
        shown="none",
    )
    cors_origins: Annotated[_CommaList, AfterValidator(values.check_origins)] = setting(
        "Origins whose pages may use the server; `https://*.example.com` takes subdomains",
        "give '*', or origins such as https://app.example.com with commas between",
        default=("*",),
    )
    cors_credentials: bool = setting(
        "Whether those pages may send cookies; needs named origins",
        "give true or false",
        default=False,
    )
    body_idle_timeout_s: float = setting(
        "Seconds without a byte after which a request body is given up; what arrived is kept",
        "give a number of seconds above 0",
        default=60.0,
        gt=0,
        allow_inf_nan=False,
    )
    lease_wait_s: float = setting(
        "Seconds a request waits for another one to let go of the upload",
        "give a number of seconds, at least 0",
        default=5.0,
        ge=0,
        allow_inf_nan=False,
    )
    shutdown_timeout_s: float = setting(
        "Seconds requests get to store what has arrived when the server stops",
        "give a number of seconds, at least 0",
        default=30.0,
        ge=0,
        allow_inf_nan=False,
    )
    keep_alive_timeout_s: float = setting(
        "Seconds an idle connection is kept open",
        "give a number of seconds above 0",
        default=75.0,
        gt=0,
        allow_inf_nan=False,
    )
    buffer_bytes: ByteSize = setting(
        "Memory for the bodies of all requests together, in bytes or as 128 MiB",
        "give a size of at least 4 MiB",
        default=ByteSize(128 * MIB),
        ge=4 * MIB,
    )
    part_size_bytes: ByteSize = setting(
        "Bytes written between two durable commits within one request",
        "give a size from 1 MiB to 5 GiB",
        default=ByteSize(32 * MIB),
        ge=MIB,
        le=5 * 1024 * MIB,
    )
    max_header_bytes: ByteSize = setting(
        "Size of the largest request head, in bytes or as 32 KiB",
        "give a size from 4 KiB to 1 MiB",
        default=ByteSize(32 * KIB),
        ge=4 * KIB,
        le=MIB,
    )
    durability: Annotated[Literal["full", "relaxed"], _Word] = setting(
        "full: acknowledged bytes survive a power cut; relaxed: a crash of the server only",
        "give full or relaxed",
        default="full",
    )
    downloads: Annotated[Literal["proxy", "off"], _Word] = setting(
        "proxy: finished uploads can be fetched from the server; off: they cannot",
        "give proxy or off",
        default="proxy",
    )
    body_path: Annotated[Literal["auto", "fast", "plain"], _Word] = setting(
        "How bodies are received: fast (own protocol class), plain (ASGI), auto (fast if it works)",
        "give auto, fast or plain",
        default="auto",
    )
    file_threads: int = setting(
        "Threads for writing, reading and fsync of files",
        "give a number from 1 to 256",
        default=16,
        ge=1,
        le=256,
    )
    log_format: Annotated[Literal["auto", "console", "json"], _Word] = setting(
        "Form of the log lines on stderr; auto: console on a terminal, else json",
        "give auto, console or json",
        default="auto",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _Word] = setting(
        "Least severe log lines to write",
        "give debug, info, warning or error",
        default="info",
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
        return values.parse_sqlite_url(self.state_url).absolute()

    @property
    def store_path(self) -> Path:
        """The folder that has, or gets, the folder `objects`; absolute."""
        if self.store_url is None:
            return self.data_dir.absolute()
        return values.parse_file_url(self.store_url).absolute()

    @property
    def origins(self) -> tuple[str, ...]:
        """What wire.cors.Origins takes."""
        return self.cors_origins

    @property
    def proxies(self) -> tuple[str, ...]:
        """What wire.forwarded.TrustedProxies takes."""
        return self.behind_proxy

    @field_validator("cors_credentials")
    @classmethod
    def _check_credentials(cls, credentials: bool, info: ValidationInfo) -> bool:
        if credentials and "*" in info.data.get("cors_origins", ()):
            raise values.Unfit(
                "name the origins in TUS_CORS_ORIGINS, for with '*' it would have no effect"
            )
        return credentials
