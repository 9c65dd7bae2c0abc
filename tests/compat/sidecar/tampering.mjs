// One MeterUsage with the AWS SDK for JavaScript v3 that goes wrong on its way: `skewed`, signed by a clock ten minutes slow, or
// `altered`, its body changed after it was signed. One line of JSON for what came of it.

import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.resolve("target/compat/node/package.json"));
const sdk = require("@aws-sdk/client-marketplace-metering");

const TEN_MINUTES_MS = 10 * 60 * 1000;
const mode = process.argv[2];
const client = new sdk.MarketplaceMeteringClient(mode === "skewed" ? { systemClockOffset: -TEN_MINUTES_MS } : {});

if (mode === "altered") {
  const alter = (next) => (call) => {
    call.request.body = call.request.body.replace('"UsageQuantity":5', '"UsageQuantity":6');
    return next(call);
  };
  client.middlewareStack.addRelativeTo(alter, { relation: "after", toMiddleware: "httpSigningMiddleware" });
}

const request = { ProductCode: "prod-demo", Timestamp: new Date(), UsageDimension: "requests", UsageQuantity: 5 };
try {
  const answer = await client.send(new sdk.MeterUsageCommand(request));
  console.log(JSON.stringify({ id: answer.MeteringRecordId, attempts: answer.$metadata.attempts }));
} catch (error) {
  console.log(JSON.stringify({ error: error.name, message: error.message }));
}
