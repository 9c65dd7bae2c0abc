"""What MeterUsage answers to real clients, and what of it is billed."""

import contextlib
import datetime
import json
import urllib.request

import clients
import pytest
from clients import expect, now, usage
from pod import PRODUCT, Pod, poll


@pytest.fixture(params=clients.NAMES)
def start_client(request, tmp_path):
    """Starts the client that the test is run with, as often as it is called."""
    started = []

    def start(pod, **options):
        started.append(clients.start(request.param, tmp_path, pod.app_environment(), **options))
        return started[-1]

    yield start
    for client in started:
        client.close()


def dimensions(*names, **product):
    return {"code": PRODUCT, "dimensions": list(names)} | product


def team(name, **quantity):
    return quantity | {"Tags": [{"Key": "team", "Value": name}, {"Key": "cost centre", "Value": "a@b"}]}


def test_reports_are_billed_to_the_millionth(pod, simulator, start_client):
    simulator.admin("PUT", "products", dimensions("requests", "gb", "seats"))
    pod.start().ready()
    client = start_client(pod)
    at = now()
    ids = [client.call(**usage(at, UsageQuantity=quantity))["id"] for quantity in (0, 17, 2147483647)]
    assert len(set(ids)) == 3
    parts = [team("a", AllocatedUsageQuantity=2), {"AllocatedUsageQuantity": 1}]
    client.call(**usage(at, UsageDimension="seats", UsageQuantity=3, UsageAllocations=parts))
    expected = {"requests": "2147483664", "seats": "3"}
    if client.decimals:
        parts = [team("a", AllocatedUsageQuantityAsDecimal="0.25"), {"AllocatedUsageQuantityAsDecimal": "0.000001"}]
        decimal = {"UsageQuantity": None, "UsageQuantityAsDecimal": "0.250001", "UsageAllocations": parts}
        client.call(**usage(at, UsageDimension="gb", **decimal))
        expected["gb"] = "0.250001"
    assert pod.billed() == expected
    records = {record["dimension"]: record for record in simulator.account()["records"]}
    allocations = [(part["tags"], part["quantity"]) for part in records["seats"]["allocations"]]
    assert allocations == [({}, "1"), ({"cost centre": "a@b", "team": "a"}, "2")]


def test_the_record_has_the_time_of_the_usage(pod, simulator, start_client):
    pod.start().ready()
    # Usage from before the sidecar began counts from its beginning.
    whole = now().replace(microsecond=0) + datetime.timedelta(seconds=1)
    at = whole + datetime.timedelta(milliseconds=250)
    poll(lambda: now() > at, "the next second")
    client = start_client(pod)
    client.call(**usage(at))
    pod.stop()
    [record] = simulator.account()["records"]
    assert datetime.datetime.fromisoformat(record["timestamp"]) == (at if client.fractions else whole)


def test_a_record_id_leads_to_the_report(pod, start_client):
    pod.start().ready()
    record_id = start_client(pod).call(**usage())["id"]
    with urllib.request.urlopen(f"{pod.url}/v1/usage/{record_id}", timeout=10) as answer:
        record = json.load(answer)
    assert (record["state"], record["dimension"], record["quantity"]) == ("open", "requests", "5")


def test_a_client_token_counts_once(pod, start_client):
    pod.start().ready()
    client = start_client(pod)
    request = usage(ClientToken="token-1")
    first, again = client.call(**request), client.call(**request)
    assert first["id"] == again["id"]
    other = client.call(**request | {"UsageQuantity": 6})
    expect(other, "IdempotencyConflictException")
    client.call(**usage(ClientToken="token-2"))
    assert pod.billed() == {"requests": "10"}


def test_two_equal_calls_count_twice(pod, start_client):
    pod.start().ready()
    client = start_client(pod)
    request = usage()
    assert client.call(**request)["id"] != client.call(**request)["id"]
    assert pod.billed() == {"requests": "10"}


def allocated(*parts):
    return {"UsageAllocations": list(parts)}


def tagged(*tags):
    return allocated({"AllocatedUsageQuantity": 5, "Tags": [{"Key": key, "Value": value} for key, value in tags]})


def mistakes():
    """Requests by the exception that they get."""
    hours = datetime.timedelta(hours=1)
    half = {"AllocatedUsageQuantity": 5}
    return {
        "InvalidProductCodeException": [usage(ProductCode="prod-other")],
        "InvalidUsageDimensionException": [usage(UsageDimension="other")],
        "InvalidUsageAllocationsException": [
            usage(**allocated({"AllocatedUsageQuantity": 4})),
            usage(UsageQuantity=10, **allocated(half, half)),
        ],
        "InvalidTagException": [
            usage(**tagged(("team", "ä"))),
            usage(**tagged(*((f"key-{index}", "x") for index in range(6)))),
            usage(**tagged(("team", "a"), ("team", "b"))),
        ],
        "TimestampOutOfBoundsException": [usage(now() - 7 * hours), usage(now() + hours)],
        "ValidationException": [
            usage(UsageQuantity=-1),
            usage(UsageQuantity=2147483648),
            usage(UsageDimension="x" * 256),
            usage(ClientToken="x" * 65),
        ],
    }


def test_every_mistake_is_the_sdks_own_exception_and_costs_nothing(tmp_path, simulator, start_client):
    with contextlib.closing(Pod(tmp_path, simulator, TOLLGATE_DIMENSIONS="requests")) as pod:
        pod.start().ready()
        client = start_client(pod)
        for name, requests in mistakes().items():
            for request in requests:
                outcome = client.call(**request)
                expect(outcome, name)
                assert outcome.get("status", 400) == 400
                assert outcome.get("retries", 0) == 0
        client.call(**usage())
        assert pod.billed() == {"requests": "5"}


@pytest.mark.parametrize("start_client", ["boto3"], indirect=True)
def test_decimal_mistakes_are_validation_exceptions(pod, start_client):
    pod.start().ready()
    client = start_client(pod)
    for decimal in ("-1", "1e3", "NaN", "0.0000001", "10000000000", "01", ""):
        expect(client.call(**usage(UsageQuantity=None, UsageQuantityAsDecimal=decimal)), "ValidationException")
    expect(client.call(**usage(UsageQuantityAsDecimal="1")), "ValidationException")


@pytest.mark.parametrize("start_client", ["javascript"], indirect=True)
def test_the_javascript_sdk_leaves_decimals_out(pod, start_client):
    """A fact about the SDK: when it fails, the client has gained the members and `decimals` in clients.py is to be true."""
    pod.start().ready()
    assert start_client(pod).call(**usage(UsageQuantity=None, UsageQuantityAsDecimal="7"))["id"]
    assert pod.billed() == {"requests": "0"}


def test_a_dry_run_is_answered_by_aws_and_counts_nothing(pod, simulator, start_client):
    pod.start().ready()
    client = start_client(pod)
    assert client.call(**usage(DryRun=True))["error"] == "DryRunOperation"
    simulator.admin("PUT", "products", dimensions("requests", dry_run_succeeds=True))
    assert client.call(**usage(DryRun=True))["id"] == "dry-run"
    asked = [call for call in simulator.calls() if call["operation"] == "MeterUsage"]
    assert [call["request"]["DryRun"] for call in asked] == [True, True]
    assert pod.billed() == {}


def test_throttling_is_retried_by_the_sdk_and_typed_at_last(pod, simulator, start_client):
    simulator.admin("PUT", "products", dimensions("requests", dry_run_succeeds=True))
    pod.start().ready()
    throttle = {"operation": "MeterUsage", "kind": "error", "error": "ThrottlingException"}
    simulator.fault(**throttle, count=1)
    answered = start_client(pod).call(**usage(DryRun=True))
    assert (answered["id"], answered.get("retries", 1)) == ("dry-run", 1)
    simulator.fault(**throttle)
    given_up = start_client(pod, attempts="2").call(**usage(DryRun=True))
    expect(given_up, "ThrottlingException")


def test_a_buyer_who_is_not_entitled_gets_the_sdks_own_exception(tmp_path, simulator, start_client):
    simulator.admin("PUT", "products", dimensions("requests", entitled=False))
    with contextlib.closing(Pod(tmp_path, simulator, TOLLGATE_ON_DENIED="hold")) as pod:
        pod.start()
        poll(lambda: pod.state() == "denied", "the denial")
        client = start_client(pod)
        refused = poll(lambda: error_of(client.call(**usage())), "the refusal")
        expect(refused, "CustomerNotEntitledException")


def error_of(outcome):
    return outcome if "error" in outcome else None


def test_a_sidecar_that_shuts_down_takes_no_more_and_says_so(tmp_path, simulator, start_client):
    with contextlib.closing(Pod(tmp_path, simulator, TOLLGATE_SHUTDOWN_GRACE="8s")) as pod:
        pod.start().ready()
        client = start_client(pod, attempts="1")
        assert client.call(**usage())["id"]
        simulator.fault(operation="MeterUsage", kind="connection-reset")
        pod.process.terminate()
        refused = poll(lambda: error_of(client.call(**usage())), "the refusal")
        expect(refused, "InternalServiceErrorException")
        assert refused.get("status", 503) == 503


def test_an_outage_of_aws_is_none_for_the_app(pod, simulator, start_client):
    pod.start().ready()
    client = start_client(pod, attempts="1")
    simulator.fault(kind="unavailable-page")
    assert client.call(**usage())["id"]
    simulator.admin("DELETE", "faults")
    assert pod.billed() == {"requests": "5"}
