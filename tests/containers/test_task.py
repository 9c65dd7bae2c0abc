"""An ECS task: loopback shared by all containers, credentials and identity from the agent, health checks that hold the main container back."""

import json

import pytest
from conftest import DEBIAN, PRODUCT, RESTRICTED, TOLLGATE, Simulator, until

AGENT = "http://127.0.0.1:8430/ecs"
TASK_ARN = "arn:aws:ecs:us-east-1:111122223333:task/simulator/0a1b2c3d"


class Task:
    """The containers of a task; the simulator plays the agent, on loopback as the agent's addresses are link-local."""

    def __init__(self, world):
        self.world = world
        self.sandbox = world.run(f"--network={world.network}", DEBIAN, "sleep", "infinity")
        self.network = f"--network=container:{self.sandbox.id}"
        container = world.run(self.network, *world.simulator_arguments)
        self.simulator = Simulator(container, self.sandbox.address(world.network))
        self.run_volume = world.add_volume("run")
        self.state_volume = world.add_volume("state")
        self.account = world.folder / "account"
        self.account.mkdir()
        self.account.chmod(0o777)
        key = world.folder / "1.pem"
        key.write_text(self.simulator.key(), encoding="utf-8")
        self.key_volume = f"--volume={key}:/etc/tollgate/keys/1.pem:ro"

    def run_sidecar(self):
        environment = {
            "ECS_CONTAINER_METADATA_URI_V4": f"{AGENT}/v4/0a1b2c3d",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{AGENT}/credentials/0a1b2c3d",
            "AWS_ENDPOINT_URL_MARKETPLACE_METERING": "http://127.0.0.1:8430",
            "TOLLGATE_PRODUCT_CODE": PRODUCT,
            "TOLLGATE_PUBLIC_KEYS": "1=/etc/tollgate/keys/1.pem",
        }
        return self.world.run(
            self.network,
            *RESTRICTED,
            f"--volume={self.run_volume}:/run/tollgate",
            f"--volume={self.state_volume}:/var/lib/tollgate",
            self.key_volume,
            *[f"--env={name}={value}" for name, value in environment.items()],
            TOLLGATE,
        )

    def run_main(self):
        environment = {
            "ACCOUNT": "/account/acknowledged",
            "PRODUCT_CODE": PRODUCT,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_MARKETPLACE_METERING": "http://127.0.0.1:8421",
        }
        arguments = [
            self.network,
            f"--volume={self.account}:/account",
            f"--volume={self.run_volume}:/run/tollgate:ro",
            *[f"--env={name}={value}" for name, value in environment.items()],
        ]
        return self.world.run_app(arguments, "python3", "/app/main.py")

    def acknowledged(self):
        path = self.account / "acknowledged"
        return json.loads(path.read_text(encoding="utf-8") or "0") if path.exists() else 0


@pytest.fixture
def task(world):
    return Task(world)


def test_a_task_is_held_by_health_and_bills_everything(task):
    task.simulator.admin("faults", "POST", {"operation": "RegisterUsage", "kind": "internal-error"})
    sidecar = task.run_sidecar()
    until(lambda: task.simulator.calls("RegisterUsage"), f"the first question: {sidecar.logs}")
    assert sidecar.health == "starting"
    task.simulator.admin("faults", "DELETE")
    until(lambda: sidecar.health == "healthy", f"health: {sidecar.logs}", seconds=60)
    main = task.run_main()
    until(lambda: task.acknowledged() > 10, f"usage: {main.logs}")
    # Containers stop in the reverse order of their dependencies.
    assert main.stop() == 0, main.logs
    assert sidecar.stop() == 0, sidecar.logs
    assert task.simulator.billed() == task.acknowledged() > 10
    assert TASK_ARN in sidecar.logs


def test_a_restarted_sidecar_of_a_task_asks_nobody(task):
    sidecar = task.run_sidecar()
    until(lambda: sidecar.health == "healthy", f"health: {sidecar.logs}")
    sidecar.kill("KILL")
    sidecar.exit_code()
    second = task.run_sidecar()
    until(lambda: second.health == "healthy", f"health: {second.logs}")
    assert len(task.simulator.calls("RegisterUsage")) == 1
