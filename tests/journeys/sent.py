"""A direct upload of two parts on its way through a site, in short verbs."""

import hashlib
from base64 import b64encode
from typing import Any

import httpx

from tests.journeys.site import Site
from tests.support.api import state_of
from tests.support.tus import pattern

WAIT = {"Prefer": "wait=30"}


def webhook(site: Site, **kwargs: Any) -> dict[str, Any]:
    """Give the job that tells the sink of a site."""
    return {"name": site.sink.url, "kwargs": kwargs}


def sha256(content: bytes) -> dict[str, str]:
    """Give the checksum of a content as the API has it."""
    digest = hashlib.sha256(content).digest()
    return {"algorithm": "sha256", "value": b64encode(digest).decode()}


class Sent:
    """A multipart upload, the parts that are named sent. Node a signs, node b completes."""

    def __init__(self, site: Site, *numbers: int, **about: Any) -> None:
        self.site = site
        self.content = pattern(site.part_size + 777, seed=11)
        self.id: str = site.api("a").begin(
            "multipart",
            len(self.content),
            **{"success_job": webhook(site), "failure_job": webhook(site)} | about,
        )["id"]
        self.report: dict[int, dict[str, Any]] = {}
        for number in numbers:
            self.send(number)

    def piece(self, number: int) -> bytes:
        size = self.site.part_size
        return self.content[(number - 1) * size : number * size]

    def sign(self, number: int) -> dict[str, Any]:
        (signed,) = self.site.api("a").sign(self.id, [number])
        return signed

    def send(self, number: int) -> None:
        reply = self.site.api("a").send(self.sign(number), self.piece(number))
        assert reply.status_code == 200, reply.text
        self.report[number] = {"part_number": number, "etag": reply.headers["etag"]}

    def complete(self, *parts: dict[str, Any], name: str = "b") -> httpx.Response:
        body = {"parts": list(parts)} if parts else None
        return self.site.api(name).post(self.id, "complete", body, fields=WAIT)

    def try_complete(self) -> httpx.Response | None:
        """Complete at a server that may end meanwhile."""
        try:
            return self.complete()
        except httpx.TransportError:
            return None

    def arrived(self) -> list[int]:
        parts = self.site.api("b").parts(self.id)
        return [part["part_number"] for part in parts if part["arrived"]]

    def check_unchanged(self) -> None:
        """Check that it can be mended: nothing was decided."""
        assert state_of(self.site.api("a").find(self.id)) in ("initiated", "receiving")
        assert self.site.letters(self.id) == []

    def check_mended(self) -> None:
        """Send what is not there, and go to the end."""
        for number in (1, 2):
            if number not in self.report:
                self.send(number)
        reply = self.complete(self.report[1], self.report[2])
        assert (reply.status_code, state_of(reply.json())) == (200, "verified"), reply.text
        self.site.check_verified_once(self.id, self.content)


class Put:
    """A single upload that was sent, and is not complete yet."""

    def __init__(self, site: Site, content: bytes = b"", **about: Any) -> None:
        self.site = site
        self.content = content or pattern(5000, seed=12)
        jobs = {"success_job": webhook(site), "failure_job": webhook(site)}
        begun = site.api("a").begin("single", len(self.content), **jobs | about)
        self.id: str = begun["id"]
        assert site.api("a").send(begun["put"], self.content).status_code == 200

    def try_complete(self, name: str) -> httpx.Response | None:
        """Complete at a server that may end meanwhile."""
        try:
            return self.site.api(name).post(self.id, "complete", fields=WAIT)
        except httpx.TransportError:
            return None
