// A program that meters with the AWS SDK for JavaScript v3, and knows nothing of a sidecar: one call for each line of JSON, one
// line for what came of it.

import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";

const require = createRequire(path.resolve("target/compat/node/package.json"));
const sdk = require("@aws-sdk/client-marketplace-metering");
const client = new sdk.MarketplaceMeteringClient({});

async function call({ operation, request }) {
  for (const timed of [request, ...(request.UsageRecords ?? [])]) {
    if ("Timestamp" in timed) timed.Timestamp = new Date(timed.Timestamp);
  }
  try {
    const { $metadata, ...answer } = await client.send(new sdk[`${operation}Command`](request));
    return { answer, ...metadata($metadata) };
  } catch (error) {
    if (!(error instanceof sdk.MarketplaceMeteringServiceException)) throw error;
    const typed = sdk[error.name] !== undefined && error instanceof sdk[error.name];
    return { error: error.name, typed, message: error.message, ...metadata(error.$metadata) };
  }
}

function metadata($metadata) {
  return { status: $metadata.httpStatusCode, retries: $metadata.attempts - 1 };
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await call(JSON.parse(line))));
}
