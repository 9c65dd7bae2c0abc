"""openapi.yaml against the service model that botocore ships: members, limits, patterns, values and errors."""

import botocore.session
import pytest
import spec

LOADER = botocore.session.get_session().get_component("data_loader")
MODEL = LOADER.load_service_model("meteringmarketplace", "service-2")
SHAPES = MODEL["shapes"]
TYPES = {"structure": "object", "list": "array", "timestamp": "number"}
# Keyword of the schema by keyword of the model.
LIMITS = {
    "string": {"min": "minLength", "max": "maxLength", "pattern": "pattern"},
    "integer": {"min": "minimum", "max": "maximum"},
    "list": {"min": "minItems", "max": "maxItems"},
    "timestamp": {"min": "minimum", "max": "maximum"},
}
# Where no value says the same.
NO_LIMIT = {"minLength": 0, "minItems": 0, "pattern": r"[\s\S]*"}
NOT_EMPTY = (r"[\s\S]+", None)
RECORD = sorted(SHAPES["UsageRecord"]["members"])
# Each difference that is meant: the model's value, openapi.yaml's, and why.
MEANT = {
    "the model lets it be empty, and no product, customer or signed nonce has an empty name": {
        ("MeterUsage.ProductCode", "minLength"): (None, 1),
        ("BatchMeterUsage.ProductCode", "minLength"): (None, 1),
        ("BatchMeterUsage.UsageRecords[].CustomerIdentifier", "minLength"): (None, 1),
        ("RegisterUsage.ProductCode", "minLength"): (None, 1),
        ("RegisterUsage.Nonce", "minLength"): (None, 1),
    },
    "a pattern that says no more than a length of at least 1": {
        ("MeterUsage.UsageDimension", "pattern"): NOT_EMPTY,
        ("BatchMeterUsage.UsageRecords[].Dimension", "pattern"): NOT_EMPTY,
        ("ResolveCustomer.RegistrationToken", "pattern"): NOT_EMPTY,
        ("ResolveCustomer.RegistrationToken", "minLength"): (None, 1),
        ("RegisterUsage/200.Signature", "pattern"): NOT_EMPTY,
        ("RegisterUsage/200.Signature", "minLength"): (None, 1),
    },
    "the model's patterns are for the whole text; in JSON Schema that takes anchors": {
        ("ResolveCustomer/200.Metadata.AgreementId", "pattern"): ("[A-Za-z0-9_/-]+", "^[A-Za-z0-9_/-]+$"),
    },
    "control characters have no place in a nonce that is shown and compared": {
        ("RegisterUsage.Nonce", "pattern"): (None, r"^[^\u0000-\u001f\u007f-\u009f]+$"),
    },
    "the sidecar takes what fits its types": {
        ("RegisterUsage.PublicKeyVersion", "maximum"): (None, 2**32 - 1),
        ("MeterUsage.Timestamp", "minimum"): (None, -(10**11)),
        ("MeterUsage.Timestamp", "maximum"): (None, 10**11),
        ("BatchMeterUsage.UsageRecords[].Timestamp", "minimum"): (None, -(10**11)),
        ("BatchMeterUsage.UsageRecords[].Timestamp", "maximum"): (None, 10**11),
    },
    "a record is given back as it came, with members that this version does not know": {
        ("BatchMeterUsage/200.Results[].UsageRecord", "members"): (RECORD, []),
        ("BatchMeterUsage/200.Results[].UsageRecord", "required"): (["Dimension", "Timestamp"], []),
        ("BatchMeterUsage/200.UnprocessedRecords[]", "members"): (RECORD, []),
        ("BatchMeterUsage/200.UnprocessedRecords[]", "required"): (["Dimension", "Timestamp"], []),
        ("BatchMeterUsage/200.UnprocessedRecords", "maxItems"): (25, None),
    },
    "the sidecar's own answers always have them": {
        ("MeterUsage/200", "required"): ([], ["MeteringRecordId"]),
        ("BatchMeterUsage/200", "required"): ([], ["Results", "UnprocessedRecords"]),
    },
}
# Beyond the model, with the reason.
FURTHER_ERRORS = {
    "MeterUsage": {
        "DryRunOperation": "AWS's answer to a dry run that would succeed (API reference, MeterUsage)",
        "UnauthorizedException": "AWS's answer to a dry run that would not (API reference, MeterUsage)",
    },
    "BatchMeterUsage": {
        "CustomerNotEntitledException": "the sidecar's own entitlement was denied, and it holds",
        "IdempotencyConflictException": "the invocation id of another call's",
    },
}


def operation(name):
    return next(operation for _, _, operation in spec.operations() if operation["operationId"] == name)


def compare(where, shape_name, schema, found):
    """Adds to `found` how a shape of the model and a schema differ."""
    shape, schema = SHAPES[shape_name], spec.resolve(schema)
    note(found, where, "type", TYPES.get(shape["type"], shape["type"]), schema.get("type"))
    note(found, where, "enum", shape.get("enum"), schema.get("enum"))
    for theirs, ours in LIMITS.get(shape["type"], {}).items():
        note(found, where, ours, without_default(ours, shape.get(theirs)), without_default(ours, schema.get(ours)))
    if shape["type"] == "structure":
        note(found, where, "members", sorted(shape["members"]), sorted(schema.get("properties", {})))
        note(found, where, "required", sorted(shape.get("required", [])), sorted(schema.get("required", [])))
        for name, member in shape["members"].items():
            if name in schema.get("properties", {}):
                compare(f"{where}.{name}", member["shape"], schema["properties"][name], found)
    if shape["type"] == "list" and "items" in schema:
        compare(f"{where}[]", shape["member"]["shape"], schema["items"], found)


def without_default(keyword, value):
    return None if value == NO_LIMIT.get(keyword) else value


def note(found, where, keyword, theirs, ours):
    if theirs != ours:
        found[where, keyword] = (theirs, ours)


def answer_schema(operation):
    return operation["responses"]["200"]["content"][spec.AWS_JSON]["schema"]


def test_requests_and_answers_have_what_the_service_model_has():
    found = {}
    for name, model in MODEL["operations"].items():
        compare(name, model["input"]["shape"], spec.request_schema(operation(name)), found)
        compare(f"{name}/200", model["output"]["shape"], answer_schema(operation(name)), found)
    assert found == {difference: values for meant in MEANT.values() for difference, values in meant.items()}


@pytest.mark.parametrize("name", MODEL["operations"])
def test_operations_have_the_errors_of_the_service_model(name):
    modelled = {error["shape"] for error in MODEL["operations"][name]["errors"]}
    # It has a status of its own, 500.
    modelled.remove("InternalServiceErrorException")
    assert set(operation(name)["x-errors"]) == modelled | set(FURTHER_ERRORS.get(name, {}))
    assert not modelled & set(FURTHER_ERRORS.get(name, {}))
    assert "500" in operation(name)["responses"]


@pytest.mark.parametrize("name", MODEL["operations"])
def test_operations_are_called_as_the_service_model_says(name):
    metadata = MODEL["metadata"]
    target = f"{metadata['targetPrefix']}.{name}"
    method, path, found = next(entry for entry in spec.operations() if entry[2]["operationId"] == name)
    assert (method, path) == (MODEL["operations"][name]["http"]["method"], f"/#X-Amz-Target={target}")
    headers = {parameter["name"]: parameter for parameter in map(spec.resolve, found["parameters"])}
    assert headers["X-Amz-Target"]["required"]
    assert headers["X-Amz-Target"]["schema"] == {"const": target}
    assert spec.AWS_JSON == f"application/x-amz-json-{metadata['jsonVersion']}"
    assert metadata["signingName"] in spec.SPEC["components"]["securitySchemes"]["sigv4"]["description"]
