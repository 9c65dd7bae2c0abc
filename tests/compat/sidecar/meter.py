"""A program that meters with boto3, and knows nothing of a sidecar: one MeterUsage for each line of JSON, one line for what came of it."""

import datetime
import json
import sys

import boto3
import botocore.exceptions

client = boto3.client("meteringmarketplace")


def meter(request):
    request["Timestamp"] = datetime.datetime.fromisoformat(request["Timestamp"])
    try:
        answer = client.meter_usage(**request)
    except botocore.exceptions.ClientError as error:
        name = error.response["Error"]["Code"]
        metadata = error.response["ResponseMetadata"]
        modelled = getattr(client.exceptions, name, None) if name in known() else None
        typed = modelled is not None and isinstance(error, modelled)
        outcome = {"error": name, "typed": typed, "message": error.response["Error"]["Message"]}
    else:
        metadata = answer["ResponseMetadata"]
        outcome = {"id": answer["MeteringRecordId"]}
    return outcome | {"status": metadata["HTTPStatusCode"], "retries": metadata["RetryAttempts"]}


def known():
    return {shape.name for shape in client.meta.service_model.operation_model("MeterUsage").error_shapes}


for line in sys.stdin:
    print(json.dumps(meter(json.loads(line))), flush=True)
