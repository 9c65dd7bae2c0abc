"""Client authentication as real clients meet it: two variables of the main container, and what AWS would say to a wrong one."""

import datetime
import json
import os
import pathlib
import subprocess
import urllib.error
import urllib.request
from unittest import mock

import boto3
import botocore.config
import botocore.exceptions
import clients
import pytest
import sign
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from clients import now, usage
from pod import PATIENCE_SECONDS, PRODUCT, Pod

HERE = pathlib.Path(__file__).parent
KEYS = {"AWS_ACCESS_KEY_ID": "THEAPP", "AWS_SECRET_ACCESS_KEY": "the-secret-of-the-app-1"}


@pytest.fixture
def pod(tmp_path, simulator):
    """A running sidecar whose callers sign, on every address of this host."""
    keys = tmp_path / "clients.toml"
    keys.write_text(
        f'[[key]]\naccess_key_id = "{KEYS["AWS_ACCESS_KEY_ID"]}"\nsecret_access_key = "{KEYS["AWS_SECRET_ACCESS_KEY"]}"\n',
        encoding="utf-8",
    )
    keys.chmod(0o440)
    made = Pod(tmp_path, simulator, TOLLGATE_CLIENT_AUTH_FILE=str(keys))
    made.environment["TOLLGATE_LISTEN"] = f"0.0.0.0:{made.port}"
    yield made.start().ready()
    made.close()
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in made.log.read_text()


@pytest.fixture(params=clients.NAMES)
def call(request, pod, tmp_path):
    """Calls MeterUsage with the client that the test is run with, under the variables given."""
    started = []

    def once(**environment):
        variables = pod.app_environment() | KEYS | environment
        started.append(clients.start(request.param, tmp_path, variables, attempts="1"))
        return started[-1].call(**usage())

    yield once
    for client in started:
        client.close()


def boto3_client(pod):
    return boto3.client(
        "meteringmarketplace",
        region_name="eu-central-1",
        endpoint_url=pod.url,
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )


def refusal(function, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        function(**arguments)
    answer = caught.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 400
    return answer["Error"]["Code"], answer["Error"]["Message"]


def boto3_usage():
    return {"ProductCode": PRODUCT, "Timestamp": now(), "UsageDimension": "requests", "UsageQuantity": 5}


def test_two_variables_are_enough(call, pod):
    for region in ["us-east-1", "eu-central-1"]:
        answer = call(AWS_REGION=region, AWS_DEFAULT_REGION=region)
        assert len(answer["id"]) == 36, answer
    assert pod.billed() == {"requests": "10"}


def test_a_wrong_secret_is_an_invalid_signature(call, pod):
    answer = call(AWS_SECRET_ACCESS_KEY="the-secret-of-the-app-2")
    assert answer["error"] == "InvalidSignatureException", answer
    assert "does not match" in answer["message"]
    assert pod.billed() == {}


def test_an_unknown_key_is_an_unrecognized_client(call):
    answer = call(AWS_ACCESS_KEY_ID="THEOTHER")
    assert answer["error"] == "UnrecognizedClientException", answer
    assert "THEOTHER" in answer["message"]


def test_a_session_token_is_an_unrecognized_client(call):
    answer = call(AWS_SESSION_TOKEN="a-token")
    assert answer["error"] == "UnrecognizedClientException", answer
    assert "AWS_SESSION_TOKEN" in answer["message"]


def test_no_signature_is_a_missing_token(pod):
    client = boto3_client(pod)
    client.meta.events.register("before-send.*", drop_authorization)
    code, _ = refusal(client.meter_usage, **boto3_usage())
    assert code == "MissingAuthenticationTokenException"


def drop_authorization(request, **_):
    del request.headers["Authorization"]


@pytest.mark.parametrize(
    ("minutes", "words"), [(-6, "Signature expired"), (6, "Signature not yet current"), (-4, None), (4, None)]
)
def test_five_minutes_of_skew_are_the_most(pod, minutes, words):
    client = boto3_client(pod)
    arguments = boto3_usage()
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=minutes)
    with mock.patch("botocore.auth.get_current_datetime", return_value=at):
        if words is None:
            assert client.meter_usage(**arguments)["MeteringRecordId"]
        else:
            code, message = refusal(client.meter_usage, **arguments)
            assert code == "InvalidSignatureException"
            assert words in message


def alter_body(request, **_):
    request.body = request.body.replace(b'"UsageQuantity": 5', b'"UsageQuantity": 6')


def test_an_altered_body_is_an_invalid_signature(pod):
    client = boto3_client(pod)
    client.meta.events.register("before-send.*", alter_body)
    code, _ = refusal(client.meter_usage, **boto3_usage())
    assert code == "InvalidSignatureException"
    assert pod.billed() == {}


def javascript(pod, mode):
    environment = pod.app_environment() | KEYS | {"PATH": os.environ["PATH"]}
    program = ["node", "--no-warnings", HERE / "tampering.mjs", mode]
    done = subprocess.run(
        program, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
    )
    return json.loads(done.stdout)


def test_the_javascript_sdk_corrects_its_clock_by_the_answer(pod):
    answer = javascript(pod, "skewed")
    assert (len(answer["id"]), answer["attempts"]) == (36, 2), answer
    assert pod.billed() == {"requests": "5"}


def test_a_body_altered_after_the_javascript_sdk_signed_is_refused(pod):
    assert javascript(pod, "altered")["error"] == "InvalidSignatureException"
    assert pod.billed() == {}


def test_the_other_routes_take_botocores_signer(pod):
    def send(method, route, data="", signed=True):
        request = AWSRequest(method, f"{pod.url}{route}", data=data.encode())
        request.headers["Idempotency-Key"] = "night-job-7"
        if signed:
            SigV4Auth(Credentials(*KEYS.values()), "aws-marketplace", "us-east-1").add_auth(request)
        plain = urllib.request.Request(request.url, request.data or None, dict(request.headers), method=method)
        try:
            with urllib.request.urlopen(plain, timeout=PATIENCE_SECONDS) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    report = '{"dimension":"requests","quantity":"2"}'
    status, answer = send("POST", "/v1/usage", report, signed=False)
    assert (status, answer["error"]["code"]) == (403, "MissingAuthenticationTokenException")
    status, answer = send("POST", "/v1/usage", report)
    assert status == 200, answer
    status, record = send("GET", f"/v1/usage/{answer['id']}")
    assert (status, record["quantity"]) == (200, "2")


def test_curl_signs_as_the_documentation_says(pod):
    arguments = ["--aws-sigv4", "aws:amz:us-east-1:aws-marketplace", "--user", ":".join(KEYS.values())]
    done = subprocess.run(
        ["curl", "--silent", "--show-error", *arguments, "--data", '{"dimension":"requests","quantity":3}', f"{pod.url}/v1/usage"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    assert "id" in json.loads(done.stdout), done.stdout
    assert pod.billed() == {"requests": "3"}


def test_the_signed_requests_of_the_rust_tests_are_botocores():
    assert sign.SIGNED.read_text(encoding="utf-8") == sign.render()
