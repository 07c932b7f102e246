"""Replies held to an OpenAPI document: status, fields and body have to be as described."""

import json
import re
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker


class Document:
    """What a server says of itself. prefix: what its paths are below."""

    def __init__(self, document: dict[str, Any], prefix: str = "") -> None:
        self.document = document
        self._operations: list[tuple[re.Pattern[str], str, dict[str, Any]]] = [
            (_pattern(prefix + path), method.upper(), operation)
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        ]
        self.seen: set[tuple[str, str]] = set()

    @property
    def operations(self) -> dict[str, dict[str, Any]]:
        """The operations by their id."""
        return {operation["operationId"]: operation for _, _, operation in self._operations}

    def check(self, reply: httpx.Response) -> None:
        """Fail unless the reply is one that its operation describes."""
        operation = self._find(reply.request.method, reply.request.url.path)
        if operation is None:
            assert reply.status_code in (404, 405), reply.text
            return
        described = operation["responses"]
        name = operation["operationId"]
        status = str(reply.status_code)
        assert status in described or "default" in described, f"{name} describes no {status}"
        response = described.get(status, described.get("default"))
        self.seen.add((name, status))
        content = response.get("content")
        if not content:
            assert not reply.content, f"{name} describes no body with {status}"
            return
        media_type = reply.headers["content-type"].partition(";")[0]
        assert media_type in content, f"{name} describes no {media_type} with {status}"
        for field in response.get("headers", {}):
            if field in ("Location", "Retry-After", "WWW-Authenticate"):
                assert field in reply.headers, f"{name} lacks {field} with {status}"
        if media_type.endswith("json"):
            schema = content[media_type]["schema"] | {"components": self.document["components"]}
            checker = Draft202012Validator(schema, format_checker=FormatChecker())
            errors = [error.message for error in checker.iter_errors(json.loads(reply.content))]
            assert not errors, f"{name}, {status}: {errors}"

    def _find(self, method: str, path: str) -> dict[str, Any] | None:
        for pattern, found, operation in self._operations:
            if found == method and pattern.fullmatch(path):
                return operation
        return None


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)))
