"""What all manifests have to keep, however they were rendered."""

import kubernetes_validate

KEY = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAL\n-----END PUBLIC KEY-----\n"
METERING_URL = "http://127.0.0.1:8421"
# The oldest Kubernetes with native sidecars, the oldest that is supported at all, and the newest.
OLDEST_NATIVE, OLDEST, NEWEST = "1.29.0", "1.25.0", "1.37.0"


def validate(manifests, version):
    """Checks each manifest against the API of a Kubernetes version; a kind that is not Kubernetes' own is left to its own test."""
    for manifest in manifests:
        if manifest["apiVersion"] != "monitoring.coreos.com/v1":
            kubernetes_validate.validate(manifest, version, strict=True)


def one(manifests, kind):
    found = [manifest for manifest in manifests if manifest["kind"] == kind]
    assert len(found) == 1, f"{len(found)} manifests are a {kind}"
    return found[0]


def named(items, name):
    found = [item for item in items if item["name"] == name]
    assert len(found) == 1, f"{len(found)} of {[item['name'] for item in items]} are {name}"
    return found[0]


def env(container):
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}


def mounts(container):
    return {mount["name"]: mount for mount in container.get("volumeMounts", [])}


def assert_restricted(pod):
    """The Pod Security Standard "restricted", for the whole pod."""
    of_pod = pod["securityContext"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "csi", "downwardAPI", "ephemeral"}
    assert all(set(volume) - {"name"} <= allowed for volume in pod["volumes"])
    for container in pod.get("initContainers", []) + pod["containers"]:
        own = container["securityContext"]
        assert (of_pod | own)["runAsNonRoot"] is True
        assert (of_pod | own).get("runAsUser", 1) != 0
        assert (of_pod | own)["seccompProfile"]["type"] == "RuntimeDefault"
        assert own["allowPrivilegeEscalation"] is False
        assert not own.get("privileged", False)
        assert own["capabilities"] == {"drop": ["ALL"]}


def assert_sidecar(pod, sidecar, native):
    """What makes the sidecar hold the main container back, outlive it, and keep what it knows."""
    native_sidecars = [container for container in pod.get("initContainers", []) if container.get("restartPolicy") == "Always"]
    assert (native_sidecars == [sidecar]) is native
    if native:
        assert pod["initContainers"][0] is sidecar
    else:
        assert sidecar in pod["containers"]
    assert sidecar["securityContext"]["readOnlyRootFilesystem"] is True
    assert sidecar["securityContext"]["runAsUser"] == sidecar["securityContext"]["runAsGroup"] == pod["securityContext"]["fsGroup"] == 65532
    assert "command" not in sidecar
    ports = {port["name"]: port["containerPort"] for port in sidecar["ports"]}
    probes = {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    for probe, path in probes.items():
        assert sidecar[probe]["httpGet"]["path"] == path
        assert sidecar[probe]["httpGet"]["port"] in ports
    # As the application's env may not: the sidecar would report to itself.
    assert env(sidecar).get("AWS_ENDPOINT_URL_MARKETPLACE_METERING") != METERING_URL
    assert env(sidecar)["POD_UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    paths = {name: mount["mountPath"] for name, mount in mounts(sidecar).items()}
    assert paths["tollgate-run"] == "/run/tollgate"
    assert env(sidecar)["TOLLGATE_STATE_DIR"].startswith(paths["tollgate-state"] + "/")
    assert not mounts(sidecar)["tollgate-run"].get("readOnly", False)
    assert {mount for mount in mounts(sidecar)} <= {volume["name"] for volume in pod["volumes"]}


def assert_main(pod, main):
    """What the main container gets: the endpoint, its identity, and the status file, which it can't change."""
    assert env(main)["AWS_ENDPOINT_URL_MARKETPLACE_METERING"] == METERING_URL
    assert env(main)["POD_UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    assert mounts(main)["tollgate-run"] == {"name": "tollgate-run", "mountPath": "/run/tollgate", "readOnly": True}
    assert "tollgate-state" not in mounts(main)
    assert set(mounts(main)) <= {volume["name"] for volume in pod["volumes"]}
