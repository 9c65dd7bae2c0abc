"""The demo's main program: reports usage a thousand times over plain HTTP, and keeps its own account of it.

    program.py URL ACCOUNT_FILE

Each report has a key of its own and is repeated under it until it is answered; what is answered counts once.
"""

import collections
import decimal
import json
import random
import sys
import time
import urllib.error
import urllib.request

REPORTS = 1000
BETWEEN_SECONDS = 0.015
PAUSE_SECONDS = 0.1
GIVE_UP_SECONDS = 30
# As a caller does whose answer got lost.
SENT_TWICE_EVERY = 50


def quantity(random, dimension):
    if dimension == "requests":
        return decimal.Decimal(random.randint(1, 1000))
    if dimension == "jobs":
        return random.randint(1, 12) * decimal.Decimal("0.25")
    return random.randint(1, 3_000_000) * decimal.Decimal("0.000001")


def report(url, key, body):
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"content-type": "application/json", "idempotency-key": key}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["id"]


def report_until_taken(url, key, body):
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while True:
        try:
            return report(url, key, body)
        except OSError as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if refused or time.monotonic() > deadline:
                raise
            print(f"no answer to report {key}: {error}; again under the same key", flush=True)
            time.sleep(PAUSE_SECONDS)


def main():
    url, account_file = sys.argv[1:]
    chance = random.Random(1)
    account = collections.defaultdict(lambda: {"reports": 0, "quantity": decimal.Decimal(0)})
    for number in range(1, REPORTS + 1):
        dimension = chance.choice(["requests", "gb", "jobs"])
        amount = quantity(chance, dimension)
        body = {"dimension": dimension, "quantity": f"{amount:f}"}
        taken_as = report_until_taken(url, f"report-{number}", body)
        if number % SENT_TWICE_EVERY == 0 and report_until_taken(url, f"report-{number}", body) != taken_as:
            sys.exit(f"report {number} was taken twice")
        account[dimension]["reports"] += 1
        account[dimension]["quantity"] += amount
        if number % 100 == 0:
            print(f"{number} reports taken", flush=True)
        time.sleep(BETWEEN_SECONDS)
    with open(account_file, "w", encoding="utf-8") as file:
        json.dump({name: {**line, "quantity": f"{line['quantity']:f}"} for name, line in account.items()}, file)


if __name__ == "__main__":
    main()
