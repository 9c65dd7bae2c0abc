"""How a sidecar gets out of a closed network: TLS with a certificate authority of the buyer's own, and a proxy."""

import pytest

from conftest import Pod, until
from far_end import CA_FILE, FarEnd

HOST = "metering.example"
URL = f"https://{HOST}:8443"


@pytest.fixture
def far_end(world, simulator):
    return FarEnd(world, simulator, [HOST], 8443)


def pod_behind_tls(world, simulator, **environment):
    urls = {"AWS_ENDPOINT_URL_MARKETPLACE_METERING": URL, "AWS_ENDPOINT_URL_STS": URL}
    return Pod(world, simulator, **(urls | environment))


def test_a_private_authority_is_believed_through_aws_ca_bundle(world, simulator, far_end):
    far_end.join(world.network)
    pod = pod_behind_tls(world, simulator, AWS_CA_BUNDLE=CA_FILE)
    sidecar = pod.run_sidecar("32m", far_end.volume_at(CA_FILE))
    until(lambda: pod.probe("/startupz") == 200, f"the proof: {sidecar.logs}")
    main = pod.run_main(REPORTS="10")
    assert main.exit_code() == 0, main.logs
    assert sidecar.stop() == 0
    assert simulator.billed() == 10


def test_the_images_own_certificates_are_found(world, simulator, far_end):
    """Those at the place where the image has its bundle: here they are the private authority's."""
    far_end.join(world.network)
    pod = pod_behind_tls(world, simulator)
    sidecar = pod.run_sidecar("32m", far_end.volume_at("/etc/ssl/certs/ca-certificates.crt"))
    until(lambda: pod.probe("/startupz") == 200, f"the proof: {sidecar.logs}")


def test_an_authority_that_nobody_named_is_not_believed(world, simulator, far_end):
    far_end.join(world.network)
    pod = pod_behind_tls(world, simulator)
    sidecar = pod.run_sidecar()
    until(lambda: "no handshake" in far_end.container.logs, f"a handshake that fails: {sidecar.logs}")
    assert pod.probe("/startupz") == 503
    assert not simulator.calls("RegisterUsage")


def test_a_proxy_is_the_only_way_out(world, simulator, far_end):
    """The pods' network knows the proxy alone; the simulator is in another one."""
    pods = world.add_network("closed", "--internal")
    proxy = world.run_app([f"--network={pods}", "--network-alias=proxy", "--env=PORT=3128"], "python3", "/app/proxy.py")
    world.connect(far_end.network, proxy, ["proxy"])
    until(lambda: "listening" in proxy.logs, "the proxy")
    world.network = pods
    pod = pod_behind_tls(world, simulator, AWS_CA_BUNDLE=CA_FILE, HTTPS_PROXY="http://proxy:3128", NO_PROXY="169.254.169.254")
    sidecar = pod.run_sidecar("32m", far_end.volume_at(CA_FILE))
    until(lambda: pod.probe("/startupz") == 200, f"the proof: {sidecar.logs}")
    main = pod.run_main(REPORTS="10")
    assert main.exit_code() == 0, main.logs
    assert sidecar.stop() == 0
    assert simulator.billed() == 10
    assert f"CONNECT {HOST}:8443" in proxy.logs


def test_without_the_proxy_there_is_no_way_out(world, simulator, far_end):
    world.network = world.add_network("closed", "--internal")
    pod = pod_behind_tls(world, simulator, AWS_CA_BUNDLE=CA_FILE)
    sidecar = pod.run_sidecar("32m", far_end.volume_at(CA_FILE))
    until(lambda: "Unreachable" in str(pod.status().get("reason")) or "no decision yet" in sidecar.logs, f"a first failure: {sidecar.logs}")
    assert pod.probe("/startupz") == 503
