"""A pod: a sidecar with its folders and ports, started, killed and stopped as an orchestrator does it."""

import json
import os
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

BIN = pathlib.Path(os.environ.get("TOLLGATE_BIN_DIR", "target/debug"))
PRODUCT = "prod-demo"
PATIENCE_SECONDS = 30
POLL_SECONDS = 0.02


def poll(condition, what):
    """Waits until `condition` returns something true, and returns it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"never came: {what}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Pod:
    """The sidecar's processes, one after the other, over the same ledger and the same ports."""

    def __init__(self, folder, simulator, **settings):
        self.folder = folder
        self.simulator = simulator
        self.port, self.health_port = free_port(), free_port()
        self.log = folder / "log"
        self.process = None
        self.environment = {
            "AWS_ENDPOINT_URL_MARKETPLACE_METERING": simulator.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "SIMULATORKEY1",
            "AWS_SECRET_ACCESS_KEY": "simulator-secret-1",
            "POD_UID": "pod-1",
            "TOLLGATE_PRODUCT_CODE": PRODUCT,
            "TOLLGATE_PUBLIC_KEYS": f"1={simulator.keys / PRODUCT / '1.pem'}",
            "TOLLGATE_STATE_DIR": str(folder / "state"),
            "TOLLGATE_STATUS_FILE": str(folder / "run" / "status.json"),
            "TOLLGATE_LISTEN": f"127.0.0.1:{self.port}",
            "TOLLGATE_HEALTH_LISTEN": f"127.0.0.1:{self.health_port}",
            "TOLLGATE_SUBMIT_JITTER": "0s",
        } | settings

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def app_environment(self, url=None):
        """What redirects an app's SDK to the sidecar: one variable, beside the region and credentials that it has anyway."""
        return {
            "AWS_ENDPOINT_URL_MARKETPLACE_METERING": url or self.url,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "THEAPPSOWNKEY",
            "AWS_SECRET_ACCESS_KEY": "the-app's-own-secret",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([BIN / "tollgate", "run"], env=self.environment, stderr=log)
        return self

    def ready(self):
        poll(lambda: self.probe("readyz") == 200, f"ready; log:\n{self.log.read_text()}")
        return self

    def probe(self, name):
        """The HTTP status of a probe; `None` while nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/{name}", timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def state(self):
        try:
            return json.loads((self.folder / "run" / "status.json").read_text())["state"]
        except FileNotFoundError:
            return None

    def kill(self):
        """SIGKILL: nothing of the process runs on."""
        self.process.kill()
        self.process.wait(timeout=PATIENCE_SECONDS)

    def stop(self):
        """SIGTERM: the sidecar delivers what it has and ends with 0."""
        self.process.terminate()
        code = self.process.wait(timeout=PATIENCE_SECONDS)
        assert code == 0, self.log.read_text()

    def billed(self):
        """Ends the sidecar, then says what AWS bills: exact text by dimension."""
        self.stop()
        return {total["dimension"]: total["quantity"] for total in self.simulator.account()["totals"]}

    def billed_to_customers(self):
        """The same for customers: exact text by customer and dimension."""
        self.stop()
        totals = self.simulator.account()["saas_totals"]
        return {(total["customer"], total["dimension"]): total["quantity"] for total in totals}

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()
