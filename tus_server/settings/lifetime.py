"""Settings of how long uploads are kept."""

from typing import Annotated

from pydantic import BaseModel

from tus_server.settings.fields import OPTIONAL, seconds, setting


class LifetimeSettings(BaseModel):
    """When unfinished uploads are given up, and finished ones removed."""

    expires_after_s: float = seconds(
        "Seconds after its last byte at which an unfinished upload is given up; 0: never",
        default=7 * 86400.0,
        zero=True,
    )
    expires_at_most_s: Annotated[float | None, OPTIONAL] = setting(
        "Seconds after its creation at which an unfinished upload is given up, bytes or not",
        "give a number of seconds above 0",
        default=None,
        shown="no such limit",
        gt=0,
        allow_inf_nan=False,
    )
    keep_finished_s: Annotated[float | None, OPTIONAL] = setting(
        "Seconds after which finished uploads are removed",
        "give a number of seconds above 0",
        default=None,
        shown="kept for ever",
        gt=0,
        allow_inf_nan=False,
    )
    keep_partials: bool = setting(
        "Whether partial uploads stay when they have become part of a final one; else for an hour",
        "give true or false",
        default=False,
    )
