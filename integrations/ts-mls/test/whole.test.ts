// The whole way with a running service, which `make integrations` starts: see ../README.md.

import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { p256, p384, p521 } from "@noble/curves/nist.js";
import {
  bytesToBase64,
  ciphersuites,
  createApplicationMessage,
  createCommit,
  createGroup,
  createProposal,
  decodeGroupState,
  defaultCapabilities,
  defaultLifetime,
  emptyPskIndex,
  encodeGroupState,
  encodeMlsMessage,
  generateKeyPackageWithKey,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  joinGroup,
  makePskIndex,
  processMessage,
  type CiphersuiteImpl,
  type CiphersuiteName,
  type ClientState,
  type KeyPackage,
  type MLSMessage,
  type Proposal,
} from "ts-mls";
import { defaultClientConfig } from "ts-mls/clientConfig.js";
import { decodeKeyPackage } from "ts-mls/keyPackage.js";

import { Service, ServiceError, ciphersuite, hpkeHandle, joinFromWelcome, parseHandle, signHandle } from "../src/index.js";

const env = (name: string) => process.env[`HSM_KP_TEST_${name}`] ?? "";
/** An external pre-shared key, which the service needs to check the Welcome. */
const psk = { id: Uint8Array.of(7), secret: new Uint8Array(32).fill(9) };

const skip = env("URL") === "" && "no service: run by make integrations";

const tls = (caller: string) => ({
  url: env("URL"),
  tls: { certificate: env(`${caller}_CERTIFICATE`), key: env(`${caller}_KEY`), ca: env("CA") },
});

/** A member, no matter who signs for it. */
class Member {
  constructor(
    public state: ClientState,
    readonly cs: CiphersuiteImpl,
  ) {}

  async send(text: string): Promise<MLSMessage> {
    const { newState, privateMessage } = await createApplicationMessage(this.state, new TextEncoder().encode(text), this.cs);
    this.state = newState;
    return { version: "mls10", wireformat: "mls_private_message", privateMessage };
  }

  async commit(...extraProposals: Proposal[]) {
    const { newState, commit, welcome } = await createCommit(
      { state: this.state, cipherSuite: this.cs, pskIndex: makePskIndex(this.state, { [bytesToBase64(psk.id)]: psk.secret }) },
      { extraProposals, ratchetTreeExtension: true },
    );
    this.state = newState;
    return { commit, welcome: welcome! };
  }

  async propose(proposal: Proposal): Promise<MLSMessage> {
    const { newState, message } = await createProposal(this.state, false, proposal, this.cs);
    this.state = newState;
    return message;
  }

  /** The text of a message; undefined if it is a proposal or a commit. */
  async receive(message: MLSMessage): Promise<string | undefined> {
    assert.ok(message.wireformat === "mls_private_message" || message.wireformat === "mls_public_message");
    const result = await processMessage(message, this.state, emptyPskIndex, () => "accept", this.cs);
    this.state = result.newState;
    return result.kind === "applicationMessage" ? new TextDecoder().decode(result.message) : undefined;
  }
}

async function talk(...members: Member[]) {
  for (const from of members) {
    const epoch = from.state.groupContext.epoch;
    const text = `to epoch ${epoch} from ${from.state.privatePath.leafIndex}`;
    const message = await from.send(text);
    for (const to of members) {
      if (to === from) continue;
      assert.equal(to.state.groupContext.epoch, epoch);
      assert.equal(await to.receive(message), text);
    }
  }
}

/** A member with private keys of its own, alone in a group. */
async function founder(cs: CiphersuiteImpl): Promise<Member> {
  const { publicPackage, privatePackage } = await software("bob", cs);
  return new Member(await createGroup(crypto.getRandomValues(new Uint8Array(16)), publicPackage, privatePackage, [], cs), cs);
}

/** The library makes ECDSA keys as compressed points, which RFC 9420 does not allow and the service refuses. */
const curves = { P256: p256, P384: p384, P521: p521 };

async function software(name: string, cs: CiphersuiteImpl) {
  const credential = { credentialType: "basic", identity: new TextEncoder().encode(name) } as const;
  const { signKey, publicKey } = await cs.signature.keygen();
  const curve = Object.entries(curves).find(([curve]) => getCiphersuiteFromName(cs.name).signature === curve)?.[1];
  const pair = { signKey, publicKey: curve?.getPublicKey(signKey, false) ?? publicKey };
  return generateKeyPackageWithKey(credential, defaultCapabilities(), defaultLifetime, [], pair, cs);
}

/** Fetches a key package from the directory that it was published to. */
async function taken(identity: string): Promise<KeyPackage> {
  const id = Buffer.from(identity).toString("base64").replaceAll("+", "-").replaceAll("/", "_");
  const response = await fetch(`${env("DIRECTORY")}/clients/key_package/${id}`);
  assert.equal(response.status, 200);
  return decodeKeyPackage(new Uint8Array(await response.arrayBuffer()), 0)![0];
}

/** Claims a key package from the service. */
async function claimed(service: Service, identity: string): Promise<KeyPackage> {
  const [claim] = await service.claim(identity);
  return decodeKeyPackage(claim!.mlsMessage.subarray(4), 0)![0];
}

interface Route {
  service: Service;
  keyPackage(identity: string): Promise<KeyPackage>;
}

const routes: Record<string, () => Route> = {
  "mutual TLS, from the directory": () => ({ service: new Service(tls("MEMBER")), keyPackage: taken }),
  "Unix socket, claimed": () => {
    const service = new Service({ socket: env("SOCKET") });
    return { service, keyPackage: (identity) => claimed(service, identity) };
  },
};

async function wholeWay(name: CiphersuiteName, identity: string, { service, keyPackage }: Route, out: string) {
  const plain = await getCiphersuiteImpl(getCiphersuiteFromName(name));
  const bob = await founder(plain);
  const add = { proposalType: "add", add: { keyPackage: await keyPackage(identity) } } as const;
  const preSharedKeyId = { psktype: "external", pskId: psk.id, pskNonce: crypto.getRandomValues(new Uint8Array(plain.kdf.size)) } as const;
  const { welcome } = await bob.commit(add, { proposalType: "psk", psk: { preSharedKeyId } });

  // A Welcome that the library refuses does not use up the key package.
  const refuse = { ...defaultClientConfig, authService: { validateCredential: async () => false } };
  await assert.rejects(joinFromWelcome(service, welcome, { psks: [psk], clientConfig: refuse }), /credential/);

  const message = encodeMlsMessage({ version: "mls10", wireformat: "mls_welcome", welcome });
  const joined = await joinFromWelcome(service, message, { psks: [psk] });
  assert.ok(joined.reservedUntil > new Date());
  let alice = new Member(joined.state, joined.cs);
  const { ref } = joined.keyPackage.record;
  const leaf = alice.state.privatePath.leafIndex * 2;
  assert.deepEqual(alice.state.signaturePrivateKey, signHandle(identity));
  assert.deepEqual(alice.state.privatePath.privateKeys[leaf], hpkeHandle("leaf", ref));
  await joined.confirm();
  assert.equal((await service.get(ref)).state, "STATE_CONSUMED");
  await talk(bob, alice);

  // A commit of bob's: its path secret is encrypted to the leaf's key.
  assert.equal(await alice.receive((await bob.commit()).commit), undefined);
  await talk(alice, bob);

  // The member is the same after it was stored and loaded: its handles were stored.
  const stored = encodeGroupState(alice.state);
  writeFileSync(out, stored);
  alice = new Member({ ...decodeGroupState(stored, 0)![0], clientConfig: defaultClientConfig }, await ciphersuite(service, name));
  await talk(bob, alice);

  // alice commits and adds carol: a GroupInfo is signed.
  const own = await software("carol", plain);
  const { commit, welcome: carols } = await alice.commit({ proposalType: "add", add: { keyPackage: own.publicPackage } });
  await bob.receive(commit);
  const carol = new Member(await joinGroup(carols, own.publicPackage, own.privatePackage, emptyPskIndex, plain), plain);
  await talk(alice, bob, carol);

  // alice commits with a path: a leaf with a key of the library is signed.
  const path = (await alice.commit()).commit;
  await bob.receive(path);
  await carol.receive(path);
  await talk(alice, bob, carol);
  assert.equal(parseHandle(alice.state.privatePath.privateKeys[leaf]!), undefined);

  // alice proposes, and bob commits the proposal.
  const proposal = await alice.propose({ proposalType: "remove", remove: { removed: carol.state.privatePath.leafIndex } });
  await bob.receive(proposal);
  await alice.receive((await bob.commit()).commit);
  await talk(alice, bob);
}

/** The suites to test, by the library's names. */
function suites(): [string, CiphersuiteName][] {
  const names = Object.fromEntries(Object.entries(ciphersuites).map(([name, id]) => [String(id), name as CiphersuiteName]));
  return env("SUITES").split(" ").map((number) => [number, names[number]!]);
}

for (const [way, route] of skip ? [] : Object.entries(routes)) {
  for (const [number, name] of suites()) {
    test(`${name}: ${way}`, async () => {
      const r = route();
      try {
        await wholeWay(name, `alice-${number}`, r, join(env("OUT"), `${number} ${way}`));
      } finally {
        r.service.close();
      }
    });
  }
}

test("certificates are read for each connection", { skip }, async () => {
  const dir = mkdtempSync(join(tmpdir(), "hsm-kp-"));
  const { url, tls: given } = tls("MEMBER");
  const files = { ...given, certificate: join(dir, "member.pem") };
  copyFileSync(given.certificate, files.certificate);
  const service = new Service({ url, tls: files, attempts: 1 });
  // No caller may claim for an identity that does not exist: the answer would reveal that it does not.
  const refused = (code: string) => assert.rejects(service.claim("nobody"), (err) => err instanceof ServiceError && err.code === code);
  try {
    await refused("permission_denied");
    writeFileSync(files.certificate, "no certificate");
    await refused("permission_denied");
    service.close();
    await refused("unavailable");
    copyFileSync(given.certificate, files.certificate);
    await refused("permission_denied");
  } finally {
    service.close();
    rmSync(dir, { recursive: true });
  }
});

test("the service's reasons are reported", { skip }, async () => {
  const service = new Service(tls("MEMBER"));
  try {
    await assert.rejects(service.claim("nobody"), (err) => {
      assert.ok(err instanceof ServiceError);
      assert.deepEqual([err.operation, err.code, err.reason], ["Claim", "permission_denied", "NOT_GRANTED"]);
      return true;
    });
  } finally {
    service.close();
  }
});
