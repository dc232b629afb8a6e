// Alice's keys are in hsm-kp, Bob's are in this process: node dist/example/hello.js SOCKET IDENTITY
import * as mls from "ts-mls";
import { Service, joinFromWelcome } from "hsm-kp-ts-mls";

const [socket = "", identity = ""] = process.argv.slice(2);
const service = new Service({ socket }); // or { url: "https://…", tls: { certificate, key, ca } }

// Bob makes a group and adds Alice with one of her key packages.
const bobs = await mls.getCiphersuiteImpl(mls.getCiphersuiteFromName("MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"));
const credential = { credentialType: "basic", identity: new TextEncoder().encode("bob") } as const;
const own = await mls.generateKeyPackage(credential, mls.defaultCapabilities(), mls.defaultLifetime, [], bobs);
const group = await mls.createGroup(new TextEncoder().encode("hello"), own.publicPackage, own.privatePackage, [], bobs);
const [claimed] = await service.claim(identity);
const message = mls.decodeMlsMessage(claimed!.mlsMessage, 0)![0];
if (message.wireformat !== "mls_key_package") throw new Error(message.wireformat);
const { newState: bob, welcome } = await mls.createCommit(
  { state: group, cipherSuite: bobs },
  { extraProposals: [{ proposalType: "add", add: { keyPackage: message.keyPackage } }], ratchetTreeExtension: true },
);

// Alice opens the Welcome. Once her state is stored, she confirms her membership.
const alice = await joinFromWelcome(service, welcome!);
await alice.confirm();
console.log("signature key:", new TextDecoder().decode(alice.state.signaturePrivateKey));
console.log("leaf's key:   ", ...Object.values(alice.state.privatePath.privateKeys).map((k) => new TextDecoder().decode(k)).filter((k) => k.startsWith("hsm-kp:")));

// The token signs what she sends.
const text = new TextEncoder().encode("hello from the token");
const { privateMessage } = await mls.createApplicationMessage(alice.state, text, alice.cs);
const received = await mls.processPrivateMessage(bob, privateMessage, mls.emptyPskIndex, bobs);
if (received.kind === "applicationMessage") console.log("bob reads:    ", new TextDecoder().decode(received.message));
service.close();
