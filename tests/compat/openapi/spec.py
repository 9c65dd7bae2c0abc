"""openapi.yaml as the tests read it."""

import pathlib

import yaml

ROOT = pathlib.Path(__file__).parents[3]
PATH = ROOT / "openapi.yaml"
TEXT = PATH.read_text(encoding="utf-8")
SPEC = yaml.safe_load(TEXT)
AWS_JSON = "application/x-amz-json-1.1"
METHODS = ("get", "post")


def resolve(node):
    """What a local reference stands for; anything else is itself."""
    while "$ref" in node:
        target = SPEC
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def operations():
    """Every operation, with its method and path."""
    for path, item in SPEC["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method]


def is_health(path):
    """Whether a path is on the health listener."""
    return "servers" in SPEC["paths"][path]


def request_schema(operation):
    """The schema of an operation's body, if it takes one."""
    content = operation.get("requestBody", {}).get("content", {})
    return next((media["schema"] for media in content.values()), None)


# HEAD is served wherever the health listener serves GET.
METHODS_OF = {
    operation["operationId"]: {method, "HEAD"} if is_health(path) else {method}
    for method, path, operation in operations()
}
# What components/responses says in words.
COMMON_ERRORS = {
    400: {"SerializationException", "ValidationException"},
    403: {"AccessDeniedException"},
    404: {"RecordNotFound", "ValidationException"},
    408: {"ValidationException"},
    409: {"ProofUnavailable"},
    413: {"RequestEntityTooLargeException"},
    429: {"ThrottlingException"},
    500: {"InternalServiceErrorException"},
    502: {"unverified"},
    503: {"InternalServiceErrorException", "NoCredentials", "Unreachable"},
}
