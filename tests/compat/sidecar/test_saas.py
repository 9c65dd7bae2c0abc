"""A SaaS product's program with real SDKs: BatchMeterUsage, ResolveCustomer, RegisterUsage."""

import base64
import contextlib
import datetime
import json
import urllib.request

import boto3
import clients
import pytest
from clients import expect, now
from customers import ACCOUNT, BUYER, LICENSE, OLD_BUYER, batch_of, legacy, licensed, record
from pod import PRODUCT, Pod

TOKEN = "registration-token-1"

@pytest.fixture(autouse=True)
def buyers(simulator):
    for buyer in [BUYER, OLD_BUYER]:
        simulator.admin("PUT", "customers", buyer)
    simulator.admin("PUT", "tokens", {"token": TOKEN, "customer": "buyer"})


@pytest.fixture(params=clients.SDKS)
def start_sdk(request, tmp_path):
    """Starts the SDK's program that the test is run with, as often as it is called."""
    with contextlib.ExitStack() as started:

        def start(pod, **options):
            client = clients.start(request.param, tmp_path, pod.app_environment(), **options)
            return started.enter_context(contextlib.closing(client))

        yield start


def taken(outcome):
    """The results of a call that was answered."""
    assert outcome.get("status") == 200, outcome
    assert outcome["answer"]["UnprocessedRecords"] == []
    return outcome["answer"]["Results"]


def team(name, **quantity):
    return quantity | {"Tags": [{"Key": "team", "Value": name}]}


@pytest.mark.parametrize(("made", "customer"), [(licensed, "buyer"), (legacy, "old-buyer")])
def test_usage_is_taken_and_billed_in_either_integration(pod, simulator, start_sdk, made, customer):
    simulator.admin("PUT", "products", {"code": PRODUCT, "dimensions": ["requests", "gb", "seats"]})
    pod.start().ready()
    client = start_sdk(pod)
    parts = [team("a", AllocatedUsageQuantity=2), {"AllocatedUsageQuantity": 1}]
    sent = [made(), made(Quantity=2147483647), made(Dimension="seats", Quantity=3, UsageAllocations=parts)]
    results = taken(client.ask("BatchMeterUsage", **batch_of(*sent)))
    assert [result["Status"] for result in results] == ["Success"] * 3
    assert all(len(result["MeteringRecordId"]) == 36 for result in results)
    for result, asked in zip(results, sent, strict=True):
        echo = result["UsageRecord"]
        assert datetime.datetime.fromisoformat(echo.pop("Timestamp")) == datetime.datetime.fromisoformat(
            asked.pop("Timestamp")
        )
        assert echo == asked
    expected = {(customer, "requests"): "2147483652", (customer, "seats"): "3"}
    if client.decimals:
        parts = [team("b", AllocatedUsageQuantityAsDecimal="0.25"), {"AllocatedUsageQuantityAsDecimal": "0.000001"}]
        decimal = made(Dimension="gb", Quantity=None, QuantityAsDecimal="0.250001", UsageAllocations=parts)
        [result] = taken(client.ask("BatchMeterUsage", **batch_of(decimal)))
        assert result["UsageRecord"]["QuantityAsDecimal"] == "0.250001"
        expected[customer, "gb"] = "0.250001"
    assert pod.billed_to_customers() == expected
    records = {record["dimension"]: record for record in simulator.account()["saas_records"]}
    assert records["seats"]["allocations"] == [
        {"tags": {}, "quantity": "1"},
        {"tags": {"team": "a"}, "quantity": "2"},
    ]


@pytest.mark.parametrize("start_sdk", ["javascript"], indirect=True)
def test_the_javascript_sdk_leaves_decimals_out_of_records(pod, start_sdk):
    """A fact about the SDK: when it fails, the client has gained the members and `decimals` in clients.py is to be true."""
    pod.start().ready()
    request = batch_of(licensed(Quantity=None, QuantityAsDecimal="7"))
    assert taken(start_sdk(pod).ask("BatchMeterUsage", **request))[0]["Status"] == "Success"
    assert pod.billed_to_customers() == {("buyer", "requests"): "0"}


def test_two_equal_calls_count_twice_and_an_empty_one_nothing(pod, start_sdk):
    pod.start().ready()
    client = start_sdk(pod)
    request = batch_of(licensed())
    for _ in range(2):
        taken(client.ask("BatchMeterUsage", **request))
    assert taken(client.ask("BatchMeterUsage", **batch_of())) == []
    assert pod.billed_to_customers() == {("buyer", "requests"): "10"}


def test_a_customer_that_aws_calls_unsubscribed_is_told_per_record(pod, simulator, start_sdk):
    simulator.admin("PUT", "customers", BUYER | {"subscribed": False})
    other = {"CustomerAWSAccountId": "1", "LicenseArn": "arn:aws:license-manager::1:license:l-1"}
    simulator.admin(
        "PUT",
        "customers",
        BUYER | {"id": "other", "customer_aws_account_id": "1", "license": [{"arn": other["LicenseArn"]}]},
    )
    pod.start().ready()
    client = start_sdk(pod)
    [before] = taken(client.ask("BatchMeterUsage", **batch_of(licensed())))
    assert before["Status"] == "Success", "nobody knows yet"
    pod.stop()
    pod.start().ready()
    refused, fine = taken(client.ask("BatchMeterUsage", **batch_of(licensed(), record(other))))
    assert (refused["Status"], fine["Status"]) == ("CustomerNotSubscribed", "Success")
    assert "MeteringRecordId" not in refused
    assert refused["UsageRecord"]["LicenseArn"] == LICENSE


def mistakes():
    """Requests by the exception that they get."""
    hour = datetime.timedelta(hours=1)
    return {
        "InvalidProductCodeException": [
            {"UsageRecords": [legacy()]},
            batch_of(licensed()) | {"ProductCode": PRODUCT},
            batch_of(legacy()) | {"ProductCode": "prod-other"},
        ],
        "InvalidUsageDimensionException": [batch_of(licensed(), licensed(Dimension="other"))],
        "InvalidTagException": [batch_of(legacy(), legacy(UsageAllocations=[team("ä", AllocatedUsageQuantity=5)]))],
        "InvalidUsageAllocationsException": [
            batch_of(licensed(UsageAllocations=[{"AllocatedUsageQuantity": 4}])),
            batch_of(licensed(Quantity=10, UsageAllocations=[{"AllocatedUsageQuantity": 5}] * 2)),
        ],
        "InvalidCustomerIdentifierException": [batch_of(legacy(CustomerIdentifier="x" * 256))],
        "InvalidLicenseException": [
            batch_of(licensed(), licensed(LicenseArn="l-1")),
            {"UsageRecords": [licensed(CustomerAWSAccountId=None)]},
        ],
        "TimestampOutOfBoundsException": [
            batch_of(licensed(), licensed(Timestamp=(now() - 25 * hour).isoformat())),
            batch_of(legacy(Timestamp=(now() + hour).isoformat())),
        ],
        "ValidationException": [
            batch_of(*[licensed()] * 26),
            batch_of(legacy(Quantity=-1)),
            batch_of(licensed(), legacy()),
        ],
    }


def test_every_mistake_is_the_sdks_own_exception_and_costs_nothing(tmp_path, simulator, start_sdk):
    with contextlib.closing(Pod(tmp_path, simulator, TOLLGATE_DIMENSIONS="requests")) as pod:
        pod.start().ready()
        client = start_sdk(pod)
        for name, requests in mistakes().items():
            for request in requests:
                outcome = client.ask("BatchMeterUsage", **request)
                expect(outcome, name)
                assert (outcome["status"], outcome["retries"]) == (400, 0)
        taken(client.ask("BatchMeterUsage", **batch_of(licensed())))
        assert pod.billed_to_customers() == {("buyer", "requests"): "5"}


def test_a_customer_named_in_two_ways_is_an_invalid_identifier(pod, simulator, start_sdk):
    both = OLD_BUYER | {"license": [{"arn": "arn:aws:license-manager::555566667777:license:l-1"}]}
    simulator.admin("PUT", "customers", both)
    simulator.admin("PUT", "tokens", {"token": TOKEN, "customer": "old-buyer"})
    pod.start().ready()
    client = start_sdk(pod)
    taken(client.ask("BatchMeterUsage", **batch_of(legacy())))
    assert client.ask("ResolveCustomer", RegistrationToken=TOKEN)["status"] == 200
    by_license = {"CustomerAWSAccountId": "555566667777", "LicenseArn": both["license"][0]["arn"]}
    outcome = client.ask("BatchMeterUsage", **batch_of(record(by_license)))
    expect(outcome, "InvalidCustomerIdentifierException")
    assert "would bill both" in outcome["message"]
    assert pod.billed_to_customers() == {("old-buyer", "requests"): "5"}


REQUESTS = {
    "BatchMeterUsage": batch_of(licensed()),
    "ResolveCustomer": {"RegistrationToken": TOKEN},
    "RegisterUsage": {"ProductCode": PRODUCT, "PublicKeyVersion": 1, "Nonce": "n-1"},
}


def modelled_errors(operation):
    client = boto3.client("meteringmarketplace", region_name="us-east-1")
    return [shape.name for shape in client.meta.service_model.operation_model(operation).error_shapes]


@pytest.mark.parametrize("operation", REQUESTS)
def test_every_error_of_awss_reaches_the_app_as_its_own_exception(tmp_path, simulator, start_sdk, operation):
    with contextlib.closing(Pod(tmp_path, simulator, TOLLGATE_SAAS_MODE="passthrough")) as pod:
        pod.start().ready()
        client = start_sdk(pod, attempts="1")
        errors = modelled_errors(operation)
        assert len(errors) >= 5
        for name in errors:
            simulator.fault(operation=operation, kind="error", error=name, count=1)
            outcome = client.ask(operation, **REQUESTS[operation])
            expect(outcome, name)
            assert outcome["status"] == (500 if name == "InternalServiceErrorException" else 400)
        assert client.ask(operation, **REQUESTS[operation])["status"] == 200


@pytest.mark.parametrize("operation", ["ResolveCustomer", "RegisterUsage"])
def test_throttling_and_failures_are_retried_by_the_sdk(pod, simulator, start_sdk, operation):
    pod.start().ready()
    client = start_sdk(pod)
    simulator.fault(operation=operation, kind="error", error="ThrottlingException", count=1)
    simulator.fault(operation=operation, kind="reply-lost", count=1)
    outcome = client.ask(operation, **REQUESTS[operation])
    assert (outcome["status"], outcome["retries"]) == (200, 1), outcome
    outcome = client.ask(operation, **REQUESTS[operation])
    assert (outcome["status"], outcome["retries"]) == (200, 0), outcome


def test_a_registration_is_answered_with_all_that_the_sdk_knows_and_more(pod, simulator, start_sdk):
    further = {"OfferId": "offer-1", "Metadata": {"OfferSetId": "set-1"}}
    simulator.admin("PUT", "tokens", {"token": TOKEN, "customer": "buyer", "further_members": further})
    pod.start().ready()
    known = {
        "CustomerAWSAccountId": ACCOUNT,
        "LicenseArn": LICENSE,
        "ProductCode": PRODUCT,
        "Metadata": {"AgreementId": "agmt-1"},
    }
    client = start_sdk(pod)
    # The SDK that knows no decimals knows no Metadata either.
    modelled = known if client.decimals else {name: known[name] for name in known if name != "Metadata"}
    assert client.ask("ResolveCustomer", RegistrationToken=TOKEN)["answer"] == modelled
    headers = {"X-Amz-Target": "AWSMPMeteringService.ResolveCustomer"}
    data = json.dumps({"RegistrationToken": TOKEN}).encode()
    with urllib.request.urlopen(urllib.request.Request(pod.url, data, headers), timeout=10) as answer:
        whole = json.load(answer)
    assert whole == known | {"OfferId": "offer-1", "Metadata": {"AgreementId": "agmt-1", "OfferSetId": "set-1"}}
    assert TOKEN not in pod.log.read_text()


def test_a_token_that_aws_does_not_take_is_the_sdks_own_exception(pod, simulator, start_sdk):
    pod.start().ready()
    client = start_sdk(pod)
    expect(client.ask("ResolveCustomer", RegistrationToken="another"), "InvalidTokenException")
    expired = {"token": TOKEN, "customer": "buyer", "expires_at": (now() - datetime.timedelta(seconds=1)).isoformat()}
    simulator.admin("PUT", "tokens", expired)
    expect(client.ask("ResolveCustomer", RegistrationToken=TOKEN), "ExpiredTokenException")
    expect(client.ask("ResolveCustomer", RegistrationToken=""), "ValidationException")


def test_an_apps_registration_has_its_own_nonce_signed(pod, start_sdk):
    pod.start().ready()
    client = start_sdk(pod)
    request = REQUESTS["RegisterUsage"]
    token = client.ask("RegisterUsage", **request)["answer"]["Signature"]
    claims = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    assert (claims["nonce"], claims["productCode"]) == ("n-1", PRODUCT)
    expect(client.ask("RegisterUsage", **request | {"PublicKeyVersion": 9}), "InvalidPublicKeyVersionException")
    expect(client.ask("RegisterUsage", **request | {"ProductCode": "prod-other"}), "InvalidProductCodeException")
    expect(client.ask("RegisterUsage", **request | {"Nonce": "x" * 256}), "ValidationException")


def test_an_answer_that_does_not_verify_never_reaches_the_app(pod, simulator, start_sdk):
    pod.start().ready()
    simulator.fault(operation="RegisterUsage", kind="attack", attack="other-key")
    outcome = start_sdk(pod, attempts="1").ask("RegisterUsage", **REQUESTS["RegisterUsage"])
    expect(outcome, "InternalServiceErrorException")
