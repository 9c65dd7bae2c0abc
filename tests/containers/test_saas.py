"""One tollgate for all replicas of a SaaS application, as the StatefulSet runs it: behind a name, for callers who sign, with a volume of its own."""

import json
import os

import pytest
from conftest import PRODUCT, RESTRICTED, TOLLGATE, get, until

REFUSED = 1
CLIENTS = """
[[key]]
access_key_id = "REPLICAS"
secret_access_key = "a-secret-of-the-replicas"
"""


class Service:
    """tollgate, reached by other hosts as `tollgate`."""

    def __init__(self, world):
        self.world = world
        self.folder = world.folder / "saas"
        for volume in ["state", "clients", "account"]:
            path = self.folder / volume
            path.mkdir(parents=True)
            path.chmod(0o2777)
        # As a Secret with defaultMode 0440 in a pod with fsGroup 65532.
        clients = self.folder / "clients" / "clients.toml"
        clients.write_text(CLIENTS, encoding="utf-8")
        clients.chmod(0o440)
        os.chown(clients, 0, 65532)

    def run(self):
        environment = {
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "SIMULATORKEY1",
            "AWS_SECRET_ACCESS_KEY": "simulator-secret-1",
            "AWS_ENDPOINT_URL_MARKETPLACE_METERING": "http://simulator:8430",
            "TOLLGATE_PRODUCT_CODE": PRODUCT,
            "TOLLGATE_ENTITLEMENT_CHECK": "none",
            "TOLLGATE_SAAS_MODE": "aggregate",
            "TOLLGATE_LISTEN": "0.0.0.0:8421",
            "TOLLGATE_CLIENT_AUTH_FILE": "/etc/tollgate/clients/clients.toml",
            "TOLLGATE_STATE_DIR": "/var/lib/tollgate/state",
        }
        container = self.world.run(
            f"--network={self.world.network}",
            "--network-alias=tollgate",
            "--hostname=tollgate-0",
            *RESTRICTED,
            "--memory=32m",
            "--memory-swap=32m",
            f"--volume={self.folder / 'state'}:/var/lib/tollgate",
            f"--volume={self.folder / 'clients'}:/etc/tollgate/clients:ro",
            *[f"--env={name}={value}" for name, value in environment.items()],
            TOLLGATE,
        )
        health = f"http://{container.address(self.world.network)}:8422"
        until(lambda: get(f"{health}/readyz")[0] == 200, f"the service: {container.logs}")
        return container

    def run_replica(self, number, secret="a-secret-of-the-replicas", reports=50):
        environment = {
            "ACCOUNT": f"/account/{number}",
            "REPORTS": reports,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "REPLICAS",
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_ENDPOINT_URL_MARKETPLACE_METERING": "http://tollgate:8421",
        }
        arguments = [
            f"--network={self.world.network}",
            f"--volume={self.folder / 'account'}:/account",
            *[f"--env={name}={value}" for name, value in environment.items()],
        ]
        return self.world.run_app(arguments, "python3", "/app/saas.py")

    def acknowledged(self):
        return sum(json.loads(path.read_text(encoding="utf-8") or "0") for path in (self.folder / "account").iterdir())


@pytest.fixture
def service(world, simulator):
    return Service(world)


def test_replicas_are_summed_for_each_customer(service, simulator):
    tollgate = service.run()
    replicas = [service.run_replica(number) for number in range(2)]
    for replica in replicas:
        until(lambda replica=replica: not replica.running, "the replica's end", seconds=60)
        assert replica.exit_code() == 0, replica.logs
    assert tollgate.stop() == 0, tollgate.logs
    assert service.acknowledged() == 200
    assert simulator.billed_to_customers() == {"acme": 100, "umbrella": 100}


def test_the_next_pod_bills_what_a_killed_one_left(service, simulator):
    tollgate = service.run()
    replica = service.run_replica(1, reports=200)
    until(lambda: service.acknowledged() > 40, f"usage: {replica.logs}")
    tollgate.kill("KILL")
    tollgate.exit_code()
    # The same volume and the same host name: the pod of the StatefulSet comes again. The replica's SDK repeats what was not answered.
    second = service.run()
    until(lambda: not replica.running, "the replica's end", seconds=60)
    assert replica.exit_code() == 0, replica.logs
    assert second.stop() == 0, second.logs
    assert service.acknowledged() == 400
    assert simulator.billed_to_customers() == {"acme": 200, "umbrella": 200}


def test_who_does_not_sign_with_a_key_meters_nothing(service, simulator):
    tollgate = service.run()
    replica = service.run_replica(1, secret="some-other-secret-of-mine")
    assert replica.exit_code() == REFUSED
    assert "InvalidSignatureException" in replica.logs
    assert tollgate.stop() == 0
    assert not simulator.billed_to_customers()
