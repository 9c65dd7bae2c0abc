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

function client(maxAttempts = 1) {
  return new sdk.MarketplaceMeteringClient({
    endpoint: url,
    region: "us-east-1",
    maxAttempts,
    credentials: { accessKeyId: "SIMULATORKEY1", secretAccessKey: "simulator-secret-1" },
  });
}

const register = () => new sdk.RegisterUsageCommand({ ProductCode: "prod-demo", PublicKeyVersion: 1, Nonce: "n" });
const meter = (changes = {}) =>
  new sdk.MeterUsageCommand({
    ProductCode: "prod-demo",
    Timestamp: new Date(),
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

for (const [operation, command] of [
  ["RegisterUsage", register],
  ["MeterUsage", meter],
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
