"""Lays what the main program reported beside what AWS bills, to the millionth. Ends with 1 where they differ.

    bill.py REPORTED ACCOUNT CALLS

REPORTED is the main program's account, ACCOUNT and CALLS are the simulator's.
"""

import decimal
import json
import sys


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def main():
    reported, account, calls = (read(path) for path in sys.argv[1:])
    billed = {total["dimension"]: decimal.Decimal(total["quantity"]) for total in account["totals"]}
    records = [record["dimension"] for record in account["records"]]
    different = False
    print(f"   {'dimension':10} {'reports':>8} {'reported':>18} {'billed':>18} {'records':>8}")
    for dimension in sorted(reported.keys() | billed.keys()):
        line = reported.get(dimension, {"reports": 0, "quantity": "0"})
        owed, got = decimal.Decimal(line["quantity"]), billed.get(dimension, decimal.Decimal(0))
        different |= owed != got
        print(
            f"   {dimension:10} {line['reports']:8} {owed:18.6f} {got:18.6f} {records.count(dimension):8}"
            f"  {'equal' if owed == got else 'DIFFERENT'}"
        )
    asked = sum(call["operation"] == "MeterUsage" for call in calls)
    reports = sum(line["reports"] for line in reported.values())
    print(f"   {reports} reports, {len(records)} records, {asked} calls to AWS, the ones in vain included")
    if different:
        sys.exit("the bill is not what was reported")


if __name__ == "__main__":
    main()
