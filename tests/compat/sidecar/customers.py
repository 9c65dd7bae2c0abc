"""Buyers of a SaaS product, and the records that a program reports for them."""

from clients import now
from pod import PRODUCT

ACCOUNT = "222233334444"
LICENSE = f"arn:aws:license-manager::{ACCOUNT}:license:l-1"
IDENTIFIER = "customer-identifier-1"
BUYER = {
    "id": "buyer",
    "product_code": PRODUCT,
    "customer_aws_account_id": ACCOUNT,
    "license": [{"arn": LICENSE, "agreement_id": "agmt-1"}],
}
# An integration from before concurrent agreements has customers with an identifier.
OLD_BUYER = {
    "id": "old-buyer",
    "product_code": PRODUCT,
    "customer_identifier": IDENTIFIER,
    "customer_aws_account_id": "555566667777",
}


def record(who, **changes):
    """A record of now; a change to None leaves the member out."""
    at = now().isoformat(timespec="milliseconds")
    made = {"Timestamp": at, "Dimension": "requests", "Quantity": 5} | who | changes
    return {name: value for name, value in made.items() if value is not None}


def licensed(**changes):
    return record({"CustomerAWSAccountId": ACCOUNT, "LicenseArn": LICENSE}, **changes)


def legacy(**changes):
    return record({"CustomerIdentifier": IDENTIFIER}, **changes)


def batch_of(*records):
    """The request; with a ProductCode where the records need one."""
    product = {} if all("LicenseArn" in record for record in records) else {"ProductCode": PRODUCT}
    return product | {"UsageRecords": list(records)}
