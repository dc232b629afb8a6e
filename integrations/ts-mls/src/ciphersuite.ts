import {
  defaultCryptoProvider,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  type CiphersuiteImpl,
  type CiphersuiteName,
  type CryptoProvider,
  type Hpke,
  type PrivateKey,
  type Signature,
} from "ts-mls";

import { parseHandle, type Handle } from "./handles.js";
import { parseLabelled } from "./labelled.js";
import type { Decrypted, PreSharedKey, Service } from "./service.js";

type HPKEHandle = Extract<Handle, { ref: Uint8Array }>;

/** What a Welcome needs and results in, for joinFromWelcome. */
export interface Opening {
  psks: PreSharedKey[];
  opened?: Decrypted;
}

/** The library's implementation of a cipher suite, with the service as signer and HPKE opener. */
export async function ciphersuite(
  service: Service,
  name: CiphersuiteName,
  provider: CryptoProvider = defaultCryptoProvider,
): Promise<CiphersuiteImpl> {
  return withService(await getCiphersuiteImpl(getCiphersuiteFromName(name), provider), service);
}

/**
 * A CiphersuiteImpl with which the service signs and opens what is encrypted to a key package. Everything else is as in
 * base, including HPKE with the private keys that the library derives from path secrets.
 */
export function withService(base: CiphersuiteImpl, service: Service, opening?: Opening): CiphersuiteImpl {
  return { ...base, signature: signatureOf(base.signature, service), hpke: hpkeOf(base.hpke, service, opening) };
}

function signatureOf(base: Signature, service: Service): Signature {
  return {
    ...base,
    async sign(signKey, message) {
      const handle = parseHandle(signKey);
      if (handle?.purpose !== "sign") throw new TypeError("the signature key is not a handle of hsm-kp");
      const { label, content } = parseLabelled(message);
      return service.signWithLabel(handle.identity, label, content);
    },
    keygen: generated,
  };
}

function hpkeOf(base: Hpke, service: Service, opening?: Opening): Hpke {
  const handles = new WeakMap<PrivateKey, HPKEHandle>();
  const exported = new WeakMap<PrivateKey, Uint8Array>();
  return {
    ...base,
    async importPrivateKey(bytes) {
      const handle = parseHandle(bytes);
      if (handle === undefined) return base.importPrivateKey(bytes);
      if (handle.purpose === "sign") throw new TypeError("a signature key is not an HPKE key");
      const key = Object.freeze({ type: "private", algorithm: { name: "hsm-kp" }, extractable: false, usages: [] }) as unknown as PrivateKey;
      handles.set(key, handle);
      exported.set(key, bytes.slice());
      return key;
    },
    async exportPrivateKey(key) {
      return exported.get(key)?.slice() ?? base.exportPrivateKey(key);
    },
    async open(key, kemOutput, ciphertext, info, aad) {
      const handle = handles.get(key);
      if (handle === undefined) return base.open(key, kemOutput, ciphertext, info, aad);
      if (aad !== undefined && aad.length > 0) throw new TypeError("additional data with a handle of hsm-kp");
      return openWith(service, handle, { kemOutput, ciphertext, info }, opening);
    },
    async importSecret(key, exporterContext, kemOutput, length, info) {
      // For external commits, which use a key that the library derives.
      if (handles.has(key)) throw new TypeError("a handle of hsm-kp exports no secrets");
      return base.importSecret(key, exporterContext, kemOutput, length, info);
    },
    generateKeyPair: generated,
  };
}

/** The label that each private key of a key package is for. */
const labels = { init: "Welcome", leaf: "UpdatePathNode" } as const;

async function openWith(
  service: Service,
  { purpose, ref }: HPKEHandle,
  { kemOutput, ciphertext, info }: { kemOutput: Uint8Array; ciphertext: Uint8Array; info: Uint8Array },
  opening?: Opening,
): Promise<Uint8Array> {
  const { label, content } = parseLabelled(info);
  if (label !== labels[purpose]) throw new TypeError(`the ${purpose} key does not open a ${label}`);
  const psks = purpose === "init" ? (opening?.psks ?? []) : [];
  const decrypted = await service.decryptWithLabel({ ref, label, context: content, kemOutput, ciphertext, psks });
  if (purpose === "init" && opening !== undefined) opening.opened = decrypted;
  return decrypted.plaintext;
}

/** The library generates keys only for key packages. */
function generated(): never {
  throw new TypeError("key packages and their keys are made by hsm-kp, not by the library");
}
