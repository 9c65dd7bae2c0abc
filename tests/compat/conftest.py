"""The real binaries as the tests with real clients start them, and the clients."""

import contextlib
import json
import subprocess
import urllib.request

import boto3
import botocore.config
import pytest
from pod import BIN, PRODUCT, Pod

ACCESS_KEY = {"aws_access_key_id": "SIMULATORKEY1", "aws_secret_access_key": "simulator-secret-1"}


class Simulator:
    """A running marketplace-simulator and its administration."""

    def __init__(self, url, keys):
        self.url = url
        self.keys = keys

    def admin(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/simulator/{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def fault(self, **fault):
        self.admin("POST", "faults", fault)

    def calls(self):
        return self.admin("GET", "calls")

    def account(self):
        return self.admin("GET", "account")

    def public_key(self, version=1):
        return (self.keys / PRODUCT / f"{version}.pem").read_bytes()


@contextlib.contextmanager
def running_simulator(folder, config=""):
    """Starts the simulator in `folder`, with a TOML set-up or its defaults."""
    keys = folder / "keys"
    arguments = [BIN / "marketplace-simulator", "--listen", "127.0.0.1:0", "--keys-dir", keys]
    if config:
        path = folder / "simulator.toml"
        path.write_text(config, encoding="utf-8")
        arguments += ["--config", path]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield Simulator(json.loads(process.stdout.readline())["listening"], keys)
    finally:
        process.terminate()
        process.wait(timeout=10)
        process.stdout.close()


def metering_client(url, attempts=1, **overrides):
    """boto3's client of the service at `url`."""
    config = botocore.config.Config(retries={"total_max_attempts": attempts, "mode": "standard"})
    settings = {"region_name": "us-east-1", "endpoint_url": url, "config": config} | ACCESS_KEY | overrides
    return boto3.client("meteringmarketplace", **settings)


@pytest.fixture
def simulator(tmp_path):
    """A simulator of its own for each test."""
    with running_simulator(tmp_path) as running:
        yield running


@pytest.fixture
def client(simulator):
    """boto3, straight at the simulator, without retries."""
    return metering_client(simulator.url)


@pytest.fixture
def pod(tmp_path, simulator):
    """A pod whose sidecar is not started yet."""
    made = Pod(tmp_path, simulator)
    yield made
    made.close()
