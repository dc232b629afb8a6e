import {
  bytesToBase64,
  decodeMlsMessage,
  joinGroup,
  makePskIndex,
  type CiphersuiteImpl,
  type ClientConfig,
  type ClientState,
  type CryptoProvider,
  type KeyPackage,
  type PrivateKeyPackage,
  type RatchetTree,
  type Welcome,
} from "ts-mls";

import { ciphersuite, withService, type Opening } from "./ciphersuite.js";
import { ServiceError } from "./errors.js";
import { hpkeHandle, signHandle } from "./handles.js";
import type { KeyPackageRecord, PreSharedKey, Service } from "./service.js";

/** A key package of the service, as the library expects it. */
export interface ServiceKeyPackage {
  record: KeyPackageRecord;
  publicPackage: KeyPackage;
  /** Handles. */
  privatePackage: PrivateKeyPackage;
}

export interface JoinOptions {
  /** The KeyPackageRef that the Welcome is for. By default, the service is asked for each in the Welcome. */
  ref?: Uint8Array;
  /** External pre-shared keys that the group uses. */
  psks?: PreSharedKey[];
  /** The ratchet tree, if the Welcome does not carry it. */
  ratchetTree?: RatchetTree;
  /** The state of the group that this one continues (RFC 9420, Sections 11.2 and 11.3). */
  resumingFrom?: ClientState;
  clientConfig?: ClientConfig;
  provider?: CryptoProvider;
}

/** A member, not yet confirmed. */
export interface Joined {
  state: ClientState;
  /** For everything that the library does with the state from now on. */
  cs: CiphersuiteImpl;
  keyPackage: ServiceKeyPackage;
  /** When the reservation of the key package ends by itself. */
  reservedUntil: Date;
  /** Call this when the state is stored: the private init key is erased for good. */
  confirm(): Promise<void>;
  /** Call this when the state is dropped: the key package can open another Welcome. */
  release(): Promise<void>;
}

/** The key package with a KeyPackageRef, with handles instead of private keys. */
export async function keyPackageFor(service: Service, ref: Uint8Array): Promise<ServiceKeyPackage> {
  const record = await service.get(ref);
  const message = decodeMessage(record.mlsMessage);
  if (message.wireformat !== "mls_key_package") throw new TypeError(`the service has a ${message.wireformat} for a key package`);
  return {
    record,
    publicPackage: message.keyPackage,
    privatePackage: {
      initPrivateKey: hpkeHandle("init", record.ref),
      hpkePrivateKey: hpkeHandle("leaf", record.ref),
      signaturePrivateKey: signHandle(record.identity),
    },
  };
}

/**
 * Joins a group by a Welcome, decoded or in an MLSMessage. If the library refuses what the service has opened, the key
 * package is released again.
 */
export async function joinFromWelcome(
  service: Service,
  welcome: Welcome | Uint8Array,
  options: JoinOptions = {},
): Promise<Joined> {
  const w = welcome instanceof Uint8Array ? decodeWelcome(welcome) : welcome;
  const keyPackage = options.ref ? await keyPackageFor(service, options.ref) : await find(service, w);
  const { ref } = keyPackage.record;
  const cs = await ciphersuite(service, w.cipherSuite, options.provider);
  const opening: Opening = { psks: options.psks ?? [] };
  const end = async (how: "confirmWelcome" | "releaseWelcome") => {
    if (opening.opened?.welcomeDigest === undefined) throw new TypeError("no Welcome was opened");
    await service[how](ref, opening.opened.welcomeDigest);
  };
  try {
    const state = await join(w, keyPackage, withService(cs, service, opening), options);
    const reservedUntil = opening.opened?.reservedUntil ?? new Date(0);
    return { state, cs, keyPackage, reservedUntil, confirm: () => end("confirmWelcome"), release: () => end("releaseWelcome") };
  } catch (err) {
    // Why the Welcome was refused matters more than a failed release: reservations end by themselves.
    if (opening.opened !== undefined) await end("releaseWelcome").catch(() => undefined);
    throw err;
  }
}

function join(w: Welcome, k: ServiceKeyPackage, cs: CiphersuiteImpl, o: JoinOptions): Promise<ClientState> {
  const psks = Object.fromEntries((o.psks ?? []).map(({ id, secret }) => [bytesToBase64(id), secret]));
  const index = makePskIndex(o.resumingFrom, psks);
  return joinGroup(w, k.publicPackage, k.privatePackage, index, cs, o.ratchetTree, o.resumingFrom, o.clientConfig);
}

/** Asks for the key packages of a Welcome one by one, as the others belong to other members. */
async function find(service: Service, w: Welcome): Promise<ServiceKeyPackage> {
  for (const { newMember } of w.secrets) {
    try {
      return await keyPackageFor(service, newMember);
    } catch (err) {
      const foreign = err instanceof ServiceError && (err.reason === "NOT_FOUND" || err.reason === "NOT_GRANTED");
      if (!foreign) throw err;
    }
  }
  throw new TypeError("the Welcome is not for a key package of this caller");
}

function decodeMessage(bytes: Uint8Array) {
  const decoded = decodeMlsMessage(bytes, 0);
  if (decoded === undefined || decoded[1] !== bytes.length) throw new TypeError("not an MLSMessage");
  return decoded[0];
}

function decodeWelcome(bytes: Uint8Array): Welcome {
  const message = decodeMessage(bytes);
  if (message.wireformat !== "mls_welcome") throw new TypeError(`a ${message.wireformat}, and no Welcome`);
  return message.welcome;
}
