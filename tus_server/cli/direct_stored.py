"""What an earlier run has begun for the same file, and what of it this one leaves to the next."""

import uuid
from urllib.parse import urldefrag

from tus_server.cli.stored_urls import StoredUrls


class StoredUpload:
    """One entry of the stored URLs: `ENDPOINT/ID`, or `ENDPOINT#KEY` before the id is known.

    KEY is the Idempotency-Key of the request that begins the upload. It is stored before that is
    sent: its answer may be lost, and a second upload of a file_id would be refused.
    """

    def __init__(self, urls: StoredUrls | None, key: str, endpoint: str) -> None:
        """key: of the entry. urls None: there is nowhere to keep it."""
        self._urls = urls
        self._key = key
        self._endpoint = endpoint
        self._url = None if urls is None else urls.get_item(key)

    def find_id(self) -> str | None:
        if self._url is None or urldefrag(self._url).fragment:
            return None
        return self._url.removeprefix(f"{self._endpoint}/")

    def make_request_key(self) -> str:
        """Give the Idempotency-Key to use: that of an earlier request without answer, or a new."""
        key = urldefrag(self._url or "").fragment
        if not key:
            key = str(uuid.uuid4())
            self._keep(f"{self._endpoint}#{key}")
        return key

    def keep(self, id: str) -> None:
        self._keep(f"{self._endpoint}/{id}")

    def remove(self) -> None:
        self._url = None
        if self._urls is not None:
            self._urls.remove_item(self._key)

    def _keep(self, url: str) -> None:
        self._url = url
        if self._urls is not None:
            self._urls.set_item(self._key, url)
