"""A pod's life: what starts when, and what is billed when it ends in each of the ways in which pods end."""

from conftest import RESTRICTED, TOLLGATE, Pod, until

DENIED = 77


def stop_native(sidecar, main):
    """The kubelet's order with a native sidecar: it is told to end when the main containers have ended."""
    assert main.stop() == 0, main.logs
    assert sidecar.stop() == 0, sidecar.logs


def wait_for_usage(pod, more_than=0):
    until(lambda: pod.acknowledged() > more_than, "acknowledged usage")


def test_the_main_container_starts_only_after_entitlement(world, simulator):
    simulator.admin("faults", "POST", {"operation": "RegisterUsage", "kind": "internal-error"})
    pod = Pod(world, simulator)
    sidecar = pod.run_sidecar()
    until(lambda: simulator.calls("RegisterUsage"), "the first question")
    until(lambda: pod.status().get("state") == "pending", "the status file")
    assert pod.probe("/startupz") == 503
    assert pod.probe("/livez") == 200
    simulator.admin("faults", "DELETE")
    until(lambda: pod.probe("/startupz") == 200, f"the startup probe: {sidecar.logs}", seconds=60)
    assert pod.status()["state"] == "entitled"
    assert pod.status()["platform"] == "eks"


def test_native_order_bills_everything(world, simulator):
    pod = Pod(world, simulator)
    sidecar, main = pod.start_native()
    wait_for_usage(pod, 10)
    stop_native(sidecar, main)
    assert simulator.billed() == pod.acknowledged() > 10


def test_plain_order_bills_everything(world, simulator):
    """Without native sidecars every container gets SIGTERM at once."""
    pod = Pod(world, simulator)
    sidecar, main = pod.start_native()
    wait_for_usage(pod, 10)
    sidecar.kill("TERM")
    main.kill("TERM")
    assert main.exit_code() == 0, main.logs
    assert sidecar.exit_code() == 0, sidecar.logs
    assert simulator.billed() == pod.acknowledged() > 10


def test_an_unentitled_buyers_main_container_never_starts(world, simulator):
    pod = Pod(world, simulator, product="prod-unsubscribed")
    sidecar = pod.run_sidecar()
    assert sidecar.exit_code() == DENIED
    assert pod.status()["state"] == "denied"
    assert pod.status()["reason"] == "CustomerNotEntitledException"
    assert "CustomerNotEntitledException" in sidecar.logs


def held_back(pod, world):
    """A main container of a plain sidecar, which starts at once and is held by `tollgate wait`."""
    installed = world.run("--network=none", *RESTRICTED, pod.volume("bin", "/shared"), TOLLGATE, "install", "/shared/tollgate")
    assert installed.exit_code() == 0, installed.logs
    proof = {name: value for name, value in pod.environment.items() if name in ["POD_UID", "TOLLGATE_PRODUCT_CODE", "TOLLGATE_PUBLIC_KEYS"]}
    return pod.run_main("/tollgate/tollgate", "wait", "--timeout=60s", "--", "python3", "/app/main.py", **proof)


def test_wait_holds_a_main_container_that_starts_at_once(world, simulator):
    simulator.admin("faults", "POST", {"operation": "RegisterUsage", "kind": "internal-error"})
    pod = Pod(world, simulator)
    main = held_back(pod, world)
    sidecar = pod.run_sidecar()
    until(lambda: simulator.calls("RegisterUsage"), "the first question")
    assert main.running
    assert pod.acknowledged() == 0
    simulator.admin("faults", "DELETE")
    until(lambda: pod.acknowledged() > 0, f"the main program: {main.logs}", seconds=60)
    stop_native(sidecar, main)
    assert simulator.billed() == pod.acknowledged()


def test_wait_ends_an_unentitled_buyers_main_container(world, simulator):
    pod = Pod(world, simulator, product="prod-unsubscribed")
    main = held_back(pod, world)
    assert pod.run_sidecar().exit_code() == DENIED
    assert main.exit_code() == DENIED, main.logs
    assert pod.acknowledged() == 0


def test_a_job_with_a_native_sidecar_completes_and_is_billed(world, simulator):
    pod = Pod(world, simulator)
    sidecar, main = pod.start_native(REPORTS="40")
    assert main.exit_code() == 0, main.logs
    assert sidecar.running
    assert sidecar.stop() == 0
    assert simulator.billed() == pod.acknowledged() == 40


def test_a_job_with_a_plain_sidecar_ends_it_by_quitquitquit(world, simulator):
    pod = Pod(world, simulator, TOLLGATE_QUITQUITQUIT="on")
    sidecar, main = pod.start_native(REPORTS="40", QUIT="http://127.0.0.1:8421/quitquitquit")
    assert main.exit_code() == 0, main.logs
    assert sidecar.exit_code() == 0, sidecar.logs
    assert simulator.billed() == pod.acknowledged() == 40


def test_a_killed_sidecar_bills_everything_once(world, simulator):
    pod = Pod(world, simulator)
    sidecar, main = pod.start_native()
    for _ in range(3):
        wait_for_usage(pod, pod.acknowledged() + 10)
        sidecar.kill("KILL")
        sidecar.exit_code()
        # The main container's SDK repeats what was not answered.
        sidecar.start()
    wait_for_usage(pod, pod.acknowledged() + 10)
    stop_native(sidecar, main)
    assert simulator.billed() == pod.acknowledged()
    assert len(simulator.calls("RegisterUsage")) == 1


def test_a_sidecar_killed_for_good_loses_nothing_to_the_next_one(world, simulator):
    """The usage of a container that never came back is billed by the next container of the pod."""
    pod = Pod(world, simulator)
    sidecar, main = pod.start_native(REPORTS="40")
    assert main.exit_code() == 0, main.logs
    sidecar.kill("KILL")
    sidecar.exit_code()
    assert simulator.billed() == 0
    second = pod.run_sidecar()
    until(lambda: pod.probe("/readyz") == 200, "the second sidecar")
    assert second.stop() == 0
    assert simulator.billed() == pod.acknowledged() == 40
