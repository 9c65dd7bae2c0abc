"""BatchMeterUsage and ResolveCustomer as boto3 sees them: each answer parses, and every error is the SDK's own typed exception."""

import datetime

import botocore.exceptions
import pytest
from conftest import PRODUCT, metering_client

ACCOUNT = "222233334444"
LICENSE = f"arn:aws:license-manager::{ACCOUNT}:license:l-1"
IDENTIFIER = "customer-identifier-1"
TOKEN = "registration-token-1"


@pytest.fixture(autouse=True)
def buyer(simulator):
    """The customer that a test meters, as the simulator knows it; a test may change it and put it again."""
    buyer = {
        "id": "buyer",
        "product_code": PRODUCT,
        "customer_identifier": IDENTIFIER,
        "customer_aws_account_id": ACCOUNT,
        "license": [{"arn": LICENSE, "agreement_id": "agmt-1"}],
    }
    simulator.admin("PUT", "customers", buyer)
    simulator.admin("PUT", "tokens", {"token": TOKEN, "customer": "buyer"})
    return buyer


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def legacy(**changes):
    return {"Timestamp": now(), "CustomerIdentifier": IDENTIFIER, "Dimension": "requests", "Quantity": 17} | changes


def licensed(**changes):
    who = {"CustomerAWSAccountId": ACCOUNT, "LicenseArn": LICENSE}
    return {"Timestamp": now(), "Dimension": "requests", "Quantity": 17} | who | changes


def statuses(answer):
    return [result["Status"] for result in answer["Results"]]


def test_resolve_customer_answers_with_all_that_the_sdk_knows(client):
    answer = client.resolve_customer(RegistrationToken=TOKEN)
    del answer["ResponseMetadata"]
    assert answer == {
        "CustomerIdentifier": IDENTIFIER,
        "CustomerAWSAccountId": ACCOUNT,
        "LicenseArn": LICENSE,
        "ProductCode": PRODUCT,
        "Metadata": {"AgreementId": "agmt-1"},
    }


def test_a_customer_of_a_new_integration_has_no_identifier(simulator, client, buyer):
    del buyer["customer_identifier"]
    simulator.admin("PUT", "customers", buyer)
    assert "CustomerIdentifier" not in client.resolve_customer(RegistrationToken=TOKEN)
    with pytest.raises(client.exceptions.InvalidCustomerIdentifierException):
        client.batch_meter_usage(ProductCode=PRODUCT, UsageRecords=[legacy()])
    assert statuses(client.batch_meter_usage(UsageRecords=[licensed()])) == ["Success"]


def test_what_boto3_does_not_know_does_not_disturb_it(simulator, client):
    further = {"OfferId": "offer-1", "Metadata": {"OfferSetId": "set-1"}}
    simulator.admin("PUT", "tokens", {"token": TOKEN, "customer": "buyer", "further_members": further})
    answer = client.resolve_customer(RegistrationToken=TOKEN)
    assert answer["Metadata"] == {"AgreementId": "agmt-1"}
    assert "OfferId" not in answer


def test_tokens_are_unknown_or_expire(simulator, client):
    with pytest.raises(client.exceptions.InvalidTokenException):
        client.resolve_customer(RegistrationToken="another")
    expired = {"token": TOKEN, "customer": "buyer", "expires_at": (now() - datetime.timedelta(seconds=1)).isoformat()}
    simulator.admin("PUT", "tokens", expired)
    with pytest.raises(client.exceptions.ExpiredTokenException):
        client.resolve_customer(RegistrationToken=TOKEN)


@pytest.mark.parametrize(
    ("request_of", "record"),
    [
        (lambda records: {"ProductCode": PRODUCT, "UsageRecords": records}, legacy),
        (lambda records: {"UsageRecords": records}, licensed),
    ],
    ids=["legacy", "licensed"],
)
def test_the_hour_has_one_record_that_never_changes(simulator, client, request_of, record):
    at = now()
    first = client.batch_meter_usage(**request_of([record(Timestamp=at)]))
    assert first["UnprocessedRecords"] == []
    result = first["Results"][0]
    assert result["Status"] == "Success"
    assert result["UsageRecord"]["Quantity"] == 17
    assert abs(result["UsageRecord"]["Timestamp"] - at) < datetime.timedelta(milliseconds=1)
    as_decimal = record(Timestamp=at, QuantityAsDecimal="17.00")
    del as_decimal["Quantity"]
    again = client.batch_meter_usage(**request_of([as_decimal]))
    assert again["Results"][0]["MeteringRecordId"] == result["MeteringRecordId"]
    other = client.batch_meter_usage(**request_of([record(Timestamp=at, Quantity=18)]))
    assert statuses(other) == ["DuplicateRecord"]
    billed = simulator.account()["saas_records"]
    assert [(record["quantity"], record["times"]) for record in billed] == [("17", 2)]


def test_a_customer_metered_both_ways_has_two_records_and_one_total(simulator, client):
    client.batch_meter_usage(ProductCode=PRODUCT, UsageRecords=[legacy()])
    client.batch_meter_usage(UsageRecords=[licensed()])
    account = simulator.account()
    who = {"customer_identifier", "customer_aws_account_id", "license_arn"}
    assert [who & set(record) for record in account["saas_records"]] == [
        {"customer_identifier"},
        {"customer_aws_account_id", "license_arn"},
    ]
    assert account["saas_totals"] == [
        {"customer": "buyer", "product_code": PRODUCT, "dimension": "requests", "quantity": "34"}
    ]
    assert account["records"] == [] and account["totals"] == []


def test_the_account_shows_a_record_whole(simulator, client):
    allocations = [
        {"AllocatedUsageQuantityAsDecimal": "0.25", "Tags": [{"Key": "team", "Value": "a b"}]},
        {"AllocatedUsageQuantityAsDecimal": "0.000001"},
    ]
    record = licensed(QuantityAsDecimal="0.250001", UsageAllocations=allocations)
    del record["Quantity"]
    answer = client.batch_meter_usage(UsageRecords=[record])
    [billed] = simulator.account()["saas_records"]
    assert datetime.datetime.fromisoformat(billed.pop("received_at"))
    assert datetime.datetime.fromisoformat(billed.pop("timestamp"))
    assert datetime.datetime.fromisoformat(billed.pop("hour")).minute == 0
    assert billed == {
        "customer": "buyer",
        "product_code": PRODUCT,
        "customer_aws_account_id": ACCOUNT,
        "license_arn": LICENSE,
        "region": "us-east-1",
        "dimension": "requests",
        "quantity": "0.250001",
        "allocations": [{"tags": {}, "quantity": "0.000001"}, {"tags": {"team": "a b"}, "quantity": "0.25"}],
        "record_id": answer["Results"][0]["MeteringRecordId"],
        "times": 1,
    }


def test_a_customer_without_subscription_is_told_per_record(simulator, client, buyer):
    simulator.admin("PUT", "customers", buyer | {"subscribed": False})
    answer = client.batch_meter_usage(ProductCode=PRODUCT, UsageRecords=[legacy()])
    assert statuses(answer) == ["CustomerNotSubscribed"]
    assert "MeteringRecordId" not in answer["Results"][0]
    assert simulator.account()["saas_records"] == []


def test_unprocessed_records_are_sent_again_as_they_come_back(simulator, client):
    simulator.fault(kind="unprocessed", record=1, count=1)
    at = now()
    batch = [legacy(Timestamp=at), legacy(Timestamp=at - datetime.timedelta(hours=1))]
    answer = client.batch_meter_usage(ProductCode=PRODUCT, UsageRecords=batch)
    assert statuses(answer) == ["Success"]
    assert len(answer["UnprocessedRecords"]) == 1
    assert len(simulator.account()["saas_records"]) == 1
    answer = client.batch_meter_usage(ProductCode=PRODUCT, UsageRecords=answer["UnprocessedRecords"])
    assert statuses(answer) == ["Success"]
    assert len(simulator.account()["saas_records"]) == 2


@pytest.mark.parametrize(
    ("product", "record", "name"),
    [
        ("prod-other", legacy(), "InvalidProductCodeException"),
        (None, legacy(), "InvalidProductCodeException"),
        (PRODUCT, licensed(), "InvalidProductCodeException"),
        (PRODUCT, legacy(CustomerAWSAccountId=ACCOUNT), "InvalidCustomerIdentifierException"),
        (PRODUCT, legacy(CustomerIdentifier="nobody"), "InvalidCustomerIdentifierException"),
        (None, licensed(LicenseArn=LICENSE + "0"), "InvalidLicenseException"),
        (None, licensed(CustomerAWSAccountId="1"), "InvalidLicenseException"),
        (PRODUCT, legacy(Dimension="other"), "InvalidUsageDimensionException"),
        (PRODUCT, legacy(Timestamp=now() - datetime.timedelta(hours=25)), "TimestampOutOfBoundsException"),
        (None, licensed(Timestamp=now() + datetime.timedelta(hours=1)), "TimestampOutOfBoundsException"),
        (
            PRODUCT,
            legacy(UsageAllocations=[{"AllocatedUsageQuantity": 16}]),
            "InvalidUsageAllocationsException",
        ),
        (
            PRODUCT,
            legacy(UsageAllocations=[{"AllocatedUsageQuantity": 17, "Tags": [{"Key": "ä", "Value": "x"}]}]),
            "InvalidTagException",
        ),
    ],
)
def test_mistakes_have_their_own_exceptions_and_nothing_of_the_batch_counts(simulator, client, product, record, name):
    good = licensed(Timestamp=now()) if product is None else legacy(Timestamp=now())
    request = {"UsageRecords": [good, record]} | ({} if product is None else {"ProductCode": product})
    with pytest.raises(getattr(client.exceptions, name)):
        client.batch_meter_usage(**request)
    assert simulator.account()["saas_records"] == []


def test_a_region_without_the_product_has_the_api_disabled(simulator, client):
    simulator.admin("PUT", "products", {"code": PRODUCT, "regions": ["eu-west-1"]})
    with pytest.raises(client.exceptions.DisabledApiException):
        client.batch_meter_usage(ProductCode=PRODUCT, UsageRecords=[legacy()])
    with pytest.raises(client.exceptions.DisabledApiException):
        client.resolve_customer(RegistrationToken=TOKEN)
    elsewhere = metering_client(simulator.url, region_name="eu-west-1")
    assert statuses(elsewhere.batch_meter_usage(ProductCode=PRODUCT, UsageRecords=[legacy()])) == ["Success"]


@pytest.mark.parametrize("operation", ["BatchMeterUsage", "ResolveCustomer"])
def test_every_error_of_the_service_model_is_typed(simulator, client, operation):
    errors = [shape.name for shape in client.meta.service_model.operation_model(operation).error_shapes]
    assert len(errors) >= 5
    for name in errors:
        simulator.fault(operation=operation, kind="error", error=name, count=1)
        with pytest.raises(getattr(client.exceptions, name)) as raised:
            if operation == "BatchMeterUsage":
                client.batch_meter_usage(UsageRecords=[licensed()])
            else:
                client.resolve_customer(RegistrationToken=TOKEN)
        status = raised.value.response["ResponseMetadata"]["HTTPStatusCode"]
        assert status == (500 if name == "InternalServiceErrorException" else 400)
    assert simulator.account()["saas_records"] == []


def test_throttling_and_lost_replies_are_retried_by_the_sdk_and_counted_once(simulator):
    client = metering_client(simulator.url, attempts=4)
    record = licensed()
    simulator.fault(operation="BatchMeterUsage", kind="error", error="ThrottlingException", count=1)
    assert statuses(client.batch_meter_usage(UsageRecords=[record])) == ["Success"]
    for kind in ["internal-error-after", "reply-lost"]:
        simulator.fault(operation="BatchMeterUsage", kind=kind, count=1)
        assert statuses(client.batch_meter_usage(UsageRecords=[record])) == ["Success"]
    [record] = simulator.account()["saas_records"]
    assert record["times"] == 5
    assert len(simulator.calls()) == 6


def test_a_batch_of_more_than_25_records_is_refused(simulator, client):
    with pytest.raises(botocore.exceptions.ClientError, match="more than 25"):
        client.batch_meter_usage(ProductCode=PRODUCT, UsageRecords=[legacy()] * 26)
    assert simulator.account()["saas_records"] == []


def test_an_empty_batch_is_an_empty_answer(client):
    answer = client.batch_meter_usage(UsageRecords=[])
    assert (answer["Results"], answer["UnprocessedRecords"]) == ([], [])
