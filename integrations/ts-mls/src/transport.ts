import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import type { Duplex } from "node:stream";

import { ServiceError, errorOf } from "./errors.js";

/** PEM files, read for each connection, so that they may be replaced. */
export interface TLSFiles {
  /** The caller's certificate, with its chain. */
  certificate: string;
  /** Its private key. */
  key: string;
  /** The CAs to which the service's certificate must lead. */
  ca: string;
}

/** Where the service is: https://HOST:PORT, with the caller's certificate, or a Unix socket. */
export type Endpoint = { url: string; tls: TLSFiles } | { socket: string };

/** The length of the longest answer that is read, in bytes. */
const maxAnswer = 64 << 20;

class MutualTLSAgent extends https.Agent {
  readonly #files: TLSFiles;

  constructor(files: TLSFiles) {
    super({ keepAlive: true, maxSockets: 32, maxCachedSessions: 0 });
    this.#files = files;
    this.#read();
  }

  #read() {
    const { certificate, key, ca } = this.#files;
    return { cert: readFileSync(certificate), key: readFileSync(key), ca: readFileSync(ca) };
  }

  override createConnection(options: https.RequestOptions, callback?: (err: Error | null, stream: Duplex) => void) {
    try {
      return super.createConnection({ ...options, ...this.#read(), minVersion: "TLSv1.3" }, callback);
    } catch (err) {
      // Unusable files are an error of this request, not of the caller that freed a socket.
      process.nextTick(() => (callback as ((err: unknown) => void) | undefined)?.(err));
      return undefined;
    }
  }
}

/** Sends requests of Connect in JSON over HTTP/1.1. */
export class Transport {
  readonly #agent: http.Agent;
  readonly #request: (path: string, options: http.RequestOptions) => http.ClientRequest;

  constructor(endpoint: Endpoint) {
    if ("socket" in endpoint) {
      const agent = new http.Agent({ keepAlive: true, maxSockets: 32 });
      this.#agent = agent;
      this.#request = (path, options) =>
        http.request({ ...options, agent, socketPath: endpoint.socket, host: "hsm-kp", path });
      return;
    }
    const base = new URL(endpoint.url);
    if (base.protocol !== "https:") throw new TypeError("the URL of the service is not https");
    const agent = new MutualTLSAgent(endpoint.tls);
    this.#agent = agent;
    this.#request = (path, options) => https.request(new URL(path, base), { ...options, agent });
  }

  close(): void {
    this.#agent.destroy();
  }

  /** One request, and its answer as JSON. timeout is in milliseconds. */
  async send(operation: string, message: object, timeout: number): Promise<Record<string, unknown>> {
    const { status, body } = await this.#exchange(operation, JSON.stringify(message), timeout);
    if (status !== 200) throw errorOf(operation, status, body);
    try {
      return JSON.parse(body) as Record<string, unknown>;
    } catch {
      throw new ServiceError(operation, "unknown", "UNSPECIFIED", "the answer is not JSON");
    }
  }

  #exchange(operation: string, body: string, timeout: number): Promise<{ status: number; body: string }> {
    return new Promise((resolve, reject) => {
      let late = false;
      const failed = (cause: Error) => {
        clearTimeout(timer);
        const [code, why] = late ? (["deadline_exceeded", "no answer in time"] as const) : (["unavailable", "no answer"] as const);
        reject(new ServiceError(operation, code, "UNSPECIFIED", why, { cause }));
      };
      const request = this.#request(`/hsmkp.v1.KeyPackageService/${operation}`, {
        method: "POST",
        headers: {
          "Content-Type": "application/json",
          "Content-Length": Buffer.byteLength(body),
          "Connect-Protocol-Version": "1",
          "Connect-Timeout-Ms": String(Math.ceil(timeout)),
        },
      });
      const timer = setTimeout(() => {
        late = true;
        request.destroy(new Error("no answer in time"));
      }, timeout);
      request.on("error", failed);
      request.on("response", (response) => {
        const parts: Buffer[] = [];
        let length = 0;
        response.on("data", (part: Buffer) => {
          length += part.length;
          if (length > maxAnswer) response.destroy(new Error("the answer is too long"));
          else parts.push(part);
        });
        response.on("error", failed);
        response.on("end", () => {
          clearTimeout(timer);
          resolve({ status: response.statusCode ?? 0, body: Buffer.concat(parts).toString("utf8") });
        });
      });
      request.end(body);
    });
  }
}
