"""The image that a seller makes, by the Dockerfile in examples/seller."""

import shutil

import pytest
from conftest import RESTRICTED, TOLLGATE, Pod, docker, until
from far_end import CA_FILE, FarEnd

MISCONFIGURED = 78
SEALED = ["TOLLGATE_PRODUCT_CODE", "TOLLGATE_PUBLIC_KEYS", "AWS_ENDPOINT_URL_MARKETPLACE_METERING", "AWS_ENDPOINT_URL_STS"]
HOSTS = ["metering.marketplace.us-east-1.amazonaws.com", "sts.us-east-1.amazonaws.com"]


@pytest.fixture
def image(world, simulator):
    """The seller's image, with the simulator's key."""
    folder = world.folder / "seller"
    shutil.copytree("examples/seller", folder)
    (folder / "keys").mkdir()
    (folder / "keys" / "1.pem").write_text(simulator.key(), encoding="utf-8")
    name = f"tollgate-test/seller:{world.name}"
    docker("build", "--quiet", f"--build-arg=TOLLGATE={TOLLGATE}", f"--tag={name}", folder)
    yield name
    docker("rmi", "--force", name)


@pytest.fixture
def pod(world, simulator):
    """A pod of which the seller's image needs to be told nothing but where it is."""
    far_end = FarEnd(world, simulator, HOSTS, 443)
    # Nothing leaves this network: the service's real names lead to the simulator.
    world.network = far_end.network
    pod = Pod(world, simulator, AWS_CA_BUNDLE=CA_FILE)
    pod.environment = {name: value for name, value in pod.environment.items() if name not in SEALED}
    pod.ca_volume = far_end.volume_at(CA_FILE)
    return pod


def run_sealed(pod, image, *arguments):
    environment = [f"--env={name}={value}" for name, value in pod.environment.items()]
    return pod.world.run(
        f"--network=container:{pod.sandbox.id}",
        *RESTRICTED,
        pod.volume("token", "/var/run/secrets/eks.amazonaws.com/serviceaccount", "ro"),
        pod.volume("run", "/run/tollgate"),
        pod.volume("state", "/var/lib/tollgate"),
        pod.ca_volume,
        *environment,
        *arguments,
        image,
    )


def test_the_sealed_image_needs_no_settings_and_bills(pod, image, simulator):
    sidecar = run_sealed(pod, image)
    until(lambda: pod.probe("/startupz") == 200, f"the proof: {sidecar.logs}")
    main = pod.run_main(REPORTS="10")
    assert main.exit_code() == 0, main.logs
    assert sidecar.stop() == 0, sidecar.logs
    assert simulator.billed() == 10


def test_no_variable_leads_the_sealed_image_elsewhere(pod, image, simulator):
    """A metering endpoint of the buyer's own is ignored: the real name is asked. Where credentials come from stays the buyer's choice."""
    sidecar = run_sealed(pod, image, "--env=AWS_ENDPOINT_URL_MARKETPLACE_METERING=http://127.0.0.1:9")
    until(lambda: pod.probe("/startupz") == 200, f"the proof: {sidecar.logs}")
    assert len(simulator.calls("RegisterUsage")) == 1


@pytest.mark.parametrize(
    ("variable", "value"),
    [("TOLLGATE_PRODUCT_CODE", "prod-unsubscribed"), ("TOLLGATE_PUBLIC_KEYS", "1=/run/tollgate/mine.pem"), ("TOLLGATE_DIMENSIONS", "other")],
)
def test_a_contradiction_of_the_sealed_file_is_an_error(pod, image, variable, value):
    sidecar = run_sealed(pod, image, f"--env={variable}={value}")
    assert sidecar.exit_code() == MISCONFIGURED
    assert variable in sidecar.logs
