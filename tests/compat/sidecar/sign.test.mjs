// The signed requests against which the Rust tests hold tollgate are the ones that this version of the SDK signs.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { render, signed } from "./sign.mjs";

test("the signed requests of the Rust tests are the JavaScript SDK's", async () => {
  assert.equal(readFileSync(signed, "utf8"), await render());
});
