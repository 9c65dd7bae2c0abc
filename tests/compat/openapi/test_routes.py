"""openapi.yaml has the routes that the sources have, is valid, and is what the sidecar serves."""

import re
import tomllib
import urllib.request

import openapi_spec_validator
import pytest
import spec
from openapi_spec_validator import OpenAPIV31SpecValidator

TABLE_ROW = re.compile(r"^//! \| (GET|POST) (\S+)", re.MULTILINE)
ARM = re.compile(r'\(&Method::(\w+), "([^"]+)"\)')
PREFIX_ARM = re.compile(r'\(&Method::(\w+), _\) if path\.starts_with\("([^"]+)/"\)')
HEALTH_ARM = re.compile(r'^ {12}"(/[^"]*)" =>', re.MULTILINE)
OPERATION_ARM = re.compile(r'^ {12}Some\("(\w+)"\) =>', re.MULTILINE)


def source(name):
    return (spec.ROOT / "src" / name).read_text(encoding="utf-8")


def routes_of_the_file(health):
    """Method and path; the operations of AWS are all POST /."""
    found = ((method, path.partition("#")[0], spec.is_health(path)) for method, path, _ in spec.operations())
    return {(method, re.sub(r"\{id\}", "ID", path)) for method, path, at_health in found if at_health == health}


def test_the_metering_endpoint_has_the_routes_of_the_file():
    api = source("api.rs")
    assert set(TABLE_ROW.findall(api)) == routes_of_the_file(health=False)
    arms = set(ARM.findall(api)) | {(method, f"{path}/ID") for method, path in PREFIX_ARM.findall(api)}
    assert arms == routes_of_the_file(health=False)


def test_the_health_listener_has_the_routes_of_the_file():
    health = source("health.rs")
    assert set(TABLE_ROW.findall(health)) == routes_of_the_file(health=True)
    assert {("GET", path) for path in HEALTH_ARM.findall(health)} == routes_of_the_file(health=True)


def test_the_endpoint_serves_the_operations_of_the_file():
    served = set(OPERATION_ARM.findall(source("api/aws.rs")))
    assert served == {operation["operationId"] for _, path, operation in spec.operations() if "#" in path}


def test_the_file_is_valid_and_of_this_version():
    openapi_spec_validator.validate(spec.SPEC, cls=OpenAPIV31SpecValidator)
    package = tomllib.loads((spec.ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    assert spec.SPEC["info"]["version"] == package["workspace"]["package"]["version"]


def test_every_component_has_a_user():
    used = set(re.findall(r"#/components/(\w+/\w+)", spec.TEXT))
    kinds = {kind: names for kind, names in spec.SPEC["components"].items() if kind != "securitySchemes"}
    assert {f"{kind}/{name}" for kind, names in kinds.items() for name in names} == used


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_sidecar_serves_the_file(pod, method):
    pod.start().ready()
    request = urllib.request.Request(f"http://127.0.0.1:{pod.health_port}/openapi.yaml", method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Content-Type"] == "application/yaml"
        assert int(answer.headers["Content-Length"]) == spec.PATH.stat().st_size
        assert answer.read() == (spec.PATH.read_bytes() if method == "GET" else b"")
