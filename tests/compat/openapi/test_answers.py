"""The answers of openapi.yaml that no generated request brings about."""

import datetime

import pytest
import request
import spec
from generator import CHECKS, SCHEMA, error_name
from pod import PATIENCE_SECONDS, PRODUCT, Pod, poll

TOO_LONG = "x" * (1024 * 1024)
METERING = [path for path in spec.SPEC["paths"] if not spec.is_health(path)]
WITH_BODY = [path for path in METERING if path != "/quitquitquit" and "{id}" not in path]


def ask(pod, path, body=None, port=None, headers=None, **parameters):
    """One request of a route as openapi.yaml describes it; the answer has to be one of the file's."""
    operation = SCHEMA[path]["get" if "get" in spec.SPEC["paths"][path] else "post"]
    kind = next(iter(operation.definition.raw.get("requestBody", {}).get("content", {})), None)
    case = operation.Case(path_parameters=parameters, headers=target(path) | (headers or {}))
    if body is not None:
        case.body, case.media_type = body, kind
    return case.call_and_validate(base_url=f"http://127.0.0.1:{port or pod.port}", checks=CHECKS)


def target(path):
    name, _, value = path.partition("#")[2].partition("=")
    return {name: value} if name else {}


def aws_path(name):
    return f"/#X-Amz-Target=AWSMPMeteringService.{name}"


def meter_usage(**changes):
    now = datetime.datetime.now(datetime.UTC).timestamp()
    return {"ProductCode": PRODUCT, "Timestamp": now, "UsageDimension": "requests", "UsageQuantity": 5} | changes


@pytest.fixture
def start(tmp_path, simulator):
    """Starts a sidecar with settings of a test's own."""
    pods = []

    def started(**settings):
        pods.append(Pod(tmp_path, simulator, **settings))
        return pods[-1].start()

    yield started
    for pod in pods:
        pod.close()


def test_a_report_is_found_by_the_id_of_its_answer(start):
    pod = start().ready()
    ids = [
        ask(pod, "/v1/usage", {"dimension": "requests", "quantity": "0.25"}).json()["id"],
        ask(pod, aws_path("MeterUsage"), meter_usage()).json()["MeteringRecordId"],
    ]
    for record_id in ids:
        answer = ask(pod, "/v1/usage/{id}", id=record_id)
        assert (answer.status_code, answer.json()["quantity"]) == (200, "5.25")


def test_quitquitquit_ends_the_sidecar(start):
    pod = start(TOLLGATE_QUITQUITQUIT="on").ready()
    assert ask(pod, "/quitquitquit").status_code == 200
    assert pod.process.wait(timeout=PATIENCE_SECONDS) == 0


def test_where_there_is_no_proof_a_challenge_is_a_conflict(start):
    pod = start(TOLLGATE_ENTITLEMENT_CHECK="none").ready()
    answer = ask(pod, "/v1/entitlement/challenge", {"nonce": "n"})
    assert (answer.status_code, error_name(answer)) == (409, "ProofUnavailable")


def test_a_denied_sidecar_answers_as_the_file_says(start, simulator):
    simulator.admin("PUT", "products", {"code": PRODUCT, "entitled": False})
    pod = start(TOLLGATE_ON_DENIED="hold")
    poll(lambda: pod.state() == "denied", "denied")
    for path in filter(spec.is_health, spec.SPEC["paths"]):
        status = 503 if path in ("/startupz", "/readyz") else 200
        assert ask(pod, path, port=pod.health_port).status_code == status, path
    refused = poll(lambda: refusal(ask(pod, aws_path("MeterUsage"), meter_usage())), "a refusal of usage")
    assert refused == (400, "CustomerNotEntitledException")
    assert refusal(ask(pod, "/v1/entitlement/challenge", {"nonce": "n"})) == (403, "CustomerNotEntitledException")


def refusal(answer):
    return None if answer.status_code == 200 else (answer.status_code, error_name(answer))


def test_failures_of_aws_are_answered_as_the_file_says(start, simulator):
    pod = start().ready()
    failed = (500, "InternalServiceErrorException")
    for operation, path, body, expected in [
        ("ResolveCustomer", aws_path("ResolveCustomer"), {"RegistrationToken": "t"}, failed),
        ("MeterUsage", aws_path("MeterUsage"), meter_usage(DryRun=True), failed),
        ("RegisterUsage", "/v1/entitlement/challenge", {"nonce": "n"}, (503, "Unreachable")),
    ]:
        simulator.fault(operation=operation, kind="internal-error", count=1)
        assert refusal(ask(pod, path, body)) == expected
    simulator.fault(operation="RegisterUsage", kind="attack", attack="other-key", count=1)
    assert refusal(ask(pod, "/v1/entitlement/challenge", {"nonce": "n"})) == (502, "unverified")
    simulator.fault(operation="RegisterUsage", kind="attack", attack="other-key", count=1)
    register = {"ProductCode": PRODUCT, "PublicKeyVersion": 1, "Nonce": "n"}
    assert refusal(ask(pod, aws_path("RegisterUsage"), register)) == failed


def test_too_long_bodies_and_strange_hosts_are_refused_as_the_file_says(start):
    pod = start().ready()
    for path in WITH_BODY:
        assert refusal(ask(pod, path, {"long": TOO_LONG})) == (413, "RequestEntityTooLargeException"), path
    for path in METERING:
        assert refusal(ask(pod, path, headers={"Host": "evil.example"}, id="0")) == (403, "AccessDeniedException"), path


def test_calls_without_a_signature_are_refused_as_the_file_says(start, tmp_path):
    pod = start(TOLLGATE_CLIENT_AUTH_FILE=request.client_auth_file(tmp_path)).ready()
    for path in METERING:
        status = 400 if "#" in path else 403
        assert refusal(ask(pod, path, id="0")) == (status, "MissingAuthenticationTokenException"), path
