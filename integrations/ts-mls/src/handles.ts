// Handles, which replace private keys in ts-mls. They cannot be mistaken for a private key that the library
// derived: that is 32 or more random bytes, and a handle begins with eight fixed ones.

/** A private key that the service has. */
export type Handle =
  | { purpose: "sign"; identity: string }
  | { purpose: "init" | "leaf"; ref: Uint8Array };

const prefix = "hsm-kp:";

/** The handle of the signature key of an identity. */
export function signHandle(identity: string): Uint8Array {
  return new TextEncoder().encode(`${prefix}sign:${identity}`);
}

/** The handle of the private key of a key package's init key or leaf. */
export function hpkeHandle(purpose: "init" | "leaf", ref: Uint8Array): Uint8Array {
  return new TextEncoder().encode(`${prefix}${purpose}:${Buffer.from(ref).toString("hex")}`);
}

/** Parses a handle; undefined if the bytes are not one. */
export function parseHandle(bytes: Uint8Array): Handle | undefined {
  const text = Buffer.from(bytes).toString("utf8");
  const [, purpose, rest] = /^hsm-kp:(sign|init|leaf):(.+)$/s.exec(text) ?? [];
  if (rest === undefined) return undefined;
  if (purpose === "sign") return { purpose, identity: rest };
  if (!/^([0-9a-f]{2}){32,64}$/.test(rest)) return undefined;
  return { purpose: purpose === "init" ? "init" : "leaf", ref: new Uint8Array(Buffer.from(rest, "hex")) };
}
