"""The simulator as boto3 sees it: what it accepts and returns parses, and every error is the SDK's own typed exception."""

import base64
import datetime
import json

import botocore.exceptions
import pytest
from conftest import PRODUCT, metering_client
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

REGISTER = {"ProductCode": PRODUCT, "PublicKeyVersion": 1, "Nonce": "nonce-1"}


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def usage(**changes):
    return {"ProductCode": PRODUCT, "Timestamp": now(), "UsageDimension": "requests", "UsageQuantity": 17} | changes


def decode(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_register_usage_answers_with_a_signature_that_verifies(simulator, client):
    answer = client.register_usage(**REGISTER)
    assert "PublicKeyRotationTimestamp" not in answer
    signed, signature = answer["Signature"].rsplit(".", 1)
    load_pem_public_key(simulator.public_key()).verify(
        decode(signature), signed.encode(), padding.PSS(padding.MGF1(SHA256()), 32), SHA256()
    )
    header, claims = (json.loads(decode(part)) for part in signed.split("."))
    assert header == {"alg": "PS256", "typ": "JWT"}
    assert (claims["productCode"], claims["publicKeyVersion"], claims["nonce"]) == (PRODUCT, 1, "nonce-1")
    assert abs(claims["iat"] - now().timestamp()) < 60


def test_a_rotated_key_comes_with_its_timestamp(simulator, client):
    key = {"version": 1, "bits": 2048, "rotated_at": "2026-06-01T00:00:00Z"}
    simulator.admin("PUT", "products", {"code": PRODUCT, "key": [key]})
    answer = client.register_usage(**REGISTER)
    assert answer["PublicKeyRotationTimestamp"].astimezone(datetime.timezone.utc) == datetime.datetime(
        2026, 6, 1, tzinfo=datetime.timezone.utc
    )


def test_the_hour_has_one_record_that_never_changes(simulator, client):
    at = now()
    first = client.meter_usage(**usage(Timestamp=at))["MeteringRecordId"]
    assert client.meter_usage(**usage(Timestamp=at, UsageQuantity=17))["MeteringRecordId"] == first
    as_decimal = usage(Timestamp=at, UsageQuantityAsDecimal="17.00")
    del as_decimal["UsageQuantity"]
    assert client.meter_usage(**as_decimal)["MeteringRecordId"] == first
    with pytest.raises(client.exceptions.DuplicateRequestException):
        client.meter_usage(**usage(Timestamp=at, UsageQuantity=18))
    account = simulator.account()
    assert [record["quantity"] for record in account["records"]] == ["17"]


def test_allocations_and_decimals_are_taken(simulator, client):
    allocations = [
        {"AllocatedUsageQuantityAsDecimal": "0.25", "Tags": [{"Key": "team", "Value": "a b"}]},
        {"AllocatedUsageQuantityAsDecimal": "0.000001"},
    ]
    record = usage(UsageQuantityAsDecimal="0.250001", UsageAllocations=allocations)
    del record["UsageQuantity"]
    client.meter_usage(**record)
    assert simulator.account()["totals"] == [
        {"product_code": PRODUCT, "dimension": "requests", "quantity": "0.250001"}
    ]


def test_a_client_token_is_idempotent(client):
    at = now()
    first = client.meter_usage(**usage(Timestamp=at, ClientToken="t"))
    again = client.meter_usage(**usage(Timestamp=at, ClientToken="t"))
    assert first["MeteringRecordId"] == again["MeteringRecordId"]
    with pytest.raises(client.exceptions.IdempotencyConflictException):
        client.meter_usage(**usage(Timestamp=at, ClientToken="t", UsageQuantity=1))


def test_a_dry_run_counts_nothing(simulator, client):
    with pytest.raises(botocore.exceptions.ClientError, match="DryRunOperation"):
        client.meter_usage(**usage(DryRun=True))
    simulator.admin("PUT", "products", {"code": PRODUCT, "dry_run_succeeds": True})
    client.meter_usage(**usage(DryRun=True))
    assert simulator.account()["records"] == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"ProductCode": "prod-other"}, "InvalidProductCodeException"),
        ({"UsageDimension": "other"}, "InvalidUsageDimensionException"),
        ({"Timestamp": now() - datetime.timedelta(hours=7)}, "TimestampOutOfBoundsException"),
        ({"Timestamp": now() + datetime.timedelta(hours=1)}, "TimestampOutOfBoundsException"),
        ({"UsageAllocations": [{"AllocatedUsageQuantity": 16}]}, "InvalidUsageAllocationsException"),
        (
            {"UsageAllocations": [{"AllocatedUsageQuantity": 17, "Tags": [{"Key": "ä", "Value": "x"}]}]},
            "InvalidTagException",
        ),
        (
            {
                "UsageAllocations": [
                    {"AllocatedUsageQuantity": 17, "Tags": [{"Key": f"k{i}", "Value": "x"} for i in range(6)]}
                ]
            },
            "InvalidTagException",
        ),
    ],
)
def test_mistakes_have_their_own_exceptions(client, changes, name):
    with pytest.raises(getattr(client.exceptions, name)):
        client.meter_usage(**usage(**changes))


@pytest.mark.parametrize("operation", ["RegisterUsage", "MeterUsage"])
def test_every_error_of_the_service_model_is_typed(simulator, client, operation):
    errors = [shape.name for shape in client.meta.service_model.operation_model(operation).error_shapes]
    assert len(errors) >= 8
    for name in errors:
        simulator.fault(operation=operation, kind="error", error=name, count=1)
        with pytest.raises(getattr(client.exceptions, name)) as raised:
            if operation == "RegisterUsage":
                client.register_usage(**REGISTER)
            else:
                client.meter_usage(**usage())
        status = raised.value.response["ResponseMetadata"]["HTTPStatusCode"]
        assert status == (500 if name == "InternalServiceErrorException" else 400)
    assert simulator.account()["records"] == []


def test_a_buyer_without_subscription_is_refused(simulator, client):
    simulator.admin("PUT", "products", {"code": PRODUCT, "entitled": False})
    with pytest.raises(client.exceptions.CustomerNotEntitledException):
        client.register_usage(**REGISTER)
    with pytest.raises(client.exceptions.CustomerNotEntitledException):
        client.meter_usage(**usage())


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        ({"aws_access_key_id": "NOBODY"}, "UnrecognizedClientException"),
        ({"aws_secret_access_key": "wrong"}, "InvalidSignatureException"),
        ({"aws_session_token": "unexpected"}, "UnrecognizedClientException"),
        ({"region_name": "eu-west-1"}, "InvalidRegionException"),
    ],
)
def test_wrong_credentials_and_regions_are_refused(simulator, overrides, code):
    client = metering_client(simulator.url, **overrides)
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        client.register_usage(**REGISTER)
    assert raised.value.response["Error"]["Code"] == code


def test_a_clock_that_is_off_is_refused(simulator, client):
    simulator.admin("PUT", "clock", {"offset_seconds": 3600})
    with pytest.raises(botocore.exceptions.ClientError, match="Signature expired"):
        client.register_usage(**REGISTER)


def test_throttling_and_failures_are_retried_by_the_sdk(simulator):
    client = metering_client(simulator.url, attempts=3)
    simulator.fault(operation="MeterUsage", kind="error", error="ThrottlingException", count=1)
    simulator.fault(operation="MeterUsage", kind="internal-error-after", count=1)
    client.meter_usage(**usage())
    assert len(simulator.account()["records"]) == 1
    tokens = {call["request"]["ClientToken"] for call in simulator.calls()}
    assert len(tokens) == 1, "boto3 keeps its own ClientToken over its retries"
