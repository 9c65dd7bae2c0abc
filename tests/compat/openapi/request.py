"""What a generated request is: as openapi.yaml has it or not, and what of it no schema can say."""

import datetime
import decimal
import json
import time

import jsonschema
import spec
from pod import PRODUCT

KEY = ("THEAPP", "the-secret-of-the-app-1")
TOKEN = "token-of-acme"
KEY_VERSION = 1
# Four bytes in UTF-8 each: within the 1024 bytes of a key.
KEY_CHARS = 256
PART_MAX = 1000
HOUR_SECONDS = 3600
FORWARDED = {"ResolveCustomer", "RegisterUsage"}


def validator(schema):
    """For `schema`, references into the whole file included."""
    whole = schema | {"components": spec.SPEC["components"]}
    return jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker())


def is_allowed(operation, method, headers, body):
    """Whether openapi.yaml allows the request: as it was sent, and not as it was meant."""
    if method not in spec.METHODS_OF[operation["operationId"]]:
        return False
    for parameter in map(spec.resolve, operation.get("parameters", [])):
        if parameter["in"] != "header":
            continue
        value = headers.get(parameter["name"])
        if value is None:
            if parameter.get("required"):
                return False
        elif not validator(parameter["schema"]).is_valid(text(value)):
            return False
    schema = spec.request_schema(operation)
    if schema is None:
        return True
    try:
        return validator(schema).is_valid(without_null(json.loads(body)))
    except (ValueError, TypeError):
        return False


def text(value):
    return value.decode("latin-1") if isinstance(value, bytes) else value


def without_null(value):
    """A member that is null counts as absent."""
    if isinstance(value, dict):
        return {name: without_null(member) for name, member in value.items() if member is not None}
    if isinstance(value, list):
        return [without_null(item) for item in value]
    return value


def fit(operation, body):
    """A body that openapi.yaml allows, with what only this sidecar and its AWS can tell put right; another one as it is."""
    name = operation["operationId"]
    schema = spec.request_schema(operation)
    if schema is None or not validator(schema).is_valid(without_null(body)):
        return body
    body = without_null(body)
    if name in FORWARDED or body.get("DryRun") is True:
        # AWS's side knows only the members of its model; the sidecar lets later ones pass.
        body = {member: value for member, value in body.items() if member in spec.resolve(schema)["properties"]}
    if body.get("DryRun") is True:
        body["UsageDimension"] = "requests"
    if "ProductCode" in body:
        body["ProductCode"] = PRODUCT
    if name == "MeterUsage":
        fit_record(body, "UsageQuantity")
    elif name == "BatchMeterUsage":
        for record in body["UsageRecords"]:
            fit_record(record, "Quantity")
    elif name == "ResolveCustomer" and len(body["RegistrationToken"]) % 4:
        body["RegistrationToken"] = TOKEN
    elif name == "RegisterUsage":
        body["PublicKeyVersion"] = KEY_VERSION
    elif name == "reportUsage":
        fit_report(body)
    return body


def client_auth_file(folder):
    """A file that has the callers' key."""
    path = folder / "clients.toml"
    path.write_text(f'[[key]]\naccess_key_id = "{KEY[0]}"\nsecret_access_key = "{KEY[1]}"\n', encoding="utf-8")
    path.chmod(0o440)
    return str(path)


def recent(seconds):
    """A time that AWS still takes, told by `seconds` from others."""
    return time.time() - abs(seconds) % HOUR_SECONDS


def fit_record(record, quantity):
    record["Timestamp"] = recent(record["Timestamp"])
    if "UsageAllocations" not in record:
        return
    suffix = "AsDecimal" if f"{quantity}AsDecimal" in record else ""
    total = decimal.Decimal(0)
    parts = {}
    for part in record["UsageAllocations"]:
        tags = {tag["Key"]: tag["Value"] for tag in part.get("Tags", [])}
        given = part.get("AllocatedUsageQuantity", part.get("AllocatedUsageQuantityAsDecimal"))
        value = decimal.Decimal(given) % PART_MAX
        value = value if suffix else decimal.Decimal(int(value))
        if tuple(sorted(tags.items())) in parts:
            continue
        total += value
        made = {f"AllocatedUsageQuantity{suffix}": f"{value:f}" if suffix else int(value)}
        if tags:
            made["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
        parts[tuple(sorted(tags.items()))] = made
    record["UsageAllocations"] = list(parts.values())
    record[f"{quantity}{suffix}"] = f"{total:f}" if suffix else int(total)


def fit_report(report):
    if "key" in report:
        report |= {"dimension": "hosts", "key": report["key"][:KEY_CHARS]}
    else:
        report["dimension"] = "requests"
        report["quantity"] = fit_number(report["quantity"])
    given = report.get("timestamp")
    if isinstance(given, str):
        report["timestamp"] = datetime.datetime.now(datetime.UTC).isoformat()
    elif given is not None:
        report["timestamp"] = recent(given)
    if parts := report.get("allocations"):
        unique = {tuple(sorted(part.get("tags", {}).items())): part for part in parts}
        for part in unique.values():
            part["quantity"] = f"{decimal.Decimal(str(fit_number(part['quantity']))) % PART_MAX:f}"
        report["allocations"] = list(unique.values())
        report["quantity"] = f"{sum(decimal.Decimal(part['quantity']) for part in unique.values()):f}"


def fit_number(quantity):
    """Six decimals, and those below a thousand million."""
    if isinstance(quantity, float) and quantity % 1:
        return abs(round(quantity % 1e9, 6))
    return int(quantity) if isinstance(quantity, float) else quantity
