// Signs tests/auth/requests.json with the signer of the AWS SDK for JavaScript v3: `node sign.mjs` writes tests/auth/javascript.json,
// against which the Rust tests hold tollgate.

import { createHash, createHmac } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const require = createRequire(path.resolve("target/compat/node/package.json"));
const { SignatureV4 } = require("@smithy/signature-v4");

const requests = path.resolve("tests/auth/requests.json");
export const signed = path.resolve("tests/auth/javascript.json");

class Sha256 {
  constructor(secret) {
    this.hash = secret ? createHmac("sha256", secret) : createHash("sha256");
  }
  update(data) {
    this.hash.update(data);
  }
  async digest() {
    return new Uint8Array(this.hash.digest());
  }
}

function parameters(query) {
  const found = {};
  for (const pair of query.split("&").filter(Boolean)) {
    const [name, value = ""] = pair.split("=").map(decodeURIComponent);
    found[name] = name in found ? [found[name], value].flat() : value;
  }
  return found;
}

async function sign(request) {
  const at = request.at ?? "2026-11-25T12:36:00Z";
  const host = request.host ?? "127.0.0.1:8421";
  const [route, query = ""] = request.target.split("?");
  const signer = new SignatureV4({
    service: "aws-marketplace",
    region: request.region ?? "us-east-1",
    sha256: Sha256,
    credentials: { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY" },
  });
  const { headers } = await signer.sign(
    {
      method: request.method,
      protocol: "http:",
      hostname: host,
      path: route,
      query: parameters(query),
      headers: Object.fromEntries([["host", host], ...request.headers]),
      body: request.body,
    },
    { signingDate: new Date(at) },
  );
  return { ...request, at, headers: Object.entries(headers) };
}

// This signer's requests have each header once.
const single = ({ headers }) => new Set(headers.map(([name]) => name)).size === headers.length;

export async function render() {
  const cases = JSON.parse(readFileSync(requests, "utf8")).filter(single);
  const lines = await Promise.all(cases.map(async (request) => ` ${JSON.stringify(await sign(request))}`));
  return `[\n${lines.join(",\n")}\n]\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(signed, await render());
}
