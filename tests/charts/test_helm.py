"""The library chart and the example that uses it, rendered and linted by Helm itself."""

import copy
import json
import pathlib
import re
import shutil

import helm_python as helm
import pytest
import yaml
from conftest import KEY, NEWEST, OLDEST, OLDEST_NATIVE, assert_main, assert_restricted, assert_sidecar, env, mounts, named, one, validate

ROLE = "arn:aws:iam::111122223333:role/metering"
BASE = {"productCode": "prod-demo", "publicKeys": {"1": KEY}, "serviceAccount": {"roleArn": ROLE}}
LOOPBACK = "http://127.0.0.1:8430"


@pytest.fixture(scope="session")
def charts(tmp_path_factory):
    """A copy of helm/ in which the example has its dependency, as `helm dependency update` leaves it."""
    folder = tmp_path_factory.mktemp("helm")
    shutil.copytree("helm", folder, dirs_exist_ok=True)
    helm.dependency_update(str(folder / "example"))
    return folder


@pytest.fixture
def render(charts):
    def manifests(tollgate=None, base=BASE, **values):
        values = values | {"tollgate": merged(base, tollgate or {})}
        with helm.Chart.load(str(charts / "example")) as chart:
            rendered = chart.render(values, name="demo", namespace="prod")
        texts = [text for name, text in rendered.items() if not name.endswith("NOTES.txt")]
        return [manifest for text in texts for manifest in yaml.safe_load_all(text) if manifest]

    return manifests


def merged(base, over):
    result = copy.deepcopy(base)
    for key, value in over.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and key in result and value else value
    return result


def pod_of(manifests, kind="Deployment"):
    return one(manifests, kind)["spec"]["template"]["spec"]


def sidecar_of(pod):
    return named(pod.get("initContainers", []) + pod["containers"], "tollgate")


MATRIX = {
    "defaults": {},
    "files in the image": {"publicKeys": {}, "publicKeyFiles": {"1": "/etc/tollgate/keys/1.pem", "2": "/etc/tollgate/keys/2.pem"}},
    "sealed": {"sealed": True, "productCode": "", "publicKeys": {}},
    "custom metering": {"entitlementCheck": "meter-usage:requests", "publicKeys": {}},
    "free": {"entitlementCheck": "none", "publicKeys": {}},
    "two keys": {"publicKeys": {"1": KEY, "2": KEY}},
    "every setting": {
        "onDenied": "hold",
        "onUnavailable": "grace:2h",
        "onMeteringFailure": "closed:3h",
        "quitquitquit": True,
        "zeroUsage": "report",
        "dimensions": ["gb", "users:max"],
        "registerDeadline": "10m",
        "stragglerWait": "0s",
        "submitJitter": "1m",
        "shutdownGrace": "50s",
        "log": "debug",
        "logFormat": "text",
        "healthPort": 9000,
        "region": "eu-central-1",
        "caBundle": {"configMap": "corporate-ca"},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "nonceFile": "/run/tollgate/nonce",
    },
    "simulator": {"irsa": False, "serviceAccount": {"roleArn": ""}, "endpointUrl": LOOPBACK, "stsEndpointUrl": LOOPBACK, "meteringPeriod": "10s"},
    "own service account": {"serviceAccount": {"create": False, "name": "mine", "roleArn": ""}},
    "own volume": {"stateVolume": {"ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}, "emptyDir": None}},
    "digest and monitor": {"image": {"digest": "sha256:" + "a" * 64}, "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
}


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
@pytest.mark.parametrize("mode", ["native", "plain"])
@pytest.mark.parametrize("case", MATRIX)
def test_every_rendering_is_a_sound_pod(render, case, mode, kind):
    manifests = render(MATRIX[case] | {"mode": mode}, kind=kind)
    for version in [OLDEST_NATIVE if mode == "native" else OLDEST, NEWEST]:
        validate(manifests, version)
    pod = pod_of(manifests, kind)
    assert_restricted(pod)
    assert_sidecar(pod, sidecar_of(pod), native=mode == "native")
    assert_main(pod, named(pod["containers"], "main"))


def test_a_native_sidecar_leaves_the_main_containers_command_alone(render):
    pod = pod_of(render(command=["/app/server", "--port=80"]))
    assert named(pod["containers"], "main")["command"] == ["/app/server", "--port=80"]
    assert [container["name"] for container in pod["containers"]] == ["main"]
    assert [container["name"] for container in pod["initContainers"]] == ["tollgate"]


def test_a_plain_sidecars_main_container_waits_for_the_proof(render):
    pod = pod_of(render({"mode": "plain", "registerDeadline": "10m"}, command=["/app/server"]))
    main = named(pod["containers"], "main")
    install = named(pod["initContainers"], "tollgate-install")
    assert main["command"] == ["/opt/tollgate/tollgate", "wait", "--timeout=10m", "--", "/app/server"]
    assert install["args"] == ["install", "/opt/tollgate/tollgate"]
    assert mounts(install)["tollgate-bin"]["mountPath"] == mounts(main)["tollgate-bin"]["mountPath"] == "/opt/tollgate"
    assert env(main)["TOLLGATE_PRODUCT_CODE"] == "prod-demo"
    assert env(main)["TOLLGATE_PUBLIC_KEYS"] == "1=/etc/tollgate/keys/1.pem"
    assert mounts(main)["tollgate-keys"]["mountPath"] == "/etc/tollgate/keys"


def test_settings_reach_the_sidecar_and_defaults_do_not_clutter_it(render):
    settings = {name: value for name, value in env(sidecar_of(pod_of(render()))).items() if name.startswith("TOLLGATE_")}
    assert settings == {
        "TOLLGATE_STATE_DIR": "/var/lib/tollgate/state",
        "TOLLGATE_HEALTH_LISTEN": "0.0.0.0:8422",
        "TOLLGATE_PRODUCT_CODE": "prod-demo",
        "TOLLGATE_PUBLIC_KEYS": "1=/etc/tollgate/keys/1.pem",
        "TOLLGATE_DIMENSIONS": "requests",
    }
    every = env(sidecar_of(pod_of(render(MATRIX["every setting"]))))
    expected = {
        "TOLLGATE_ON_DENIED": "hold",
        "TOLLGATE_ON_UNAVAILABLE": "grace:2h",
        "TOLLGATE_ON_METERING_FAILURE": "closed:3h",
        "TOLLGATE_QUITQUITQUIT": "on",
        "TOLLGATE_ZERO_USAGE": "report",
        "TOLLGATE_DIMENSIONS": "gb,users:max",
        "TOLLGATE_REGISTER_DEADLINE": "10m",
        "TOLLGATE_STRAGGLER_WAIT": "0s",
        "TOLLGATE_SUBMIT_JITTER": "1m",
        "TOLLGATE_SHUTDOWN_GRACE": "50s",
        "TOLLGATE_LOG": "debug",
        "TOLLGATE_LOG_FORMAT": "text",
        "TOLLGATE_HEALTH_LISTEN": "0.0.0.0:9000",
        "TOLLGATE_NONCE_FILE": "/run/tollgate/nonce",
        "AWS_REGION": "eu-central-1",
        "AWS_CA_BUNDLE": "/etc/tollgate/ca/ca.pem",
        "HTTPS_PROXY": "http://proxy:3128",
    }
    assert expected.items() <= every.items()


def test_every_variable_of_the_chart_is_a_setting_of_tollgate(render):
    """Unknown TOLLGATE_ variables are errors, so that a misspelt one here would stop every pod."""
    settings = set(re.findall(r'setting\(\s*"([a-z-]+)"', pathlib.Path("src/config/settings.rs").read_text(encoding="utf-8")))
    known = {f"TOLLGATE_{name.replace('-', '_').upper()}" for name in settings}
    assert "TOLLGATE_PRODUCT_CODE" in known
    for case in MATRIX.values():
        for mode in ["native", "plain"]:
            pod = pod_of(render(case | {"mode": mode}))
            used = {name for container in pod["containers"] + pod["initContainers"] for name in env_or_none(container) if name.startswith("TOLLGATE_")}
            assert used <= known


def env_or_none(container):
    return env(container) if "env" in container else {}


def test_a_sealed_image_is_told_nothing_that_is_sealed(render):
    for mode in ["native", "plain"]:
        pod = pod_of(render(MATRIX["sealed"] | {"mode": mode}))
        for container in [sidecar_of(pod), named(pod["containers"], "main")]:
            assert not {"TOLLGATE_PRODUCT_CODE", "TOLLGATE_PUBLIC_KEYS"} & env(container).keys()


@pytest.mark.parametrize(("deadline", "failures"), [("30m", 1860), ("2h", 7260), ("90s", 150), ("1500ms", 62)])
def test_the_startup_probe_outlasts_the_deadline(render, deadline, failures):
    probe = sidecar_of(pod_of(render({"registerDeadline": deadline})))["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == failures


def test_a_pod_that_holds_is_never_ended_by_its_startup_probe(render):
    assert sidecar_of(pod_of(render({"onDenied": "hold"})))["startupProbe"]["failureThreshold"] == 2**31 - 1


def test_keys_as_text_become_files(render):
    data = one(render({"publicKeys": {"1": KEY, "2": KEY}}), "ConfigMap")["data"]
    assert data == {"1.pem": KEY, "2.pem": KEY}


def test_the_service_account_carries_the_role(render):
    manifests = render()
    account = one(manifests, "ServiceAccount")
    assert account["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": ROLE}
    assert pod_of(manifests)["serviceAccountName"] == account["metadata"]["name"]
    manifests = render(MATRIX["own service account"])
    assert pod_of(manifests)["serviceAccountName"] == "mine"
    assert not [manifest for manifest in manifests if manifest["kind"] == "ServiceAccount"]


def test_the_pod_monitor_selects_the_pods(render):
    manifests = render(MATRIX["digest and monitor"])
    monitor = one(manifests, "PodMonitor")
    template = one(manifests, "Deployment")["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert monitor["metadata"]["labels"] == {"release": "prometheus"}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["path"] == "/metrics"
    assert endpoint["port"] in [port["name"] for port in sidecar_of(template["spec"])["ports"]]
    assert sidecar_of(template["spec"])["image"] == "tollgate@sha256:" + "a" * 64


REFUSED = [
    ({"productCode": ""}, "tollgate.productCode is empty: set it"),
    ({"publicKeys": {}}, "set tollgate.publicKeys (text) or tollgate.publicKeyFiles"),
    ({"publicKeyFiles": {"1": "/keys/1.pem"}}, "are both set: set the first for keys as text, or the second for files"),
    ({"sealed": True}, "leave tollgate.productCode, tollgate.publicKeys and tollgate.publicKeyFiles empty"),
    ({"entitlementCheck": "none"}, "which has no signature: leave tollgate.publicKeys"),
    ({"meteringPeriod": "10m"}, "set tollgate.meteringPeriod=1h, or for tests set tollgate.endpointUrl to a simulator on loopback"),
    ({"meteringPeriod": "10m", "endpointUrl": "https://metering.marketplace.us-east-1.amazonaws.com"}, "set tollgate.meteringPeriod=1h"),
    ({"meteringPeriod": "10m", "endpointUrl": "http://127.0.0.1.example.com"}, "set tollgate.meteringPeriod=1h"),
    ({"endpointUrl": "http://127.0.0.1:8421"}, "tollgate's own endpoint"),
    ({"terminationGracePeriodSeconds": 29}, "set it to 30 at least"),
    ({"shutdownGrace": "2m"}, "set it to 125 at least"),
    ({"serviceAccount": {"roleArn": ""}}, "not from Pod Identity, not from the node); set the role's ARN, or tollgate.irsa=false"),
    ({"serviceAccount": {"create": False}}, "set tollgate.serviceAccount.name"),
    ({"onMeteringFailure": "closed:90m"}, "set closed:2h or more"),
    ({"extraEnv": [{"name": "TOLLGATE_LOG", "value": "debug"}]}, "tollgate.extraEnv has TOLLGATE_LOG: set the value of this chart"),
    ({"extraEnv": [{"name": "AWS_ENDPOINT_URL_MARKETPLACE_METERING", "value": "http://127.0.0.1:8421"}]}, "tollgate.extraEnv has AWS_ENDPOINT_URL"),
]


@pytest.mark.parametrize(("values", "sentence"), REFUSED)
def test_contradictions_are_refused_with_a_sentence(render, values, sentence):
    with pytest.raises(helm.HelmRenderError) as refusal:
        render(values)
    assert sentence in str(refusal.value)


WRONG = [
    {"mode": "sidecar"},
    {"productCode": "has a space"},
    {"publicKeys": {"one": KEY}},
    {"publicKeys": {"1": "-----BEGIN PRIVATE KEY-----\n"}},
    {"publicKeyFiles": {"1": "keys/1.pem"}},
    {"entitlementCheck": "meter-usage"},
    {"registerDeadline": "30"},
    {"shutdownGrace": "0s"},
    {"onDenied": "ignore"},
    {"onUnavailable": "grace"},
    {"dimensions": "requests"},
    {"dimensions": ["requests:average"]},
    {"terminationGracePeriodSeconds": "60"},
    {"healthPort": 8421},
    {"endpointUrl": "metering.example"},
    {"region": "Frankfurt"},
    {"serviceAccount": {"roleArn": "metering"}},
    {"image": {"digest": "sha256:abc"}},
    {"podMonitor": {"interval": "often"}},
    {"productCodes": "misspelt"},
]


@pytest.mark.parametrize("values", WRONG)
def test_the_schema_refuses_wrong_values(render, values):
    with pytest.raises(helm.HelmValuesError) as refusal:
        render(values)
    assert "tollgate" in str(refusal.value)


def test_helm_lints_the_charts(charts):
    for chart, values in [("tollgate", {}), ("example", {"tollgate": BASE})]:
        report = helm.lint(str(charts / chart), values, strict=True)
        worse = [message for message in report["messages"] if message["severity"] > 1]
        assert not worse
        assert not report["errors"]


@pytest.mark.parametrize(("version", "refused"), [("v1.28.9", True), ("v1.29.0-eks-1", False), (f"v{NEWEST}", False)])
def test_a_cluster_without_native_sidecars_is_told_to_use_plain_ones(charts, capfd, version, refused):
    """While it lints, Helm writes what `fail` says instead of failing."""
    helm.lint(str(charts / "example"), {"tollgate": BASE}, kube_version=version)
    assert ("set tollgate.mode=plain" in capfd.readouterr().err) is refused
    helm.lint(str(charts / "example"), {"tollgate": BASE | {"mode": "plain"}}, kube_version=version)
    assert "tollgate.mode" not in capfd.readouterr().err


def flattened(values, prefix=""):
    """Each value by its dotted name; lists, empty maps and whatever has free keys are values."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict) and value and key not in ["resources", "stateVolume"]:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def test_the_readmes_table_says_what_values_says():
    values = yaml.safe_load(pathlib.Path("helm/tollgate/values.yaml").read_text(encoding="utf-8"))
    rows = re.findall(r"^\| `([A-Za-z.]+)` \| `(.*?)` \| .+ \|$", pathlib.Path("helm/tollgate/README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: json.loads(default) for name, default in rows} == flattened(values)


def test_values_and_schema_name_the_same_things():
    values = yaml.safe_load(pathlib.Path("helm/tollgate/values.yaml").read_text(encoding="utf-8"))
    schema = json.loads(pathlib.Path("helm/tollgate/values.schema.json").read_text(encoding="utf-8"))
    assert set(schema["properties"]) - {"global"} == set(values)
    for name, value in values.items():
        if schema["properties"][name].get("additionalProperties") is False:
            assert set(schema["properties"][name]["properties"]) == set(value)


def test_versions_agree():
    cargo = re.search(r'^version = "(.+)"', pathlib.Path("Cargo.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]
    chart = yaml.safe_load(pathlib.Path("helm/tollgate/Chart.yaml").read_text(encoding="utf-8"))
    example = yaml.safe_load(pathlib.Path("helm/example/Chart.yaml").read_text(encoding="utf-8"))
    values = yaml.safe_load(pathlib.Path("helm/tollgate/values.yaml").read_text(encoding="utf-8"))
    assert cargo == chart["version"] == chart["appVersion"] == example["dependencies"][0]["version"] == values["image"]["tag"]
