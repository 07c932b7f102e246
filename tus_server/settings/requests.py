"""Settings of what a request may take: sizes, times, ways."""

from typing import Annotated, Literal

from pydantic import BaseModel, ByteSize

from tus_server.core.upload import MAX_ANNOUNCED_INTEGER
from tus_server.settings.fields import KIB, MIB, OPTIONAL, WORD, seconds, setting


class RequestSettings(BaseModel):
    """Limits of uploads, requests and connections."""

    max_size: Annotated[ByteSize | None, OPTIONAL] = setting(
        "Size of the largest upload, in bytes or as 10 GiB",
        "give a size from 1 to 2^53-1 bytes, such as 10 GiB",
        default=None,
        shown="2^53-1, on S3 5 TiB",
        ge=1,
        le=MAX_ANNOUNCED_INTEGER,
    )
    max_append_size: Annotated[ByteSize | None, OPTIONAL] = setting(
        "Size of the largest body of a RUFH request, in bytes or as 100 MiB; what a proxy takes",
        "give a size from 1 to 2^53-1 bytes, such as 100 MiB",
        default=None,
        shown="no such limit",
        ge=1,
        le=MAX_ANNOUNCED_INTEGER,
    )
    max_header_bytes: ByteSize = setting(
        "Size of the largest request head, in bytes or as 32 KiB",
        "give a size from 4 KiB to 1 MiB",
        default=ByteSize(32 * KIB),
        ge=4 * KIB,
        le=MIB,
    )
    body_idle_timeout_s: float = seconds(
        "Seconds without a byte after which a request body is given up; what arrived is kept",
        default=60.0,
    )
    lease_wait_s: float = seconds(
        "Seconds a request waits for another one to let go of the upload", default=5.0, zero=True
    )
    shutdown_timeout_s: float = seconds(
        "Seconds requests get to store what has arrived when the server stops",
        default=30.0,
        zero=True,
    )
    keep_alive_timeout_s: float = seconds("Seconds an idle connection is kept open", default=75.0)
    downloads: Annotated[Literal["proxy", "redirect", "off"], WORD] = setting(
        "Finished uploads can be fetched: from the server (proxy), from S3 (redirect), not (off)",
        "give proxy, redirect or off",
        default="proxy",
    )
    body_path: Annotated[Literal["auto", "fast", "plain"], WORD] = setting(
        "How bodies are received: fast (own protocol class), plain (ASGI), auto (fast if it works)",
        "give auto, fast or plain",
        default="auto",
    )
