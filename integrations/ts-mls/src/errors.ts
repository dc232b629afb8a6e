/** Why the service refused or failed: hsmkp.v1.Reason, without "REASON_". */
export type Reason = (typeof reasons)[number];

/** In the order of their numbers. */
export const reasons = [
  "UNSPECIFIED",
  "NOT_GRANTED",
  "QUOTA_SPENT",
  "BUSY",
  "MALFORMED",
  "LABEL",
  "FOREIGN_CONTENT",
  "NOT_FOUND",
  "NONE_LEFT",
  "RESERVED",
  "CONSUMED",
  "ERASED",
  "STATE",
  "NOT_OPENED",
  "TOKEN",
  "STORE",
  "INTEGRITY",
  "POLICY",
] as const;

/** What the service answered, or that it did not. Nothing of a key is in it. */
export class ServiceError extends Error {
  /** What was asked for, such as "Claim". */
  readonly operation: string;
  /** The code of gRPC, such as "permission_denied"; "unavailable" also where no answer came. */
  readonly code: string;
  /** For programs to branch on; UNSPECIFIED where the service gave none. */
  readonly reason: Reason;

  constructor(operation: string, code: string, reason: Reason, message: string, options?: ErrorOptions) {
    super(`${operation}: ${message} (${reason === "UNSPECIFIED" ? code : reason})`, options);
    this.name = "ServiceError";
    this.operation = operation;
    this.code = code;
    this.reason = reason;
  }
}

/** Types the body of an answer that is no success: Connect's JSON, or anything. */
export function errorOf(operation: string, status: number, body: string): ServiceError {
  let answer: unknown;
  try {
    answer = JSON.parse(body);
  } catch {
    answer = undefined;
  }
  const { code, message, details } = fields(answer);
  if (typeof code !== "string") {
    // Not the service: a proxy, perhaps.
    return new ServiceError(operation, status === 502 || status === 503 || status === 504 ? "unavailable" : "unknown", "UNSPECIFIED", `HTTP status ${status}`);
  }
  return new ServiceError(operation, code, reasonOf(details), typeof message === "string" ? message : code);
}

function fields(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

/** The reason of the detail hsmkp.v1.ErrorDetail, which is its field 1, a varint. */
function reasonOf(details: unknown): Reason {
  for (const detail of Array.isArray(details) ? details : []) {
    const { type, value } = fields(detail);
    if (type !== "hsmkp.v1.ErrorDetail" || typeof value !== "string") continue;
    const [tag, number = 0] = Buffer.from(value, "base64");
    if (tag === 0x08) return reasons[number] ?? "UNSPECIFIED";
  }
  return "UNSPECIFIED";
}
