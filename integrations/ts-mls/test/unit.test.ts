import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { getCiphersuiteFromName, getCiphersuiteImpl } from "ts-mls";
import { signWithLabel } from "ts-mls/crypto/signature.js";

import { Service, ServiceError, hpkeHandle, parseHandle, signHandle, withService } from "../src/index.js";
import { reasons } from "../src/errors.js";
import { parseLabelled } from "../src/labelled.js";

const plain = await getCiphersuiteImpl(getCiphersuiteFromName("MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"));
const text = (b: Uint8Array) => new TextDecoder().decode(b);

test("what the library has signed is taken apart", async () => {
  for (const length of [0, 1, 63, 64, 16383, 16384, 100_000]) {
    const content = new Uint8Array(length).fill(7);
    const whole = await signWithLabel(new Uint8Array(), "LeafNodeTBS", content, { ...plain.signature, sign: async (_, m) => m });
    assert.deepEqual(parseLabelled(whole), { label: "LeafNodeTBS", content });
    assert.throws(() => parseLabelled(Uint8Array.of(...whole.subarray(0, 200), 0)), TypeError);
  }
});

test("what is cut off, too long, or of another protocol is refused", () => {
  const whole = new TextEncoder().encode("\x13MLS 1.0 LeafNodeTBS\x02hi");
  assert.deepEqual(parseLabelled(whole).label, "LeafNodeTBS");
  for (let n = 0; n < whole.length; n++) assert.throws(() => parseLabelled(whole.subarray(0, n)), TypeError);
  assert.throws(() => parseLabelled(Uint8Array.of(...whole, 0)), TypeError);
  assert.throws(() => parseLabelled(new TextEncoder().encode("\x13MLS 1.1 LeafNodeTBS\x02hi")), TypeError);
  for (const length of [[0x40, 0x13], [0x80, 0, 0, 0x13], [0xc0, 0, 0, 0, 0, 0, 0, 0x13]]) {
    assert.throws(() => parseLabelled(Uint8Array.of(...length, ...whole.subarray(1))), TypeError);
  }
  for (let i = 0; i < 2000; i++) {
    const noise = crypto.getRandomValues(new Uint8Array(i % 40));
    assert.throws(() => parseLabelled(noise), TypeError);
  }
});

test("a handle is distinguished from a key", () => {
  const ref = new Uint8Array(32).fill(0xab);
  assert.deepEqual(parseHandle(signHandle("a:b\nc")), { purpose: "sign", identity: "a:b\nc" });
  assert.deepEqual(parseHandle(hpkeHandle("init", ref)), { purpose: "init", ref });
  assert.deepEqual(parseHandle(hpkeHandle("leaf", ref)), { purpose: "leaf", ref });
  for (const other of ["", "hsm-kp:", "hsm-kp:sign:", "hsm-kp:init:abcd", "hsm-kp:init:" + "zz".repeat(32), "HSM-KP:sign:a"]) {
    assert.equal(parseHandle(new TextEncoder().encode(other)), undefined, other);
  }
  for (let i = 0; i < 1000; i++) assert.equal(parseHandle(crypto.getRandomValues(new Uint8Array(32 + (i % 35)))), undefined);
});

test("a handle is for its purpose alone, and keys of the library stay the library's", async () => {
  const service = new Service({ socket: "/nowhere", attempts: 1 });
  const cs = withService(plain, service);
  const ref = new Uint8Array(32);
  const info = (label: string) => new TextEncoder().encode(`${String.fromCharCode(label.length + 8)}MLS 1.0 ${label}\x00`);
  const init = await cs.hpke.importPrivateKey(hpkeHandle("init", ref));
  assert.deepEqual(await cs.hpke.exportPrivateKey(init), hpkeHandle("init", ref));
  const none = new Uint8Array();
  await assert.rejects(cs.hpke.open(init, none, none, info("UpdatePathNode")), /does not open/);
  await assert.rejects(cs.hpke.open(init, none, none, none), TypeError);
  await assert.rejects(cs.hpke.open(init, none, none, info("Welcome"), Uint8Array.of(1)), /additional data/);
  await assert.rejects(cs.hpke.open(init, none, none, info("Welcome")), (err) => err instanceof ServiceError && err.code === "unavailable");
  await assert.rejects(cs.hpke.importSecret(init, none, none, 32, none), TypeError);
  await assert.rejects(cs.hpke.importPrivateKey(signHandle("alice")), TypeError);
  await assert.rejects(cs.signature.sign(hpkeHandle("leaf", ref), none), TypeError);
  await assert.rejects(cs.signature.sign(new Uint8Array(32), info("LeafNodeTBS")), TypeError);
  assert.throws(() => cs.hpke.generateKeyPair(), TypeError);
  assert.throws(() => cs.signature.keygen(), TypeError);

  const { privateKey, publicKey } = await cs.hpke.deriveKeyPair(new Uint8Array(32).fill(1));
  const exported = await cs.hpke.exportPrivateKey(privateKey);
  const { enc, ct } = await cs.hpke.seal(publicKey, new TextEncoder().encode("path secret"), info("UpdatePathNode"));
  const opened = await cs.hpke.open(await cs.hpke.importPrivateKey(exported), enc, ct, info("UpdatePathNode"));
  assert.equal(text(opened), "path secret");
});

test("the reasons are those of the API", () => {
  const proto = readFileSync(new URL("../../../../api/hsmkp/v1/hsmkp.proto", import.meta.url), "utf8");
  const numbers = [...proto.matchAll(/^  REASON_(\w+) = (\d+);/gm)].map(([, name, number]) => [name, Number(number)]);
  assert.deepEqual(numbers, reasons.map((name, number) => [name, number]));
});

type Answer = [status: number, body: string] | "cut off" | "late";

/** Runs a service that answers each request with the next of answers; returns how many requests it had. */
async function answering(answers: Answer[], run: (service: Service) => Promise<unknown>): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), "hsm-kp-"));
  let asked = 0;
  const server = http.createServer((_, response) => {
    const answer = answers[Math.min(asked++, answers.length - 1)]!;
    if (answer === "late") return;
    if (answer === "cut off") {
      response.writeHead(200, { "Content-Length": 100 }).write("{", () => response.destroy());
      return;
    }
    const [status, body] = answer;
    response.writeHead(status, { "Content-Type": "application/json" }).end(body);
  });
  const socket = join(dir, "s.sock");
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  const service = new Service({ socket, timeout: 1000 });
  try {
    await run(service);
  } finally {
    service.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    rmSync(dir, { recursive: true });
  }
  return asked;
}

const detail = (value: string) => `{"code":"unavailable","message":"the token cannot be used","details":[{"type":"hsmkp.v1.ErrorDetail","value":"${value}"}]}`;
const away: [number, string] = [503, detail("CA4")]; // reason 14

test("what changes nothing is repeated while the service is unavailable, and nothing else is", async () => {
  const kp = '{"ref":"AA==","identity":"alice","cipherSuite":1,"state":"STATE_AVAILABLE","notBefore":"2026-01-01T00:00:00Z","notAfter":"2026-02-01T00:00:00Z"}';
  const ref = new Uint8Array(32);
  const none = new Uint8Array();
  const request = { ref, label: "Welcome", context: none, kemOutput: none, ciphertext: none };
  const repeated: [string, (s: Service) => Promise<unknown>][] = [
    [`{"keyPackage":${kp}}`, (s) => s.get(ref)],
    ['{"signature":"AAAA"}', (s) => s.signWithLabel("alice", "LeafNodeTBS", none)],
    ['{"plaintext":"AAAA"}', (s) => s.decryptWithLabel(request)],
    ['{"state":"STATE_CONSUMED"}', (s) => s.confirmWelcome(ref, ref)],
  ];
  for (const [answer, run] of repeated) assert.equal(await answering([away, away, [200, answer]], run), 3);
  const once: ((s: Service) => Promise<unknown>)[] = [
    (s) => s.claim("alice"),
    (s) => s.releaseWelcome(ref, ref),
  ];
  for (const run of once) {
    const failed = async (s: Service) =>
      assert.rejects(run(s), (err) => err instanceof ServiceError && err.code === "unavailable" && err.reason === "TOKEN");
    assert.equal(await answering([away], failed), 1);
  }
  assert.equal(await answering([away], (s) => assert.rejects(s.get(ref), ServiceError)), 4);
});

test("answers that are none of the service's are errors", async () => {
  const get = (code: string) => (s: Service) =>
    assert.rejects(s.get(new Uint8Array(32)), (err) => err instanceof ServiceError && err.code === code && err.reason === "UNSPECIFIED");
  assert.equal(await answering([[200, "<html>"]], get("unknown")), 1);
  assert.equal(await answering([[404, "not found"]], get("unknown")), 1);
  assert.equal(await answering([[502, "bad gateway"]], get("unavailable")), 4);
  assert.equal(await answering(["cut off"], get("unavailable")), 4);
  assert.equal(await answering(["late"], get("deadline_exceeded")), 1);
  assert.equal(await answering([[400, '{"code":"invalid_argument","details":[{"type":"other","value":"CAE"},7]}']], get("invalid_argument")), 1);
});
