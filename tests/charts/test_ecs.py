"""The ECS task definition and the CloudFormation template, against the service's own models."""

import json
import pathlib
import subprocess

import botocore.session
import botocore.validate
import jsonschema
import pytest
from cfnlint.decode import cfn_yaml
from conftest import METERING_URL, named

TASK_DEFINITION = pathlib.Path("ecs/task-definition.json")
TEMPLATE = pathlib.Path("ecs/cloudformation.yaml")
ACTIONS = ["aws-marketplace:RegisterUsage", "aws-marketplace:MeterUsage"]
# The service's limits that its model leaves to prose (ECS API reference, HealthCheck and ContainerDefinition on Fargate).
LIMITS = {
    "type": "object",
    "required": ["family", "containerDefinitions", "volumes", "taskRoleArn", "executionRoleArn", "cpu", "memory"],
    "properties": {
        "networkMode": {"const": "awsvpc"},
        "requiresCompatibilities": {"const": ["FARGATE"]},
        "containerDefinitions": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "image", "essential", "stopTimeout", "logConfiguration"],
                "properties": {
                    "startTimeout": {"type": "integer", "minimum": 2, "maximum": 120},
                    "stopTimeout": {"type": "integer", "minimum": 2, "maximum": 120},
                    "healthCheck": {
                        "type": "object",
                        "required": ["command", "interval", "timeout", "retries", "startPeriod"],
                        "properties": {
                            "interval": {"type": "integer", "minimum": 5, "maximum": 300},
                            "timeout": {"type": "integer", "minimum": 2, "maximum": 60},
                            "retries": {"type": "integer", "minimum": 1, "maximum": 10},
                            "startPeriod": {"type": "integer", "minimum": 0, "maximum": 300},
                        },
                    },
                },
            },
        },
    },
}


def lower_first(value):
    """CloudFormation's names as the API has them; what stands under Options and the like is kept."""
    if isinstance(value, list):
        return [lower_first(item) for item in value]
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:] if key[:1].isupper() else key: lower_first(item) for key, item in value.items()}
    return value


def from_template():
    resources = cfn_yaml.load(str(TEMPLATE))["Resources"]
    return lower_first(json.loads(json.dumps(resources["TaskDefinition"]["Properties"])))


@pytest.fixture(params=["task definition", "template"])
def definition(request):
    if request.param == "template":
        return from_template()
    return json.loads(TASK_DEFINITION.read_text(encoding="utf-8"))


def test_the_task_definition_is_a_request_that_ecs_takes():
    shape = botocore.session.get_session().get_service_model("ecs").operation_model("RegisterTaskDefinition").input_shape
    report = botocore.validate.ParamValidator().validate(json.loads(TASK_DEFINITION.read_text(encoding="utf-8")), shape)
    assert not report.has_errors(), report.generate_report()


def test_the_task_definition_keeps_the_limits():
    jsonschema.validate(json.loads(TASK_DEFINITION.read_text(encoding="utf-8")), LIMITS)


def test_cfn_lint_finds_nothing():
    done = subprocess.run(["target/charts/venv/bin/cfn-lint", "--include-checks", "I", "--", str(TEMPLATE)], stdout=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


def test_main_is_held_back_and_stops_first(definition):
    tollgate = named(definition["containerDefinitions"], "tollgate")
    main = named(definition["containerDefinitions"], "main")
    assert tollgate["essential"] is main["essential"] is True
    assert main["dependsOn"] == [{"containerName": "tollgate", "condition": "HEALTHY"}]
    assert "dependsOn" not in tollgate
    assert tollgate["healthCheck"]["command"] == ["CMD", "/tollgate", "healthcheck"]


def test_the_flush_fits_into_the_stop(definition):
    tollgate = named(definition["containerDefinitions"], "tollgate")
    grace = named(tollgate["environment"], "TOLLGATE_SHUTDOWN_GRACE")["value"]
    assert int(grace.removesuffix("s")) + 5 <= tollgate["stopTimeout"] <= 120


def test_the_sidecar_has_no_rights_and_writes_only_to_volumes(definition):
    tollgate = named(definition["containerDefinitions"], "tollgate")
    assert tollgate["user"] == "65532:65532"
    assert tollgate["readonlyRootFilesystem"] is True
    assert tollgate["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
    assert {volume["name"] for volume in definition["volumes"]} == {"tollgate-run", "tollgate-state"}
    paths = {mount["sourceVolume"]: mount["containerPath"] for mount in tollgate["mountPoints"]}
    assert paths == {"tollgate-run": "/run/tollgate", "tollgate-state": "/var/lib/tollgate"}
    # Such a volume belongs to the image's user only where the image declares it.
    dockerfile = pathlib.Path("Dockerfile").read_text(encoding="utf-8")
    assert f"VOLUME {json.dumps(list(paths.values()))}" in dockerfile


def test_main_reports_to_the_sidecar_and_the_sidecar_to_aws(definition):
    tollgate = named(definition["containerDefinitions"], "tollgate")
    main = named(definition["containerDefinitions"], "main")
    assert named(main["environment"], "AWS_ENDPOINT_URL_MARKETPLACE_METERING")["value"] == METERING_URL
    assert not [item for item in tollgate["environment"] if item["name"].startswith("AWS_")]
    assert main["mountPoints"] == [{"sourceVolume": "tollgate-run", "containerPath": "/run/tollgate", "readOnly": True}]


def test_the_task_role_may_meter_and_nothing_else():
    resources = cfn_yaml.load(str(TEMPLATE))["Resources"]
    role = resources["TaskRole"]["Properties"]
    assert "ManagedPolicyArns" not in role
    statements = [statement for policy in role["Policies"] for statement in policy["PolicyDocument"]["Statement"]]
    assert [statement["Action"] for statement in statements] == [ACTIONS]
    assert resources["TaskDefinition"]["Properties"]["TaskRoleArn"] == {"Fn::GetAtt": ["TaskRole", "Arn"]}
