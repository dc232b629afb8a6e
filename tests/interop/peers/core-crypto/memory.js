// Replaces the key pair of a credential that core-crypto made. The library cannot import one, so this code
// writes to its WebAssembly memory, but only after it has verified that the place holds the key pair.

import { createECDH, createPrivateKey, createPublicKey } from "node:crypto";

const curves = { 2: "prime256v1", 5: "secp521r1", 7: "secp384r1" };
const privateKeyLengths = { 1: 32, 2: 32, 3: 32, 5: 66, 7: 48 };

/** The public key that belongs to a private one, uncompressed for ECDSA. */
function publicKey(suite, privateKey) {
  if (curves[suite] === undefined) {
    // PKCS #8 (RFC 8410, Section 7) around the seed.
    const prefix = Buffer.from("302e020100300506032b657004220420", "hex");
    const key = createPrivateKey({ key: Buffer.concat([prefix, privateKey]), format: "der", type: "pkcs8" });
    return Buffer.from(createPublicKey(key).export({ format: "jwk" }).x, "base64url");
  }
  const ecdh = createECDH(curves[suite]);
  ecdh.setPrivateKey(privateKey);
  return ecdh.getPublicKey();
}

/** Whether a private key belongs to a public one. */
function belongs(suite, privateKey, expected) {
  try {
    return publicKey(suite, privateKey).equals(expected);
  } catch {
    return false; // not a private key at all
  }
}

/** The addresses at which bytes begin in memory. */
function* find(memory, bytes) {
  for (let at = memory.indexOf(bytes); at >= 0; at = memory.indexOf(bytes, at + 1)) {
    yield at;
  }
}

/**
 * Replaces the key pair whose public key is oldPublicKey.
 *
 * @param memory the instance's WebAssembly.Memory
 */
export function replaceKeyPair(memory, suite, oldPublicKey, newPrivateKey, newPublicKey) {
  const length = privateKeyLengths[suite];
  if (newPrivateKey.length !== length) {
    throw new Error(`the signature private key has ${newPrivateKey.length} bytes, not ${length}`);
  }
  if (!belongs(suite, newPrivateKey, Buffer.from(newPublicKey))) {
    throw new Error("the signature private key does not belong to the key package, or its public key is compressed");
  }
  const bytes = Buffer.from(memory.buffer);
  const address = Buffer.alloc(4);
  for (const publicAt of find(bytes, oldPublicKey)) {
    // The owner of the public key's bytes points to them, and beside that is a pointer to the private
    // key's.
    address.writeUInt32LE(publicAt);
    for (const pointerAt of find(bytes, address)) {
      const from = Math.max(0, pointerAt - 32);
      const to = Math.min(bytes.length - 4, pointerAt + 32);
      for (let at = from; at <= to; at += 4) {
        const privateAt = bytes.readUInt32LE(at);
        const candidate = bytes.subarray(privateAt, privateAt + length);
        if (candidate.length === length && belongs(suite, candidate, oldPublicKey)) {
          candidate.set(newPrivateKey);
          bytes.set(newPublicKey, publicAt);
          return;
        }
      }
    }
  }
  throw new Error("the credential's key pair was not found in core-crypto's memory");
}
