"""Containers as the kubelet and the ECS agent run them: a shared network namespace, shared volumes, and nothing that the sidecar is not allowed."""

import json
import pathlib
import subprocess
import time
import urllib.error
import urllib.request
import uuid

import pytest

HERE = pathlib.Path(__file__).parent.resolve()
SITE_PACKAGES = pathlib.Path("target/compat/venv/lib/python3.11/site-packages").resolve()
TOLLGATE = "tollgate-test/tollgate"
SIMULATOR = "tollgate-test/simulator"
DEBIAN = "tollgate-test/debian"
PRODUCT = "prod-demo"
TOKEN_FILE = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"
RESTRICTED = ["--user=65532:65532", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
SIMULATOR_CONFIG = """
[[product]]
code = "prod-demo"
[[product.key]]
version = 1
[[product]]
code = "prod-unsubscribed"
entitled = false
[[product.key]]
version = 1
[[pod]]
identity = "pod-1"
token = "token-of-pod-1"
role_arn = "arn:aws:iam::111122223333:role/metering"
[[task]]
id = "0a1b2c3d"
[[caller]]
access_key_id = "SIMULATORKEY1"
secret_access_key = "simulator-secret-1"
identity = "seller"
[[customer]]
id = "acme"
product_code = "prod-demo"
customer_aws_account_id = "222233334444"
[[customer.license]]
arn = "arn:aws:license-manager::222233334444:license:l-1"
[[customer]]
id = "umbrella"
product_code = "prod-demo"
customer_aws_account_id = "555566667777"
[[customer.license]]
arn = "arn:aws:license-manager::555566667777:license:l-2"
"""


def docker(*arguments):
    """Runs docker and returns what it prints."""
    done = subprocess.run(["docker", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"docker {' '.join(map(str, arguments))}\n{done.stderr}"
    return done.stdout.strip()


def until(condition, what, seconds=30):
    """Polls until `condition` returns something true, and returns that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"gave up after {seconds} s waiting for {what}")


def get(url):
    """The status and text of an answer; None where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return None, ""


class Container:
    """A container, which may have ended."""

    def __init__(self, *arguments):
        self.id = docker("run", "--detach", "--label=tollgate-test", *arguments)

    def inspect(self, template):
        return docker("inspect", "--format", template, self.id)

    def address(self, network):
        return self.inspect('{{(index .NetworkSettings.Networks "%s").IPAddress}}' % network)

    @property
    def running(self):
        return self.inspect("{{.State.Running}}") == "true"

    @property
    def health(self):
        return self.inspect("{{.State.Health.Status}}")

    @property
    def logs(self):
        done = subprocess.run(["docker", "logs", self.id], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=True)
        return done.stdout

    def kill(self, signal):
        docker("kill", f"--signal={signal}", self.id)

    def start(self):
        docker("start", self.id)

    def stop(self, seconds=30):
        """SIGTERM, and SIGKILL after the grace period; returns the exit code."""
        docker("stop", f"--time={seconds}", self.id)
        return self.exit_code()

    def exit_code(self):
        until(lambda: not self.running, f"the end of {self.id[:12]}: {self.logs[-2000:]}")
        return int(self.inspect("{{.State.ExitCode}}"))


class Simulator:
    """AWS Marketplace and STS on a network, with their administration."""

    def __init__(self, container, address):
        self.container = container
        self.url = f"http://{address}:8430"
        until(lambda: self.admin("health"), "the simulator")

    def admin(self, path, method="GET", body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/simulator/{path}", data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError:
            raise
        except OSError:
            return None

    def key(self, product=PRODUCT):
        return self.admin(f"keys/{product}/1")

    def billed(self):
        """Units of the dimension `requests`, over all records."""
        totals = json.loads(self.admin("account"))["totals"]
        return sum(float(total["quantity"]) for total in totals if total["dimension"] == "requests")

    def billed_to_customers(self):
        """Units of the dimension `requests` for each customer."""
        totals = json.loads(self.admin("account"))["saas_totals"]
        return {total["customer"]: float(total["quantity"]) for total in totals if total["dimension"] == "requests"}

    def calls(self, operation):
        return [call for call in json.loads(self.admin("calls")) if call["operation"] == operation]


class World:
    """The networks of one test and what runs on them."""

    def __init__(self, folder):
        self.folder = folder
        self.name = f"tollgate-test-{uuid.uuid4().hex[:8]}"
        self.containers = []
        self.networks = []
        self.volumes = []
        self.network = self.add_network("pods")
        config = folder / "simulator.toml"
        config.write_text(SIMULATOR_CONFIG, encoding="utf-8")
        self.simulator_arguments = [
            f"--volume={config}:/simulator.toml:ro",
            *RESTRICTED,
            SIMULATOR,
            "--listen=0.0.0.0:8430",
            "--allow-remote",
            "--config=/simulator.toml",
        ]

    def add_network(self, suffix, *arguments):
        name = f"{self.name}-{suffix}"
        docker("network", "create", "--label=tollgate-test", *arguments, name)
        self.networks.append(name)
        return name

    def connect(self, network, container, aliases):
        docker("network", "connect", *[f"--alias={alias}" for alias in aliases], network, container.id)

    def run(self, *arguments):
        container = Container(*arguments)
        self.containers.append(container)
        return container

    def run_simulator(self):
        container = self.run(f"--network={self.network}", "--network-alias=simulator", *self.simulator_arguments)
        return Simulator(container, container.address(self.network))

    def add_volume(self, suffix):
        """A volume that takes its owner from the image, as on ECS."""
        name = f"{self.name}-{suffix}"
        docker("volume", "create", "--label=tollgate-test", name)
        self.volumes.append(name)
        return name

    def run_app(self, arguments, *command):
        """A container with Python, boto3 and the programs in app/."""
        mounts = [f"--volume={HERE / 'app'}:/app:ro", f"--volume={SITE_PACKAGES}:/site:ro"]
        python = ["--env=PYTHONPATH=/site", "--env=PYTHONDONTWRITEBYTECODE=1"]
        return self.run(*mounts, *python, *RESTRICTED, *arguments, DEBIAN, *command)

    def remove(self):
        for container in self.containers:
            docker("rm", "--force", "--volumes", container.id)
        for network in self.networks:
            docker("network", "rm", network)
        for volume in self.volumes:
            docker("volume", "rm", volume)


class Pod:
    """A pod: a network namespace that outlives its containers, and volumes like emptyDir, which belong to root and are open to all."""

    def __init__(self, world, simulator, product=PRODUCT, **environment):
        self.world = world
        self.product = product
        self.folder = world.folder / f"pod-{len(world.containers)}"
        for volume in ["run", "state", "bin", "account", "keys", "token"]:
            path = self.folder / volume
            path.mkdir(parents=True)
            path.chmod(0o777)
        (self.folder / "keys" / "1.pem").write_text(simulator.key(product), encoding="utf-8")
        (self.folder / "token" / "token").write_text("token-of-pod-1", encoding="utf-8")
        self.sandbox = world.run(f"--network={world.network}", DEBIAN, "sleep", "infinity")
        self.health = f"http://{self.sandbox.address(world.network)}:8422"
        self.environment = {
            "POD_UID": "pod-1",
            "AWS_REGION": "us-east-1",
            "AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/metering",
            "AWS_WEB_IDENTITY_TOKEN_FILE": TOKEN_FILE,
            "AWS_ENDPOINT_URL_STS": "http://simulator:8430",
            "AWS_ENDPOINT_URL_MARKETPLACE_METERING": "http://simulator:8430",
            "TOLLGATE_PRODUCT_CODE": product,
            "TOLLGATE_PUBLIC_KEYS": "1=/etc/tollgate/keys/1.pem",
            "TOLLGATE_STATE_DIR": "/var/lib/tollgate/state",
        } | environment

    def volume(self, name, path, mode="rw"):
        return f"--volume={self.folder / name}:{path}:{mode}"

    def run_sidecar(self, memory="32m", *arguments, image=TOLLGATE):
        environment = [f"--env={name}={value}" for name, value in self.environment.items()]
        return self.world.run(
            f"--network=container:{self.sandbox.id}",
            *RESTRICTED,
            f"--memory={memory}",
            f"--memory-swap={memory}",
            self.volume("keys", "/etc/tollgate/keys", "ro"),
            self.volume("token", pathlib.PurePosixPath(TOKEN_FILE).parent, "ro"),
            self.volume("run", "/run/tollgate"),
            self.volume("state", "/var/lib/tollgate"),
            *environment,
            *arguments,
            image,
        )

    def run_main(self, *command, **environment):
        """The main container: the program that reports, or `command`."""
        environment = {
            "ACCOUNT": "/account/acknowledged",
            "PRODUCT_CODE": self.product,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_MARKETPLACE_METERING": "http://127.0.0.1:8421",
        } | environment
        arguments = [
            f"--network=container:{self.sandbox.id}",
            self.volume("account", "/account"),
            self.volume("run", "/run/tollgate", "ro"),
            self.volume("bin", "/tollgate", "ro"),
            self.volume("keys", "/etc/tollgate/keys", "ro"),
            *[f"--env={name}={value}" for name, value in environment.items()],
        ]
        return self.world.run_app(arguments, *(command or ["python3", "/app/main.py"]))

    def probe(self, path):
        return get(self.health + path)[0]

    def start_native(self, **main):
        """What the kubelet does with a native sidecar: the main container starts once the startup probe passes."""
        sidecar = self.run_sidecar()
        until(lambda: self.probe("/startupz") == 200, f"the startup probe: {sidecar.logs}")
        return sidecar, self.run_main(**main)

    def acknowledged(self):
        path = self.folder / "account" / "acknowledged"
        return json.loads(path.read_text(encoding="utf-8") or "0") if path.exists() else 0

    def status(self):
        path = self.folder / "run" / "status.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture
def simulator(world):
    return world.run_simulator()
