"""All rows, in the order of the table."""

from __future__ import annotations

from bench.disk_rows import DISK_ROWS
from bench.extension_rows import EXTENSION_ROWS
from bench.s3_rows import S3_ROWS

ROWS = (*DISK_ROWS, *S3_ROWS, *EXTENSION_ROWS)

BY_NAME = {row.name: row for row in ROWS}
