// The simulator as the AWS SDK for JavaScript v3 sees it. Any warning of the process fails the run.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, beforeEach, test } from "node:test";

const require = createRequire(path.resolve("target/compat/node/package.json"));
const sdk = require("@aws-sdk/client-marketplace-metering");

const bin = process.env.TOLLGATE_BIN_DIR ?? "target/debug";
const folder = mkdtempSync(path.join(tmpdir(), "tollgate-"));
const account = "222233334444";
const license = `arn:aws:license-manager::${account}:license:l-1`;
// One moment for all tests: none falls into two hours.
const now = Date.now();
const warnings = [];
// The SDK announces which Node it will want next year; that says nothing about the simulator.
process.on("warning", (warning) => warning.message.includes("NodeVersionSupportWarning") || warnings.push(warning));
let simulator;
let url;

before(async () => {
  simulator = spawn(path.join(bin, "marketplace-simulator"), ["--listen", "127.0.0.1:0", "--keys-dir", folder], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const [ready] = await new Promise((resolve) => simulator.stdout.once("data", (data) => resolve([data])));
  url = JSON.parse(ready).listening;
  await admin("PUT", "customers", {
    id: "buyer",
    product_code: "prod-demo",
    customer_identifier: "customer-identifier-1",
    customer_aws_account_id: account,
    license: [{ arn: license, agreement_id: "agmt-1" }],
  });
  await admin("PUT", "tokens", { token: "t", customer: "buyer", further_members: { OfferId: "offer-1" } });
});

after(() => {
  simulator.kill();
  rmSync(folder, { recursive: true });
  assert.deepEqual(warnings, []);
});

beforeEach(async () => {
  await admin("DELETE", "faults");
  await admin("DELETE", "calls");
});

async function admin(method, route, body) {
  const answer = await fetch(`${url}/simulator/${route}`, { method, body: body && JSON.stringify(body) });
  assert.ok(answer.ok, await answer.clone().text());
  return answer.json();
}

function settings(maxAttempts = 1) {
  return {
    endpoint: url,
    region: "us-east-1",
    maxAttempts,
    credentials: { accessKeyId: "SIMULATORKEY1", secretAccessKey: "simulator-secret-1" },
  };
}

function client(maxAttempts = 1) {
  return new sdk.MarketplaceMeteringClient(settings(maxAttempts));
}

const register = () => new sdk.RegisterUsageCommand({ ProductCode: "prod-demo", PublicKeyVersion: 1, Nonce: "n" });
const meter = (changes = {}) =>
  new sdk.MeterUsageCommand({
    ProductCode: "prod-demo",
    Timestamp: new Date(now),
    UsageDimension: "requests",
    UsageQuantity: 5,
    ...changes,
  });

test("RegisterUsage answers with a signature of three parts", async () => {
  const answer = await client().send(register());
  assert.equal(answer.Signature.split(".").length, 3);
});

test("MeterUsage answers with a record id, and the hour keeps it", async () => {
  const first = await client().send(meter());
  const again = await client().send(meter());
  assert.equal(first.MeteringRecordId, again.MeteringRecordId);
  await assert.rejects(client().send(meter({ UsageQuantity: 6 })), sdk.DuplicateRequestException);
});

const resolve = (token = "t") => new sdk.ResolveCustomerCommand({ RegistrationToken: token });
// An hour of its own for what is counted: the simulator keeps what another test has metered.
let hoursBack = 0;
const hour = () => new Date(now - 3600_000 * hoursBack++);
const licensed = (changes = {}) => ({
  Timestamp: new Date(now),
  CustomerAWSAccountId: account,
  LicenseArn: license,
  Dimension: "requests",
  Quantity: 5,
  ...changes,
});
const legacy = (changes = {}) => ({
  Timestamp: new Date(now),
  CustomerIdentifier: "customer-identifier-1",
  Dimension: "requests",
  Quantity: 5,
  ...changes,
});
const batch = (records = [licensed()], product) =>
  new sdk.BatchMeterUsageCommand({ UsageRecords: records, ...(product && { ProductCode: product }) });
const statuses = (answer) => answer.Results.map((result) => result.Status);

test("ResolveCustomer answers who the buyer is, and what this SDK does not know does not disturb it", async () => {
  const { $metadata, ...answer } = await client().send(resolve());
  assert.equal($metadata.httpStatusCode, 200);
  assert.deepEqual(answer, {
    CustomerIdentifier: "customer-identifier-1",
    CustomerAWSAccountId: account,
    LicenseArn: license,
    ProductCode: "prod-demo",
  });
  await assert.rejects(client().send(resolve("another")), sdk.InvalidTokenException);
  await admin("PUT", "tokens", { token: "old", customer: "buyer", expires_at: "2026-01-01T00:00:00Z" });
  await assert.rejects(client().send(resolve("old")), sdk.ExpiredTokenException);
});

for (const [way, record, product] of [
  ["licenses", licensed, undefined],
  ["the legacy integration", legacy, "prod-demo"],
]) {
  test(`BatchMeterUsage for ${way} keeps one record an hour`, async () => {
    const sent = record({ Timestamp: hour() });
    const first = await client().send(batch([sent], product));
    assert.deepEqual(statuses(first), ["Success"]);
    assert.deepEqual(first.UnprocessedRecords, []);
    assert.equal(first.Results[0].UsageRecord.Quantity, 5);
    assert.equal(first.Results[0].UsageRecord.Timestamp.getTime(), sent.Timestamp.getTime());
    const again = await client().send(batch([sent, { ...sent, Quantity: 6 }], product));
    assert.deepEqual(statuses(again), ["Success", "DuplicateRecord"]);
    assert.equal(again.Results[0].MeteringRecordId, first.Results[0].MeteringRecordId);
  });
}

test("mistakes fail a whole batch with the SDK's own classes", async () => {
  const before = (await admin("GET", "account")).saas_records.length;
  for (const [records, product, error] of [
    [[legacy()], undefined, sdk.InvalidProductCodeException],
    [[licensed()], "prod-demo", sdk.InvalidProductCodeException],
    [[legacy({ CustomerIdentifier: "nobody" })], "prod-demo", sdk.InvalidCustomerIdentifierException],
    [[licensed({ LicenseArn: "l-1" })], undefined, sdk.InvalidLicenseException],
    [[licensed({ Dimension: "other" })], undefined, sdk.InvalidUsageDimensionException],
    [[licensed({ Timestamp: new Date(now - 25 * 3600_000) })], undefined, sdk.TimestampOutOfBoundsException],
    [[licensed({ UsageAllocations: [{ AllocatedUsageQuantity: 4 }] })], undefined, sdk.InvalidUsageAllocationsException],
    [
      [licensed({ UsageAllocations: [{ AllocatedUsageQuantity: 5, Tags: [{ Key: "ä", Value: "x" }] }] })],
      undefined,
      sdk.InvalidTagException,
    ],
  ]) {
    const good = product ? legacy() : licensed();
    await assert.rejects(client().send(batch([good, ...records], product)), error);
  }
  assert.equal((await admin("GET", "account")).saas_records.length, before);
});

test("a record can be unprocessed, or its customer not subscribed", async () => {
  await admin("POST", "faults", { kind: "unprocessed", count: 1 });
  await admin("POST", "faults", { kind: "customer-not-subscribed", record: 1, count: 1 });
  const records = [licensed({ Timestamp: hour() }), licensed({ Timestamp: hour() })];
  const answer = await client().send(batch(records));
  assert.deepEqual(statuses(answer), ["CustomerNotSubscribed"]);
  assert.equal(answer.UnprocessedRecords.length, 1);
  assert.deepEqual(statuses(await client().send(batch(answer.UnprocessedRecords))), ["Success"]);
});

test("at a month's end the clock decides", async () => {
  const clock = async (time) => {
    const offset = Math.round((Date.parse(time) - Date.now()) / 1000);
    await admin("PUT", "clock", { offset_seconds: offset });
    return new sdk.MarketplaceMeteringClient({ ...settings(), systemClockOffset: offset * 1000 });
  };
  try {
    const records = [licensed({ Timestamp: new Date("2026-12-31T23:00:00Z") })];
    const open = await clock("2027-01-01T05:55:00Z");
    assert.deepEqual(statuses(await open.send(batch(records))), ["Success"]);
    const closed = await clock("2027-01-01T06:00:01Z");
    await assert.rejects(closed.send(batch(records)), sdk.TimestampOutOfBoundsException);
  } finally {
    await admin("PUT", "clock", { offset_seconds: 0 });
  }
});

for (const [operation, command] of [
  ["RegisterUsage", register],
  ["MeterUsage", meter],
  ["BatchMeterUsage", batch],
  ["ResolveCustomer", resolve],
]) {
  test(`every error that ${operation} can answer is the SDK's own class`, async () => {
    const { operations } = await admin("GET", "model");
    const { errors } = operations.find(({ name }) => name === operation);
    for (const error of errors) {
      assert.ok(sdk[error], `the SDK has ${error}`);
      await admin("POST", "faults", { operation, kind: "error", error, count: 1 });
      await assert.rejects(client().send(command()), (thrown) => thrown instanceof sdk[error]);
    }
  });
}

test("throttling and failures are retried under one ClientToken", async () => {
  await admin("POST", "faults", { operation: "MeterUsage", kind: "error", error: "ThrottlingException", count: 1 });
  await admin("POST", "faults", { operation: "MeterUsage", kind: "reply-lost", count: 1 });
  await client(3).send(meter());
  const calls = await admin("GET", "calls");
  assert.equal(calls.length, 2, "both faults strike the first attempt's answer or the second's");
  assert.equal(new Set(calls.map((call) => call.request.ClientToken)).size, 1);
});

test("BatchMeterUsage is retried, and counted once", async () => {
  const records = [licensed({ Timestamp: hour() })];
  await admin("POST", "faults", { operation: "BatchMeterUsage", kind: "reply-lost", count: 1 });
  const answer = await client(3).send(batch(records));
  assert.deepEqual(statuses(answer), ["Success"]);
  const id = answer.Results[0].MeteringRecordId;
  const { saas_records: billed } = await admin("GET", "account");
  assert.equal(billed.find((record) => record.record_id === id).times, 2);
});
