"""A patient client of the JSON API: it brings an upload to an end, whatever becomes of servers."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from tests.journeys.sent import sha256
from tests.support.tus import BODY_TYPE

DEADLINE_S = 120.0  # of whatever must come to an end; nothing measures it
BACK_OFF_S = 0.05
# What it repeats: the server, its state, its store or a lease is not there just now.
AGAIN = {423, 503, 507}
WANTS = ["success"] * 5 + ["accepted", "rejected", "canceled", "wrong", "deleted"]
ENDS = {
    "success": {"verified"},
    "accepted": {"accepted"},
    "rejected": {"rejected"},
    # Who gives up may come too late.
    "canceled": {"canceled", "deleted"},
    "wrong": {"error"},
    "deleted": {"deleted"},
}
SUCCESS = {"verified", "accepted"}


@dataclass
class PatientUpload:
    """One upload. wants: how it is to end; ports: of the servers; job: where that is told.

    state: at its end. The first port is that of the node a tus client sends to. answered: called
    for each request that did what it was to do.
    """

    ports: Sequence[int]
    content: bytes
    kind: str
    wants: str
    job: str
    rng: random.Random
    answered: Callable[[], None]
    id: str = ""
    state: str = ""
    troubles: list[str] = field(default_factory=list)
    _wrong: set[int] = field(default_factory=set)  # parts that were sent other bytes last
    _key: str = field(default_factory=lambda: str(uuid4()))

    @property
    def kwargs(self) -> dict[str, str]:
        """What its job has to be called with."""
        return {"key": self._key}

    @property
    def is_success(self) -> bool:
        """Whether its job is that of success. What was verified is, also if it is deleted later."""
        return self.state in SUCCESS or self.wants == "deleted"

    def run(self, client: httpx.Client) -> None:
        """Bring it to its end."""
        self._client = client
        view = self._until("begin", self._begin)
        self.id = view["id"]
        if self.wants == "canceled" and self.rng.random() < 0.5:
            self.state = self._until("cancel", self._delete)
            return
        self._until("send", self._send)
        if self.wants == "canceled":
            self._try_to_complete()
            self.state = self._until("cancel", self._delete)
            return
        state = self._until("complete", self._complete)
        if self.wants in ("accepted", "rejected"):
            verb = self.wants.removesuffix("ed")
            state = self._until(verb, lambda: self._judge(verb))
        elif self.wants == "deleted":
            state = self._until("delete", self._delete)
        self.state = state
        assert state in ENDS[self.wants], (self.wants, state, self.id)

    # --- one try each; None: once more

    def _begin(self) -> dict[str, Any] | None:
        job = {"name": self.job, "kwargs": self.kwargs}
        wanted = b"other" if self.wants == "wrong" else self.content
        return self._ask(
            "POST",
            "",
            json={
                "kind": self.kind,
                "size": len(self.content),
                "checksum": sha256(wanted),
                "require_acceptance": self.wants in ("accepted", "rejected"),
                "success_job": job,
                "failure_job": job,
            },
            headers={"Idempotency-Key": self._key},
        )

    def _send(self) -> bool | None:
        return self._send_by_tus() if self.kind == "tus" else self._send_parts()

    def _send_parts(self) -> bool | None:
        found = self._ask("GET", f"/{self.id}/parts")
        if found is None:
            return None
        missing = [
            part
            for part in found["parts"]
            if not part["arrived"] or part["part_number"] in self._wrong
        ]
        if not missing:
            return True
        self.rng.shuffle(missing)
        for part in missing:
            numbers = {"part_numbers": [part["part_number"]]}
            signed = self._ask("POST", f"/{self.id}/parts/sign", json=numbers)
            if signed is None:
                return None
            (put,) = signed["parts"]
            piece = self.content[part["start"] : part["start"] + part["size"]]
            for content in [bytes(len(piece)), piece] if self.rng.random() < 0.2 else [piece]:
                if content is not piece:
                    self._wrong.add(part["part_number"])
                answer = self._client.put(put["url"], content=content)
                if answer.status_code != 200:
                    self.troubles.append(f"part: {answer.status_code}")
                    return None
                self.answered()
            self._wrong.discard(part["part_number"])
        return None  # look once more

    def _send_by_tus(self) -> bool | None:
        url = f"http://127.0.0.1:{self.ports[0]}/files/{self.id}"
        fields = {"Tus-Resumable": "1.0.0"}
        head = self._client.head(url, headers=fields)
        if head.status_code != 200:
            # Of one that ended, as what has another checksum does, HEAD is 404.
            return True if head.status_code == 404 and self.wants == "wrong" else None
        offset = int(head.headers["upload-offset"])
        if offset == len(self.content):
            return True
        fields |= {"Upload-Offset": str(offset), "Content-Type": BODY_TYPE}
        half = offset + max(1, (len(self.content) - offset) // 2)
        patched = self._client.patch(url, headers=fields, content=self.content[offset:half])
        if patched.is_success:
            self.answered()
        return None  # look once more

    def _try_to_complete(self) -> None:
        if self.kind != "tus":
            try:
                self._client.post(self._url(f"/{self.id}/complete"))
            except httpx.TransportError as exc:
                self.troubles.append(repr(exc))

    def _complete(self) -> str | None:
        if self.kind != "tus":
            found = self._ask("POST", f"/{self.id}/complete", headers={"Prefer": "wait=1"})
            if found is None:
                return None
        return self._decided(self._ask("GET", f"/{self.id}"))

    def _judge(self, verb: str) -> str | None:
        return self._state(self._ask("POST", f"/{self.id}/{verb}"))

    def _delete(self) -> str | None:
        return self._state(self._ask("DELETE", f"/{self.id}"))

    def _decided(self, view: dict[str, Any] | None) -> str | None:
        state = self._state(view)
        return state if state not in ("initiated", "receiving", "completed") else None

    def _state(self, view: dict[str, Any] | None) -> str | None:
        return None if view is None else str(view["status"]["current"]["state"])

    # ---

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        """Ask any node; None: come again."""
        reply = self._client.request(method, self._url(path), **options)
        if reply.is_success:
            self.answered()
            return reply.json()
        self.troubles.append(f"{method} {path}: {reply.status_code} {reply.text[:200]}")
        # A part that a crash came between has to be sent again.
        if reply.status_code == 409 and reply.json()["code"] == "parts_differ":
            self._send()
            return None
        assert reply.status_code in AGAIN, reply.text
        return None

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.rng.choice(self.ports)}/api/uploads{path}"

    def _until(self, what: str, attempt: Callable[[], Any]) -> Any:
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            try:
                found = attempt()
                if found is not None:
                    return found
            except httpx.TransportError as exc:
                self.troubles.append(repr(exc))
            assert time.monotonic() < deadline_s, (what, self.id, self.troubles[-8:])
            time.sleep(BACK_OFF_S)
