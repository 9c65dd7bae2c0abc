"""schemathesis, set up for openapi.yaml."""

import json

import schemathesis
import spec
from schemathesis.specs.openapi import checks

CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.missing_required_header,
    checks.unsupported_method,
    checks.allow_header_conformance,
]
# The same cases in every run: no seed but the operation, no memory of earlier runs, nothing learnt from answers.
NOTHING_LEARNT = {"extra-data-sources": {"responses": False}}
CONFIG = schemathesis.Config.from_dict({
    "generation": {"deterministic": True, "max-examples": 20, "database": "none"},
    "phases": {"coverage": NOTHING_LEARNT, "fuzzing": NOTHING_LEARNT | {"error-feedback": {"enabled": False}}},
})
SCHEMA = schemathesis.openapi.from_path(spec.PATH, config=CONFIG)

schemathesis.serializer.alias(spec.AWS_JSON, "application/json")


@schemathesis.deserializer(spec.AWS_JSON)
def read_aws_json(_context, response):
    return json.loads(response.content)


def error_name(answer):
    """The error's name, in either shape."""
    body = json.loads(answer.content)
    return body["__type"].partition("#")[2] if "__type" in body else body["error"]["code"]
