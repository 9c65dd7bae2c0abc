"""A replica of a SaaS application: reports usage of two customers by boto3's BatchMeterUsage, with a key of the sidecar's, REPORTS times."""

import datetime
import json
import os
import pathlib

import boto3
import botocore.config

LICENSES = {"222233334444": "arn:aws:license-manager::222233334444:license:l-1", "555566667777": "arn:aws:license-manager::555566667777:license:l-2"}


def main():
    config = botocore.config.Config(retries={"total_max_attempts": 10, "mode": "standard"}, connect_timeout=2, read_timeout=10)
    metering = boto3.client("meteringmarketplace", config=config)
    acknowledged = 0
    for _ in range(int(os.environ["REPORTS"])):
        now = datetime.datetime.now(datetime.timezone.utc)
        records = [
            {"Timestamp": now, "CustomerAWSAccountId": account, "LicenseArn": license_arn, "Dimension": "requests", "Quantity": 1}
            for account, license_arn in LICENSES.items()
        ]
        answer = metering.batch_meter_usage(UsageRecords=records)
        assert not answer["UnprocessedRecords"]
        acknowledged += sum(result["Status"] == "Success" for result in answer["Results"])
        pathlib.Path(os.environ["ACCOUNT"]).write_text(json.dumps(acknowledged), encoding="utf-8")


main()
