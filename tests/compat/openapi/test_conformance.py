"""schemathesis against the sidecar: what openapi.yaml allows is taken, what it forbids is refused, every answer is one it has."""

import collections

import hypothesis
import pytest
import request
import requests.auth
import spec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from conftest import running_simulator
from generator import CHECKS, SCHEMA, error_name
from pod import PRODUCT, Pod
from schemathesis.checks import not_a_server_error

ACME = {"id": "acme", "product_code": PRODUCT, "customer_identifier": "acme-1", "customer_aws_account_id": "222233334444"}
METERING = SCHEMA.exclude(lambda context: spec.is_health(context.operation.path))
# The pod is one for all cases of an operation, and slowness is no failure.
SETTINGS = hypothesis.settings(
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
# Why a request that openapi.yaml allows may be refused all the same: what was sent or called before it.
HISTORY = {
    "MeterUsage": {"DryRunOperation", "IdempotencyConflictException"},
    "BatchMeterUsage": {"InvalidCustomerIdentifierException", "IdempotencyConflictException"},
    "ResolveCustomer": {"InvalidTokenException"},
    "RegisterUsage": {"ThrottlingException"},
    "reportUsage": {"IdempotencyConflictException"},
    "findUsage": {"RecordNotFound"},
    "challenge": {"ThrottlingException"},
    "quit": {"ValidationException"},
}
# Beginnings of the headers that have to be signed if they are there.
SIGNED = ("x-amz-", "idempotency-key")
AUTH_ERRORS = {
    "MissingAuthenticationTokenException",
    "IncompleteSignatureException",
    "UnrecognizedClientException",
    "InvalidSignatureException",
}
# A dimension that takes keys, where there are keys.
SETTINGS_OF = {"reportUsage": {"TOLLGATE_DIMENSIONS": "requests,hosts:distinct"}}
# How often each status has to have come, for the cases to be worth something.
BODIES = {200: 5, 400: 10, 405: 1}
LEAST = {
    "MeterUsage": BODIES,
    "BatchMeterUsage": BODIES,
    "ResolveCustomer": BODIES,
    "RegisterUsage": BODIES,
    "reportUsage": BODIES,
    "challenge": BODIES,
    "findUsage": {404: 10, 405: 1},
    "quit": {404: 1, 405: 1},
}


class Signature(requests.auth.AuthBase):
    """botocore's, over what has to be signed: it does not sign the tabs in other headers as they are."""

    def __call__(self, prepared):
        headers = {name: value for name, value in prepared.headers.items() if name.lower().startswith(SIGNED)}
        signed = AWSRequest(prepared.method, prepared.url, headers, prepared.body)
        SigV4Auth(Credentials(*request.KEY), "aws-marketplace", "eu-central-1").add_auth(signed)
        prepared.headers.update(dict(signed.headers))
        return prepared


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    with running_simulator(tmp_path_factory.mktemp("aws")) as simulator:
        simulator.admin("PUT", "customers", ACME)
        simulator.admin("PUT", "tokens", {"token": request.TOKEN, "customer": ACME["id"]})
        yield simulator


class Exchange:
    """Sends the cases of one operation to a sidecar of its own, and judges the answers."""

    def __init__(self, folder, aws, signature=None, **settings):
        self.folder = folder
        self.aws = aws
        self.signature = signature
        self.settings = settings
        self.pod = None
        self.operation = None
        self.answered = collections.Counter()

    def open(self, operation):
        self.operation = operation
        self.pod = Pod(self.folder, self.aws, **self.settings | SETTINGS_OF.get(operation["operationId"], {}))
        self.pod.start().ready()

    def send(self, case):
        if self.pod is None:
            self.open(case.operation.definition.raw)
        case.body = request.fit(self.operation, case.body)
        checks = [not_a_server_error, *CHECKS]
        answer = case.call_and_validate(base_url=self.url(case), checks=checks, auth=self.signature)
        sent = answer.request
        allowed = request.is_allowed(self.operation, sent.method, sent.headers, sent.body)
        self.answered[answer.status_code] += 1
        if answer.status_code == 200:
            assert allowed, f"taken, and should not be: {sent.method} {sent.headers} {sent.body}"
        elif answer.status_code != 405:
            self.check_refusal(answer, allowed)

    def url(self, case):
        port = self.pod.health_port if spec.is_health(case.path) else self.pod.port
        return f"http://127.0.0.1:{port}"

    def check_refusal(self, answer, allowed):
        error = error_name(answer)
        said = f"{answer.request.headers} {answer.request.body} {answer.text}"
        assert error in self.documented(answer.status_code), f"not in the file: {said}"
        if allowed:
            assert error in HISTORY.get(self.operation["operationId"], set()), f"refused, and should not be: {said}"

    def documented(self, status):
        names = set(spec.COMMON_ERRORS[status])
        if status == 400:
            names |= set(self.operation["x-errors"]) | {"UnknownOperationException"}
        if self.signature and status in (400, 403):
            names |= AUTH_ERRORS
        return names

    def close(self):
        """What was sent has met both sides of the sidecar."""
        self.pod.close()
        name = self.operation["operationId"]
        least = LEAST.get(name, {200: 1, 405: 1})
        assert all(self.answered[status] >= count for status, count in least.items()), (name, self.answered)


@pytest.fixture
def exchange(tmp_path, aws):
    made = Exchange(tmp_path, aws)
    yield made
    made.close()


@SCHEMA.parametrize()
@SETTINGS
def test_every_answer_is_as_the_file_says(case, exchange):
    exchange.send(case)


@pytest.fixture
def signed_exchange(tmp_path, aws):
    made = Exchange(tmp_path, aws, Signature(), TOLLGATE_CLIENT_AUTH_FILE=request.client_auth_file(tmp_path))
    yield made
    made.close()


@METERING.parametrize()
@SETTINGS
def test_every_answer_to_a_signed_call_is_as_the_file_says(case, signed_exchange):
    signed_exchange.send(case)
