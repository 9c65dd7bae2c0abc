"""A program that meters with boto3, and knows nothing of a sidecar: one call for each line of JSON, one line for what came of it."""

import datetime
import json
import sys

import boto3
import botocore.exceptions
from botocore import xform_name

client = boto3.client("meteringmarketplace")


def call(operation, request):
    for timed in [request, *request.get("UsageRecords", [])]:
        if "Timestamp" in timed:
            timed["Timestamp"] = datetime.datetime.fromisoformat(timed["Timestamp"])
    try:
        answer = getattr(client, xform_name(operation))(**request)
    except botocore.exceptions.ClientError as error:
        name = error.response["Error"]["Code"]
        metadata = error.response["ResponseMetadata"]
        modelled = getattr(client.exceptions, name, None) if name in known(operation) else None
        typed = modelled is not None and isinstance(error, modelled)
        outcome = {"error": name, "typed": typed, "message": error.response["Error"]["Message"]}
    else:
        metadata = answer.pop("ResponseMetadata")
        outcome = {"answer": answer}
    return outcome | {"status": metadata["HTTPStatusCode"], "retries": metadata["RetryAttempts"]}


def known(operation):
    return {shape.name for shape in client.meta.service_model.operation_model(operation).error_shapes}


for line in sys.stdin:
    print(json.dumps(call(**json.loads(line)), default=datetime.datetime.isoformat), flush=True)
