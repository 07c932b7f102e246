"""The rows about what only our server does: checksums, joined uploads, the IETF draft, expiry,
direct uploads, webhooks.
"""

from __future__ import annotations

from bench.row import Mode, Row, Target
from bench.s3_rows import EXPIRING

# Figures beside the figure, by name.
UNCHECKED, SHA256, SHA1 = "unchecked MB/s", "sha256 MB/s", "sha1 MB/s"
SHA256_CORE, SHA1_CORE = "sha256 alone on one core MB/s", "sha1 alone on one core MB/s"
SHA256_SHARE, SHA1_SHARE = "sha256 / what is possible", "sha1 / what is possible"
READ_CALLS, COPY_RATE = "read calls", "GB/s"
TUS_RATE, TUS_CPU, RUFH_SHARE = "tus MB/s", "tus cpu s/GB", "RUFH / tus"
REAPED = "uploads ended"

# Ours, with a receiver of webhooks beside them.
WEBHOOKS, S3_WEBHOOKS = "ours-webhooks", "ours-s3-webhooks"
# The Broker alone, over Postgres and a store that answers at once.
BOOKS = "ours-s3-books"


def _share(name: str, bound: float) -> Target:
    return Target(text=f"{name} >= {bound:g}", bound=bound, at_least=True, of_beside=name)


def _webhook_row(name: str, mode: Mode, server: str) -> Row:
    return Row(
        name=name,
        title="a backlog of 5,000 events, each a signed webhook",
        figure_unit="webhooks/s",
        cpu_unit="ms/webhook",
        mode=mode,
        ours=(server,),
        alone=True,
        targets=(Target(text=">= 1000 webhooks/s", bound=1000, at_least=True),),
    )


def _rufh_row(name: str, title: str) -> Row:
    return Row(
        name=name,
        title=title,
        figure_unit="MB/s",
        cpu_unit="s/GB",
        is_bulk=True,
        alone=True,
        targets=(_share(RUFH_SHARE, 0.95),),
    )


EXTENSION_ROWS: tuple[Row, ...] = (
    Row(
        name="checked-patch",
        title="1 GiB in one PATCH with its SHA-256",
        figure_unit="MB/s",
        cpu_unit="s/GB",
        is_bulk=True,
        alone=True,
        targets=(_share(SHA256_SHARE, 0.8), _share(SHA1_SHARE, 0.8)),
    ),
    Row(
        name="concatenation",
        title="a final upload of 10 partial ones of 1 GiB",
        figure_unit="s",
        cpu_unit="s/GB",
        alone=True,
        targets=(
            Target(
                text=f"{READ_CALLS} <= 1000 (nothing passes through user space)",
                bound=1000,
                at_least=False,
                of_beside=READ_CALLS,
            ),
        ),
    ),
    _rufh_row("rufh-one-patch", "1 GiB in one append of the IETF draft"),
    _rufh_row("rufh-patches", "256 x 1 MiB appends of the IETF draft, one connection"),
    Row(
        name="s3-reap",
        title="1,000 expired uploads, ended by `tus-server reap`",
        figure_unit="s",
        cpu_unit="ms/upload",
        mode=Mode.S3,
        ours=(EXPIRING,),
        alone=True,
        targets=(Target(text="<= 5 s, its start included", bound=5, at_least=False),),
    ),
    Row(
        name="direct-upload",
        title="a direct upload of 4 KiB: begin, one signed PUT, complete",
        figure_unit="uploads/s",
        cpu_unit="ms/upload",
        alone=True,
    ),
    Row(
        name="s3-direct-books",
        title="begin, sign, complete and verify a direct upload: the books alone",
        figure_unit="uploads/s",
        cpu_unit="ms/upload",
        mode=Mode.S3,
        ours=(BOOKS,),
        alone=True,
        targets=(
            Target(text="cpu <= 2 ms (500/s on one core)", bound=2.0, at_least=False, of_cpu=True),
        ),
    ),
    _webhook_row("webhooks", Mode.DISK, WEBHOOKS),
    _webhook_row("s3-webhooks", Mode.S3, S3_WEBHOOKS),
)
