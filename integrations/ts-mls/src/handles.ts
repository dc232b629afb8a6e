// What ts-mls has in the places of private keys. A private key that the library derived itself is
// none of these: it is 32 bytes or more at random, and these begin with eight that are fixed.

/** A private key that the service has. */
export type Handle =
  | { purpose: "sign"; identity: string }
  | { purpose: "init" | "leaf"; ref: Uint8Array };

const prefix = "hsm-kp:";

/** Stands for the signature key of an identity. */
export function signHandle(identity: string): Uint8Array {
  return new TextEncoder().encode(`${prefix}sign:${identity}`);
}

/** Stands for the private key of a key package's init key, or of its leaf. */
export function hpkeHandle(purpose: "init" | "leaf", ref: Uint8Array): Uint8Array {
  return new TextEncoder().encode(`${prefix}${purpose}:${Buffer.from(ref).toString("hex")}`);
}

/** What a handle stands for; undefined where the bytes are not one. */
export function parseHandle(bytes: Uint8Array): Handle | undefined {
  const text = Buffer.from(bytes).toString("utf8");
  const [, purpose, rest] = /^hsm-kp:(sign|init|leaf):(.+)$/s.exec(text) ?? [];
  if (rest === undefined) return undefined;
  if (purpose === "sign") return { purpose, identity: rest };
  if (!/^([0-9a-f]{2}){32,64}$/.test(rest)) return undefined;
  return { purpose: purpose === "init" ? "init" : "leaf", ref: new Uint8Array(Buffer.from(rest, "hex")) };
}
