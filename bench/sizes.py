"""How much each row sends, to how many connections, for how long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The amounts of every row; `_bytes` are bytes, `_s` seconds, the rest are counts."""

    big_bytes: int = 1 << 30
    patch_count: int = 256
    patch_bytes: int = 1 << 20
    small_bytes: int = 4096
    clients: int = 16
    head_uploads: int = 256
    warmup_s: float = 1.0
    window_s: float = 4.0
    slow_uploads: int = 2000
    slow_bytes_per_s: int = 16 * 1024
    slow_s: float = 15.0
    takeover_tries: int = 50
    takeover_sent_bytes: int = 256 * 1024
    takeover_stall_s: float = 0.1
    s3_patches_5mib: int = 52
    s3_patches_1mib: int = 256
    s3_slow_uploads: int = 1000
    s3_slow_bytes_per_s: int = 64 * 1024
    s3_connections: int = 1000
    calls: int = 20
    partials: int = 10
    partial_bytes: int = 1 << 30
    expired_uploads: int = 1000
    webhooks: int = 5000

    def room_bytes(self, row: str) -> int:
        """Free space that row may need in the upload folder."""
        if row == "concatenation":
            return self.partials * self.partial_bytes * 41 // 20  # the pieces, the whole, and a bit
        slowest = max(
            self.slow_uploads * self.slow_bytes_per_s,
            self.s3_slow_uploads * self.s3_slow_bytes_per_s,
        )
        # An S3 server may copy the parts when they become an object.
        return max(
            self.big_bytes * 5 // 2,
            self.patch_count * self.patch_bytes * 2,
            int(slowest * (self.slow_s + 10)),
        )


FULL = Sizes()

# Enough to see that every row runs; the figures mean little.
QUICK = Sizes(
    big_bytes=64 << 20,
    patch_count=32,
    head_uploads=64,
    warmup_s=0.3,
    window_s=1.0,
    slow_uploads=200,
    slow_s=3.0,
    takeover_tries=5,
    s3_patches_5mib=7,
    s3_patches_1mib=16,
    s3_slow_uploads=100,
    s3_connections=200,
    calls=5,
    partial_bytes=8 << 20,
    expired_uploads=100,
    webhooks=500,
)
