"""Settings of the JSON API: whether there is one, and who may use it."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel

from tus_server.settings.fields import OPTIONAL, WORD, setting


def _check_token(token: str) -> str:
    if not re.fullmatch(r"[!-~]{16,512}", token):
        raise ValueError
    return token


class ApiSettings(BaseModel):
    """The JSON API and what else applications use."""

    api: Annotated[Literal["on", "off"], WORD] = setting(
        "JSON API at /api/ and endpoint of Uppy's S3 plugin at /companion",
        "give on or off",
        default="on",
    )
    api_token: Annotated[Annotated[str, AfterValidator(_check_token)] | None, OPTIONAL] = setting(
        "What `Authorization: Bearer` has to say at /api/ and /companion",
        "give at least 16 visible ASCII characters, such as `openssl rand -hex 32` makes",
        default=None,
        shown="none: only this machine may",
        secret=True,
    )
