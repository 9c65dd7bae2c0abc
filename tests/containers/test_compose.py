"""The Compose file for people."""

import json
import os
import subprocess
import urllib.request

import pytest
from conftest import DEBIAN, SIMULATOR, TOLLGATE, docker, until

FILE = "examples/compose/compose.yaml"


def compose_command():
    plugin = subprocess.run(["docker", "compose", "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=False)
    return ["docker", "compose"] if plugin.returncode == 0 else ["docker-compose"]


@pytest.fixture
def compose(world):
    images = {"TOLLGATE_IMAGE": TOLLGATE, "SIMULATOR_IMAGE": SIMULATOR, "MAIN_IMAGE": DEBIAN, "SIMULATOR_PORT": "0"}
    environment = os.environ | images | {"COMPOSE_PROJECT_NAME": world.name}

    def run(*arguments):
        command = [*compose_command(), "-f", FILE, *arguments]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=180, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    try:
        yield run
    finally:
        run("down", "--volumes", "--timeout", "1")


def test_the_compose_file_holds_main_back_and_bills(compose):
    compose("up", "--detach", "--no-build")
    main, sidecar = compose("ps", "--quiet", "--all", "main"), compose("ps", "--quiet", "tollgate")
    until(lambda: docker("inspect", "--format={{.State.Status}}", main) == "exited", "the main container's end")
    assert docker("inspect", "--format={{.State.ExitCode}}", main) == "0", docker("logs", main)
    state = json.loads(docker("inspect", "--format={{json .State}}", sidecar))
    started = docker("inspect", "--format={{.State.StartedAt}}", main)
    assert state["Health"]["Status"] == "healthy"
    assert started > min(check["End"] for check in state["Health"]["Log"] if check["ExitCode"] == 0)[:19]
    compose("stop", "main", "tollgate")
    address = compose("port", "simulator", "8430")
    with urllib.request.urlopen(f"http://{address}/simulator/account", timeout=10) as answer:
        totals = json.load(answer)["totals"]
    assert [(total["dimension"], float(total["quantity"])) for total in totals] == [("requests", 5.0)]
