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
  "DIRECTORY",
  "REFUSED",
] as const;

/** The service's error answer, or a missing answer. It contains nothing of a key. */
export class ServiceError extends Error {
  /** The requested operation, such as "Claim". */
  readonly operation: string;
  /** The gRPC code, such as "permission_denied"; "unavailable" also if there was no answer. */
  readonly code: string;
  /** For programs to branch on; UNSPECIFIED if the service gave none. */
  readonly reason: Reason;

  constructor(operation: string, code: string, reason: Reason, message: string, options?: ErrorOptions) {
    super(`${operation}: ${message} (${reason === "UNSPECIFIED" ? code : reason})`, options);
    this.name = "ServiceError";
    this.operation = operation;
    this.code = code;
    this.reason = reason;
  }
}

/** Converts the body of an error answer, which is Connect's JSON or anything else. */
export function errorOf(operation: string, status: number, body: string): ServiceError {
  let answer: unknown;
  try {
    answer = JSON.parse(body);
  } catch {
    answer = undefined;
  }
  const { code, message, details } = fields(answer);
  if (typeof code !== "string") {
    // The answer is not from the service; it may be from a proxy.
    return new ServiceError(operation, status === 502 || status === 503 || status === 504 ? "unavailable" : "unknown", "UNSPECIFIED", `HTTP status ${status}`);
  }
  return new ServiceError(operation, code, reasonOf(details), typeof message === "string" ? message : code);
}

function fields(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

/** The reason in the detail hsmkp.v1.ErrorDetail: its field 1, a varint. */
function reasonOf(details: unknown): Reason {
  for (const detail of Array.isArray(details) ? details : []) {
    const { type, value } = fields(detail);
    if (type !== "hsmkp.v1.ErrorDetail" || typeof value !== "string") continue;
    const [tag, number = 0] = Buffer.from(value, "base64");
    if (tag === 0x08) return reasons[number] ?? "UNSPECIFIED";
  }
  return "UNSPECIFIED";
}
