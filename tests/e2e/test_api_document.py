"""The OpenAPI document: it is valid, complete, and says what the server does."""

import re
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31

from tests.support.api import Api
from tests.support.server import ServerProcess
from tus_server.core.digests import ALGORITHMS
from tus_server.core.states import UploadState
from tus_server.http.api.models import Algorithm

OPERATIONS = {
    "POST /api/uploads": "createUpload",
    "GET /api/uploads": "listUploads",
    "GET /api/uploads/{upload_id}": "getUpload",
    "DELETE /api/uploads/{upload_id}": "deleteUpload",
    "POST /api/uploads/{upload_id}/sign": "signUpload",
    "POST /api/uploads/{upload_id}/parts/sign": "signParts",
    "GET /api/uploads/{upload_id}/parts": "listParts",
    "POST /api/uploads/{upload_id}/complete": "completeUpload",
    "POST /api/uploads/{upload_id}/accept": "acceptUpload",
    "POST /api/uploads/{upload_id}/reject": "rejectUpload",
    "GET /api/uploads/{upload_id}/events": "followUpload",
    "POST /api/jobs/{event_id}/retry": "retryJob",
    "GET /api/openapi.json": "getOpenapi",
}


@pytest.fixture
def document(api: Api) -> dict[str, Any]:
    return api.document.document


def schemas_in(value: Any) -> list[dict[str, Any]]:
    """Give every schema with a `type`, wherever it is."""
    found = []
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            found.append(value)
        for inner in value.values():
            found += schemas_in(inner)
    elif isinstance(value, list):
        for inner in value:
            found += schemas_in(inner)
    return found


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    errors = list(Draft202012Validator(OPENAPI_31).iter_errors(document))
    assert not errors, errors[0]
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_operations_keep_their_names(document: dict[str, Any]) -> None:
    """Clients are generated from them."""
    named = {
        f"{method.upper()} {path}": operation["operationId"]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }

    assert named == OPERATIONS


def test_every_route_is_described_and_no_other_path_answers(
    api: Api, document: dict[str, Any]
) -> None:
    for path, operations in document["paths"].items():
        url = re.sub(r"\{\w+\}", "0" * 32, path)
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            reply = api.client.request(method, url)
            assert (reply.status_code != 405) == (method.lower() in operations), (method, path)
            if reply.status_code == 405:
                allowed = {name.lower() for name in reply.headers["allow"].split(", ")}
                assert allowed == set(operations)


def test_everything_has_words(document: dict[str, Any]) -> None:
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["summary"]
            assert operation["description"]
            assert operation["tags"]
            for parameter in operation.get("parameters", ()):
                assert parameter["schema"].get("title") or parameter.get("description")
            for status, response in operation["responses"].items():
                assert response["description"] != "Successful Response", status
    for name, schema in document["components"]["schemas"].items():
        assert schema["title"], name
        assert schema.get("description") or "enum" in schema, name


def test_every_operation_has_the_refusals_that_any_may_give(document: dict[str, Any]) -> None:
    for operations in document["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            assert {"400", "401", "403", "431", "500", "503"} <= set(responses)
            if "requestBody" in operation:
                assert {"413", "415"} <= set(responses)
            for status, response in responses.items():
                if status[0] in "45" or status == "default":
                    schema = response["content"]["application/problem+json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Problem"}
                if status in ("423", "503", "507"):
                    assert "Retry-After" in response["headers"]
                if status == "401":
                    assert "WWW-Authenticate" in response["headers"]


def test_posts_take_an_idempotency_key(document: dict[str, Any]) -> None:
    for operations in document["paths"].values():
        for method, operation in operations.items():
            names = [parameter["name"] for parameter in operation.get("parameters", ())]
            assert ("Idempotency-Key" in names) == (method == "post")


def test_examples_are_what_they_are_examples_of(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    with_examples = [name for name, schema in schemas.items() if "examples" in schema]
    assert {"NewUpload", "UploadView", "Problem", "Completion", "PartNumbers"} <= set(with_examples)
    for name in with_examples:
        whole = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        for example in schemas[name]["examples"]:
            Draft202012Validator(whole).validate(example)


def test_no_parameter_is_null_and_no_schema_is_empty(document: dict[str, Any]) -> None:
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                assert {"type": "null"} not in parameter["schema"].get("anyOf", ())
                assert "type" in parameter["schema"]


def test_what_is_told_is_what_the_code_knows(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    assert set(schemas["UploadState"]["enum"]) == {str(state) for state in UploadState}
    assert set(get_args(Algorithm)) == set(ALGORITHMS)
    assert schemas["NewUpload"]["additionalProperties"] is False


def test_whoever_needs_a_token_is_told_so(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert document["security"] == [{"token": []}, {}]  # this server has none


def test_it_is_made_anew_for_nobody(api: Api, api_server: ServerProcess) -> None:
    """Two requests get the same document: it depends on the server alone."""
    first, second = (api.request("GET", "/openapi.json") for _ in range(2))

    assert first.content == second.content
    assert first.json()["servers"] == [{"url": "/"}]
