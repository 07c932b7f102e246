"""An upload as the OpenAPI document shows one."""

from typing import Any

UPLOAD: dict[str, Any] = {
    "id": "0123456789abcdef0123456789abcdef",
    "kind": "multipart",
    "file_id": "lecture-17",
    "filename": "video.mp4",
    "content_type": "video/mp4",
    "detected_type": "video/mp4",
    "metadata": {"filename": "video.mp4", "filetype": "video/mp4"},
    "length": 52428800,
    "committed_bytes": 52428800,
    "progress": "complete",
    "status": {
        "current": {"state": "verified", "state_on": "2026-11-20T13:00:00Z"},
        "prior": [
            {"state": "completed", "state_on": "2026-11-20T12:59:58Z"},
            {"state": "receiving", "state_on": "2026-11-20T12:58:12Z"},
            {"state": "initiated", "state_on": "2026-11-20T12:58:11Z"},
        ],
    },
    "error": None,
    "object": {
        "url": "https://files.example.com/files/0123456789abcdef0123456789abcdef",
        "key": "0123456789abcdef0123456789abcdef",
    },
    "checksum": {"algorithm": "crc64nvme", "value": "l8zHuzjqeho="},
    "require_acceptance": False,
    "created_at": "2026-11-20T12:58:11Z",
    "expires_at": None,
    "completed_at": "2026-11-20T13:00:00Z",
    "multipart": {"part_size_bytes": 16777216, "part_count": 4, "part_headers": {}},
}
