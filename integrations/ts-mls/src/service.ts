import { setTimeout as sleep } from "node:timers/promises";

import { ServiceError } from "./errors.js";
import { Transport, type Endpoint, type TLSFiles } from "./transport.js";

export type { TLSFiles };

/** Where the service is, and how long to wait for it. */
export type ServiceOptions = Endpoint & {
  /** For an operation with its retries, in milliseconds; 30 s by default. */
  timeout?: number;
  /** How many attempts an operation that may be repeated has; 4 by default. */
  attempts?: number;
};

/** A key package as the service stores it. */
export interface KeyPackageRecord {
  ref: Uint8Array;
  identity: string;
  cipherSuite: number;
  /** Such as "STATE_CLAIMED". */
  state: string;
  lastResort: boolean;
  notBefore: Date;
  notAfter: Date;
  /** The key package in an MLSMessage. */
  mlsMessage: Uint8Array;
}

/** A key package that Claim hands out. */
export type Claimed = KeyPackageRecord;

/** An external pre-shared key (RFC 9420, Section 8.4). Secret. */
export interface PreSharedKey {
  id: Uint8Array;
  secret: Uint8Array;
}

export interface DecryptRequest {
  ref: Uint8Array;
  /** Welcome for the init key, or UpdatePathNode for the leaf's key. */
  label: string;
  context: Uint8Array;
  kemOutput: Uint8Array;
  ciphertext: Uint8Array;
  psks?: PreSharedKey[];
}

export interface Decrypted {
  /** GroupSecrets or a path secret. Secret. */
  plaintext: Uint8Array;
  /** For the label Welcome: the argument of confirm and release, and when the reservation ends. */
  welcomeDigest?: Uint8Array;
  reservedUntil?: Date;
}

/**
 * Calls `hsm-kp serve`. Operations that may be repeated safely are retried while the service is unavailable; claim,
 * confirmWelcome and releaseWelcome are sent once. Errors are ServiceError.
 */
export class Service {
  readonly #transport: Transport;
  readonly #timeout: number;
  readonly #attempts: number;

  constructor(options: ServiceOptions) {
    this.#transport = new Transport(options);
    this.#timeout = options.timeout ?? 30_000;
    this.#attempts = options.attempts ?? 4;
  }

  /** Closes the connections. */
  close(): void {
    this.#transport.close();
  }

  /** Claims up to count key packages of an identity with which to add its client. */
  async claim(identity: string, count = 1): Promise<Claimed[]> {
    const { keyPackages } = await this.#once("Claim", { identity, count });
    return (keyPackages as JSONKeyPackage[]).map(recordOf);
  }

  async get(ref: Uint8Array): Promise<KeyPackageRecord> {
    const { keyPackage } = await this.#repeated("Get", { ref: base64(ref) });
    return recordOf(keyPackage as JSONKeyPackage);
  }

  /** Signs a structure of MLS as an identity (RFC 9420, Section 5.1.2). label is without "MLS 1.0 ". */
  async signWithLabel(identity: string, label: string, content: Uint8Array): Promise<Uint8Array> {
    const { signature } = await this.#repeated("SignWithLabel", { identity, label, content: base64(content) });
    return bytes(signature);
  }

  /** Decrypts with a private key of a key package (RFC 9420, Section 5.1.3). */
  async decryptWithLabel(request: DecryptRequest): Promise<Decrypted> {
    const { ref, label, context, kemOutput, ciphertext, psks = [] } = request;
    const answer = await this.#repeated("DecryptWithLabel", {
      ref: base64(ref),
      label,
      context: base64(context),
      kemOutput: base64(kemOutput),
      ciphertext: base64(ciphertext),
      psks: psks.map(({ id, secret }) => ({ id: base64(id), secret: base64(secret) })),
    });
    const decrypted: Decrypted = { plaintext: bytes(answer["plaintext"]) };
    if (answer["welcomeDigest"] !== undefined) {
      decrypted.welcomeDigest = bytes(answer["welcomeDigest"]);
      decrypted.reservedUntil = new Date(answer["reservedUntil"] as string);
    }
    return decrypted;
  }

  /** Confirms that the member exists and is stored: the private init key is erased. */
  async confirmWelcome(ref: Uint8Array, welcomeDigest: Uint8Array): Promise<void> {
    await this.#repeated("ConfirmWelcome", { ref: base64(ref), welcomeDigest: base64(welcomeDigest) });
  }

  /** Reports that there is no member: the key package is as it was before. */
  async releaseWelcome(ref: Uint8Array, welcomeDigest: Uint8Array): Promise<void> {
    await this.#once("ReleaseWelcome", { ref: base64(ref), welcomeDigest: base64(welcomeDigest) });
  }

  #once(operation: string, message: object): Promise<Record<string, unknown>> {
    return this.#transport.send(operation, message, this.#timeout);
  }

  async #repeated(operation: string, message: object): Promise<Record<string, unknown>> {
    const end = performance.now() + this.#timeout;
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#transport.send(operation, message, Math.max(end - performance.now(), 1));
      } catch (err) {
        // About 50 ms, 100 ms, and so on up to 2 s, with a random half.
        const pause = Math.min(50 * 2 ** (attempt - 1), 2000) * (0.5 + Math.random() / 2);
        const again = err instanceof ServiceError && err.code === "unavailable" && attempt < this.#attempts;
        if (!again || performance.now() + pause >= end) throw err;
        await sleep(pause);
      }
    }
  }
}

interface JSONKeyPackage {
  ref: string;
  identity: string;
  cipherSuite: number;
  state: string;
  lastResort?: boolean;
  notBefore: string;
  notAfter: string;
  mlsMessage?: string;
}

function recordOf(k: JSONKeyPackage): KeyPackageRecord {
  return {
    ref: bytes(k.ref),
    identity: k.identity,
    cipherSuite: k.cipherSuite,
    state: k.state,
    lastResort: k.lastResort ?? false,
    notBefore: new Date(k.notBefore),
    notAfter: new Date(k.notAfter),
    mlsMessage: bytes(k.mlsMessage ?? ""),
  };
}

function base64(b: Uint8Array): string {
  return Buffer.from(b.buffer, b.byteOffset, b.byteLength).toString("base64");
}

function bytes(text: unknown): Uint8Array {
  // JSON leaves empty fields out.
  return new Uint8Array(Buffer.from(typeof text === "string" ? text : "", "base64"));
}
