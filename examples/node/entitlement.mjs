// Checks tollgate's proof inside the main container, with the program's own copy of the public key.
//
//     node entitlement.mjs --product CODE --key 1=keys/1.pem [--nonce-file FILE | --identity ID] [STATUS_FILE]
//     node entitlement.mjs --product CODE --key 1=keys/1.pem --challenge http://127.0.0.1:8421
//
// Needs nothing but Node. Copy `check` or `challenge` into your program and call it before you serve anybody: each throws
// NotEntitled unless AWS Marketplace itself signed the answer for this product, and for this nonce or identity.

import { constants, createHash, createPublicKey, randomBytes, verify as verifySignature } from "node:crypto";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const TOKEN_CHARS_MAX = 16 * 1024;
const ANSWER_BYTES_MAX = 64 * 1024;
const ANSWER_TIMEOUT_MS = 60_000;

/** Nothing proves that this buyer may run this product here. */
export class NotEntitled extends Error {}

/**
 * Throws NotEntitled unless `status` (the parsed status file) proves the entitlement.
 *
 * `keys` maps key versions to SPKI PEM texts. Give `nonce` when this program chose it (TOLLGATE_NONCE_FILE); otherwise give
 * `identity`, the pod's UID, the ECS task's ARN or the host name: tollgate's own nonce commits to it.
 */
export function check(status, productCode, keys, { nonce, identity } = {}) {
  if (status.state !== "entitled") {
    throw new NotEntitled(`state is ${status.state}: ${status.reason}: ${status.advice}`);
  }
  const signed = verify(status.signature, productCode, keys);
  if (nonce !== undefined ? signed !== nonce : !commitsTo(signed, productCode, identity)) {
    throw new NotEntitled(
      nonce !== undefined ? "the signature answers another nonce" : "the signature was made for another task or pod",
    );
  }
}

/**
 * Throws NotEntitled unless the sidecar at `url` gets a nonce signed that this program has just made up. Nothing but the
 * signature is believed: a false sidecar has none.
 */
export async function challenge(url, productCode, keys) {
  const nonce = randomBytes(32).toString("base64url");
  const answer = await ask(`${url}/v1/entitlement/challenge`, { nonce });
  if (verify(answer.signature, productCode, keys) !== nonce) {
    throw new NotEntitled("the signature answers another nonce");
  }
}

/** The nonce that AWS Marketplace signed for this product; throws NotEntitled where it did not. */
export function verify(token, productCode, keys) {
  const parts = typeof token === "string" && token.length <= TOKEN_CHARS_MAX ? token.split(".") : [];
  if (parts.length !== 3) throw new NotEntitled("there is no signature");
  const [header, claims] = parts.slice(0, 2).map(object);
  if (header.alg !== "PS256") throw new NotEntitled("the signature's algorithm is not PS256");
  const version = claim(claims, "publicKeyVersion", "PublicKeyVersion");
  const pem = [...keys].find(([known]) => String(known) === version)?.[1];
  if (pem === undefined) throw new NotEntitled(`there is no public key of version ${version}`);
  const key = { key: createPublicKey(pem), padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 };
  if (!verifySignature("sha256", Buffer.from(`${parts[0]}.${parts[1]}`), key, decode(parts[2]))) {
    throw new NotEntitled("the signature does not verify");
  }
  if (claim(claims, "productCode", "ProductCode") !== productCode) {
    throw new NotEntitled("the signature is for another product");
  }
  return claim(claims, "nonce", "Nonce");
}

async function ask(url, body) {
  let status, text;
  try {
    const answer = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      redirect: "error",
      signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
    });
    [status, text] = [answer.status, await readText(answer.body)];
  } catch (error) {
    throw new NotEntitled(`the sidecar does not answer: ${error.cause?.message ?? error.message}`);
  }
  if (status !== 200) throw new NotEntitled(`the sidecar answers ${status}: ${text.trim()}`);
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new NotEntitled("the sidecar's answer is not JSON");
  }
  if (answer === null || typeof answer !== "object") throw new NotEntitled("the sidecar's answer is not an object");
  return answer;
}

async function readText(stream) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of stream ?? []) {
    bytes += chunk.length;
    if (bytes > ANSWER_BYTES_MAX) throw new Error(`the answer is longer than ${ANSWER_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** tollgate's own nonce: tg1-RANDOM-COMMITMENT, see docs/proof.md. */
function commitsTo(nonce, productCode, identity) {
  if (identity === undefined || nonce.length !== 49 || !nonce.startsWith("tg1-")) return false;
  const hash = createHash("sha256").update("tollgate nonce 1");
  for (const part of [nonce.slice(4, 26), productCode, identity]) {
    const bytes = Buffer.from(part);
    const length = Buffer.alloc(8);
    length.writeBigUInt64BE(BigInt(bytes.length));
    hash.update(length).update(bytes);
  }
  return nonce.slice(27) === hash.digest().subarray(0, 16).toString("base64url");
}

function claim(claims, ...spellings) {
  const values = new Set(spellings.filter((name) => Object.hasOwn(claims, name)).map((name) => String(claims[name])));
  if (values.size !== 1) throw new NotEntitled(`the signature has no single ${spellings[0]}`);
  return [...values][0];
}

function object(part) {
  let value;
  try {
    value = JSON.parse(decode(part).toString("utf8"));
  } catch {
    throw new NotEntitled("the signature is not a JWT");
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new NotEntitled("the signature is not a JWT");
  }
  return value;
}

function decode(part) {
  if (!/^[-_A-Za-z0-9]+$/.test(part)) throw new NotEntitled("the signature is not a JWT");
  return Buffer.from(part, "base64url");
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      product: { type: "string" },
      key: { type: "string", multiple: true },
      "nonce-file": { type: "string" },
      identity: { type: "string" },
      challenge: { type: "string" },
    },
  });
  const keys = new Map(
    (values.key ?? []).map((entry) => {
      const [version, path] = entry.split(/=(.*)/s);
      return [Number(version), readFileSync(path, "utf8")];
    }),
  );
  const nonce = values["nonce-file"] && readFileSync(values["nonce-file"], "utf8").trim();
  try {
    if (values.challenge !== undefined) {
      await challenge(values.challenge, values.product, keys);
    } else {
      const status = JSON.parse(readFileSync(positionals[0] ?? "/run/tollgate/status.json", "utf8"));
      check(status, values.product, keys, { nonce, identity: values.identity });
    }
  } catch (error) {
    if (!(error instanceof NotEntitled)) throw error;
    console.error(`not entitled: ${error.message}`);
    process.exit(1);
  }
  console.log(`entitled: ${values.product}`);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await main();
