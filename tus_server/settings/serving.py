"""Settings of how the server is reached, and by whom."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ValidationInfo, field_validator

from tus_server.settings import values
from tus_server.settings.fields import OPTIONAL, CommaList, setting

_WebUrl = Annotated[str, AfterValidator(values.parse_web_url)]


class ServingSettings(BaseModel):
    """Address, URLs, proxies, CORS."""

    config: Annotated[Path | None, OPTIONAL] = setting(
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
    public_url: Annotated[_WebUrl | None, OPTIONAL] = setting(
        "Scheme and host that clients use, such as https://files.example.com, for Location",
        "give scheme and host such as https://files.example.com, without query and password",
        default=None,
        shown="as the request says",
    )
    behind_proxy: Annotated[CommaList, AfterValidator(values.check_proxies)] = setting(
        "Proxies whose `Forwarded` and `X-Forwarded-*` count: addresses, networks, `unix`, `*`",
        "give addresses or networks with commas between, 'unix' or '*'",
        default=(),
        shown="none",
    )
    cors_origins: Annotated[CommaList, AfterValidator(values.check_origins)] = setting(
        "Origins whose pages may use the server; `https://*.example.com` takes subdomains",
        "give '*', or origins such as https://app.example.com with commas between",
        default=("*",),
    )
    cors_credentials: bool = setting(
        "Whether those pages may send cookies; needs named origins",
        "give true or false",
        default=False,
    )
    cors_allow_headers: Annotated[CommaList, AfterValidator(values.check_field_names)] = setting(
        "Header fields beside those of the protocols that pages may send, such as `X-Api-Key`",
        "give names of header fields with commas between",
        default=(),
        shown="none",
    )
    cors_expose_headers: Annotated[CommaList, AfterValidator(values.check_field_names)] = setting(
        "Header fields beside those of the protocols that pages may read",
        "give names of header fields with commas between",
        default=(),
        shown="none",
    )
    page: Literal["on", "off"] = setting(
        "Upload page at /, unless the uploads themselves are there",
        "give on or off",
        default="on",
    )

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
