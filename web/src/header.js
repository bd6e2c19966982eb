/** The header of a `.melcap` file and its bytes. */
import { crc32 } from "./crc32.js";
import { MelcapError } from "./errors.js";
import { LEAST_BITS } from "./row_tables.js";

const MAGIC = "MELCAP";
const VERSION = 2;
const FIXED_SIZE = 39;
const PACKED = 0;
const COMPACT = 1;

/** The most tokens of a file, all channels together. */
const MAX_TOKENS = 2 ** 28;

/** The smallest and the largest value of each number of a header. */
const BOUNDS = Object.freeze({
  sampleRate: [1_000, 768_000],
  channels: [1, 64],
  samples: [1, 2 ** 40],
  rows: [1, 1024],
  columns: [1, MAX_TOKENS],
  bits: [1, 16],
});

/**
 * The header of a file, which describes its tokens. `CodesFields` says what the values are.
 *
 * @typedef {object} Header
 * @property {string} model
 * @property {string} tokenizerId
 * @property {number} sampleRate
 * @property {number} channels
 * @property {number} samples
 * @property {number} rows
 * @property {number} columns
 * @property {number} bits
 * @property {boolean} channelAxis
 */

/**
 * The size of the token data in bytes, and for a compact file the checksum of its row tables.
 *
 * @typedef {{ size: number, tables?: number }} Payload
 */

/**
 * Refuse a header with a value outside its bounds.
 *
 * @param {Header} header
 * @throws {MelcapError}
 */
export function checkHeader(header) {
  const { model, tokenizerId, channels, channelAxis } = header;
  if (!/^[ -~]{1,96}$/.test(model)) {
    throw new MelcapError(`model is '${model}', not 1 to 96 printable ASCII characters`);
  }
  if (!/^[0-9a-f]{16}$/.test(tokenizerId)) {
    throw new MelcapError(`tokenizerId is '${tokenizerId}', not 16 hexadecimal digits`);
  }
  for (const [name, [low, high]] of Object.entries(BOUNDS)) {
    const value = header[/** @type {keyof typeof BOUNDS} */ (name)];
    if (!Number.isInteger(value) || value < low || value > high) {
      throw new MelcapError(
        `${name} is ${value}, and must be a whole number from ${low} to ${high}`,
      );
    }
  }
  const count = tokenCount(header);
  if (count > MAX_TOKENS) {
    throw new MelcapError(`${count} tokens are more than a file holds (${MAX_TOKENS})`);
  }
  if (channels > 1 && !channelAxis) {
    throw new MelcapError(`${channels} channels need an axis of channels`);
  }
}

/**
 * Return the bytes of a file: the header and the token data, each with its checksum.
 *
 * @param {Header} header
 * @param {Uint8Array} data The token data.
 * @param {number} [tables] The checksum of the row tables of a compact file.
 * @returns {Uint8Array}
 */
export function fileBytes(header, data, tables) {
  const named = FIXED_SIZE + header.model.length;
  const size = tables === undefined ? named : named + 8;
  const bytes = new Uint8Array(size + 4 + data.length + 4);
  const view = new DataView(bytes.buffer);
  bytes.set(ascii(MAGIC));
  bytes[6] = VERSION;
  bytes[7] = header.model.length;
  view.setBigUint64(8, BigInt(`0x${header.tokenizerId}`));
  view.setUint32(16, header.sampleRate, true);
  view.setUint16(20, header.channels, true);
  view.setBigUint64(22, BigInt(header.samples), true);
  view.setUint16(30, header.rows, true);
  view.setUint32(32, header.columns, true);
  bytes[36] = header.bits;
  bytes[37] = tables === undefined ? PACKED : COMPACT;
  bytes[38] = Number(header.channelAxis);
  bytes.set(ascii(header.model), FIXED_SIZE);
  if (tables !== undefined) {
    view.setUint32(named, tables, true);
    view.setUint32(named + 4, data.length, true);
  }
  view.setUint32(size, crc32(bytes.subarray(0, size)), true);
  bytes.set(data, size + 4);
  view.setUint32(size + 4 + data.length, crc32(data), true);
  return bytes;
}

/**
 * Read a file: its header, its token data, and for a compact file the checksum of its row tables.
 *
 * @param {Uint8Array} bytes
 * @returns {{ header: Header, data: Uint8Array, tables?: number }}
 * @throws {MelcapError} For bytes that are no file, a damaged header or damaged token data, and a
 *   header that implies another size of the file.
 */
export function takeFile(bytes) {
  const start = String.fromCharCode(...bytes.subarray(0, MAGIC.length));
  if (!bytes.length || !MAGIC.startsWith(start)) {
    throw new MelcapError("it is empty or not a .melcap file at all");
  }
  if (bytes.length > 6 && bytes[6] !== VERSION) {
    throw new MelcapError(
      `its format version is ${bytes[6]}, but this melcap reads ${VERSION}; another version of ` +
        "melcap wrote it",
    );
  }
  if (bytes.length < FIXED_SIZE) {
    throw new MelcapError("the file is truncated: it ends inside the header");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const [named, coding, axis] = [FIXED_SIZE + bytes[7], bytes[37], bytes[38]];
  const size = coding === COMPACT ? named + 8 : named;
  check(bytes, 0, size, "header");
  if ((coding !== PACKED && coding !== COMPACT) || axis > 1) {
    throw new MelcapError(
      `its tokens are coded in a way (${coding}, ${axis}) that this melcap does not know; try a ` +
        "newer melcap",
    );
  }
  const samples = view.getBigUint64(22, true);
  const header = {
    model: String.fromCharCode(...bytes.subarray(FIXED_SIZE, named)),
    tokenizerId: view.getBigUint64(8).toString(16).padStart(16, "0"),
    sampleRate: view.getUint32(16, true),
    channels: view.getUint16(20, true),
    // A count that is no exact number is far out of bounds, and refused as it is.
    samples: samples > Number.MAX_SAFE_INTEGER ? /** @type {any} */ (samples) : Number(samples),
    rows: view.getUint16(30, true),
    columns: view.getUint32(32, true),
    bits: bytes[36],
    channelAxis: axis === 1,
  };
  checkHeader(header);
  const compact = coding === COMPACT;
  const data = compact ? view.getUint32(named + 4, true) : packedSize(header);
  if (compact) {
    checkCompactSize(header, data);
  }
  const expected = size + 4 + data + 4;
  if (bytes.length !== expected) {
    const state = bytes.length < expected ? "truncated" : "longer than it should be";
    throw new MelcapError(
      `the file is ${state}: ${bytes.length} bytes, not the ${expected} of its header`,
    );
  }
  check(bytes, size + 4, size + 4 + data, "token data");
  return {
    header,
    data: bytes.subarray(size + 4, size + 4 + data),
    tables: compact ? view.getUint32(named, true) : undefined,
  };
}

/**
 * Return the number of tokens of all channels.
 *
 * @param {Header} header
 */
function tokenCount({ channels, rows, columns }) {
  return channels * rows * columns;
}

/** @param {Header} header */
function packedSize(header) {
  return Math.ceil((tokenCount(header) * header.bits) / 8);
}

/**
 * Refuse a size that no compact file has: a token takes at least `LEAST_BITS`, and tokens are packed
 * where coding makes them no smaller.
 *
 * @param {Header} header
 * @param {number} size
 */
function checkCompactSize(header, size) {
  const least = Math.ceil((tokenCount(header) * LEAST_BITS) / 8);
  const most = packedSize(header) - 1;
  if (size < least || size > most || size % 4) {
    throw new MelcapError(
      `${tokenCount(header)} tokens cannot be coded in ${size} bytes: that takes ${least} to ` +
        `${most}, in multiples of 4`,
    );
  }
}

/**
 * Check the CRC-32 that follows the bytes from `begin` to `end`.
 *
 * @param {Uint8Array} bytes
 * @param {number} begin
 * @param {number} end
 * @param {string} what
 */
function check(bytes, begin, end, what) {
  if (bytes.length < end + 4) {
    throw new MelcapError(`the file is truncated: it ends inside the ${what}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint32(end, true) !== crc32(bytes.subarray(begin, end))) {
    throw new MelcapError(`the ${what} is damaged (wrong checksum); get a fresh copy`);
  }
}

/** @param {string} text */
function ascii(text) {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}
