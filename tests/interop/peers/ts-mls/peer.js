// The peer ts-mls. ../README.md describes its protocol.

import { randomBytes, randomUUID } from "node:crypto";

import {
  ciphersuites,
  createApplicationMessage,
  createCommit,
  createGroup,
  decodeMlsMessage,
  defaultCapabilities,
  defaultLifetime,
  emptyPskIndex,
  encodeMlsMessage,
  generateKeyPackage,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  joinGroup,
  processMessage,
} from "ts-mls";
// The package's "exports" allow these imports, but what is used of them is not marked as public.
import { makeKeyPackageRef, verifyKeyPackage } from "ts-mls/keyPackage.js";
import { verifyLeafNodeSignatureKeyPackage } from "ts-mls/leafNode.js";
import { decodeRatchetTree } from "ts-mls/ratchetTree.js";

import { Groups, Unsupported, fromHex, installedVersion, serve, toHex } from "../node/protocol.js";

const groups = new Groups();

/** The library's implementation of the suite with this number. */
async function suite(number) {
  const name = Object.keys(ciphersuites).find((key) => ciphersuites[key] === number);
  if (name === undefined) {
    throw new Unsupported(`ts-mls has no cipher suite ${number}`);
  }
  return getCiphersuiteImpl(getCiphersuiteFromName(name));
}

/** Decodes with one of the library's decoders, which may leave bytes and may return nothing. */
function decode(decoder, bytes, what) {
  const decoded = decoder(bytes, 0);
  if (decoded === undefined) {
    throw new Error(`ts-mls could not decode the ${what}`);
  }
  const [value, end] = decoded;
  if (end !== bytes.length) {
    throw new Error(`ts-mls decoded ${end} of ${bytes.length} bytes of the ${what}`);
  }
  return value;
}

/** Decodes an MLSMessage that must be of a certain wire format. */
function decodeMessage(bytes, what, ...wireformats) {
  const message = decode(decodeMlsMessage, bytes, what);
  if (!wireformats.includes(message.wireformat)) {
    throw new Error(`the ${what} is a ${message.wireformat}`);
  }
  return message;
}

function decodeKeyPackage(request) {
  const bytes = fromHex(request.keyPackage, "keyPackage");
  return decodeMessage(bytes, "key package", "mls_key_package").keyPackage;
}

/** A fresh client's key package. */
function ownKeyPackage(cs) {
  // In the form of core-crypto's client identifiers, so that it can be a member of the same groups.
  const device = randomBytes(8).toString("hex");
  const identity = new TextEncoder().encode(`${randomUUID()}:${device}@ts-mls.example`);
  const credential = { credentialType: "basic", identity };
  return generateKeyPackage(credential, defaultCapabilities(), defaultLifetime, [], cs);
}

/** The private HPKE keys of devices, by the names given to the driver. */
const devices = new Groups();

/** The info of what is released for a key package: docs/FORMATS.md, "Released private keys". */
function releaseInfo(number, ref) {
  const label = new TextEncoder().encode("hsm-kp released private keys");
  const length = ref.length < 0x40 ? [ref.length] : [0x40 | (ref.length >> 8), ref.length & 0xff];
  return new Uint8Array([label.length, ...label, 1, number >> 8, number & 0xff, ...length, ...ref]);
}

/** opaque<V> (RFC 9420, Section 2.1.2), and what follows it. */
function vector(bytes) {
  const long = bytes[0] >> 6 === 1;
  const start = long ? 2 : 1;
  const end = start + (long ? ((bytes[0] & 0x3f) << 8) | bytes[1] : bytes[0]);
  return [bytes.slice(start, end), bytes.slice(end)];
}

/** What the library makes of a message to a group. */
function processed(group, request) {
  const bytes = fromHex(request.message, "message");
  const message = decodeMessage(bytes, "message", "mls_private_message", "mls_public_message");
  return processMessage(message, group.state, emptyPskIndex, () => "accept", group.cs);
}

await serve(async (askSignature) => ({
  async hello() {
    return {
      name: "ts-mls",
      version: await installedVersion(import.meta.url, "ts-mls"),
      suites: Object.values(ciphersuites),
      signer: "external",
      notes: [
        "validate checks the two signatures only: the library's other checks need a group.",
        "The functions that check these signatures, and the decoder of ratchet trees, are exported but not marked as public.",
        "The decoders do not refuse bytes that follow what they decode, but report how many they used: the peer refuses them.",
        "Members request signatures through a replaced signature.sign of the CiphersuiteImpl, which is public.",
      ],
    };
  },

  async keyPackage(request) {
    const { publicPackage } = await ownKeyPackage(await suite(request.suite));
    const message = { version: "mls10", wireformat: "mls_key_package", keyPackage: publicPackage };
    return { keyPackage: toHex(encodeMlsMessage(message)) };
  },

  async validate(request) {
    const cs = await suite(request.suite);
    const keyPackage = decodeKeyPackage(request);
    if (keyPackage.cipherSuite !== cs.name) {
      throw new Error(`the key package is of ${keyPackage.cipherSuite}`);
    }
    if (!(await verifyLeafNodeSignatureKeyPackage(keyPackage.leafNode, cs.signature))) {
      throw new Error("the leaf node's signature does not verify");
    }
    if (!(await verifyKeyPackage(keyPackage, cs.signature))) {
      throw new Error("the key package's signature does not verify");
    }
    return {};
  },

  async add(request) {
    const cs = await suite(request.suite);
    const keyPackage = decodeKeyPackage(request);
    const own = await ownKeyPackage(cs);
    const group = await createGroup(randomBytes(16), own.publicPackage, own.privatePackage, [], cs);
    const { newState, welcome } = await createCommit(
      { state: group, cipherSuite: cs },
      { extraProposals: [{ proposalType: "add", add: { keyPackage } }], ratchetTreeExtension: true },
    );
    return {
      group: groups.add({ cs, state: newState }),
      welcome: toHex(encodeMlsMessage({ version: "mls10", wireformat: "mls_welcome", welcome })),
      epochAuthenticator: toHex(newState.keySchedule.epochAuthenticator),
    };
  },

  async join(request) {
    const own = await suite(request.suite);
    // The signature key stays with the driver.
    const cs = {
      ...own,
      signature: { ...own.signature, sign: (_key, content) => askSignature(content) },
    };
    const privateKeys = {
      initPrivateKey: fromHex(request.initPrivateKey, "initPrivateKey"),
      hpkePrivateKey: fromHex(request.encryptionPrivateKey, "encryptionPrivateKey"),
      signaturePrivateKey: new Uint8Array(),
    };
    const tree =
      request.ratchetTree === undefined
        ? undefined
        : decode(decodeRatchetTree, fromHex(request.ratchetTree, "ratchetTree"), "ratchet tree");
    const state = await joinGroup(
      decodeMessage(fromHex(request.welcome, "welcome"), "Welcome", "mls_welcome").welcome,
      decodeKeyPackage(request),
      privateKeys,
      emptyPskIndex,
      cs,
      tree,
    );
    return {
      group: groups.add({ cs, state }),
      epochAuthenticator: toHex(state.keySchedule.epochAuthenticator),
    };
  },

  async releaseKey(request) {
    const cs = await suite(request.suite);
    const { privateKey, publicKey } = await cs.hpke.generateKeyPair();
    return { device: devices.add(privateKey), data: toHex(await cs.hpke.exportPublicKey(publicKey)) };
  },

  async openReleased(request) {
    const cs = await suite(request.suite);
    const plaintext = await cs.hpke.open(
      devices.get(request.device),
      fromHex(request.enc, "enc"),
      fromHex(request.ciphertext, "ciphertext"),
      releaseInfo(request.suite, await makeKeyPackageRef(decodeKeyPackage(request), cs.hash)),
    );
    const [initKey, rest] = vector(plaintext);
    const [encryptionKey, end] = vector(rest);
    if (end.length > 0) {
      throw new Error(`${end.length} bytes follow the private keys`);
    }
    return { initPrivateKey: toHex(initKey), encryptionPrivateKey: toHex(encryptionKey) };
  },

  async commit(request) {
    const group = groups.get(request.group);
    // Without proposals, the library commits with a path.
    const { newState, commit } = await createCommit(
      { state: group.state, cipherSuite: group.cs },
      { wireAsPublicMessage: request.public === true },
    );
    group.state = newState;
    return {
      message: toHex(encodeMlsMessage(commit)),
      epochAuthenticator: toHex(newState.keySchedule.epochAuthenticator),
    };
  },

  async process(request) {
    const group = groups.get(request.group);
    const { kind, newState } = await processed(group, request);
    if (kind !== "newState" || newState.groupContext.epoch === group.state.groupContext.epoch) {
      throw new Error("the message is not a commit");
    }
    group.state = newState;
    return { epochAuthenticator: toHex(newState.keySchedule.epochAuthenticator) };
  },

  async send(request) {
    const group = groups.get(request.group);
    const data = fromHex(request.data, "data");
    const { newState, privateMessage } = await createApplicationMessage(group.state, data, group.cs);
    group.state = newState;
    const message = { version: "mls10", wireformat: "mls_private_message", privateMessage };
    return { message: toHex(encodeMlsMessage(message)) };
  },

  async receive(request) {
    const group = groups.get(request.group);
    const result = await processed(group, request);
    group.state = result.newState;
    if (result.kind !== "applicationMessage") {
      throw new Error("the message carried no application data");
    }
    return { data: toHex(result.message) };
  },
}));
