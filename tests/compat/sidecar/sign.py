"""Signs tests/auth/requests.json with botocore: `sign.py` writes tests/auth/botocore.json, against which the Rust tests hold tollgate."""

import datetime
import json
import pathlib
from unittest import mock

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

FOLDER = pathlib.Path(__file__).parents[2] / "auth"
SIGNED = FOLDER / "botocore.json"
KEY = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")


def sign(case):
    """The case with the headers that botocore adds, in the form of tests/auth/requests.json."""
    at = datetime.datetime.fromisoformat(case.get("at", "2026-11-25T12:36:00Z"))
    host = case.get("host", "127.0.0.1:8421")
    request = AWSRequest(case["method"], f"http://{host}{case['target']}", data=case["body"].encode())
    for name, value in case["headers"]:
        request.headers.add_header(name, value)
    with mock.patch("botocore.auth.get_current_datetime", return_value=at):
        SigV4Auth(KEY, "aws-marketplace", case.get("region", "us-east-1")).add_auth(request)
    headers = [["Host", host], *([name, value] for name, value in request.headers.items())]
    return case | {"at": f"{at:%Y-%m-%dT%H:%M:%SZ}", "headers": headers}


def render():
    """The file's text."""
    requests = json.loads((FOLDER / "requests.json").read_text(encoding="utf-8"))
    lines = [" " + json.dumps(sign(case), ensure_ascii=False) for case in requests]
    return "[\n" + ",\n".join(lines) + "\n]\n"


if __name__ == "__main__":
    SIGNED.write_text(render(), encoding="utf-8")
