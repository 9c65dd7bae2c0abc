"""A main container: reports usage by boto3 to the endpoint that its environment names, and keeps account of what was acknowledged.

REPORTS: how many reports until it ends by itself; without it, until SIGTERM, which it answers with one report more.
CALLERS: how many report at a time. QUIT: a URL to POST to at the end.
"""

import concurrent.futures
import datetime
import json
import os
import pathlib
import signal
import urllib.request

import boto3
import botocore.config

PACE_SECONDS = 0.01


def client():
    config = botocore.config.Config(retries={"total_max_attempts": 10, "mode": "standard"}, connect_timeout=2, read_timeout=10)
    return boto3.client("meteringmarketplace", config=config, aws_access_key_id="unused", aws_secret_access_key="unused")


def report(metering):
    metering.meter_usage(
        ProductCode=os.environ["PRODUCT_CODE"],
        Timestamp=datetime.datetime.now(datetime.timezone.utc),
        UsageDimension="requests",
        UsageQuantity=1,
    )
    return 1


def report_many(count):
    metering = client()
    return sum(report(metering) for _ in range(count))


def report_until_sigterm(account):
    metering = client()
    acknowledged = report(metering)
    account(acknowledged)
    while signal.sigtimedwait([signal.SIGTERM], PACE_SECONDS) is None:
        acknowledged += report(metering)
        account(acknowledged)
    account(acknowledged + report(metering))


def main():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    path = pathlib.Path(os.environ["ACCOUNT"])

    def account(acknowledged):
        path.write_text(json.dumps(acknowledged), encoding="utf-8")

    reports, callers = os.environ.get("REPORTS"), int(os.environ.get("CALLERS", "1"))
    if reports is None:
        report_until_sigterm(account)
    else:
        with concurrent.futures.ThreadPoolExecutor(callers) as pool:
            account(sum(pool.map(report_many, [int(reports) // callers] * callers)))
    if "QUIT" in os.environ:
        urllib.request.urlopen(urllib.request.Request(os.environ["QUIT"], method="POST"), timeout=10).close()


main()
