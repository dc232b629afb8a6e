/** A label of MLS 1.0, without "MLS 1.0 ", and its content. */
export interface Labelled {
  label: string;
  content: Uint8Array;
}

const version = "MLS 1.0 ";

/**
 * Decodes a SignContent or EncryptContext (RFC 9420, Sections 5.1.2 and 5.1.3): opaque label<V>, opaque content<V>, and
 * nothing after it.
 */
export function parseLabelled(bytes: Uint8Array): Labelled {
  const [label, afterLabel] = vector(bytes, 0);
  const [content, end] = vector(bytes, afterLabel);
  const text = Buffer.from(label).toString("latin1");
  if (end !== bytes.length || !text.startsWith(version)) {
    throw new TypeError("not a labelled structure of MLS 1.0");
  }
  return { label: text.slice(version.length), content };
}

/** Reads a vector of variable length (RFC 9420, Section 2.1.2), whose length must be in the fewest bytes. */
function vector(bytes: Uint8Array, at: number): [Uint8Array, number] {
  const first = bytes[at];
  const width = first === undefined ? 0 : 1 << (first >> 6);
  if (first === undefined || width === 8 || at + width > bytes.length) {
    throw new TypeError("a vector is cut off");
  }
  let length = first & 0x3f;
  for (const b of bytes.subarray(at + 1, at + width)) length = length * 256 + b;
  const start = at + width;
  if ((width === 2 && length < 64) || (width === 4 && length < 16384) || start + length > bytes.length) {
    throw new TypeError("a vector is cut off, or its length is in too many bytes");
  }
  return [bytes.subarray(start, start + length), start + length];
}
