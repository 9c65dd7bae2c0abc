"""The kustomize component and the example that uses it, rendered by kubectl."""

import pathlib
import shutil
import subprocess

import pytest
import yaml
from conftest import NEWEST, OLDEST_NATIVE, assert_main, assert_restricted, assert_sidecar, mounts, named, one, validate

KUBECTL = "target/charts/venv/bin/kubectl"


def build(folder):
    done = subprocess.run([KUBECTL, "kustomize", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def render(folder):
    code, text, problem = build(folder)
    assert code == 0, problem
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


@pytest.fixture
def copy(tmp_path):
    """A copy of k8s/ to change."""
    shutil.copytree("k8s", tmp_path / "k8s")
    return tmp_path / "k8s"


@pytest.fixture(scope="module")
def example():
    return render("k8s/example")


def edit(path, change):
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(yaml.safe_dump(document), encoding="utf-8")


def pod_of(manifests):
    return one(manifests, "Deployment")["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", [OLDEST_NATIVE, NEWEST])
def test_the_example_is_valid(example, version):
    validate(example, version)


def test_the_example_is_a_sound_pod(example):
    pod = pod_of(example)
    sidecar = named(pod["initContainers"], "tollgate")
    assert_restricted(pod)
    assert_sidecar(pod, sidecar, native=True)
    assert_main(pod, named(pod["containers"], "main"))
    # 25 s of tollgate's own are in the pod's.
    assert pod["terminationGracePeriodSeconds"] >= 30


def test_settings_and_keys_are_the_overlays(example):
    pod = pod_of(example)
    sidecar = named(pod["initContainers"], "tollgate")
    maps = {manifest["metadata"]["name"]: manifest["data"] for manifest in example if manifest["kind"] == "ConfigMap"}
    settings = maps[sidecar["envFrom"][0]["configMapRef"]["name"]]
    keys = maps[named(pod["volumes"], "tollgate-keys")["configMap"]["name"]]
    assert settings["TOLLGATE_PRODUCT_CODE"]
    folder = pathlib.PurePosixPath(mounts(sidecar)["tollgate-keys"]["mountPath"])
    for pair in settings["TOLLGATE_PUBLIC_KEYS"].split(","):
        file = pathlib.PurePosixPath(pair.split("=")[1])
        assert file.parent == folder
        assert keys[file.name].startswith("-----BEGIN PUBLIC KEY-----")


def test_the_service_account_carries_the_role(example):
    account = one(example, "ServiceAccount")
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].startswith("arn:aws:iam::")
    assert pod_of(example)["serviceAccountName"] == account["metadata"]["name"]


def test_a_deployment_without_the_label_is_left_alone(copy):
    edit(copy / "example" / "deployment.yaml", lambda deployment: deployment["metadata"]["labels"].pop("tollgate"))
    pod = pod_of(render(copy / "example"))
    assert "initContainers" not in pod
    assert not pod["containers"][0].get("env")


def test_the_sidecar_starts_before_other_init_containers_and_keeps_what_is_there(copy):
    def change(deployment):
        pod = deployment["spec"]["template"]["spec"]
        pod["initContainers"] = [{"name": "migrate", "image": "migrate:1"}]
        pod["volumes"] = [{"name": "data", "emptyDir": {}}]
        pod["containers"][0]["env"] = [{"name": "OWN", "value": "1"}]
        pod["containers"].append({"name": "helper", "image": "helper:1"})

    edit(copy / "example" / "deployment.yaml", change)
    pod = pod_of(render(copy / "example"))
    assert [container["name"] for container in pod["initContainers"]] == ["tollgate", "migrate"]
    assert named(pod["volumes"], "data")
    assert named(named(pod["containers"], "main")["env"], "OWN")
    assert "env" not in named(pod["containers"], "helper")
    assert_main(pod, named(pod["containers"], "main"))


def test_a_main_container_without_env_is_refused(copy):
    edit(copy / "example" / "deployment.yaml", lambda deployment: deployment["spec"]["template"]["spec"]["containers"][0].pop("env"))
    code, _, problem = build(copy / "example")
    assert code != 0
    assert "/spec/template/spec/containers/0/env/-" in problem
