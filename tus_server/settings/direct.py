"""Settings of direct uploads, and of what is looked at in finished ones."""

from typing import Annotated, Literal

from pydantic import BaseModel, ByteSize

from tus_server.settings.fields import KIB, MIB, WORD, setting


class DirectSettings(BaseModel):
    """Parts that clients send to the store by signed URLs."""

    direct_part_size: ByteSize = setting(
        "Size of the parts of direct uploads, larger where they would be more than 10,000",
        "give a size from 1 KiB (S3: 5 MiB) to 5 GiB",
        default=ByteSize(16 * MIB),
        ge=KIB,
        le=5 * 1024 * MIB,
    )
    sign_expires_s: int = setting(
        "Seconds that a signed URL of a part can be used",
        "give a number of seconds from 1 to 604800",
        default=3600,
        ge=1,
        le=7 * 24 * 3600,
    )
    sniff: Annotated[Literal["application", "all"], WORD] = setting(
        "Whose finished uploads are looked at for their content type: those that the application"
        " has begun, or all",
        "give application or all",
        default="application",
    )
