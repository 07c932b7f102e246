"""The object store on the S3 API. Imported only where it is configured: the driver is large."""

from tus_server.objects.s3.options import Capabilities, ChecksumMode, Described, S3Options
from tus_server.objects.s3.parked import ParkedTails
from tus_server.objects.s3.store import S3Objects

__all__ = [
    "Capabilities",
    "ChecksumMode",
    "Described",
    "ParkedTails",
    "S3Objects",
    "S3Options",
]
