"""One tollgate for all replicas of a SaaS application, by Helm and by kustomize."""

import copy
import pathlib
import shutil
import subprocess

import helm_python as helm
import pytest
import yaml
from conftest import NEWEST, OLDEST, assert_restricted, env, mounts, named, one, validate

BASE = {
    "productCode": "prod-demo",
    "entitlementCheck": "none",
    "serviceAccount": {"roleArn": "arn:aws:iam::111122223333:role/metering"},
    "saas": {"clientsSecret": "clients", "callers": {"app.kubernetes.io/name": "example-saas"}},
}


@pytest.fixture(scope="module")
def chart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("helm")
    shutil.copytree("helm", folder, dirs_exist_ok=True)
    helm.dependency_update(str(folder / "example-saas"))
    return str(folder / "example-saas")


def by_helm(chart, **tollgate):
    with helm.Chart.load(chart) as loaded:
        rendered = loaded.render({"tollgate": copy.deepcopy(BASE) | tollgate}, name="demo", namespace="prod")
    return [manifest for text in rendered.values() for manifest in yaml.safe_load_all(text) if manifest]


@pytest.fixture(params=["helm", "kustomize"])
def manifests(request, chart):
    if request.param == "helm":
        return by_helm(chart)
    done = subprocess.run(["target/charts/venv/bin/kubectl", "kustomize", "k8s/saas"], stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_manifests_are_valid(manifests, version):
    validate(manifests, version)


def test_there_is_one_with_a_volume_that_stays(manifests):
    spec = one(manifests, "StatefulSet")["spec"]
    assert spec["replicas"] == 1
    (claim,) = spec["volumeClaimTemplates"]
    pod = spec["template"]["spec"]
    container = named(pod["containers"], "tollgate")
    assert claim["metadata"]["name"] == "tollgate-state"
    assert env(container)["TOLLGATE_STATE_DIR"].startswith(mounts(container)["tollgate-state"]["mountPath"] + "/")
    # The pod's UID would be another one with each pod; its host name is the same.
    assert "POD_UID" not in env(container)
    assert pod["terminationGracePeriodSeconds"] >= 30


def test_the_pod_is_restricted_and_can_read_its_secret(manifests):
    pod = one(manifests, "StatefulSet")["spec"]["template"]["spec"]
    assert_restricted(pod)
    container = named(pod["containers"], "tollgate")
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 65532
    secret = named(pod["volumes"], "tollgate-clients")["secret"]
    assert secret["defaultMode"] == 0o440
    folder = pathlib.PurePosixPath(mounts(container)["tollgate-clients"]["mountPath"])
    assert env(container)["TOLLGATE_CLIENT_AUTH_FILE"] == str(folder / "clients.toml")


def test_callers_sign_and_are_let_in_by_label(manifests):
    stateful_set = one(manifests, "StatefulSet")
    labels = stateful_set["spec"]["template"]["metadata"]["labels"]
    container = named(stateful_set["spec"]["template"]["spec"]["containers"], "tollgate")
    assert env(container)["TOLLGATE_LISTEN"] == "0.0.0.0:8421"
    assert env(container)["TOLLGATE_SAAS_MODE"] == "aggregate"
    assert env(container)["TOLLGATE_ENTITLEMENT_CHECK"] == "none"
    assert not any(name.startswith("AWS_ENDPOINT_URL") for name in env(container))
    service = one(manifests, "Service")
    assert service["metadata"]["name"] == stateful_set["spec"]["serviceName"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert named(service["spec"]["ports"], "metering")["targetPort"] == "metering"
    policy = one(manifests, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    ports = {rule["ports"][0]["port"]: rule.get("from") for rule in policy["ingress"]}
    assert ports["metering"][0]["podSelector"]["matchLabels"]
    assert set(ports) == {"metering", "tollgate"}


def test_the_examples_replicas_report_to_the_service_with_their_key(chart):
    manifests = by_helm(chart)
    service = one(manifests, "Service")["metadata"]
    template = one(manifests, "Deployment")["spec"]["template"]
    assert_restricted(template["spec"])
    main = env(named(template["spec"]["containers"], "main"))
    assert main["AWS_ENDPOINT_URL_MARKETPLACE_METERING"] == f"http://{service['name']}.{service['namespace']}.svc:8421"
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= main.keys()
    rule = one(manifests, "NetworkPolicy")["spec"]["ingress"][0]
    assert rule["from"][0]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"entitlementCheck": "meter-usage:requests"}, "set tollgate.entitlementCheck=none"),
        ({"saas": {"callers": {"a": "b"}}}, "tollgate.saas.clientsSecret is empty"),
        ({"saas": {"clientsSecret": "clients", "callers": None}}, "tollgate.saas.callers is empty"),
    ],
)
def test_contradictions_are_refused_with_a_sentence(chart, values, sentence):
    with pytest.raises(helm.HelmRenderError) as refusal:
        by_helm(chart, **values)
    assert sentence in str(refusal.value)


def test_helm_lints_the_example(chart):
    report = helm.lint(chart, {"tollgate": BASE}, strict=True)
    assert not report["errors"]
    assert not [message for message in report["messages"] if message["severity"] > 1]
