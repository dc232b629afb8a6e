// The line protocol of the peers (see ../README.md), for peers that are Node.js
// programs: one JSON object a line on standard input, one on standard output.

import { createInterface } from "node:readline";
import { readFile } from "node:fs/promises";

/** Reports what the library cannot do, as opposed to what it refuses. */
export class Unsupported extends Error {}

/** Bytes in the form of the protocol. */
export function toHex(bytes) {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
}

/** Bytes from the form of the protocol; name is the field that has them. */
export function fromHex(text, name) {
  if (typeof text !== "string") {
    throw new Error(`the request has no ${name}`);
  }
  if (!/^([0-9a-f]{2})*$/.test(text)) {
    throw new Error(`${name} is not lower-case hexadecimal`);
  }
  return new Uint8Array(Buffer.from(text, "hex"));
}

/** The version of an installed package, found beside the peer's own file. */
export async function installedVersion(peerURL, packageName) {
  const file = new URL(`node_modules/${packageName}/package.json`, peerURL);
  return JSON.parse(await readFile(file, "utf8")).version;
}

/** The text of anything that a library threw. */
function errorText(error) {
  if (!(error instanceof Error)) {
    return String(error);
  }
  const { name, message } = error;
  return name === "Error" && message !== "" ? message : `${name}: ${message}`;
}

/** The groups that a peer has made or joined, by the names given to the driver. */
export class Groups {
  #groups = new Map();

  add(group) {
    const name = String(this.#groups.size + 1);
    this.#groups.set(name, group);
    return name;
  }

  get(name) {
    const group = this.#groups.get(name);
    if (group === undefined) {
      throw new Error(`there is no group ${JSON.stringify(name)}`);
    }
    return group;
  }
}

/**
 * Answers requests until standard input ends. operations has a function for each
 * value of "op"; it gets the request, and returns the reply without its "ok".
 *
 * @param operations a function of askSignature, which is what an operation calls to
 *   have the driver sign; it returns the table of operations.
 * @param libraryErrorText gives the text of an error of the library's own kind, and
 *   undefined for others.
 */
export async function serve(operations, libraryErrorText = () => undefined) {
  const text = (error) => libraryErrorText(error) ?? errorText(error);
  // Standard output is reserved for the protocol, whatever a library prints.
  console.log = console.info = console.debug = console.error;
  // A promise that a library forgot must not end the program.
  process.on("unhandledRejection", (error) => console.error(text(error)));

  const lines = createInterface({ input: process.stdin, crlfDelay: Infinity })[Symbol.asyncIterator]();
  const write = (object) =>
    new Promise((resolve) => process.stdout.write(`${JSON.stringify(object)}\n`, resolve));

  const askSignature = async (content) => {
    await write({ sign: toHex(content) });
    const line = await lines.next();
    if (line.done) {
      throw new Error("standard input ended before the signature");
    }
    const answer = JSON.parse(line.value);
    if (answer.error !== undefined) {
      throw new Error(`the driver did not sign: ${answer.error}`);
    }
    return fromHex(answer.signature, "signature");
  };

  const table = await operations(askSignature);
  const answer = async (line) => {
    try {
      const request = JSON.parse(line);
      if (!Object.hasOwn(table, request.op)) {
        throw new Unsupported(`no operation ${JSON.stringify(request.op)}`);
      }
      return { ok: true, ...(await table[request.op](request)) };
    } catch (error) {
      if (error instanceof Unsupported) {
        return { ok: false, unsupported: true, error: error.message };
      }
      return { ok: false, error: text(error) };
    }
  };

  for (let line = await lines.next(); !line.done; line = await lines.next()) {
    if (line.value.trim() !== "") {
      await write(await answer(line.value));
    }
  }
  process.exit(0);
}
