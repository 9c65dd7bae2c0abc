"""The programs of an app that meter with a real client. Each is redirected by AWS_ENDPOINT_URL_MARKETPLACE_METERING alone."""

import datetime
import json
import os
import pathlib
import re
import subprocess
import sys

from pod import PATIENCE_SECONDS, PRODUCT

HERE = pathlib.Path(__file__).parent
# Attempts enough to sit a restart out: the SDKs' own three may be over within a second.
ATTEMPTS = "10"


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def usage(at=None, **changes):
    """A MeterUsage request; a change to None leaves the member out."""
    request = {
        "ProductCode": PRODUCT,
        "Timestamp": (at or now()).isoformat(timespec="milliseconds"),
        "UsageDimension": "requests",
        "UsageQuantity": 5,
    } | changes
    return {name: value for name, value in request.items() if value is not None}


def expect(outcome, name):
    """The error is `name`, as the SDK's own class where the service model has one; the CLI has no classes."""
    assert outcome.get("error") == name, outcome
    assert outcome["message"]
    # ValidationException is every AWS service's, and in no service model.
    assert outcome.get("typed") in (None, name != "ValidationException"), outcome


class Program:
    """A program that stays up: boto3's or the JavaScript SDK's."""

    fractions = True

    def __init__(self, arguments, decimals, environment):
        self.decimals = decimals
        self.process = subprocess.Popen(
            arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def call(self, **request):
        """What MeterUsage comes to, retries of the SDK included."""
        outcome = self.ask("MeterUsage", **request)
        if "answer" in outcome:
            outcome["id"] = outcome.pop("answer")["MeteringRecordId"]
        return outcome

    def ask(self, operation, **request):
        """What any operation comes to."""
        self.process.stdin.write(json.dumps({"operation": operation, "request": request}) + "\n")
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=PATIENCE_SECONDS)
        self.process.stdout.close()


class CommandLine:
    """The AWS CLI: a process for each call. It shows neither status nor retries, and sends times in whole seconds."""

    decimals = False
    fractions = False

    def __init__(self, environment):
        self.environment = environment

    def call(self, **request):
        aws = pathlib.Path(sys.executable).parent / "aws"
        arguments = [sys.executable, aws, "meteringmarketplace", "meter-usage", "--cli-input-json", json.dumps(request)]
        done = subprocess.run(arguments, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return {"id": json.loads(done.stdout)["MeteringRecordId"]}
        refused = re.search(r"An error occurred \((\w+)\) when calling the MeterUsage operation.*?: (.*)", done.stderr)
        assert refused, done.stderr
        return {"error": refused[1], "message": refused[2]}

    def close(self):
        """Nothing runs between two calls."""


def start(name, folder, environment, attempts=ATTEMPTS):
    """The client `name`, with `environment` and nothing of this machine's own set-up."""
    config = folder / "aws-config"
    # What AWS would refuse has to leave the client, so that the answer is the sidecar's.
    config.write_text("[default]\nparameter_validation = false\n", encoding="utf-8")
    alone = environment | {
        "PATH": os.environ["PATH"],
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
        "AWS_MAX_ATTEMPTS": attempts,
    }
    if name == "boto3":
        return Program([sys.executable, "-W", "error", HERE / "meter.py"], True, alone)
    if name == "javascript":
        return Program(["node", "--no-warnings", HERE / "meter.mjs"], False, alone)
    return CommandLine(alone)


SDKS = ["boto3", "javascript"]
NAMES = [*SDKS, "cli"]
