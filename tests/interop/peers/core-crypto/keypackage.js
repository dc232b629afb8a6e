// Key packages with private keys, in the form that core-crypto uses in the data of a HistorySecret:
// MessagePack, structs as arrays, byte strings as arrays of numbers. The form is not documented; it was
// derived from a secret that the library made.

import { Unsupported } from "../node/protocol.js";

const suiteNames = {
  1: "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519",
  2: "MLS_128_DHKEMP256_AES128GCM_SHA256_P256",
  3: "MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519",
  5: "MLS_256_DHKEMP521_AES256GCM_SHA512_P521",
  7: "MLS_256_DHKEMP384_AES256GCM_SHA384_P384",
};

// The library's names, by number, of what capabilities list.
const versionNames = { 1: "Mls10" };
const credentialNames = { 1: "Basic", 2: "X509" };
const extensionNames = {
  1: "ApplicationId",
  2: "RatchetTree",
  3: "RequiredCapabilities",
  4: "ExternalPub",
  5: "ExternalSenders",
  10: "PerDomainTrustAnchor",
};
const proposalNames = {
  1: "Add",
  2: "Update",
  3: "Remove",
  4: "PreSharedKey",
  5: "Reinit",
  6: "ExternalInit",
  7: "GroupContextExtensions",
  8: "AppAck",
};

/** Reads the presentation language of RFC 9420, Section 2. */
class Reader {
  #bytes;
  #offset = 0;

  constructor(bytes) {
    this.#bytes = bytes;
  }

  get done() {
    return this.#offset === this.#bytes.length;
  }

  take(length) {
    if (length > this.#bytes.length - this.#offset) {
      throw new Error("the key package ends early");
    }
    this.#offset += length;
    return this.#bytes.subarray(this.#offset - length, this.#offset);
  }

  number(length) {
    return this.take(length).reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  }

  uint16() {
    return Number(this.number(2));
  }

  /** A variable-size vector's bytes. */
  vector() {
    const first = this.take(1)[0];
    const size = 1 << (first >> 6);
    if (size === 8) {
      throw new Error("the key package has a length of eight bytes");
    }
    const rest = this.number(size - 1);
    return this.take(Number((BigInt(first & 0x3f) << BigInt(8 * (size - 1))) | rest));
  }

  /** A variable-size vector's elements, each read by a function of a Reader. */
  list(element) {
    const inner = new Reader(this.vector());
    const elements = [];
    while (!inner.done) {
      elements.push(element(inner));
    }
    return elements;
  }
}

/** Reads a number that is stored as a name, or as "Unknown" with the number. */
const numbered = (names) => (reader) => {
  const number = reader.uint16();
  return names[number] ?? { Unknown: number };
};

function known(names, number, what) {
  if (names[number] === undefined) {
    throw new Error(`core-crypto's stored form has no ${what} ${number}`);
  }
  return names[number];
}

function extension(reader) {
  const type = reader.uint16();
  const data = reader.vector();
  if (type === 1) {
    return { ApplicationId: [[new Reader(data).vector()]] };
  }
  // The library has its own forms for some others; it writes this one back unchanged.
  return { Unknown: [type, data] };
}

function credential(reader) {
  if (reader.uint16() !== 1) {
    throw new Unsupported("a stored credential that is not basic needs trust anchors");
  }
  const identity = reader.vector();
  return { identity, stored: ["Basic", { Basic: [[identity]] }] };
}

function leafNode(reader) {
  const encryptionKey = reader.vector();
  const signatureKey = reader.vector();
  const leafCredential = credential(reader);
  const capabilities = [
    reader.list((r) => known(versionNames, r.uint16(), "version")),
    reader.list((r) => r.uint16()),
    reader.list(numbered(extensionNames)),
    reader.list(numbered(proposalNames)),
    reader.list(numbered(credentialNames)),
  ];
  if (reader.number(1) !== 1n) {
    throw new Error("the leaf node is not of a key package");
  }
  const source = { KeyPackage: [reader.number(8), reader.number(8)] };
  const payload = [[[encryptionKey]], [[signatureKey]], leafCredential.stored, capabilities, source, [reader.list(extension)]];
  const { identity } = leafCredential;
  return { encryptionKey, signatureKey, identity, stored: [payload, [[reader.vector()]]] };
}

/** Reads a bare key package. */
export function readKeyPackage(bytes) {
  const reader = new Reader(bytes);
  const version = known(versionNames, reader.uint16(), "version");
  const suite = reader.uint16();
  const suiteName = known(suiteNames, suite, "cipher suite");
  const initKey = reader.vector();
  const leaf = leafNode(reader);
  const payload = [version, suiteName, [initKey], leaf.stored, [reader.list(extension)]];
  const stored = [payload, [[reader.vector()]]];
  if (!reader.done) {
    throw new Error("bytes follow the key package");
  }
  return { ...leaf, suite, stored };
}

/** The data of a HistorySecret with a key package (from readKeyPackage) and its keys. */
export function historySecretData(keyPackage, initPrivateKey, encryptionPrivateKey) {
  const clientId = new TextEncoder().encode("history-client:");
  const encryptionKeyPair = [[[keyPackage.encryptionKey]], [[encryptionPrivateKey]]];
  const out = [];
  messagePack([clientId, [keyPackage.stored, encryptionKeyPair, [initPrivateKey]]], out);
  return Uint8Array.from(out);
}

/** Appends a value's MessagePack to an array of bytes. */
function messagePack(value, out) {
  const big = (number, length) => {
    for (let i = length - 1; i >= 0; i--) {
      out.push(Number((BigInt(number) >> BigInt(8 * i)) & 0xffn));
    }
  };
  if (typeof value === "number" || typeof value === "bigint") {
    if (value < 128) {
      out.push(Number(value));
    } else {
      out.push(0xcf);
      big(value, 8);
    }
  } else if (typeof value === "string") {
    const bytes = new TextEncoder().encode(value);
    out.push(0xd9, bytes.length, ...bytes);
  } else if (Array.isArray(value) || value instanceof Uint8Array) {
    out.push(0xdd);
    big(value.length, 4);
    for (const element of value) {
      messagePack(element, out);
    }
  } else {
    const entries = Object.entries(value);
    out.push(0x80 | entries.length);
    for (const [key, element] of entries) {
      messagePack(key, out);
      messagePack(element, out);
    }
  }
}
